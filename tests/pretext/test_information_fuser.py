import pytest
import torch
from tiny import PRETEXTS, pretext_task, same, sgd_step, tiny_store

from ssl_skeleton.encoders.pooling import represent
from ssl_skeleton.errors import UserError
from ssl_skeleton.pretext.base import INPUT
from ssl_skeleton.pretext.information_fuser import TEACHER
from ssl_skeleton.recipe import StageConfig
from ssl_skeleton.training.batches import draw_views

BATCH = torch.tensor([1, 2, 3, 9])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("stores") / "store")


def mean_square_distance(one, other) -> float:
    pairs = [zip(a, b, strict=True) for a, b in zip(one.tolist(), other.tolist(), strict=True)]
    return sum((a - b) ** 2 for pair in pairs for a, b in pair) / len(pairs)


@torch.no_grad()
@pytest.mark.parametrize(("pretext", "pooling"), [("fuse", "mean"), ("fuse_contrast", "max")])
def test_the_loss(pretext, pooling, store):
    task = pretext_task(pretext, store)
    fuser, views = task.pretext.eval(), draw_views(task, BATCH, 0, 0)
    known = represent(fuser.teacher, views[TEACHER], pooling)
    guess = fuser.head(represent(fuser.encoder, views[INPUT], pooling))
    parts = fuser(views)
    assert parts["distil"].item() == pytest.approx(mean_square_distance(guess, known), rel=1e-4)
    own = fuser.student(views)["loss"]
    torch.testing.assert_close(parts["loss"], own + 0.1 * parts["distil"])


def test_the_teacher_is_frozen(store):
    task = pretext_task("fuse", store)
    before = {name: tensor.clone() for name, tensor in task.pretext.teacher.state_dict().items()}
    task.pretext.train()
    assert task.pretext.encoder.training
    assert not any(module.training for module in task.pretext.teacher.modules())
    for step in range(3):
        sgd_step(task.pretext, draw_views(task, BATCH, 0, step))
        task.pretext.after_step()
    assert same(before, task.pretext.teacher.state_dict())
    assert all(parameter.grad is None for parameter in task.pretext.teacher.parameters())


def test_the_teacher_sees_the_student_s_crop(store):
    task = pretext_task("fuse", store)
    views = draw_views(task, BATCH, 0, 0)
    seen, known = views[INPUT], views[TEACHER]
    assert task.pretext.views[TEACHER].view.streams == ("motion",)
    steps = seen.x[:, :, 1:] - seen.x[:, :, :-1]
    torch.testing.assert_close(known.x[:, :, :-1], steps, atol=1e-6, rtol=1e-5)
    assert not known.x[:, :, -1].any()


def test_the_student_s_own_steps_follow(store):
    task = pretext_task("fuse_contrast", store)
    queue = task.pretext.student.queue.keys_kd.clone()
    task.pretext(draw_views(task, BATCH, 0, 0))
    task.pretext.after_step()
    assert not torch.equal(queue, task.pretext.student.queue.keys_kd)


def test_a_student_with_an_input_of_its_own_is_refused():
    student = {"name": "contrastive_motion", "input": {"streams": ["bone"]}}
    tree = {"name": "fuse", "pretext": PRETEXTS["fuse"] | {"student": student}}
    with pytest.raises(UserError, match="it sees the input of the pretext around it"):
        StageConfig.from_tree(tree, "recipe")
