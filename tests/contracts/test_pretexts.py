import pytest
import tiny
import torch
from pydantic import TypeAdapter
from tiny import PRETEXTS, listed, pretext_task, same, sgd_step, tiny_store

from ssl_skeleton.encoders import AnyEncoder
from ssl_skeleton.pretext import AnyPretext
from ssl_skeleton.recipe import StageConfig
from ssl_skeleton.skeleton.layout import layout_names
from ssl_skeleton.training.batches import draw_views

BATCH = torch.tensor([0, 5, 11, 26])
every_pretext = pytest.mark.parametrize("pretext", PRETEXTS)
every_layout = pytest.mark.parametrize("layout", layout_names())


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    return {name: tiny_store(folder / name, layout=name, bodies=2) for name in layout_names()}


def trained_step(task, step):
    parts = sgd_step(task.pretext, draw_views(task, BATCH, 0, step))
    task.pretext.after_step()
    return parts


def test_every_pretext_is_here():
    found = {tree["name"] for tree in PRETEXTS.values()}
    assert found == {config.model_fields["name"].default for config in listed(AnyPretext)}


@every_pretext
@every_layout
@pytest.mark.parametrize("frames", [6, None], ids=["resampled", "own rate"])
@pytest.mark.parametrize("bodies", [1, 2])
def test_a_step_of_training_works(pretext, layout, frames, bodies, stores):
    task = pretext_task(pretext, stores[layout], bodies=bodies, frames=frames)
    views = draw_views(task, BATCH, 0, 0)
    parts = task.pretext.train()(views)
    assert all(part.isfinite() and part.ndim == 0 for part in parts.values())
    parts["loss"].backward()
    for name, parameter in task.pretext.encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
    task.pretext.after_step()
    assert task.pretext(views)["loss"].isfinite()


@every_pretext
@pytest.mark.parametrize("name", ["st_gcn", "agcn"])
@pytest.mark.parametrize("frames", [6, None], ids=["resampled", "own rate"])
def test_a_step_of_training_works_with_a_graph_encoder(pretext, name, frames, stores, monkeypatch):
    encoder = TypeAdapter(AnyEncoder).validate_python({"name": name, "width": 0.125, "depth": 0.25})
    monkeypatch.setattr(tiny, "ENCODER", encoder)
    test_a_step_of_training_works(pretext, "kinect_v2_25", frames, 2, stores)


@every_pretext
def test_training_lowers_the_loss(pretext, stores):
    task = pretext_task(pretext, stores["kinect_v1_20"])
    views = draw_views(task, BATCH, 0, 0)
    task.pretext.eval()  # without dropout
    losses = [float(sgd_step(task.pretext, views, rate=0.002)["loss"].detach()) for _ in range(8)]
    assert losses[-1] < losses[0]


@every_pretext
def test_the_state_holds_everything(pretext, stores):
    one = pretext_task(pretext, stores["kinect_v1_20"], seed=1)
    for step in range(3):
        trained_step(one, step)
    other = pretext_task(pretext, stores["kinect_v1_20"], seed=2)
    other.pretext.load_state_dict(one.pretext.state_dict())
    losses = []
    for task in (one, other):
        torch.manual_seed(3)
        losses.append([trained_step(task, step) for step in (3, 4)])
    assert same(*losses)
    assert same(one.pretext.state_dict(), other.pretext.state_dict())


@every_pretext
def test_the_recipe_can_be_written_down(pretext):
    stage = StageConfig.from_tree({"name": "main", "pretext": PRETEXTS[pretext]}, "stage")
    assert StageConfig.from_tree(stage.to_tree(), "stage") == stage


@every_pretext
def test_every_view_is_used(pretext, stores):
    task = pretext_task(pretext, stores["kinect_v1_20"])
    views = draw_views(task, BATCH, 0, 0)
    task.pretext.eval()
    loss = task.pretext(views)["loss"]
    for name, clips in views.items():
        changed = views | {name: clips.with_x(clips.x.flip(2) + 0.5)}
        assert task.pretext(changed)["loss"] != loss, name
