"""The usual form of the three pretexts of CRRL: what a research repository has, written with care.

A Dataset turns and shears one clip after another in numpy, at the clip's own length. A DataLoader's collate
sorts a batch by length and pads it, and torch's own GRU runs on packed sequences, all in float32. Keys follow
by a loop over parameters, the queue is joined anew, a decoder is called once forwards and once for the
reversed clip. There are no worker processes, as a machine with two cores has none to spare.

The sizes are those of the package's configs, and `load` takes the weights of one of its pretexts: on the same
views both give the same losses and gradients, as a test shows. So whatever is faster is not doing less.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.utils.data import DataLoader
from usual_clips import Padded, Streams, UsualClips, Views, collate

from ssl_skeleton.encoders.gru import GRUConfig
from ssl_skeleton.pretext.base import PretextConfig
from ssl_skeleton.pretext.contrastive_motion import ContrastiveMotionConfig
from ssl_skeleton.pretext.information_fuser import InformationFuserConfig
from ssl_skeleton.pretext.sequence_reconstructor import SequenceReconstructorConfig

Optimiser = Callable[[Sequence[nn.Parameter]], torch.optim.Optimizer]
JOINTS, SPACE = 20, 3


class PackedGRU(nn.Module):
    """The encoder: BatchNorm over the valid frames, where the config has it, and nn.GRU over packed ones."""

    def __init__(self, config: GRUConfig, inputs: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(inputs) if config.input_norm == "batch" else None
        self.gru = nn.GRU(
            inputs,
            config.hidden,
            config.layers,
            batch_first=True,
            dropout=config.dropout,
            bidirectional=config.bidirectional,
        )
        self.dim = config.hidden * (2 if config.bidirectional else 1)

    def forward(self, x_nti: Tensor, lengths: Tensor) -> Tensor:
        """Features (N, T, D)."""
        packed = pack_padded_sequence(x_nti, lengths, batch_first=True)
        if self.norm is not None:
            packed = PackedSequence(self.norm(packed.data), packed.batch_sizes)
        features_ntd: Tensor = pad_packed_sequence(self.gru(packed)[0], batch_first=True)[0]
        return features_ntd


class UsualReconstructor(nn.Module):
    """SER: decode the clip from the first feature, and the reversed clip from the last."""

    def __init__(self, config: SequenceReconstructorConfig, encoder: PackedGRU, pose: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = nn.GRU(encoder.dim, config.hidden or pose, config.layers, batch_first=True)
        self.readout = nn.Linear(config.hidden, pose) if config.hidden else nn.Identity()

    def load(self, pretext: nn.Module) -> None:
        """Take the weights of the package's pretext."""
        _copy(pretext, self, "encoder", "decoder", "readout")

    def forward(self, batch: Padded) -> Tensor:
        """The loss."""
        return self.loss(self.encoder(batch.views[0], batch.lengths), batch)

    def loss(self, features_ntd: Tensor, batch: Padded) -> Tensor:
        """Both squared errors of a pose, the mean over the valid frames of a clip, and over clips."""
        frames = features_ntd.shape[1]
        lengths = batch.lengths.to(features_ntd.device)
        mask_nt = torch.arange(frames, device=lengths.device) < lengths[:, None]
        last_nd = features_ntd[torch.arange(len(features_ntd)), batch.lengths - 1]
        total = features_ntd.new_zeros(())
        for state_nd, target_nti in ((features_ntd[:, 0], batch.views[0]), (last_nd, batch.backwards)):
            hidden_nth, _ = self.decoder(state_nd[:, None].repeat(1, frames, 1))
            error_nt = ((self.readout(hidden_nth) - target_nti) ** 2).sum(dim=2)
            total = total + ((error_nt * mask_nt).sum(dim=1) / lengths).mean()
        return total

    def after_step(self) -> None:
        """Nothing."""


class UsualContrast(nn.Module):
    """CML: a query encoder, a key encoder that follows it, a queue of keys, cross-entropy over all keys."""

    queue: Tensor

    def __init__(self, config: ContrastiveMotionConfig, encoder: PackedGRU) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        pooled = encoder.dim * (2 if config.pooling == "mean_max" else 1)
        self.head = nn.Sequential(
            nn.Linear(pooled, config.hidden), nn.ReLU(), nn.Linear(config.hidden, config.outputs)
        )
        self.key_encoder, self.key_head = deepcopy(encoder), deepcopy(self.head)
        for parameter in [*self.key_encoder.parameters(), *self.key_head.parameters()]:
            parameter.requires_grad = False
        self.register_buffer("queue", functional.normalize(torch.randn(config.queue, config.outputs), dim=1))
        self.new_keys: Tensor | None = None

    def load(self, pretext: nn.Module) -> None:
        """Take the weights and the queue of the package's pretext."""
        _copy(pretext, self, "encoder", "head", "key_encoder", "key_head")
        oldest = int(pretext.get_buffer("queue.oldest"))
        self.queue = pretext.get_buffer("queue.keys_kd").roll(-oldest, 0).flip(0)

    def forward(self, batch: Padded) -> Tensor:
        """The loss; the keys wait for `after_step`."""
        query_nti, key_nti = batch.views
        pooled_nd = pool(self.encoder(query_nti, batch.lengths), batch.lengths, self.config.pooling)
        query_nd = functional.normalize(self.head(pooled_nd), dim=1)
        with torch.no_grad():
            pooled_nd = pool(self.key_encoder(key_nti, batch.lengths), batch.lengths, self.config.pooling)
            key_nd = functional.normalize(self.key_head(pooled_nd), dim=1)
        positive = torch.einsum("nd,nd->n", query_nd, key_nd)[:, None]
        logits = torch.cat([positive, query_nd @ self.queue.T], dim=1) / self.config.temperature
        self.new_keys = key_nd
        return functional.cross_entropy(
            logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device)
        )

    @torch.no_grad()
    def after_step(self) -> None:
        """The keys follow, and the newest ones push the oldest out of the queue."""
        pairs = ((self.key_encoder, self.encoder), (self.key_head, self.head))
        for slow, fast in pairs:
            for key, query in zip(slow.parameters(), fast.parameters(), strict=True):
                key.mul_(self.config.momentum).add_(query, alpha=1 - self.config.momentum)
        if self.new_keys is not None:
            self.queue = torch.cat([self.new_keys.flip(0), self.queue])[: self.config.queue]


class UsualFuser(nn.Module):
    """INF: a reconstructing student that also predicts what a frozen teacher pools."""

    def __init__(
        self, config: InformationFuserConfig, student: UsualReconstructor, teacher: PackedGRU
    ) -> None:
        super().__init__()
        self.config, self.student, self.teacher = config, student, teacher.requires_grad_(False)
        factor = 2 if config.pooling == "mean_max" else 1
        self.head = nn.Sequential(
            nn.Linear(factor * student.encoder.dim, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, factor * teacher.dim),
        )

    def load(self, pretext: nn.Module) -> None:
        """Take the weights of the package's pretext."""
        self.student.load(pretext.get_submodule("student"))
        _copy(pretext, self, "teacher", "head")

    def train(self, mode: bool = True) -> "UsualFuser":
        """The teacher stays in eval mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, batch: Padded) -> Tensor:
        """The student's loss and the weighted distance to the teacher."""
        features_ntd = self.student.encoder(batch.views[0], batch.lengths)
        with torch.no_grad():
            teacher_ntd = self.teacher(batch.views[1], batch.lengths)
            wanted_nd = pool(teacher_ntd, batch.lengths, self.config.pooling)
        found_nd = self.head(pool(features_ntd, batch.lengths, self.config.pooling))
        distance = ((found_nd - wanted_nd) ** 2).sum(dim=1).mean()
        loss: Tensor = self.student.loss(features_ntd, batch) + self.config.weight * distance
        return loss

    def after_step(self) -> None:
        """Nothing."""


Usual = UsualReconstructor | UsualContrast | UsualFuser


def _copy(source: nn.Module, target: nn.Module, *names: str) -> None:
    """Copy the weights of modules of these names."""
    for name in names:
        target.get_submodule(name).load_state_dict(source.get_submodule(name).state_dict())


def pool(features_ntd: Tensor, lengths: Tensor, pooling: str) -> Tensor:
    """The mean over the valid frames, and the maximum where it is asked for; features past them are zero."""
    lengths = lengths.to(features_ntd.device)
    mean_nd: Tensor = features_ntd.sum(dim=1) / lengths[:, None]
    if pooling != "mean_max":
        return mean_nd
    past_nt = torch.arange(features_ntd.shape[1], device=lengths.device) >= lengths[:, None]
    max_nd = features_ntd.masked_fill(past_nt[:, :, None], -torch.inf).max(dim=1).values
    return torch.cat([mean_nd, max_nd], dim=1)


def usual_form(config: PretextConfig, encoder: GRUConfig, teacher: Streams = ("motion",)) -> Usual:
    """The usual form of a pretext; `teacher` are the streams that a fuser's teacher sees.

    Raises TypeError where there is none: options of the package beyond the published forms are not here.
    """
    pose = JOINTS * SPACE * len(config.input.streams)
    new = PackedGRU(encoder, pose)
    match config:
        case ContrastiveMotionConfig(
            decoder=None, symmetric=False, in_batch=False, positives=0, key_head="follow"
        ):
            return UsualContrast(config, new)
        case InformationFuserConfig(student=SequenceReconstructorConfig() as student):
            knowing = PackedGRU(encoder, JOINTS * SPACE * len(teacher))
            return UsualFuser(config, UsualReconstructor(student, new, pose), knowing)
        case SequenceReconstructorConfig():
            return UsualReconstructor(config, new, pose)
    raise TypeError(f"{config.name}: has no usual form here with these options")


def usual_views(config: PretextConfig, teacher: Streams = ("motion",)) -> Views:
    """The draws of a clip, and the views of each, that the usual form of a pretext wants."""
    match config:
        case ContrastiveMotionConfig():
            return ((config.input.streams,), (config.key.streams,))
        case InformationFuserConfig():
            return ((config.input.streams, teacher),)
    return ((config.input.streams,),)


class UsualTraining:
    """Training in the usual form; a call is a step, and gives its loss. `clips` counts what it saw."""

    def __init__(
        self, network: Usual, dataset: UsualClips, batch: int, optimiser: Optimiser, device: torch.device
    ) -> None:
        self.network, self.device, self.clips = network.to(device).train(), device, 0
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.optimiser = optimiser(trained)
        self.loader = DataLoader(dataset, batch, shuffle=True, collate_fn=collate)
        self.batches = self._batches()

    def __call__(self) -> float:
        """Draw a batch and learn from it."""
        batch = next(self.batches)
        self.clips += len(batch.lengths)
        loss = self.network(batch)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.network.after_step()
        return float(loss.item())

    def _batches(self) -> Iterator[Padded]:
        while True:
            for batch in self.loader:
                views = [view.to(self.device) for view in batch.views]
                yield Padded(views, batch.backwards.to(self.device), batch.lengths)
