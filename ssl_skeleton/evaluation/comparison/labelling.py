"""Short labels that tell things apart by what is different between them."""

import re
from collections.abc import Collection, Mapping, Sequence
from itertools import takewhile
from pathlib import PurePath

Facts = Mapping[str, object]
_KIND = ".name"  # ends the key that says of which kind a section is


def without_seed(name: str) -> str:
    """`crrl` for crrl_seed0: the name of a run without its seed, where that leaves something.

    A fusion of runs that differ in their seed alone keeps its name, as a_seed0+a_seed1.
    """
    parts = [re.sub(r"[_.-]*seed[_=-]?\d+", "", part).strip("_.-") or part for part in name.split("+")]
    seeded = len(set(parts)) < len(set(name.split("+")))
    return name if seeded else "+".join(parts)


def common_name(names: Sequence[str]) -> str:
    """What to call several runs: the name that they have without their seeds, or what they begin with."""
    plain = [without_seed(name) for name in names]
    if len(set(plain)) == 1:
        return plain[0]
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return re.sub(r"[\W_]*\d*$", "", "".join(letters[0] for letters in alike)) or names[0]


def telling_labels(facts: Sequence[Facts], always: Sequence[Collection[str]] = ()) -> list[str]:
    """A label for each of several mappings of key paths: `lr=0.1, encoder=st_gcn`.

    It has the keys whose values differ, each by as much of its path as is needed. Sections of different kinds
    differ in all they have: there the kind alone is told, and what differs between sections of one kind.
    Labels may be the same where long values begin differently, and are empty where nothing differs. `always`
    names for each mapping the keys that its label has although they are the same everywhere.
    """
    named = list(always) or [()] * len(facts)
    found = dict.fromkeys(key for each in facts for key in each)
    telling = {key for key in found if _tells(key, facts)}
    keys = [key for key in found if key in telling or any(key in own for own in named)]
    names = {key: _short(key, keys if key in telling else list(found)) for key in keys}
    return [
        ", ".join(
            f"{names[key]}={_shown(each[key])}"
            for key in keys
            if key in each and (key in telling or key in own)
        )
        for each, own in zip(facts, named, strict=True)
    ]


def _tells(key: str, facts: Sequence[Facts]) -> bool:
    """Whether a key differs between some facts that are of one kind in all sections around it."""
    inner = range(key.count("."))
    kinds = [f"{key.rsplit('.', depth + 1)[0]}{_KIND}" for depth in inner]
    found: dict[str, set[str]] = {}
    for each in facts:
        kind = repr([each.get(one) for one in kinds if one != key])
        found.setdefault(kind, set()).add(repr(each.get(key)))
    return any(len(values) > 1 for values in found.values())


def _short(key: str, keys: Sequence[str]) -> str:
    """The end of a key's path that no other one has, and that begins with a word."""
    paths = [one.removesuffix(_KIND) for one in keys]
    parts = key.removesuffix(_KIND).split(".")
    for begin in reversed(range(len(parts))):
        end = ".".join(parts[begin:])
        same = [path for path in paths if path == end or path.endswith(f".{end}")]
        if not parts[begin].isdecimal() and len(same) == 1:
            return end
    return key


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    return PurePath(text).name or text if text.startswith("/") else text
