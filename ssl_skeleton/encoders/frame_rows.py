"""Clips of any lengths as rows, one for every valid frame, in the order in which a recurrence meets them."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class FrameRows:
    """The K valid frames of N clips: every clip's first, then every second, and so on.

    Longer clips come first, so that those which are still there in a frame are its first ones. Backwards, a
    clip begins with its own last valid frame: so D = 2 directions differ only in what their rows hold, and no
    step meets a frame that is not valid.

    `sizes` says how many clips are there in each frame, and `clip_n` which clip comes when. Row (d, k) is of
    the frame `frame_dk`, n * T + t for T = `frames` that a clip has with its padding.
    """

    frames: int
    sizes: list[int]
    clip_n: Tensor
    frame_dk: Tensor
    time_k: Tensor
    place_k: Tensor  # among the clips of its frame

    @staticmethod
    def of(lengths_n: Tensor, frames: int, directions: int) -> "FrameRows":
        """The rows of clips (N,) with 1 to T = `frames` valid frames each, in one direction or in two."""
        sorted_n, clip_n = lengths_n.sort(descending=True, stable=True)
        valid_tn = torch.arange(int(sorted_n[0]))[:, None] < sorted_n
        time_k, place_k = valid_tn.nonzero(as_tuple=True)
        time_dk = torch.stack([time_k, sorted_n[place_k] - 1 - time_k])[:directions]
        frame_dk = clip_n[place_k] * frames + time_dk
        return FrameRows(frames, valid_tn.sum(dim=1).tolist(), clip_n, frame_dk, time_k, place_k)

    @property
    def shape(self) -> tuple[int, int, int]:
        """D directions, N clips, K rows."""
        return len(self.frame_dk), len(self.clip_n), len(self.place_k)

    def state_rows(self, *, before: bool = False) -> Tensor:
        """Where the states of the rows (D, K) lie, or those of the frame `before`, among D * (N + K).

        Each direction has N rows with which all clips start, and behind them those of its frames.
        """
        directions, clips, count = self.shape
        row_k = clips + torch.arange(count)
        if before:
            size_t = torch.tensor([clips, *self.sizes])
            row_k = (size_t.cumsum(0) - size_t)[self.time_k] + self.place_k
        return torch.arange(directions)[:, None] * (clips + count) + row_k

    def scattered(self, index_dk: Tensor) -> Tensor:
        """One number a row in the order of the frames, (N * T, D); zero for those that are not valid."""
        directions, clips, _ = self.shape
        index_df = index_dk.new_zeros(directions, clips * self.frames)
        return index_df.scatter_(1, self.frame_dk, index_dk).T
