from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from builders import CLASSES, FACTS, LAYOUT, examples, recordings, stored, upright, write_store
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from ssl_skeleton.data.recording import IMAGE, Recording, Track
from ssl_skeleton.data.store import Store, open_store
from ssl_skeleton.errors import UserError
from ssl_skeleton.figures.clips import choose_clips, draw_sheets, draw_strips
from ssl_skeleton.figures.page import LEFT, MIDDLE, RIGHT


def person() -> np.ndarray:
    """Somebody upright who looks at the camera, (1, V, 3); all other joints lie at their parents."""
    return (upright().numpy().T[None] + np.array([1, 2, 3])).astype(np.float32)


def store_of(folder: Path, clips: list[Recording], facts=FACTS) -> Store:
    write_store(folder / "store", clips, facts=facts)
    return open_store(folder / "store")


def places(image: np.ndarray, colour: str) -> np.ndarray:
    """Where the pixels of that colour are: (P, 2) as (across, down) in shares of the picture."""
    found = np.argwhere(np.abs(image[..., :3] - to_rgb(colour)).max(axis=2) < 0.02)
    return found[:, ::-1] / np.array([image.shape[1], image.shape[0]])


def poses_of(path: Path) -> np.ndarray:
    """The picture without its head line."""
    image = imread(path)
    return image[int(0.4 / 1.4 * image.shape[0]) :]


@given(st.lists(st.integers(-1, 4), min_size=1, max_size=40), st.integers(1, 50))
@settings(max_examples=examples(100))
def test_clips_are_chosen_evenly_over_the_classes(labels, number):
    labels = np.array(labels)
    chosen = choose_clips(labels, number)
    assert len(chosen) == len(set(chosen.tolist())) == min(number, len(labels))
    assert (np.diff(labels[chosen]) >= 0).all()
    there, taken = Counter(labels.tolist()), Counter(labels[chosen].tolist())
    most = max(taken.values())
    for label, count in there.items():
        assert min(count, most - 1) <= taken[label] <= most


@pytest.mark.parametrize("coordinates", ["metres", "image"])
def test_the_left_side_is_blue_and_the_head_is_up(tmp_path, coordinates):
    x_tvc, facts = person(), FACTS
    if coordinates == "image":
        x_tvc[:, :, :2] *= 400
        x_tvc[:, :, 2] = 0.5
        facts = FACTS.__class__(**{**FACTS.__dict__, "coordinates": IMAGE})
    store = store_of(tmp_path, [Recording("a", 1, [Track(0, x_tvc)])], facts)
    assert draw_strips(store, np.array([0]), tmp_path / "one.png") == [tmp_path / "one.png"]
    image = poses_of(tmp_path / "one.png")
    left, right, middle = (places(image, colour) for colour in (LEFT, RIGHT, MIDDLE))
    assert min(map(len, (left, right, middle))) > 50
    middle = middle[middle[:, 0] > 2.2 / 8.2]  # beside the names
    # `standing` has its left at the smaller x and the spine between; the shoulders are wider than the hips.
    # In space, x grows to the right hand of who faces the camera, which sees that hand on its left.
    one, other = (right, left) if coordinates == "metres" else (left, right)
    assert one[:, 0].max() < middle[:, 0].mean() + 1e-9 < other[:, 0].min() + 2e-9
    assert one[one[:, 0] == one[:, 0].min(), 1].mean() < 0.3
    assert left[:, 1].max() > 0.8
    # Axes are equal: 0.4 across the shoulders, 0.5 from them to the hips.
    pixels = np.array([image.shape[1], image.shape[0]])
    width, height = (np.ptp(np.concatenate([left, right]), axis=0)) * pixels
    assert width / height == pytest.approx(0.4 / 0.5, rel=0.05)


def test_a_second_body_is_lighter_even_where_it_is_alone(tmp_path):
    tracks = [Track(0, person()), Track(1, person() + np.float32([2, 0, 0]))]
    store = store_of(tmp_path, [Recording("a", 2, tracks)])
    draw_strips(store, np.array([0]), tmp_path / "one.png")
    image = poses_of(tmp_path / "one.png")
    second = image[:, int(image.shape[1] * 3.2 / 8.2) :]  # behind the names and the first of the poses
    assert len(places(image, LEFT)) > 50
    assert len(places(second, LEFT)) == 0
    lighter = np.array(to_rgb(LEFT)) * 0.45 + 0.55
    assert len(places(second, tuple(lighter))) > 50


def test_a_joint_that_is_missing_has_no_bones(tmp_path):
    x_tvc = person()
    x_tvc[:, [LAYOUT.index(joint) for joint in LAYOUT.mirror]] = 0
    store = store_of(tmp_path, [Recording("a", 1, [Track(0, x_tvc)])])
    draw_strips(store, np.array([0]), tmp_path / "one.png")
    image = poses_of(tmp_path / "one.png")
    assert len(places(image, LEFT)) == 0
    assert len(places(image, RIGHT)) > 50


@given(recordings())
@settings(max_examples=examples(5), deadline=None)
def test_any_clip_can_be_drawn(tmp_path_factory, clips):
    folder = tmp_path_factory.mktemp("figures")
    with stored(clips) as store:
        files = draw_strips(store, choose_clips(store.labels, 12), folder / "strips.png")
        files += draw_sheets(store, folder / "sheets.png")
    assert [file.name for file in files] == ["strips.png", "sheets-001.png"]
    for file in files:
        assert imread(file).shape[2] == 4


def test_many_clips_take_many_pages(tmp_path, monkeypatch):
    for name, value in {"_STRIPS": 2, "_ROWS": 2, "_COLUMNS": 3}.items():
        monkeypatch.setattr(f"ssl_skeleton.figures.clips.{name}", value)
    odd = "$x_{1}$ a name of more letters than a cell has room for"
    clips = [Recording(f"{odd} {number}", 1, [Track(0, person())], label=number % 3) for number in range(8)]
    store = store_of(tmp_path, clips)
    seen = []

    def progress(parts, total):
        assert total == 2
        for part in parts:
            seen.extend(store.labels[part])
            yield part

    files = draw_sheets(store, tmp_path / "clips.png", progress)
    assert [file.name for file in files] == ["clips-001.png", "clips-002.png"]
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [file.name for file in files]
    assert (np.diff(seen) >= 0).all()
    assert len(seen) == 8
    strips = draw_strips(store, choose_clips(store.labels, 3), tmp_path / "strips.png")
    assert [file.name for file in strips] == ["strips-001.png", "strips-002.png"]
    assert imread(strips[0]).shape[0] == pytest.approx(2.4 / 1.4 * imread(strips[1]).shape[0], abs=2)


def test_the_file_must_be_a_png(tmp_path):
    store = store_of(tmp_path, [Recording("a", 1, [Track(0, person())], label=len(CLASSES) - 1)])
    for draw in (lambda path: draw_strips(store, np.array([0]), path), lambda path: draw_sheets(store, path)):
        with pytest.raises(UserError, match=r"choose a name that ends in \.png"):
            draw(tmp_path / "figure.jpg")
    assert not list(tmp_path.glob("figure*"))
