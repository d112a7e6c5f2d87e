import pickle
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from builders import one_line
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ssl_skeleton.errors import UserError
from ssl_skeleton.training.checkpoint import Checkpoint, Checkpoints, load_checkpoint, load_state


def checkpoint(epoch=3, step=5, **changes) -> Checkpoint:
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    optimiser = torch.optim.AdamW(module.parameters())
    module(torch.randn(4, 2)).sum().backward()
    optimiser.step()
    state = {"pretext": module.state_dict(), "optimiser": optimiser.state_dict()} | changes
    return Checkpoint("stage", epoch, step, totals={"loss": 1.5} if step else {}, **state)


def save(folder: Path, name: str, whole: Checkpoint) -> Path:
    """Save a checkpoint under a stage's name; gives its path."""
    checkpoints = Checkpoints(folder, name)
    checkpoints.save(whole)
    return checkpoints.path


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    return save(tmp_path_factory.mktemp("runs"), "stage", checkpoint())


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as error:
        load_checkpoint(path, "stage")
    assert one_line(error.value).startswith(f"{path}: ")
    return str(error.value)


def test_what_was_saved_is_loaded(tmp_path):
    wanted = checkpoint(scaler={"scale": 65536.0, "growth_interval": 2000}, best=0.5)
    found = load_checkpoint(save(tmp_path, "stage", wanted), "stage")
    assert (found.stage, found.epoch, found.step, found.totals) == ("stage", 3, 5, {"loss": 1.5})
    assert (found.scaler, found.best) == (wanted.scaler, 0.5)
    assert all(torch.equal(found.pretext[name], tensor) for name, tensor in wanted.pretext.items())
    assert found.optimiser["param_groups"] == wanted.optimiser["param_groups"]
    assert torch.equal(found.optimiser["state"][0]["exp_avg"], wanted.optimiser["state"][0]["exp_avg"])


def test_one_of_the_first_format_is_read(tmp_path):
    tree = {name: value for name, value in vars(checkpoint()).items() if name not in ("scaler", "best")}
    torch.save(tree | {"format": 1}, tmp_path / "stage.pt")
    found = load_checkpoint(tmp_path / "stage.pt", "stage")
    assert (found.epoch, found.scaler, found.best, found.format) == (3, {}, None, 2)


def test_a_missing_one(tmp_path):
    assert "no such checkpoint; was this stage trained?" in refusal(tmp_path / "stage.pt")
    assert "is no file" in refusal(tmp_path)
    assert Checkpoints(tmp_path, "stage").load() is None


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 0.999))
def test_a_cut_one(share, saved):
    whole = saved.read_bytes()
    path = saved.with_name("cut.pt")
    path.write_bytes(whole[: int(share * len(whole))])
    assert "damaged or no file of tensors" in refusal(path)
    assert "put a copy of an older one in its place, or remove it" in refusal(path)


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=40) | st.text(max_size=40).map(pickle.dumps))
def test_garbage(content, saved):
    path = saved.with_name("garbage.pt")
    path.write_bytes(content)
    refusal(path)


@settings(max_examples=200, deadline=None)
@given(place=st.integers(0, 10**6), flipped=st.integers(1, 255))
def test_a_changed_byte_is_no_crash(place, flipped, saved):
    content = bytearray(saved.read_bytes())
    content[place % len(content)] ^= flipped
    path = saved.with_name("changed.pt")
    path.write_bytes(content)
    with suppress(UserError):
        module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        load_state(module, load_checkpoint(path, "stage").pretext, path)


CHANGES = (
    {"format": 3},
    {"format": 0},
    {"format": "2"},
    {"format": torch.ones(2)},
    {"more": 1},
    {"stage": torch.ones(2)},
    {"stage": ["stage"]},
    {"epoch": -1},
    {"epoch": 1.0},
    {"epoch": True},
    {"epoch": torch.tensor(3)},
    {"step": "5"},
    {"step": None},
    {"pretext": [1]},
    {"pretext": {"weight": 1.0}},
    {"pretext": {1: torch.ones(2)}},
    {"optimiser": None},
    {"totals": {"loss": "1.5"}},
    {"totals": {"loss": float("nan")}},
    {"totals": {"loss": torch.ones(2)}},
    {"totals": {1: 1.5}},
    {"totals": [1.5]},
    {"totals": {}},
    {"totals": {"other": 1.5}},
    {"step": 0},
    {"scaler": None},
    {"scaler": {"scale": float("inf")}},
    {"best": "low"},
    {"best": float("nan")},
    {"best": torch.ones(2)},
)


@pytest.mark.parametrize(
    "tree", [{}, {"format": 1}, {"format": 2}, *(vars(checkpoint()) | change for change in CHANGES)]
)
def test_another_format(tree, tmp_path):
    torch.save(tree, tmp_path / "stage.pt")
    assert "not a checkpoint in format 2" in refusal(tmp_path / "stage.pt")


def test_another_stages_checkpoint_is_refused(saved):
    with pytest.raises(UserError, match=r"is of stage 'stage', not of 'other'; was it renamed\?"):
        load_checkpoint(saved, "other")


class Harmful:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("write", [torch.save, lambda tree, path: path.write_bytes(pickle.dumps(tree))])
def test_code_is_never_run(write, tmp_path):
    write({"format": 1, "harm": Harmful(tmp_path / "harm")}, tmp_path / "stage.pt")
    refusal(tmp_path / "stage.pt")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Linear(2, 4), r"bias is \(3,\), but should be \(4,\)"),
        (nn.Linear(2, 3, bias=False), r"bias is \(3,\), but should be absent"),
        (nn.Sequential(nn.Linear(2, 3)), r"0.bias is absent, but should be \(3,\)"),
    ],
)
def test_another_architecture(module, message, tmp_path):
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(UserError, match=message + "; check the recipe, which may have another architecture"):
        load_state(module, nn.Linear(2, 3).state_dict(), tmp_path)
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (torch.full((3,), torch.nan), "bias is not finite"),
        (torch.full((3,), 1e300, dtype=torch.float64), "bias is not finite"),
        (torch.ones(3, dtype=torch.int64), "bias is torch.int64, but should be torch.float32"),
        (torch.ones(3, dtype=torch.complex64), "bias is torch.complex64, but should be torch.float32"),
    ],
)
def test_weights_that_cannot_be_right(changed, message, tmp_path):
    module = nn.Linear(2, 3)
    with pytest.raises(UserError, match=message):
        load_state(module, nn.Linear(2, 3).state_dict() | {"bias": changed}, tmp_path / "stage.pt")
    assert module.bias.isfinite().all()


def test_shared_tensors_are_stored_once(tmp_path):
    tensor = torch.randn(1000, 100)
    pretexts = {
        "one": {"a": tensor},
        "shared": {"a": tensor, "b": tensor},
        "apart": {"a": tensor, "b": tensor.clone()},
    }
    paths = [save(tmp_path, name, checkpoint(pretext=pretext)) for name, pretext in pretexts.items()]
    one, shared, apart = (path.stat().st_size for path in paths)
    assert shared < 1.1 * one
    assert apart > 1.8 * one
    found = load_checkpoint(paths[1], "stage").pretext
    assert torch.equal(found["a"], tensor)
    assert found["a"].data_ptr() == found["b"].data_ptr()
