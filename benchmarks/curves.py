"""Whether training gives the same losses: in both precisions, and beside torch's own GRU."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crrl import Work
from usual import usual_form
from usual_clips import padded

from ssl_skeleton.pretext.base import INPUT


@dataclass(frozen=True)
class Curves:
    """The losses of every step, by form, and by how much those of the second form differ at most.

    `off` is a share of the first form's loss in the same step, `off_mean` one of its mean over all steps: a
    loss that begins close to zero, as contrast does, can be far off there without much being amiss.
    """

    pretext: str
    batch: int
    losses: Mapping[str, Sequence[float]]
    off: float
    off_mean: float


def of_precisions(work: Work, batch: int, steps: int) -> Curves:
    """The same training from the same start in fp32 and in bf16."""
    losses = {}
    for precision in ("fp32", "bf16"):
        training = work.ours(precision, batch)
        losses[precision] = [training() for _ in range(steps)]
    return _curves(work, batch, losses)


def of_recurrences(work: Work, batch: int, steps: int) -> Curves:
    """Ours in fp32 beside the usual networks, with the same weights, on the same views, without dropout."""
    ours = work.ours("fp32", batch, dropout=False)
    usual = usual_form(work.stage.pretext, work.dry_encoder, work.teacher_streams)
    usual.load(ours.task.pretext)
    usual.to(work.device).train()
    optimiser = ours.config.optimiser.build(p for p in usual.parameters() if p.requires_grad)
    losses: dict[str, list[float]] = {"nn.GRU": [], "ours": []}
    for _ in range(steps):
        epoch, drawn = ours.draw()
        views = [drawn.views[INPUT], *(view for name, view in drawn.views.items() if name != INPUT)]
        losses["ours"].append(ours.learn(epoch, drawn))
        loss = usual(padded(views))
        optimiser.zero_grad()
        loss.backward()
        for group, like in zip(optimiser.param_groups, ours.step.optimiser.param_groups, strict=True):
            group["lr"] = like["lr"]
        optimiser.step()
        usual.after_step()
        losses["nn.GRU"].append(float(loss.item()))
    return _curves(work, batch, losses)


def _curves(work: Work, batch: int, losses: Mapping[str, Sequence[float]]) -> Curves:
    exact, found = losses.values()
    differences = [abs(one - other) for one, other in zip(exact, found, strict=True)]
    off = max(difference / abs(loss) for difference, loss in zip(differences, exact, strict=True))
    return Curves(work.name, batch, losses, off, max(differences) / statistics.fmean(exact))
