import pickle
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ssl_skeleton import files
from ssl_skeleton.errors import UserError
from ssl_skeleton.training.checkpoint import Checkpoint, load_checkpoint, load_state, save_checkpoint


def checkpoint(epoch=3, **changes) -> Checkpoint:
    module = nn.Linear(2, 3)
    module(torch.ones(1, 2)).sum().backward()
    optimiser = torch.optim.AdamW(module.parameters())
    optimiser.step()
    state = {"pretext": module.state_dict(), "optimiser": optimiser.state_dict()} | changes
    return Checkpoint("stage", epoch, 5, totals={"loss": 1.5}, **state)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("checkpoints") / "deep" / "stage.pt"
    save_checkpoint(path, checkpoint())
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as error:
        load_checkpoint(path, "stage")
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_was_saved_is_loaded(tmp_path):
    wanted = checkpoint()
    save_checkpoint(tmp_path / "stage.pt", wanted)
    found = load_checkpoint(tmp_path / "stage.pt", "stage")
    assert (found.stage, found.epoch, found.step, found.totals) == ("stage", 3, 5, {"loss": 1.5})
    assert all(torch.equal(found.pretext[name], tensor) for name, tensor in wanted.pretext.items())
    assert found.optimiser["param_groups"] == wanted.optimiser["param_groups"]
    assert torch.equal(found.optimiser["state"][0]["exp_avg"], wanted.optimiser["state"][0]["exp_avg"])


def test_a_missing_one(tmp_path):
    assert "no such checkpoint" in refusal(tmp_path / "stage.pt")
    assert "no such checkpoint" in refusal(tmp_path)


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 0.999))
def test_a_cut_one(share, saved):
    whole = saved.read_bytes()
    path = saved.with_name("cut.pt")
    path.write_bytes(whole[: int(share * len(whole))])
    assert "damaged or no checkpoint" in refusal(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=40) | st.text(max_size=40).map(pickle.dumps))
def test_garbage(content, saved):
    path = saved.with_name("garbage.pt")
    path.write_bytes(content)
    refusal(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@settings(max_examples=200, deadline=None)
@given(place=st.integers(0, 10**6), flipped=st.integers(1, 255))
def test_a_changed_byte_is_no_crash(place, flipped, saved):
    content = bytearray(saved.read_bytes())
    content[place % len(content)] ^= flipped
    path = saved.with_name("changed.pt")
    path.write_bytes(content)
    with suppress(UserError):
        load_state(nn.Linear(2, 3), load_checkpoint(path, "stage").pretext, path)


@pytest.mark.parametrize(
    "tree",
    [
        [1, 2],
        {},
        {"format": 1},
        torch.ones(2),
        *[
            vars(checkpoint()) | change
            for change in (
                {"format": 2},
                {"format": "1"},
                {"more": 1},
                {"stage": "other"},
                {"stage": torch.ones(2)},
                {"epoch": -1},
                {"epoch": 1.0},
                {"step": "5"},
                {"step": None},
                {"pretext": [1]},
                {"pretext": {"weight": 1.0}},
                {"pretext": {1: torch.ones(2)}},
                {"optimiser": None},
                {"totals": {"loss": "1.5"}},
                {"totals": {1: 1.5}},
                {"totals": [1.5]},
            )
        ],
    ],
)
def test_another_format(tree, tmp_path):
    torch.save(tree, tmp_path / "stage.pt")
    assert "not a checkpoint of stage stage in format 1" in refusal(tmp_path / "stage.pt")


class Harmful:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("write", [torch.save, lambda tree, path: path.write_bytes(pickle.dumps(tree))])
def test_code_is_never_run(write, tmp_path):
    write({"format": 1, "harm": Harmful(tmp_path / "harm")}, tmp_path / "stage.pt")
    refusal(tmp_path / "stage.pt")
    assert not (tmp_path / "harm").exists()


def test_a_failed_save_keeps_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "stage.pt"
    save_checkpoint(path, checkpoint(epoch=1))

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        save_checkpoint(path, checkpoint(epoch=2))
    assert load_checkpoint(path, "stage").epoch == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Linear(2, 4), r"bias is \(3,\), not \(4,\)"),
        (nn.Linear(2, 3, bias=False), r"bias is \(3,\), not absent"),
        (nn.Sequential(nn.Linear(2, 3)), r"0.bias is absent, not \(3,\)"),
    ],
)
def test_another_architecture(module, message, saved):
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(UserError, match=message):
        load_state(module, load_checkpoint(saved, "stage").pretext, saved)
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in before.items())


def test_another_stages_checkpoint_is_refused(saved):
    with pytest.raises(UserError, match="not a checkpoint of stage other in format 1"):
        load_checkpoint(saved, "other")


def test_shared_tensors_are_stored_once(tmp_path):
    tensor = torch.randn(1000, 100)
    paths = [tmp_path / "one.pt", tmp_path / "shared.pt", tmp_path / "apart.pt"]
    for path, pretext in zip(
        paths, ({"a": tensor}, {"a": tensor, "b": tensor}, {"a": tensor, "b": tensor.clone()}), strict=True
    ):
        save_checkpoint(path, checkpoint(pretext=pretext))
    one, shared, apart = (path.stat().st_size for path in paths)
    assert shared < 1.1 * one
    assert apart > 1.8 * one
    found = load_checkpoint(paths[1], "stage").pretext
    assert torch.equal(found["a"], tensor)
    assert found["a"].data_ptr() == found["b"].data_ptr()
