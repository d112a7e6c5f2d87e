"""The description of a store in words and bars, for a person."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest

from ssl_skeleton.data.inspection.description import Tree

_WIDTH = 110
_LISTED = 5  # names and joints shown of each kind
_BAR = 40
_GAP = "    "  # between columns
_SHORTEST = 5  # lines that a column of classes has at least, where it is not the last
_SMALLEST = 0.00005  # shares below this would read 0.00 %


def description_text(tree: Tree) -> str:
    """Word what `describe` found."""
    sections = [
        _head(tree),
        _classes(tree),
        *[_numbers(column, tree["counts"][column]) for column in ("subject", "camera", "setup")],
        _splits(tree["splits"]),
        _lengths(tree),
        _joints(tree["joints"]),
        _bones(tree["bones"]) if tree["bones"] else [],
        _duplicates(tree["duplicates"]),
        _implausible(tree["implausible"], tree["clips"]),
        _named("skipped", [f"{count} {why}" for why, count in tree["skipped"].items()] or ["nothing"]),
    ]
    return "\n".join(line for section in sections for line in section)


def _head(tree: Tree) -> Iterator[str]:
    size = tree["bytes"] / 1e6
    yield (
        f"{tree['store']}: {tree['dataset']}, {_count(tree['clips'], 'clip')}, "
        f"{_count(tree['frames'], 'frame')}, {tree['hours']:.2f} h, {size:,.1f} MB"
    )
    by_bodies = ", ".join(f"{one['clips']:,} with {one['value']}" for one in tree["clips_by_bodies"])
    yield from _named(
        "facts",
        [
            f"{tree['layout']} ({tree['number_of_joints']} joints)",
            f"{tree['fps']:g} frames a second",
            f"coordinates {' '.join(tree['coordinates'])}",
            f"bodies: {by_bodies}",
            _count(len(tree["classes"]), "class", "classes"),
        ],
    )
    yield from _named("note", [tree["note"]]) if tree["note"] else []


def _classes(tree: Tree) -> Iterator[str]:
    """The clips of every class, downwards in as many columns as fit."""
    counts = tree["counts"]["label"]
    names = [
        "(unknown)" if one["value"] is None else f"{one['value']} {tree['classes'][one['value']]}"
        for one in counts
    ]
    figures = [f"{one['clips']:,}" for one in counts]
    for most in range(-(-len(names) // _SHORTEST), 0, -1):
        height = -(-len(names) // most)
        columns = [
            _aligned(names[start : start + height], figures[start : start + height])
            for start in range(0, len(names), height)
        ]
        if most == 1 or sum(len(column[0]) + len(_GAP) for column in columns) - len(_GAP) <= _WIDTH - 12:
            for number, row in enumerate(zip_longest(*columns, fillvalue="")):
                yield f"{'' if number else 'classes':<12}" + _GAP.join(row).rstrip()
            return


def _aligned(names: Sequence[str], figures: Sequence[str]) -> list[str]:
    """A column of names and one of figures, side by side."""
    width, digits = max(map(len, names)), max(map(len, figures))
    return [f"{name:<{width}}  {figure:>{digits}}" for name, figure in zip(names, figures, strict=True)]


def _numbers(name: str, counts: Sequence[Tree]) -> Iterator[str]:
    values = [("?" if one["value"] is None else str(one["value"])) + f": {one['clips']:,}" for one in counts]
    yield from _named(f"{name}s", values) if values else []


def _splits(splits: Mapping[str, Tree]) -> Iterator[str]:
    words = {"train": "train", "validation": "validation", "test": "test", "in_none": "in no part"}
    for number, (name, split) in enumerate(splits.items()):
        parts = [
            f"{split[part]:,} {word}"
            for part, word in words.items()
            if split[part] or part in ("train", "test")
        ]
        parts = [f"! {part}" if part in ("0 train", "0 test") else part for part in parts]
        parts += [
            f"! {split[f'{part}_copied_from_training']:,} {part} clips are copies of training clips"
            for part in ("test", "validation")
            if split[f"{part}_copied_from_training"]
        ]
        yield from _named("" if number else "splits", [f"{name}: {parts[0]}", *parts[1:]])


def _lengths(tree: Tree) -> Iterator[str]:
    lengths, fps = tree["lengths"], tree["fps"]
    yield from _named(
        "lengths",
        [
            f"{what} {lengths[what]:g} frames ({lengths[what] / fps:.2f} s)"
            for what in ("min", "median", "max")
        ],
    )
    most = max(one["clips"] for one in lengths["histogram"])
    digits = len(str(lengths["max"]))
    for one in lengths["histogram"]:
        bar = "#" * -(-one["clips"] * _BAR // most)
        yield f"{'':<12}{one['from']:>{digits}} to {one['to']:>{digits}}  {bar:<{_BAR}} {one['clips']:,}"


def _joints(joints: Tree) -> Iterator[str]:
    yield from _worst("missing", joints["missing"], "of the frames in which their body is seen")
    still = "of the frames: the very position of the frame before, while half of the body moves"
    yield from _worst("frozen", joints["frozen"], still)
    repeated = f"{joints['repeated']:,} of {joints['pairs']:,} frames repeat the one before"
    yield from _named("", [repeated]) if joints["repeated"] else []


def _bones(bones: Tree) -> Iterator[str]:
    worst = [f"{name} {frames}" for name, frames in list(bones["clips"].items())[:_LISTED]]
    if not worst:
        yield from _named("jumps", ["none"])
        return
    what = f"a bone that is {1 / bones['shorter_than']:g} times as long as in the frame before or after"
    clips = _count(len(bones["clips"]), "clip")
    yield from _named("jumps", [f"{bones['frames']:,} frames of {clips} with {what}"])
    yield from _worst("", bones["jumps"], "of the frames")
    yield from _named("", ["most frames: " + worst[0], *worst[1:]])


def _duplicates(groups: Sequence[Tree]) -> Iterator[str]:
    if not groups:
        yield from _named("duplicates", ["none"])
        return
    differing = [group for group in groups if len(set(group["labels"])) > 1]
    clips = sum(len(group["clips"]) for group in groups)
    yield from _named(
        "duplicates",
        [
            f"{clips:,} clips in {_count(len(groups), 'group')} of identical coordinates",
            f"{'! ' * bool(differing)}{_count(len(differing), 'group')} with differing labels",
        ],
    )
    # The worst ones first: what is the same motion cannot be of two classes.
    listed = (differing + [group for group in groups if group not in differing])[:_LISTED]
    yield from _named(
        "", [" = ".join(_some(group["clips"])) for group in listed] + ["..."] * (len(groups) > _LISTED)
    )


def _implausible(found: Mapping[str, Sequence[str]], clips: int) -> Iterator[str]:
    wrong = {what: _some(names) for what, names in found.items() if names}
    for number, (what, names) in enumerate(wrong.items()):
        head = f"{len(found[what]):,} of {_count(clips, 'clip')}, {what}: {names[0]}"
        yield from _named("" if number else "implausible", [head, *names[1:]])
    yield from _named("implausible", ["none"]) if not wrong else []


def _worst(name: str, shares: Mapping[str, float], of_what: str) -> Iterator[str]:
    """The largest shares of a table."""
    worst = sorted(((share, what) for what, share in shares.items() if share > 0), reverse=True)
    parts = [f"{what} {_percent(share)}" for share, what in worst]
    more = [f"and {len(parts) - _LISTED} more"] * (len(parts) > _LISTED)
    *first, last = parts[:_LISTED] or ["none"]
    yield from _named(name, [*first, f"{last} {of_what}" if parts else last, *more])


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %" if share >= _SMALLEST else "< 0.01 %"


def _some(names: Sequence[str]) -> list[str]:
    return [*names[:_LISTED], *([f"and {len(names) - _LISTED:,} more"] * (len(names) > _LISTED))]


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _named(name: str, parts: Sequence[str]) -> Iterator[str]:
    """Parts behind a name, separated by commas, broken into lines between parts."""
    line = f"{name:<12}"
    for number, part in enumerate(parts):
        piece = part + ("," if number < len(parts) - 1 else "")
        if number and len(line) + 1 + len(piece) > _WIDTH:
            yield line
            line = " " * 12 + piece
        else:
            line += (" " if number else "") + piece
    yield line
