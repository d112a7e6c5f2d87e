import os
from pathlib import Path

import pytest
import torch
from published_shift_gcn import features, named_shapes, random_state, scores
from torch.nn import functional

from ssl_skeleton.encoders.published import shift_gcn
from ssl_skeleton.encoders.shift_gcn import ShiftGCNConfig
from ssl_skeleton.encoders.tensor_file import read_tensor_file


def saved(path, state):
    torch.save(state, path)
    return path


def doubled(state):
    return {name: value.double() if value.is_floating_point() else value for name, value in state.items()}


def published_scores(state, x_nctvm):
    return scores(doubled(state), features(doubled(state), x_nctvm))


def random_x(clips, frames, seed=0, bodies=2):
    """Poses that move at random, each clip more than that before it; the first one has no second body."""
    source = torch.Generator().manual_seed(seed)
    x_nctvm = torch.randn(clips, 3, frames, 25, bodies, dtype=torch.float64, generator=source)
    x_nctvm *= torch.arange(1, clips + 1)[:, None, None, None, None]
    x_nctvm += torch.randn(clips, 3, 1, 25, bodies, dtype=torch.float64, generator=source)
    x_nctvm[0, ..., 1:] = 0
    return x_nctvm


@pytest.mark.parametrize(
    ("far", "clips", "frames"), [(True, 1, 300), (False, 2, 38), (True, 2, 6), (False, 2, 1)]
)
@torch.no_grad()
def test_it_computes_what_was_published(far, clips, frames, tmp_path):
    state = random_state(frames, far=far)
    released = shift_gcn(saved(tmp_path / "weights.pt", state))
    x_nctvm, lengths = random_x(clips, frames), torch.full((clips,), frames)
    steps_ntd = features(doubled(state), x_nctvm)
    wanted = scores(doubled(state), steps_ntd)
    assert clips == 1 or (wanted[0] - wanted[1]).abs().mean() > 0.02  # what comes in is felt
    found = released.scores(x_nctvm.float(), lengths)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-4)
    released.encoder.double()
    released.head.double()
    torch.testing.assert_close(released.scores(x_nctvm, lengths), wanted, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(released.encoder(x_nctvm, lengths)[:, ::4], steps_ntd, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_in_a_padded_batch_each_clip_is_as_published(tmp_path):
    state = random_state(7, classes=5)
    released = shift_gcn(saved(tmp_path / "weights.pt", state))
    lengths = torch.tensor([11, 1, 8])
    x_nctvm = random_x(3, 11)
    wanted = [
        published_scores(state, x_nctvm[clip : clip + 1, :, :length])[0]
        for clip, length in enumerate(lengths.tolist())
    ]
    found = released.scores(x_nctvm.float(), lengths).double()
    torch.testing.assert_close(found, torch.stack(wanted), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("classes", "bodies"), [(60, 2), (120, 1), (1, 3)])
@torch.no_grad()
def test_what_it_is_follows_from_its_shapes(classes, bodies, tmp_path):
    state = random_state(1, classes=classes, bodies=bodies)
    released = shift_gcn(saved(tmp_path / "weights.pt", state))
    assert isinstance(released.config, ShiftGCNConfig)
    assert released.head.out_features == classes
    assert (released.bodies, released.layout.name) == (bodies, "kinect_v2_25")
    assert (released.coordinates, released.frames, released.normalise) == (("x", "y", "z"), 300, "agcn")
    assert released.streams == ("joint",)
    assert "weights.pt" in released.source
    assert not released.encoder.training
    x_nctvm = random_x(1, 5, bodies=bodies)
    found = released.scores(x_nctvm.float(), torch.tensor([5]))
    torch.testing.assert_close(found.double(), published_scores(state, x_nctvm), rtol=1e-4, atol=1e-4)


def test_lists_that_all_take_from_one_place_need_no_more_memory(tmp_path):
    """Who takes from which place, as a table, would be 300 MB a list."""
    state = random_state(3, classes=2)
    lists = [name for name in state if name.endswith(("gcn1.shift_in", "gcn1.shift_out"))]
    state |= {name: torch.zeros_like(state[name]) for name in lists}
    released = shift_gcn(saved(tmp_path / "weights.pt", state))
    assert sum(buffer.numel() for buffer in released.encoder.buffers()) < 2 * sum(
        map(torch.numel, state.values())
    )
    x_nctvm = random_x(1, 5)
    found = released.scores(x_nctvm.float(), torch.tensor([5]))
    torch.testing.assert_close(found.double(), published_scores(state, x_nctvm), rtol=1e-4, atol=1e-4)


def test_it_can_be_trained_on(tmp_path):
    released = shift_gcn(saved(tmp_path / "weights.pt", random_state(2, classes=2)))
    encoder, head = released.encoder.train(), released.head.train()
    x_nctvm, labels = random_x(4, 8).float(), torch.tensor([0, 1, 0, 1])
    optimiser = torch.optim.SGD([*encoder.parameters(), *head.parameters()], lr=0.05)
    losses = []
    for _ in range(4):
        loss = functional.cross_entropy(released.scores(x_nctvm, torch.tensor([8, 5, 8, 3])), labels)
        optimiser.zero_grad()
        loss.backward()
        assert all(parameter.grad.isfinite().all() for parameter in encoder.parameters())
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_the_names_are_those_of_the_published_file():
    beside = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("SSL_SKELETON_DATA") or beside) / "published"
    path = folder / "shift_gcn_ntu60_xsub.keys.txt"
    if not path.is_file():
        pytest.skip(f"no list of names at {path}; SSL_SKELETON_DATA names the folder that holds published/")
    lines = [line.split("\t") for line in path.read_text().splitlines() if not line.startswith("#")]
    types = {name: str(value.dtype).removeprefix("torch.") for name, value in random_state().items()}
    assert {name: (shape, kind) for name, shape, kind in lines} == {
        name: (str(shape), types[name]) for name, shape in named_shapes()
    }


def test_the_published_file_is_read_without_running_anything(tmp_path):
    path = saved(tmp_path / "weights.pt", random_state())
    assert read_tensor_file(path).keys() == dict(named_shapes()).keys()
