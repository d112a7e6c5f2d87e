"""Synthesised recordings in the NTU RGB+D format: the embedded default data set.

People of different build, posture and tempo perform everyday actions before three depth cameras. The files
are genuine `.skeleton` files, so that they take the same road as NTU RGB+D itself.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from ssl_skeleton.data.synthetic.actions import CATALOGUE, Action, Contact, Performance, gait, plateau, ramp
from ssl_skeleton.data.synthetic.body import LAYOUT, Array, Body, Pose, move
from ssl_skeleton.data.synthetic.sensor import YAWS, sense, skeleton_text, view
from ssl_skeleton.errors import UserError, nearest
from ssl_skeleton.files import new_folder, write_json

ACTIONS: tuple[str, ...] = tuple(action.name for action in CATALOGUE)

_MARK = "synthetic.json"  # tells synthetic recordings from real ones, which are never overwritten
_FPS = 30
_MOST_FRAMES = 120
_MOST_SUBJECTS, _MOST_REPETITIONS = 40, 20
_BUILD, _MOTION, _PICTURE = 1, 2, 3  # streams of randomness
# How far each channel strays while a person stands or acts, radians.
_RESTLESS = {
    "lean": 0.03, "bend": 0.04, "twist": 0.07, "nod": 0.1, "gaze": 0.22, "heading": 0.05,
    "left_flex": 0.09, "right_flex": 0.09, "left_abduct": 0.05, "right_abduct": 0.05,
    "left_elbow": 0.14, "right_elbow": 0.14, "left_roll": 0.15, "right_roll": 0.15,
    "left_hip": 0.025, "right_hip": 0.025, "left_knee": 0.04, "right_knee": 0.04,
}  # fmt: skip


@dataclass(frozen=True)
class Person:
    """Who performs: a build, and habits that tint every action."""

    body: Body
    tempo: float
    amplitude: float
    posture: dict[str, float]


def synthesise(
    out: Path,
    *,
    subjects: int = 12,
    repetitions: int = 2,
    cameras: int = 3,
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[Iterable[str], int], Iterable[str]] = lambda names, total: names,
) -> int:
    """Write one NTU `.skeleton` file for every action, subject, repetition and camera into a new folder.

    The same arguments give the same bytes, and a file does not depend on which others are written.

    Args:
        out: the folder to make; it appears once all files are written.
        subjects: how many people, 1..40.
        repetitions: how often each performs each action, 1..20.
        cameras: how many cameras see every performance, 1..3, the middle one first.
        seed: of everything that is random, from 0 on.
        overwrite: replace `out` where it exists and holds synthetic recordings.
        progress: wraps the list of performances (and their number) that is gone through.

    Returns:
        The number of files.

    Raises:
        UserError: an argument is out of range, or `out` exists or cannot be written.
    """
    _check("subjects", subjects, 1, _MOST_SUBJECTS)
    _check("repetitions", repetitions, 1, _MOST_REPETITIONS)
    _check("cameras", cameras, 1, len(YAWS))
    _check("seed", seed, 0, 2**32 - 1)
    performances = {
        _name(_setup(subject), subject, repetition, action): (action, subject, repetition)
        for subject, repetition, action in product(
            range(1, subjects + 1), range(1, repetitions + 1), range(1, len(ACTIONS) + 1)
        )
    }
    with new_folder(out, overwrite=overwrite, is_mine=lambda there: (there / _MARK).is_file()) as folder:
        facts = {"subjects": subjects, "repetitions": repetitions, "cameras": cameras, "seed": seed}
        write_json(folder / _MARK, facts)
        for name in progress(list(performances), len(performances)):
            action, subject, repetition = performances[name]
            world_mtvc = synthesise_motion(ACTIONS[action - 1], subject, repetition, seed)
            for camera in range(1, cameras + 1):
                text = _record(world_mtvc, (seed, _setup(subject), subject, repetition, action, camera))
                (folder / f"{name.format(camera=camera)}.skeleton").write_text(text, encoding="ascii")
    return len(performances) * cameras


def synthesise_motion(action: str, subject: int, repetition: int, seed: int = 0) -> Array:
    """The motion of one performance, as it was before any camera saw it.

    Returns:
        World coordinates (M, T, V, 3) in metres: the floor at y = 0, the stage around the origin, the
        frontal camera at negative z, the frontal camera's left at positive x.
    """
    if action not in ACTIONS:
        raise UserError(f"action '{action}' is unknown; {nearest(action, ACTIONS)}")
    _check("subject", subject, 1, _MOST_SUBJECTS)
    _check("repetition", repetition, 1, _MOST_REPETITIONS)
    _check("seed", seed, 0, 2**32 - 1)
    number = ACTIONS.index(action) + 1
    rng = np.random.default_rng((_MOTION, seed, _setup(subject), subject, repetition, number))
    return perform(CATALOGUE[number - 1], person(subject, seed), rng)


def perform(action: Action, performer: Person, rng: np.random.Generator) -> Array:
    """Let `performer`, and a stranger where the action needs two, act: world coordinates (M, T, V, 3)."""
    seconds = float(np.clip(action.seconds * rng.uniform(0.85, 1.2) / performer.tempo, 0.95, 2.5))
    progress = _progress(seconds, rng)
    aside = rng.choice([-1, 1]) * np.pi / 2 if action.contact else 0.0  # pairs are seen from their side
    heading = aside + np.clip(rng.normal(0, 0.3), -0.7, 0.7)
    bodies = [_act(action, performer, _performance(performer, progress, seconds, rng), heading, rng)]
    if action.contact:
        stranger = _draw_person(rng)
        performance = _performance(stranger, progress, seconds, rng)
        other = _act(action, stranger, performance, heading + np.pi, rng, partner=True)
        halfway = int(np.argmin(np.abs(progress - 0.5)))
        bodies.append(other + _towards(action.contact, bodies[0][halfway], other[halfway], heading))
    world_mtvc = np.stack(bodies)
    middle = world_mtvc[:, :, LAYOUT.index(LAYOUT.root)].mean(axis=(0, 1))
    start = rng.uniform(-0.3, 0.3, 3) - middle
    return np.asarray(world_mtvc + start * (1, 0, 1))


def person(subject: int, seed: int) -> Person:
    """The subject of this number: the same build and habits in all recordings of a seed."""
    return _draw_person(np.random.default_rng((_BUILD, seed, subject)))


def _draw_person(rng: np.random.Generator) -> Person:
    arms, legs, trunk, width = rng.uniform(0.93, 1.07, 4)
    arms_hang = rng.uniform(0.06, 0.22)
    bent = rng.uniform(0.1, 0.45)
    posture = {"bend": rng.uniform(-0.04, 0.16), "nod": rng.uniform(-0.1, 0.25), "lean": rng.normal(0, 0.02)}
    for side in ("left", "right"):
        posture |= {
            f"{side}_abduct": arms_hang + rng.normal(0, 0.03),
            f"{side}_spread": rng.uniform(0.02, 0.12),
        }
        posture |= {f"{side}_elbow": bent + rng.normal(0, 0.08), f"{side}_roll": rng.uniform(0, 0.5)}
        posture |= {f"{side}_hip": 0.04, f"{side}_knee": 0.08}
    body = Body(rng.uniform(1.55, 1.92), arms, legs, trunk, width)
    return Person(body, rng.uniform(0.82, 1.22), rng.uniform(0.8, 1.15), posture)


def _progress(seconds: float, rng: np.random.Generator) -> Array:
    """How far the action is, (T,): some idling, the action at an uneven pace, some idling."""
    share = np.linspace(0, 1, round(_FPS * seconds))
    before, after = rng.integers(6, 35), rng.integers(5, 11 + 25 * (rng.random() < 0.5))
    uneven = rng.uniform(-0.5, 0.5) * np.sin(2 * np.pi * share) + rng.uniform(-0.6, 0.6) * np.sin(
        np.pi * share
    )
    progress = np.concatenate([np.zeros(before), share + uneven / (2 * np.pi), np.ones(after)])
    return progress[:_MOST_FRAMES]


def _performance(performer: Person, progress: Array, seconds: float, rng: np.random.Generator) -> Performance:
    return Performance(
        progress,
        seconds,
        tempo=performer.tempo,
        amplitude=performer.amplitude * rng.uniform(0.7, 1.25),
        phase=rng.uniform(0, 2 * np.pi),
        variety=tuple(rng.uniform(-1, 1, 4)),
    )


def _act(
    action: Action,
    performer: Person,
    performance: Performance,
    heading: float,
    rng: np.random.Generator,
    *,
    partner: bool = False,
) -> Array:
    """One body's part in an action, (T, V, 3), near the origin."""
    pose = action.pose(performance, partner=partner)
    if action.free_sides and rng.random() < 0.5:
        pose = pose.mirrored()
    if action.free_legs and rng.random() < 0.4:
        pose.add(**_stroll(performer, pose.frames, rng).channels)
    if not action.contact:
        pose.add(heading=rng.normal(0, 0.4) * ramp(np.arange(float(pose.frames)), *_window(pose.frames, rng)))
    pose.add(**performer.posture, heading=heading)
    _fidget(pose, rng)
    return move(pose, performer.body)


def _window(frames: int, rng: np.random.Generator) -> tuple[float, float]:
    """A part of the clip, from a frame to another at least a third of the clip later."""
    length = rng.uniform(0.33, 1) * frames
    first = rng.uniform(0, frames - length)
    return first, first + length


def _stroll(performer: Person, frames: int, rng: np.random.Generator) -> Pose:
    """Some steps, forward or backward, that have nothing to do with the action."""
    steps = _performance(performer, np.linspace(0, 1, frames), frames / _FPS, rng)
    first, last = _window(frames, rng)
    on = plateau(np.arange(float(frames)), first, first + 8, last - 8, last)
    return gait(steps, 0.9 * on, way=rng.choice([-1, 1]))


def _fidget(pose: Pose, rng: np.random.Generator) -> None:
    """Add what no label depends on: restlessness, a glance aside, hands that scratch."""
    seconds = np.arange(pose.frames) / _FPS
    for channel, angle in _RESTLESS.items():
        hertz, phase = rng.uniform(0.1, 0.8, 3), rng.uniform(0, 2 * np.pi, 3)
        waves = np.sin(2 * np.pi * np.outer(seconds, hertz) + phase).sum(axis=1)
        pose.add(**{channel: angle * rng.uniform(0.4, 1.2) * waves})
    if rng.random() < 0.5:
        pose.add(gaze=rng.uniform(-0.9, 0.9) * _bump(pose.frames, rng))
    for side in ("left", "right"):
        if rng.random() < 0.35:
            bump = _bump(pose.frames, rng)
            pose.add(
                **{f"{side}_elbow": rng.uniform(0.5, 1.6) * bump, f"{side}_flex": rng.uniform(0, 0.7) * bump}
            )


def _bump(frames: int, rng: np.random.Generator) -> Array:
    """0, up to 1 and back within half a second or more, at some time in the clip: (T,)."""
    middle, width = rng.uniform(0, frames), rng.uniform(5, 11)
    return np.asarray(np.exp(-(((np.arange(frames) - middle) / width) ** 2)))


def _towards(contact: Contact, first_vc: Array, second_vc: Array, heading: float) -> Array:
    """How to shift the second person so that the two meet, (3,), metres."""
    ahead = np.array([-np.sin(heading), 0, -np.cos(heading)])
    here = first_vc[[LAYOUT.index(joint) for joint in contact.joints]].mean(axis=0)
    there = second_vc[[LAYOUT.index(joint) for joint in contact.partner_joints]].mean(axis=0)
    return np.asarray((here + contact.gap * ahead - there) * (1, 0, 1))


def _record(world_mtvc: Array, key: tuple[int, ...]) -> str:
    """The file of one camera; `key` is (seed, setup, subject, repetition, action, camera)."""
    rng = np.random.default_rng((_PICTURE, *key))
    return skeleton_text(sense(view(world_mtvc, setup=key[1], camera=key[-1]), rng), rng)


def _setup(subject: int) -> int:
    """Odd subjects came to one room, even ones to the other."""
    return 2 - subject % 2


def _name(setup: int, subject: int, repetition: int, action: int) -> str:
    return f"S{setup:03}C{{camera:03}}P{subject:03}R{repetition:03}A{action:03}"


def _check(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise UserError(f"{name}={value}: choose a whole number from {low} to {high}")
