"""What the synthesised people do: one function an action, from progress in time to joint angles.

Most actions come in pairs that share their poses and differ in dynamics only: one is the other
backwards in time, mirrored, or at another speed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ssl_skeleton.data.synthetic.body import Array, Pose


@dataclass(frozen=True)
class Performance:
    """How an action is performed this time.

    `progress` (T,) runs from 0, the action's start, to 1, its end, within `seconds`; it rests at both
    while the person idles. `variety` are free choices in -1..1 that no label depends on.
    """

    progress: Array
    seconds: float
    tempo: float = 1.0
    amplitude: float = 1.0
    phase: float = 0.0
    variety: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)

    def cycles(self, hertz: float) -> Array:
        """The phase (T,) in radians of a repeated movement."""
        return 2 * np.pi * hertz * self.tempo * self.seconds * self.progress + self.phase


_STRIDES = 0.85  # hertz

Motion = Callable[[Performance], Pose]


@dataclass(frozen=True)
class Contact:
    """How a pair stands: halfway, the second person's joints are `gap` metres past the first's."""

    joints: tuple[str, ...]
    partner_joints: tuple[str, ...]
    gap: float


@dataclass(frozen=True)
class Action:
    """One class.

    `seconds` is its usual length; `free_sides`: left and right are exchanged at will; `free_legs`: the person
    may stroll meanwhile. No label depends on either.
    """

    name: str
    motion: Motion
    seconds: float = 2.0
    backwards: bool = False
    mirrored: bool = False
    free_sides: bool = False
    free_legs: bool = False
    partner: Motion | None = None
    contact: Contact | None = None

    def pose(self, performance: Performance, *, partner: bool = False) -> Pose:
        """The joint angles of a performance by the first person, or by the partner."""
        motion = self.partner if partner and self.partner else self.motion
        if self.backwards:
            performance = replace(performance, progress=1 - performance.progress)
        pose = motion(performance)
        return pose.mirrored() if self.mirrored else pose


def ramp(progress: Array, start: float, end: float) -> Array:
    """From 0 at `start` to 1 at `end`, smooth at both."""
    share = np.clip((progress - start) / (end - start), 0, 1)
    return share * share * (3 - 2 * share)


def plateau(progress: Array, rise: float, full: float, fall: float, end: float) -> Array:
    """0, then 1 between `full` and `fall`, then 0 again from `end` on."""
    return ramp(progress, rise, full) * (1 - ramp(progress, fall, end))


def _sit(p: Performance) -> Pose:
    pose, seated = Pose(len(p.progress)), ramp(p.progress, 0, 1)
    depth = 0.92 + 0.1 * p.variety[0]
    pose.add(bend=(0.35 + 0.15 * p.variety[1]) * np.sin(np.pi * seated) * p.amplitude + 0.08 * seated)
    for side, asymmetry in (("left", p.variety[2]), ("right", -p.variety[2])):
        pose.add(
            **{
                f"{side}_hip": 1.5 * depth * seated,
                f"{side}_knee": (1.55 * depth + 0.1 * asymmetry) * seated,
                f"{side}_spread": 0.12 * seated,
                f"{side}_flex": (0.35 + 0.2 * asymmetry) * seated,
                f"{side}_elbow": (0.7 + 0.3 * p.variety[3]) * seated,
                f"{side}_roll": 0.3 * seated,
            }
        )
    return pose


def _raise_arms(p: Performance) -> Pose:
    pose, up = Pose(len(p.progress)), ramp(p.progress, 0, 1)
    height = 2.35 + 0.35 * p.amplitude * p.variety[0]
    for side, lag in (("left", p.variety[1]), ("right", -p.variety[1])):
        late = ramp(p.progress, 0.1 * max(lag, 0), 1)
        forward = p.variety[2] > 0  # both ways of lifting the arms end overhead
        pose.add(**{f"{side}_{'flex' if forward else 'abduct'}": height * late, f"{side}_elbow": 0.25 * up})
    return pose


def _wave_right_hand(hertz: float) -> Motion:
    def motion(p: Performance) -> Pose:
        pose, up = Pose(len(p.progress)), plateau(p.progress, 0, 0.18, 0.82, 1)
        beat = np.sin(p.cycles(hertz))
        pose.add(
            right_abduct=(1.1 + 0.4 * p.variety[0]) * up,
            right_roll=-(1.3 + 0.3 * p.variety[1]) * up,
            right_elbow=(1.45 + 0.25 * p.variety[2] + 0.5 * p.amplitude * beat) * up,
            lean=-0.04 * beat * up,
        )
        return pose

    return motion


def _swing_arms(hertz: float) -> Motion:
    def motion(p: Performance) -> Pose:
        pose, on = Pose(len(p.progress)), plateau(p.progress, 0, 0.15, 0.85, 1)
        beat = np.sin(p.cycles(hertz)) * on * p.amplitude
        opposed = 1.0 if p.variety[1] > 0 else -1.0  # both arms together, or one against the other
        reach = 0.7 + 0.2 * p.variety[0]
        pose.add(right_flex=reach * (beat + 0.2 * on), left_flex=reach * (0.2 * on - opposed * beat))
        pose.add(right_elbow=0.2 * on, left_elbow=0.2 * on, twist=0.1 * (1 + opposed) * beat)
        return pose

    return motion


def _circle_arms_backward(p: Performance) -> Pose:
    pose = Pose(len(p.progress))
    turns = max(1, round(0.95 * p.tempo * p.seconds))  # whole turns, so that the arms end where they began
    circle = 2 * np.pi * turns * p.progress
    on = plateau(p.progress, 0, 0.1, 0.9, 1)
    for side, moves in (("left", p.variety[0] < 0.4), ("right", p.variety[0] > -0.4)):
        if moves:
            pose.add(
                **{
                    f"{side}_flex": circle,
                    f"{side}_abduct": (0.25 + 0.15 * p.variety[1]) * on,
                    f"{side}_elbow": (0.3 + 0.2 * p.variety[2]) * p.amplitude * on,
                }
            )
    return pose


def _draw_clockwise(p: Performance) -> Pose:
    pose, up = Pose(len(p.progress)), plateau(p.progress, 0, 0.2, 0.8, 1)
    cycle, radius = p.cycles(1.0), 0.38 * p.amplitude
    pose.add(
        right_flex=(1.3 + 0.2 * p.variety[0] + radius * np.cos(cycle)) * up,
        right_open=(0.15 + 0.25 * p.variety[1] + radius * np.sin(cycle)) * up,
        right_elbow=(0.35 + 0.25 * p.variety[2]) * up,
    )
    return pose


def gait(p: Performance, on: Array, way: float = 1.0) -> Pose:
    """Steps, of the legs alone, where `on` (T,) is above 0; `way` -1 takes them backwards."""
    pose, cycle = Pose(len(p.progress)), way * p.cycles(_STRIDES + 0.1 * p.variety[0])
    stride = (0.36 + 0.06 * p.variety[1]) * p.amplitude
    for side, half in (("right", 0.0), ("left", np.pi)):
        lift = np.maximum(np.cos(cycle + half + 0.35), 0) ** 2
        pose.add(
            **{
                f"{side}_hip": on * (stride * np.sin(cycle + half) + 0.25 * lift),
                f"{side}_knee": on * (0.1 + 1.0 * p.amplitude * lift),
            }
        )
    pose.add(bear=on * np.cos(cycle))  # the leg that goes back carries
    return pose


def _walk_forward(p: Performance) -> Pose:
    on = plateau(p.progress, 0, 0.15, 0.85, 1)
    pose = gait(p, on)
    swing = on * np.sin(p.cycles(_STRIDES + 0.1 * p.variety[0])) * p.amplitude * (0.27 + 0.18 * p.variety[2])
    pose.add(right_flex=-swing, left_flex=swing, twist=0.3 * swing, bend=0.05 * on)
    return pose


def _pick_up(p: Performance) -> Pose:
    pose = Pose(len(p.progress))
    down, held = plateau(p.progress, 0, 0.48, 0.52, 1), ramp(p.progress, 0.55, 1)
    squat = 0.5 + 0.4 * p.variety[0]  # with a straight back or with straight knees
    bend = (1.35 - 0.55 * squat) * down * p.amplitude
    pose.add(bend=bend, nod=0.2 * down)
    hands = ("right", "left") if p.variety[1] > 0.2 else ("right",)
    for side in ("right", "left"):
        pose.add(**{f"{side}_hip": (0.45 + 1.0 * squat) * down, f"{side}_knee": (0.3 + 1.6 * squat) * down})
        reach = 1.0 if side in hands else 0.55
        pose.add(**{f"{side}_flex": reach * (bend + 0.25 * down)})
        if side in hands:
            pose.add(
                **{f"{side}_elbow": 1.35 * held, f"{side}_flex": 0.25 * held, f"{side}_roll": 0.35 * held}
            )
    return pose


def _shake_hands(p: Performance) -> Pose:
    pose, out = Pose(len(p.progress)), plateau(p.progress, 0, 0.25, 0.75, 1)
    beat = np.sin(2 * np.pi * 1.9 * p.seconds * p.progress)  # both hands keep one beat
    pose.add(
        right_flex=0.55 * out,
        right_elbow=(0.75 + 0.05 * p.variety[0] + 0.2 * p.amplitude * beat) * out,
        right_roll=0.3 * out,
        bend=(0.1 + 0.06 * p.variety[1]) * out,
    )
    return pose


def _push(p: Performance) -> Pose:
    pose = Pose(len(p.progress))
    up, stretched = plateau(p.progress, 0, 0.28, 0.65, 1), plateau(p.progress, 0.3, 0.5, 0.55, 0.9)
    for side in ("left", "right"):
        pose.add(
            **{
                f"{side}_flex": (0.55 + (0.8 + 0.15 * p.variety[0]) * stretched) * up,
                f"{side}_elbow": (1.9 - 1.75 * stretched) * up,
                f"{side}_wrist": 0.7 * up,
            }
        )
    lunge = stretched * p.amplitude
    pose.add(bend=0.18 * lunge, right_hip=0.3 * lunge, right_knee=0.3 * lunge, left_hip=-0.15 * lunge)
    return pose


def _be_pushed(p: Performance) -> Pose:
    hit = plateau(p.progress, 0.47, 0.58, 0.7, 1)
    pose = gait(p, 0.8 * plateau(p.progress, 0.48, 0.6, 0.85, 1), way=-1.0)
    pose.add(bend=-0.25 * hit * p.amplitude, nod=0.25 * hit)
    for side in ("left", "right"):
        pose.add(**{f"{side}_abduct": 0.35 * hit, f"{side}_flex": 0.4 * hit, f"{side}_elbow": 0.8 * hit})
    return pose


_HANDS = ("left_hand_tip", "right_hand_tip")
_SHAKE = Contact(("right_hand",), ("right_hand",), gap=0.0)
_SHOVE = Contact(_HANDS, ("upper_spine",), gap=0.08)
_SLOW, _FAST = 0.75, 1.9  # hertz

CATALOGUE: tuple[Action, ...] = (
    Action("sit down", _sit, 1.7),
    Action("stand up", _sit, 1.7, backwards=True),
    Action("raise arms", _raise_arms, 1.5, free_legs=True),
    Action("lower arms", _raise_arms, 1.5, backwards=True, free_legs=True),
    Action("wave left hand slowly", _wave_right_hand(_SLOW), 2.3, mirrored=True, free_legs=True),
    Action("wave left hand fast", _wave_right_hand(_FAST), 2.3, mirrored=True, free_legs=True),
    Action("wave right hand slowly", _wave_right_hand(_SLOW), 2.3, free_legs=True),
    Action("wave right hand fast", _wave_right_hand(_FAST), 2.3, free_legs=True),
    Action("swing arms slowly", _swing_arms(_SLOW)),
    Action("swing arms fast", _swing_arms(_FAST)),
    Action("circle arms forward", _circle_arms_backward, backwards=True, free_legs=True),
    Action("circle arms backward", _circle_arms_backward, free_legs=True),
    Action("draw a circle clockwise", _draw_clockwise, free_legs=True),
    Action("draw a circle counter-clockwise", _draw_clockwise, backwards=True, free_legs=True),
    Action("walk forward", _walk_forward),
    Action("walk backward", _walk_forward, backwards=True),
    Action("pick up", _pick_up, free_sides=True),
    Action("put down", _pick_up, backwards=True, free_sides=True),
    Action("shake hands", _shake_hands, partner=_shake_hands, contact=_SHAKE),
    Action("push", _push, partner=_be_pushed, contact=_SHOVE),
)
