"""Recordings at another frame rate."""

from dataclasses import replace

import numpy as np

from ssl_skeleton.data.recording import Recording, Track


def resample(clip: Recording, before: float, after: float) -> Recording:
    """The clip, recorded at `before` frames per second, at `after`; in between by linear interpolation.

    The first frame stays the first. Between a frame that shows a joint and one that does not (all zero), the
    nearer one is taken. A track that falls between two new frames is gone.
    """
    frames = int((clip.frames - 1) * after / before + 1e-6) + 1 if clip.frames else 0
    place_t = np.arange(frames) * (before / after)
    tracks = [moved for track in clip.tracks if (moved := _resample_track(track, place_t)) is not None]
    return replace(clip, frames=frames, tracks=tracks)


def _resample_track(track: Track, place_t: np.ndarray) -> Track | None:
    """The track at the places (T',) of the clip, counted in its old frames."""
    last = len(track.x_tvc) - 1
    local_t = place_t - track.first_frame
    new_t = np.flatnonzero((local_t > -1e-6) & (local_t < last + 1e-6))
    if not len(new_t):
        return None
    local_t = local_t[new_t].clip(0, last)
    before_t = np.floor(local_t + 1e-6).astype(np.int64)
    share_t = (local_t - before_t).clip(0).astype(np.float32)
    after_t = np.minimum(before_t + 1, last)
    seen_tv = np.asarray(track.x_tvc.any(axis=2))
    both_tv = seen_tv[before_t] & seen_tv[after_t]
    share_tv = np.where(both_tv, share_t[:, None], (share_t > 0.5).astype(np.float32)[:, None])[..., None]
    x_tvc = (1 - share_tv) * track.x_tvc[before_t] + share_tv * track.x_tvc[after_t]
    shown = np.flatnonzero(x_tvc.any(axis=(1, 2)))
    if not len(shown):
        return None
    first, end = int(shown[0]), int(shown[-1]) + 1
    return Track(int(new_t[first]), x_tvc[first:end].astype(np.float32))
