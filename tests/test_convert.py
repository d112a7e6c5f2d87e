import shlex

import commands
import pytest
import safetensors.torch
import torch
from published_shift_gcn import features, random_state, scores

from ssl_skeleton import convert
from ssl_skeleton.encoders.released import load_released


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A published file that is as it should be."""
    path = tmp_path_factory.mktemp("published") / "weights.pt"
    torch.save(random_state(), path)
    return path


def run(*words) -> int:
    return commands.run(convert, "shift_gcn", *words)


def refused(capsys, *words) -> str:
    return commands.refused(capsys, convert, "shift_gcn", *words)


def published_scores(x_nctvm):
    state = random_state()
    return scores(state, features(state, x_nctvm))


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_it_says_what_it_wrote_and_how_to_load_it(kind, weights, tmp_path, capsys):
    out = tmp_path / "deep" / f"it's.{kind}"
    assert run(weights, "--out", out) == 0
    first, second, *lines = capsys.readouterr().out.splitlines()
    expected = "shift_gcn, 256 features a step, 60 classes, 2 bodies of kinect_v2_25 with x, y, z"
    assert first == f"{out}: {expected}"
    assert second == "load it in Python:"
    assert len(lines) == 4
    assert (
        "clips (N, 3, T, 25, 2) with lengths (N,), of data.normalise: agcn and data.frames: 300" in lines[2]
    )
    x_nctvm = torch.randn(2, 3, 9, 25, 2, generator=torch.Generator().manual_seed(0))
    names = {"x_nctvm": x_nctvm, "lengths": torch.tensor([9, 9])}
    exec("\n".join(line.strip() for line in lines), names)  # noqa: S102
    torch.testing.assert_close(names["scores"], published_scores(x_nctvm), rtol=1e-4, atol=1e-4)
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def wrapped(name):
    return lambda state: {name: state, "epoch": 3}


def distributed(state):
    return {f"module.{name}": value for name, value in state.items()}


@pytest.mark.parametrize(
    "change",
    [
        wrapped("state_dict"),
        wrapped("model"),
        distributed,
        lambda state: wrapped("model")(distributed(state)),
    ],
)
def test_what_others_put_around_it_is_taken_off(change, tmp_path):
    torch.save(change(random_state()), tmp_path / "weights.pth")
    assert run(tmp_path / "weights.pth", "--out", tmp_path / "a.pt") == 0
    assert torch.equal(load_released(tmp_path / "a.pt").head.bias, random_state()["fc.bias"])


def test_it_reads_safetensors_and_files_of_old_torch(tmp_path):
    safetensors.torch.save_file(random_state(), tmp_path / "weights.safetensors", {"format": "pt"})
    torch.save(random_state(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("weights.safetensors", "old.pt"):
        assert run(tmp_path / name, "--out", tmp_path / "out.pt", "--overwrite") == 0
        assert torch.equal(load_released(tmp_path / "out.pt").head.bias, random_state()["fc.bias"])


def out_of_range(state, name, place):
    state[name][3] = place


def not_a_number(state, name):
    state[name].view(-1)[1] = torch.nan


def renamed(state, name, other):
    state[other] = state.pop(name)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda state: state.pop("fc.bias"), "'fc.bias' is missing"),
        (lambda state: state.update({7: torch.ones(2)}), "'7' is no plain tensor"),
        (lambda state: state.pop("fc.weight"), "no weights of Shift-GCN: 'fc.weight' is missing"),
        (
            lambda state: renamed(state, "l3.tcn1.bn.weight", "l3.tcn1.bn1.weight"),
            "'l3.tcn1.bn.weight' is missing; did you mean 'l3.tcn1.bn1.weight'?",
        ),
        (
            lambda state: state.update({"l3.gcn1.Linear_biass": torch.ones(2)}),
            "'l3.gcn1.Linear_biass' is no tensor of Shift-GCN; did you mean 'l3.gcn1.Linear_bias'?",
        ),
        (lambda state: state.update({"zzz": torch.ones(2)}), "'zzz' is no tensor of Shift-GCN\n"),
        (
            lambda state: state.update({"l5.gcn1.Linear_weight": torch.ones(128, 64)}),
            "'l5.gcn1.Linear_weight' is (128, 64), but should be (64, 128)",
        ),
        (
            lambda state: state.update({"fc.weight": torch.ones(60, 255)}),
            "'fc.weight' is (60, 255), but should be (60, 256)",
        ),
        (
            lambda state: state.update({"fc.weight": torch.ones(0, 256)}),
            "'fc.weight' is (0, 256), but should",
        ),
        (
            lambda state: state.update({"fc.weight": torch.ones(10**15, 0)}),
            "should be (1000000000000000, 256)",
        ),
        (lambda state: state.update({"fc.weight": torch.ones(60)}), "'fc.weight' is (60,), but has 2 dim"),
        (
            lambda state: state.update({"fc.weight": torch.ones(1).expand(10**9, 256)}),
            "a tensor of shape (1000000000, 256) claims more than the file holds",
        ),
        (
            lambda state: state.update({"l1.gcn1.Feature_Mask": torch.ones(1, 18, 3)}),
            "is for 18 joints; known are the 25 of kinect_v2_25",
        ),
        (
            lambda state: state.update({"l1.gcn1.Feature_Mask": torch.ones(1, 25, 6)}),
            "is for 6 coordinates a joint; known are x, y, z",
        ),
        (
            lambda state: state.update({"data_bn.weight": torch.ones(100)}),
            "'data_bn.weight' is (100,), which are no bodies of 25 joints with 3 coordinates each",
        ),
        (
            lambda state: state.update({"data_bn.weight": torch.ones(225)}),
            "'data_bn.bias' is (150,), but should be (225,)",
        ),
        (
            lambda state: state.update({"l2.gcn1.shift_in": torch.zeros(1600)}),
            "'l2.gcn1.shift_in' is float32, but should be int64",
        ),
        (
            lambda state: state.update({"fc.bias": torch.ones(60).double()}),
            "is float64, but should be float32",
        ),
        (lambda state: state.update({"fc.bias": [1.0] * 60}), "'fc.bias' is no plain tensor"),
        (lambda state: not_a_number(state, "l9.tcn1.shift_in.xpos"), "'l9.tcn1.shift_in.xpos' holds values"),
        (lambda state: not_a_number(state, "l1.gcn1.Linear_weight"), "holds values that are not finite"),
        (
            lambda state: state["l4.gcn1.bn.running_var"].neg_(),
            "'l4.gcn1.bn.running_var' holds a variance below 0",
        ),
        (
            lambda state: out_of_range(state, "l2.gcn1.shift_out", 1600),
            "'l2.gcn1.shift_out' names place 1600; there are 0 to 1599",
        ),
        (lambda state: out_of_range(state, "l1.gcn1.shift_in", -1), "names place -1; there are 0 to 74"),
    ],
)
def test_a_state_that_cannot_be_right(change, fault, tmp_path, capsys):
    state, path = random_state(), tmp_path / "weights.pt"
    change(state)
    torch.save(state, path)
    line = refused(capsys, path, "--out", tmp_path / "out.pt")
    assert line.startswith(f"error: {path}: ")
    assert fault in line
    assert [file.name for file in tmp_path.iterdir()] == ["weights.pt"]


class Harmful:
    def __reduce__(self):
        return print, ("this ran",)


def cut(path, weights):
    path.write_bytes(weights.read_bytes()[:100_000])


@pytest.mark.parametrize(
    ("write", "fault"),
    [
        (lambda path, weights: None, "no such file"),
        (lambda path, weights: path.mkdir(), "is no file"),
        (lambda path, weights: path.write_bytes(b""), "damaged or no file of tensors"),
        (lambda path, weights: path.write_text("not a file of torch"), "damaged or no file of tensors"),
        (cut, "damaged or no file of tensors"),
        (lambda path, weights: torch.save({"fc.bias": Harmful()}, path), "what could run code is not read"),
        (lambda path, weights: torch.save([torch.ones(2)], path), "holds no tensors by name"),
        (
            lambda path, weights: torch.save({}, path),
            "no weights of Shift-GCN: 'l1.gcn1.Feature_Mask' is missing",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_files_that_cannot_be_read(write, fault, weights, tmp_path, capsys):
    path = tmp_path / "weights.pt"
    write(path, weights)
    before = sorted(tmp_path.iterdir())
    line = refused(capsys, path, "--out", tmp_path / "out.safetensors")
    assert line.startswith(f"error: {path}: ")
    assert fault in line
    assert "this ran" not in line
    assert sorted(tmp_path.iterdir()) == before


def test_nothing_is_overwritten_unasked(weights, tmp_path, capsys):
    out = tmp_path / "out.pt"
    assert run(weights, "--out", out) == 0
    before = out.read_bytes()
    capsys.readouterr()
    assert "already exists; choose another --out, or add --overwrite" in refused(
        capsys, weights, "--out", out
    )
    assert run(weights, "--out", out, "--overwrite") == 0
    assert out.read_bytes() == before
    capsys.readouterr()
    line = refused(capsys, weights, "--out", weights, "--overwrite")
    assert "holds other things than this command writes; choose another --out" in line
    assert torch.equal(torch.load(weights, weights_only=True)["fc.bias"], random_state()["fc.bias"])


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ("shift_gnc w.pt --out a.pt", "network 'shift_gnc' is unknown; did you mean 'shift_gcn'?"),
        ("shift_gcn w.pt", "the following arguments are required: --out"),
        ("shift_gcn w.pt --out a.bin", "a.bin: the name of a released encoder ends in .safetensors or .pt"),
        ("shift_gcn '' --out a.pt", "names no file or folder"),
        ("shift_gcn w.pt --out a.pt", "w.pt: no such file"),
    ],
)
def test_mistakes_at_convert(words, fault, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert commands.run(convert, *shlex.split(words)) == 2
    assert fault in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]
