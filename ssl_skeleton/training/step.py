"""One step of training: a batch goes forward and backward, and the weights move."""

import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ssl_skeleton import ranks
from ssl_skeleton.encoders.base import Encoder
from ssl_skeleton.encoders.blocks import dropout
from ssl_skeleton.errors import UserError
from ssl_skeleton.pretext.base import INPUT, Pretext
from ssl_skeleton.training.batches import Batch
from ssl_skeleton.training.checkpoint import Checkpoint, load_state
from ssl_skeleton.training.config import Precision, TrainingConfig
from ssl_skeleton.training.optimiser_state import load_optimiser
from ssl_skeleton.training.seeds import derive_seed
from ssl_skeleton.training.signals import Asked
from ssl_skeleton.training.task import Task

# Buffers are the same on all ranks by what computes them. Newer torch has another word for it.
_NEWER = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
_BUFFERS_STAY: dict[str, Any] = {"forward_sync_buffers" if _NEWER else "broadcast_buffers": False}
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_SCALER = ("scale", "_growth_tracker")  # what the loss scaling of fp16 remembers; the rest are its options
_SMALLEST_SCALE = 2.0**-10  # it begins at 2^16 and is halved by every step that it makes overflow


class NotFinite(Exception):
    """What a step computed is not finite, and nothing can be learned from it."""


class Step:
    """Makes the steps of a task. It holds all that they change."""

    def __init__(self, task: Task, config: TrainingConfig) -> None:
        if config.batch // ranks.world_size() < config.accumulate:
            counts = f"{config.accumulate} micro-batches on each of {ranks.world_size()} ranks"
            raise UserError(f"training.batch: {config.batch} clips are too few for {counts}")
        self.task, self.config, self.device = task, config, task.packed.device
        self.pretext = task.pretext.to(self.device).train()
        self.optimiser = config.optimiser.build(p for p in self.pretext.parameters() if p.requires_grad)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")
        self.model: Pretext | DistributedDataParallel = self.pretext
        if ranks.world_size() > 1:
            self.model = DistributedDataParallel(self.pretext, **_BUFFERS_STAY)
        if config.compile:
            compile_encoders(self.pretext)

    def __call__(self, batch: Batch, epoch: int, asked: Asked) -> dict[str, float]:
        """Make one step of an epoch (from 0); gives the mean values of the batch's clips.

        They are the same on all ranks, which agree by the way on the signals that came. Raises NotFinite
        when a value is not finite, before any weight moves.
        """
        rate = self.config.rate(epoch + batch.step * self.config.batch / self.task.clips)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        seed = derive_seed(self.task.seed, self.task.name, epoch, batch.step, "dropout")
        with compiling() if self.config.compile else nullcontext():
            parts = self._gradients(batch, seed)
        values = self._agreed(parts, asked)
        if not all(map(math.isfinite, values.values())):
            found = ", ".join(f"{name} {value:g}" for name, value in values.items())
            raise NotFinite(f"a loss is not finite ({found}); lower the learning rate or clip gradients")
        self._move()
        with ranks.sharing(len(batch.index)):
            self.pretext.after_step()
        return values

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it: nothing that depends on the ranks or the device."""
        scaler = {}
        if self.scaler.is_enabled():
            found = self.scaler.state_dict()
            scaler = {name: float(found[name]) for name in _SCALER}
        return {
            "pretext": self.pretext.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": scaler,
        }

    def load(self, checkpoint: Checkpoint, where: Path) -> None:
        """Go on from a checkpoint; UserError when it is of another architecture or optimiser."""
        load_state(self.pretext, checkpoint.pretext, where)
        load_optimiser(self.optimiser, self.config.optimiser, checkpoint.optimiser, where)
        if self.scaler.is_enabled():
            found = {name: checkpoint.scaler[name] for name in _SCALER if name in checkpoint.scaler}
            self.scaler.load_state_dict(self.scaler.state_dict() | found)

    def _gradients(self, batch: Batch, seed: int) -> dict[str, Tensor]:
        """Compute the gradients of the loss of the global batch; gives what is this rank's of every part.

        Each part is a mean over clips. So each micro-batch of each rank counts by its share of the clips, and
        the gradients, of which the ranks take the mean, by as much more as there are ranks.
        """
        self.optimiser.zero_grad(set_to_none=True)
        clips, world = len(batch.index), ranks.world_size()
        computed = clips if clips >= world else clips * world  # by all ranks together (`ranks.share`)
        parts: dict[str, Tensor]
        sums: dict[str, Tensor] = {}
        micro_batches = self._micro_batches(batch)
        for rows, places in micro_batches:
            share = len(places) / computed
            last = rows == micro_batches[-1][0]
            with ranks.sharing(clips), self._adding_up(last=last):
                with dropout.seeded(seed, places), autocast(self.device, self.config.precision):
                    parts = self.model({name: view.rows(rows) for name, view in batch.views.items()})
                self.scaler.scale(parts["loss"] * (world * share)).backward()  # type: ignore[no-untyped-call]
            for name, part in parts.items():
                sums[name] = sums.get(name, 0) + part.detach().float() * share
        return sums

    def _micro_batches(self, batch: Batch) -> list[tuple[slice, range]]:
        """Which of this rank's clips are in each micro-batch: their rows, and places in the global batch.

        Every rank has as many, none larger than those of a whole batch. They take turns with the clips of
        the global batch: so what all ranks have in one of them is the same for any number of ranks.
        """
        clips = len(batch.index)
        count = -(-self.config.accumulate * clips // self.config.batch)
        count = min(count, max(1, clips // ranks.world_size()))
        first = ranks.share(clips).start
        held = range(first, first + len(batch.views[INPUT]))
        turns = [slice((number - first) % count, None, count) for number in range(count)]
        return [(rows, held[rows]) for rows in turns]

    def _adding_up(self, *, last: bool) -> AbstractContextManager[None]:
        """Let gradients add up on this rank, until with the last ones the ranks take their mean."""
        if last or not isinstance(self.model, DistributedDataParallel):
            return nullcontext()
        return self.model.no_sync()

    def _agreed(self, parts: Mapping[str, Tensor], asked: Asked) -> dict[str, float]:
        """The parts summed over ranks, in one exchange and one transfer with the signals that came."""
        flags = torch.tensor(asked.flags(), device=self.device)
        numbers = ranks.total(torch.cat([torch.stack([*parts.values()]), flags])).tolist()
        asked.agree(numbers[len(parts) :])
        return dict(zip(parts, numbers, strict=False))

    def _move(self) -> None:
        """Move the weights, except where fp16 overflowed: then later losses are scaled less."""
        if self.config.clip_gradient is not None:
            self.scaler.unscale_(self.optimiser)
            torch.nn.utils.clip_grad_norm_(self.pretext.parameters(), self.config.clip_gradient)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.scaler.is_enabled() and self.scaler.get_scale() < _SMALLEST_SCALE:
            raise NotFinite("the gradients overflow fp16 at every scale; choose precision bf16")


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Within it, what gains from it is computed in that precision."""
    return torch.autocast(device.type, dtype=_DTYPES.get(precision), enabled=precision in _DTYPES)


def compile_encoders(pretext: Pretext) -> None:
    """Let torch compile every encoder, teachers and twins too, in place: the names of weights stay."""
    inside: set[torch.nn.Module] = set()
    for module in pretext.modules():  # the outer ones first
        if isinstance(module, Encoder) and module not in inside:
            inside |= set(module.modules())
            module.compile()


@contextmanager
def compiling() -> Iterator[None]:
    """Within it, that this machine cannot compile, as without a C++ compiler, is told in one line."""
    from torch._dynamo.exc import TorchDynamoException  # noqa: PLC0415 (slow to load)

    try:
        yield
    except TorchDynamoException as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"training.compile: torch cannot compile here ({reason}); set it to false") from None
