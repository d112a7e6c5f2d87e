import itertools
import json

import numpy as np
import pytest
from builders import seeds
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ssl_skeleton.config import Config
from ssl_skeleton.data.bodies import motion
from ssl_skeleton.data.repair import RepairConfig, repair
from ssl_skeleton.errors import UserError

JOINTS = 6
windows = st.sampled_from([5, 7, 9])
configs = st.builds(
    RepairConfig,
    fill_gaps=st.integers(0, 4),
    drop_phantoms=st.booleans(),
    fix_swaps=st.booleans(),
    smooth=st.just(0) | windows,
)


def pack(clips: list[list[tuple[int, np.ndarray]]]) -> tuple[np.ndarray, np.ndarray]:
    """Frames and tracks of clips given as bodies (first frame, coordinates); nobody may write to them."""
    bodies = [(number, first, x_tvc) for number, clip in enumerate(clips) for first, x_tvc in clip]
    frames_rvc = np.concatenate([x_tvc for _, _, x_tvc in bodies]).astype(np.float32)
    ends = itertools.accumulate(len(x_tvc) for _, _, x_tvc in bodies)
    tracks = np.array(
        [
            (number, end - len(x_tvc), first, len(x_tvc))
            for (number, first, x_tvc), end in zip(bodies, ends, strict=True)
        ]
    )
    frames_rvc.setflags(write=False)
    tracks.setflags(write=False)
    return frames_rvc, tracks


def unpack(frames_rvc: np.ndarray, tracks: np.ndarray) -> list[tuple[int, int, np.ndarray]]:
    """Clip, first frame and coordinates of every track."""
    return [
        (clip, first, frames_rvc[row : row + count])
        for clip, row, first, count in np.asarray(tracks).tolist()
    ]


def repaired(x_tvc: np.ndarray, spatial: int = 3, **options) -> np.ndarray:
    """One body alone in its clip, repaired."""
    frames_rvc, tracks = repair(*pack([[(0, x_tvc)]]), RepairConfig(**options), spatial)
    assert np.array_equal(tracks, [[0, 0, 0, len(x_tvc)]])
    return frames_rvc


def walk(rng: np.random.Generator, frames: int, place: float = 0.0) -> np.ndarray:
    """A person 1.7 m tall at x = `place` that sways and walks along z by at most 3 cm a frame, (T, V, 3)."""
    pose_vc = rng.uniform((-0.25, -0.85, -0.15), (0.25, 0.85, 0.15), (JOINTS, 3))
    pose_vc[:2, 1] = -0.85, 0.85
    t = np.arange(frames)[:, None, None]
    sway = 0.05 * np.sin(0.2 * t + rng.uniform(0, 6, (JOINTS, 3)))
    return (pose_vc + (place, 0.1, 3.0) + sway + rng.uniform(-0.02, 0.02) * t * (0, 0, 1)).astype(np.float32)


def holed(rng: np.random.Generator, x_tvc: np.ndarray) -> np.ndarray:
    """The same with joints missing and frames unseen, never all of them."""
    x_tvc = x_tvc.copy()
    x_tvc[rng.random(x_tvc.shape[:2]) < 0.2] = 0
    x_tvc[rng.random(len(x_tvc)) < 0.2] = 0
    return x_tvc


@st.composite
def stores(draw: st.DrawFn, channels: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames, tracks and lengths of a few clips with any bodies, some of them never seen at all."""
    rng = np.random.default_rng(draw(seeds))
    lengths = draw(st.lists(st.integers(1, 30), min_size=1, max_size=4))
    clips = []
    for frames in lengths:
        clip = []
        for _ in range(draw(st.integers(1, 4))):
            first = draw(st.integers(0, frames - 1))
            x_tvc = holed(rng, walk(rng, draw(st.integers(1, frames - first)), rng.uniform(-0.5, 0.5)))
            extra = rng.uniform(0.1, 1, (*x_tvc.shape[:2], channels - 3)) * (x_tvc != 0).any(2, keepdims=True)
            clip.append((first, np.concatenate([x_tvc, extra], axis=2)))
        clips.append(clip)
    return *pack(clips), np.array(lengths)


def check_tracks(frames_rvc: np.ndarray, tracks: np.ndarray, lengths: np.ndarray) -> None:
    """What a store asks of its tracks."""
    clip, row, first, frames = tracks.T
    assert (frames_rvc.dtype, tracks.dtype) == (np.float32, np.int64)
    assert (tracks >= 0).all()
    assert (np.diff(clip) >= 0).all()
    assert np.array_equal(np.unique(clip), np.arange(len(lengths)))
    assert (frames >= 1).all()
    assert (row + frames <= len(frames_rvc)).all()
    assert (first + frames <= lengths[clip]).all()


@given(stores(channels=4))
@settings(max_examples=50, deadline=None)
def test_by_default_nothing_changes(store):
    frames_rvc, tracks, _ = store
    assert RepairConfig().to_tree() == {
        "drop_phantoms": False,
        "fix_swaps": False,
        "fill_gaps": 0,
        "smooth": 0,
    }
    found_rvc, found = repair(frames_rvc, tracks, RepairConfig())
    assert found_rvc.tobytes() == frames_rvc.tobytes()
    assert np.array_equal(found, tracks)
    found_rvc[:], found[:] = 1, 1  # they are the caller's own


@given(stores(), configs)
@settings(max_examples=150, deadline=None)
def test_the_result_is_always_a_valid_store(store, config):
    frames_rvc, tracks, lengths = store
    before = frames_rvc.tobytes(), tracks.tobytes()
    found_rvc, found = repair(frames_rvc, tracks, config)
    check_tracks(found_rvc, found, lengths)
    assert np.isfinite(found_rvc).all()
    assert np.bincount(found[:, 0]).max() <= np.bincount(tracks[:, 0]).max()
    assert (frames_rvc.tobytes(), tracks.tobytes()) == before


@given(stores(), configs)
@settings(max_examples=50, deadline=None)
def test_clips_do_not_depend_on_each_other(store, config):
    frames_rvc, tracks, _ = store
    together = unpack(*repair(frames_rvc, tracks, config))
    alone = []
    for clip in np.unique(tracks[:, 0]):
        own = tracks[tracks[:, 0] == clip]  # the rows of the others belong to nobody
        alone += unpack(*repair(frames_rvc, own, config))
    for (*place, x_tvc), (*wanted, y_tvc) in zip(together, alone, strict=True):
        assert place == wanted
        np.testing.assert_allclose(x_tvc, y_tvc, atol=1e-6)


def test_the_ends_of_a_run_are_smoothed_to_the_last_digit():
    generator = np.random.default_rng(0)
    x_rvc = (3 + generator.standard_normal((5, 400, 3))).astype(np.float32)  # many runs, fitted together
    found_rvc, _ = repair(x_rvc, np.array([[0, 0, 0, 5]]), RepairConfig(smooth=5))
    time_r = np.arange(5)
    fit_ra = np.polynomial.polynomial.polyfit(time_r, x_rvc.reshape(5, -1).astype(np.float64), 2)
    wanted = np.polynomial.polynomial.polyval(time_r, fit_ra).T.reshape(x_rvc.shape)
    np.testing.assert_allclose(found_rvc, wanted, rtol=6e-8, atol=6e-8)  # half a unit in the last place


@given(stores(channels=4), configs)
@settings(max_examples=50, deadline=None)
def test_confidences_are_the_recorded_ones(store, config):
    frames_rvc, tracks, _ = store
    config = config.model_copy(update={"drop_phantoms": False})
    found_rvc, _ = repair(frames_rvc, tracks, config)
    seen, still = (x_rvc[x_rvc[..., 3].any(axis=1), :, 3] for x_rvc in (frames_rvc, found_rvc))
    assert sorted(map(bytes, still)) == sorted(map(bytes, seen))
    if not config.fix_swaps:
        assert np.array_equal(found_rvc[..., 3], frames_rvc[..., 3])


def plain_runs(flags: list[bool]) -> list[tuple[int, int]]:
    """First and end of every run of true values."""
    runs, at = [], 0
    for flag, group in itertools.groupby(flags):
        length = len(list(group))
        runs += [(at, at + length)] if flag else []
        at += length
    return runs


def plain_fill(x_tvc: np.ndarray, longest: int) -> np.ndarray:
    x_tvc = x_tvc.astype(np.float64)
    for x_tc in x_tvc.transpose(1, 0, 2):
        for first, end in plain_runs([not pose.any() for pose in x_tc]):
            if first > 0 and end < len(x_tc) and end - first <= longest:
                for t in range(first, end):
                    share = (t - first + 1) / (end - first + 1)
                    x_tc[t] = (1 - share) * x_tc[first - 1] + share * x_tc[end]
    return x_tvc


@given(seeds, st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_gaps_are_filled_as_by_a_plain_reference(seed, longest):
    rng = np.random.default_rng(seed)
    clips = [[(0, holed(rng, walk(rng, rng.integers(1, 25)))) for _ in range(2)] for _ in range(3)]
    frames_rvc, tracks = pack(clips)
    found_rvc, found = repair(frames_rvc, tracks, RepairConfig(fill_gaps=longest))
    assert np.array_equal(found, tracks)
    recorded = frames_rvc != 0
    assert np.array_equal(found_rvc[recorded], frames_rvc[recorded])
    for (*_, x_tvc), (*_, y_tvc) in zip(unpack(found_rvc, found), unpack(frames_rvc, tracks), strict=True):
        np.testing.assert_allclose(x_tvc, plain_fill(y_tvc, longest), atol=1e-5)


@given(seeds, st.integers(1, 6), st.integers(1, 9), st.integers(2, 20), st.booleans())
@settings(max_examples=100, deadline=None)
def test_short_gaps_come_back_near_the_truth_and_long_ones_stay(seed, longest, gap, at, body):
    true_tvc = walk(np.random.default_rng(seed), 32)
    x_tvc = true_tvc.copy()
    x_tvc[at : at + gap, slice(None) if body else 2] = 0
    found = repaired(x_tvc, fill_gaps=longest)
    if gap <= longest:
        np.testing.assert_allclose(found, true_tvc, atol=0.05 * 0.04 * (gap + 1) ** 2 / 8 + 1e-4)
    else:
        assert np.array_equal(found, x_tvc)


def test_what_is_missing_at_an_end_stays_missing():
    x_tvc = walk(np.random.default_rng(0), 20)
    x_tvc[:2, 1], x_tvc[-2:, 3] = 0, 0
    assert np.array_equal(repaired(x_tvc, fill_gaps=5), x_tvc)
    pair = pack([[(0, x_tvc), (0, x_tvc)]])
    assert np.array_equal(repair(*pair, RepairConfig(fill_gaps=5))[0], pair[0])


def test_in_an_image_a_joint_without_confidence_is_missing():
    true_tvc = walk(np.random.default_rng(1), 20)
    true_tvc[..., 2] = 0.8
    x_tvc = true_tvc.copy()
    x_tvc[5:7, 3] = 100.0, 100.0, 0.0
    x_tvc[9:11, 1, :2] = 0
    found = repaired(x_tvc, spatial=2, fill_gaps=2)
    np.testing.assert_allclose(found[..., :2], true_tvc[..., :2], atol=0.01)
    assert np.array_equal(found[..., 2], x_tvc[..., 2])
    smoothed = repaired(x_tvc, spatial=2, smooth=5)
    assert np.array_equal(smoothed[5:7, 3], x_tvc[5:7, 3])
    assert abs(smoothed[..., :2][:, 3] - true_tvc[..., :2][:, 3])[[0, 1, 2, 3, 4, 7, 8, 9, 10]].max() < 0.01


def plain_smooth(x_tvc: np.ndarray, window: int) -> np.ndarray:
    """One fitted polynomial a frame and joint, within the runs in which the joint is there."""
    smooth_tvc, half = x_tvc.astype(np.float64), window // 2
    for v, x_tc in enumerate(x_tvc.transpose(1, 0, 2)):
        for first, end in plain_runs([bool(pose.any()) for pose in x_tc]):
            for t in range(first, end) if end - first >= window else ():
                start = min(max(t - half, first), end - window)
                steps = np.arange(start, start + window) - t
                fit = np.polyfit(steps, x_tc[start : start + window].astype(np.float64), 2)
                smooth_tvc[t, v] = fit[-1]
    return smooth_tvc


@given(seeds, windows)
@settings(max_examples=30, deadline=None)
def test_smooths_as_a_plain_reference(seed, window):
    rng = np.random.default_rng(seed)
    clips = [[(0, walk(rng, rng.integers(1, 40))) for _ in range(2)] for _ in range(2)]
    for _, x_tvc in itertools.chain(*clips):
        x_tvc[:] += rng.normal(0, 0.02, x_tvc.shape).astype(np.float32)
        x_tvc[rng.random(x_tvc.shape[:2]) < 0.05] = 0
    frames_rvc, tracks = pack(clips)
    found_rvc, found = repair(frames_rvc, tracks, RepairConfig(smooth=window))
    for (*_, x_tvc), (*_, y_tvc) in zip(unpack(found_rvc, found), unpack(frames_rvc, tracks), strict=True):
        np.testing.assert_allclose(x_tvc, plain_smooth(y_tvc, window), atol=1e-4)
        assert np.array_equal(x_tvc == 0, y_tvc == 0)  # zeros neither spread nor vanish


@given(seeds, windows, st.integers(1, 40), st.integers(1, 2))
@settings(max_examples=60, deadline=None)
def test_lines_and_parabolas_pass_unchanged(seed, window, frames, order):
    rng = np.random.default_rng(seed)
    t = np.arange(frames)[:, None, None] / frames
    x_tvc = sum(rng.uniform(-2, 2, (JOINTS, 3)) * t**power for power in range(order + 1))
    x_tvc[rng.random((frames, JOINTS)) < 0.1] = 0
    np.testing.assert_allclose(repaired(x_tvc, smooth=window), x_tvc, atol=1e-5)


@given(seeds, windows)
@settings(max_examples=30, deadline=None)
def test_noise_shrinks(seed, window):
    rng = np.random.default_rng(seed)
    true_tvc = walk(rng, 60)
    noisy_tvc = true_tvc + rng.normal(0, 0.02, true_tvc.shape)
    error = [np.square(x_tvc - true_tvc).mean() for x_tvc in (repaired(noisy_tvc, smooth=window), noisy_tvc)]
    assert error[0] < 0.75 * error[1]


def test_filled_gaps_are_smoothed_too():
    x_tvc = walk(np.random.default_rng(2), 30)
    x_tvc[10:13] = 0
    filled_tvc = repaired(x_tvc, fill_gaps=3)
    both_tvc = repaired(x_tvc, fill_gaps=3, smooth=7)
    assert np.array_equal(both_tvc, repaired(filled_tvc, smooth=7))
    assert not np.array_equal(both_tvc[10:13], filled_tvc[10:13])


def tracked(x_mtvc: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """A track for each of M ids: from the first to the last frame in which it is seen."""
    clip = []
    for x_tvc in x_mtvc:
        seen = np.flatnonzero(x_tvc.any(axis=(1, 2)))
        if len(seen):
            clip.append((int(seen[0]), x_tvc[seen[0] : seen[-1] + 1]))
    return clip


def places(clip: list[tuple[int, np.ndarray]]) -> list[tuple[int, bytes]]:
    return sorted((first, x_tvc.tobytes()) for first, x_tvc in clip)


def fixed(clip: list[tuple[int, np.ndarray]]) -> list[tuple[int, np.ndarray]]:
    found = unpack(*repair(*pack([clip]), RepairConfig(fix_swaps=True)))
    return [(first, x_tvc) for _, first, x_tvc in found]


@st.composite
def scenes(draw: st.DrawFn, most: int) -> tuple[np.random.Generator, np.ndarray]:
    """Two to `most` persons at least a metre apart, each unseen for up to four frames now and then."""
    rng = np.random.default_rng(draw(seeds))
    persons = draw(st.integers(2, most))
    frames = draw(st.integers(20, 50))
    x_mtvc = np.stack([walk(rng, frames, 1.5 * person) for person in range(persons)])
    for x_tvc in x_mtvc:
        for start in range(rng.integers(1, 12), frames, 12):
            x_tvc[start : start + rng.integers(0, 5)] = 0
    return rng, x_mtvc


@given(scenes(most=4), st.lists(st.integers(1, 49), min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_exchanged_persons_come_back_as_they_were(scene, cuts):
    rng, true_mtvc = scene
    x_mtvc = true_mtvc.copy()
    for cut in cuts:
        x_mtvc[:, cut:] = x_mtvc[rng.permutation(len(x_mtvc)), cut:]
    found = fixed(tracked(x_mtvc))
    assert places(found) == places(tracked(true_mtvc))
    if places(found) != places(tracked(x_mtvc)):
        strength = [motion(x_tvc[x_tvc.any(axis=(1, 2))]) for _, x_tvc in found]
        assert strength == sorted(strength, reverse=True)


@given(scenes(most=4))
@settings(max_examples=50, deadline=None)
def test_persons_that_were_not_exchanged_stay_to_the_bit(scene):
    clip = tracked(scene[1])
    frames_rvc, tracks = pack([clip])
    found_rvc, found = repair(frames_rvc, tracks, RepairConfig(fix_swaps=True))
    assert found_rvc.tobytes() == frames_rvc.tobytes()
    assert np.array_equal(found, tracks)


@given(seeds, st.floats(0, 0.4), st.integers(0, 12))
@settings(max_examples=100, deadline=None)
def test_persons_that_pass_each_other_keep_their_ids(seed, aside, unseen):
    """Two that look alike walk towards each other, 5 cm a frame each, and may be hidden as they pass."""
    x_mtvc = np.stack([walk(np.random.default_rng(seed), 40, place) for place in (0, aside)])
    x_mtvc[0, :, :, 0] += 0.05 * (np.arange(40)[:, None] - 20)
    x_mtvc[1, :, :, 0] -= 0.05 * (np.arange(40)[:, None] - 20)
    x_mtvc[:, 20 - unseen // 2 : 20 - unseen // 2 + unseen] = 0
    clip = tracked(x_mtvc)
    assert places(fixed(clip)) == places(clip)


@given(seeds, st.lists(st.integers(2, 38), min_size=1, max_size=3, unique=True), st.integers(0, 4))
@settings(max_examples=60, deadline=None)
def test_a_person_with_a_new_id_is_one_person(seed, cuts, unseen):
    rng = np.random.default_rng(seed)
    true_tvc, other_tvc = walk(rng, 40), walk(rng, 40, 1.5)
    for cut in cuts:
        true_tvc[cut : cut + unseen] = 0
    assume(true_tvc[-1].any())
    edges = [0, *sorted(cuts), 40]
    x_mtvc = np.zeros((len(edges) - 1, *true_tvc.shape), np.float32)
    for x_tvc, (first, end) in zip(x_mtvc, itertools.pairwise(edges), strict=True):
        x_tvc[first:end] = true_tvc[first:end]
    true_mtvc = np.stack([true_tvc, other_tvc])
    gaps = [len(list(group)) for seen, group in itertools.groupby(true_tvc.any(axis=(1, 2))) if not seen]
    assume(max(gaps, default=0) < 10)
    assert places(fixed(tracked(np.concatenate([x_mtvc, other_tvc[None]])))) == places(tracked(true_mtvc))


def resting(place: float, frames: int = 12) -> np.ndarray:
    """A body of 1.75 m from corner to corner that does not move, (T, V, 3)."""
    return np.repeat(walk(np.random.default_rng(3), 1, place), frames, axis=0)


@pytest.mark.parametrize(("aside", "pause", "tracks"), [(0.2, 0, 1), (0.6, 0, 2), (0.0, 9, 1), (0.0, 10, 2)])
def test_the_limits_within_which_a_new_id_is_the_same_person(aside, pause, tracks):
    before = resting(0.0)
    before[5, 0] += 20.0  # a joint astray makes no larger body
    assert len(fixed([(0, before), (12 + pause, resting(aside))])) == tracks


@pytest.mark.parametrize("jump", [0.4, 0.9])
def test_a_new_id_takes_over_where_the_old_one_jumps_away(jump):
    clip = [(0, np.concatenate([resting(0.0), resting(jump)])), (12, resting(0.0))]
    found = fixed(clip)
    assert sorted(at for at, _ in found) == [0, 12]
    longest = max((x_tvc for _, x_tvc in found), key=len)
    assert np.array_equal(longest, resting(0.0, 24)) == (jump > 0.5)


@pytest.mark.parametrize("other", [(20, resting(3.0)), (0, resting(3.0, 3)), (0, resting(3.0, 11))])
def test_a_jump_of_a_person_alone_is_no_exchange(other):
    """Neither with a person who is still to come, nor with one long gone, nor with one not near enough."""
    clip = [(0, np.concatenate([resting(0.0), resting(1.8, 20)])), other]
    assert places(fixed(clip)) == places(clip)


def test_an_exchange_is_found_when_only_one_was_seen_of_late():
    one, two, unseen = resting(0.0), resting(2.0), np.zeros((12, JOINTS, 3), np.float32)
    clip = [(0, np.concatenate([one, unseen, two])), (0, np.concatenate([two, two, one]))]
    wanted = [(0, np.concatenate([one, unseen, one])), (0, np.concatenate([two, two, two]))]
    assert places(fixed(clip)) == places(wanted)


def test_an_exchange_is_remembered_while_nobody_is_seen():
    here, (one, two), unseen = resting(9.0, 36), (resting(0.0), resting(2.0)), np.zeros((12, JOINTS, 3))
    here[20] = 0  # its return is looked at
    clip = [(0, here), (0, np.concatenate([one[:6], two[:6], unseen, two]))]
    clip.append((0, np.concatenate([two[:6], one[:6], unseen, one])))
    wanted = [(0, here), (0, np.concatenate([one, unseen, one])), (0, np.concatenate([two, unseen, two]))]
    assert places(fixed(clip)) == places([(at, x_tvc.astype(np.float32)) for at, x_tvc in wanted])


def test_phantoms_go_and_the_person_that_moves_more_comes_first():
    rng = np.random.default_rng(4)
    still, mover, chair = walk(rng, 30), walk(rng, 30, 2.0), walk(rng, 30, 4.0)
    mover[..., 2] += 0.1 * np.arange(30)[:, None]
    mover[:, 3] = 0  # a missing joint makes nobody wide
    chair[..., 1] *= 0.05
    nobody = np.zeros((5, JOINTS, 3), np.float32)
    clips = [
        [(0, still), (0, mover), (0, chair), (3, still[:10]), (0, nobody)],
        [(2, chair)],
        [(0, nobody), (4, nobody)],
        [(0, nobody), (0, chair[:5])],
    ]
    found = unpack(*repair(*pack(clips), RepairConfig(drop_phantoms=True)))
    wanted = [(0, 0, mover), (0, 0, still), (1, 2, chair), (2, 0, nobody), (2, 4, nobody), (3, 0, chair[:5])]
    assert [place for *place, _ in found] == [place for *place, _ in wanted]
    assert all(np.array_equal(x_tvc, y_tvc) for (*_, x_tvc), (*_, y_tvc) in zip(found, wanted, strict=True))


@pytest.mark.parametrize("options", [{"smooth": 4}, {"smooth": 3}, {"smooth": -1}, {"fill_gaps": -1}])
def test_impossible_options_are_refused(options):
    assert issubclass(RepairConfig, Config)
    with pytest.raises(UserError, match=r"^recipe: .*(smooth|fill_gaps)"):
        RepairConfig.from_tree(options, "recipe")


def test_real_persons_that_were_exchanged_come_back(recordings):
    files = sorted(recordings("nw_ucla").glob("*.json"))[::60]
    people = [np.array(json.loads(path.read_text())["skeletons"], np.float32) for path in files]
    people = [x_tvc for x_tvc in people if len(x_tvc) >= 20]
    assert len(people) > 10
    right = 0
    for one, two in itertools.pairwise(people):
        frames = min(len(one), len(two))
        true_mtvc = np.stack([one[:frames], two[:frames] - two[:frames].mean((0, 1)) + one.mean((0, 1))])
        true_mtvc[1, ..., 0] += 1.0
        assert places(fixed(tracked(true_mtvc))) == places(tracked(true_mtvc))
        x_mtvc = true_mtvc.copy()
        x_mtvc[:, frames // 2 :] = x_mtvc[::-1, frames // 2 :]
        right += places(fixed(tracked(x_mtvc))) == places(tracked(true_mtvc))
    assert right == len(people) - 1
