"""Configs: strict typed trees, read from YAML, changed by `key.path=value`, refused with a hint."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from ssl_skeleton.errors import UserError, nearest

_MOST_VALUES = 100_000  # aliases of aliases could ask for more than any memory holds


class Config(BaseModel):
    """Base of every config: immutable, no type coercion, no unknown keys, finite numbers only."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, tree: Any) -> Any:
        """Refuse an unknown key with the nearest right one, which pydantic does not name."""
        for key in tree if isinstance(tree, dict) else ():
            if key not in cls.model_fields:
                message = "unknown key '{key}'; {hint}"
                hint = nearest(key, cls.model_fields)
                raise PydanticCustomError("unknown_key", message, {"key": key, "hint": hint})
        return tree

    @model_validator(mode="before")
    @classmethod
    def _complete_sections(cls, tree: Any) -> Any:
        """Give the sections that overrides alone name what else they have by default."""
        if not isinstance(tree, dict):
            return tree
        fields = {key: cls.model_fields.get(key) for key in tree}
        return {key: _completed(value, getattr(fields[key], "default", None)) for key, value in tree.items()}

    @classmethod
    def from_tree(cls, tree: Any, where: str) -> Self:
        """Build the config from plain YAML values; `where` names their origin in errors.

        Raises UserError, one line, on the first key that is unknown, missing or impossible.
        """
        found = cls._built(tree)
        if isinstance(found, str):
            raise UserError(f"{where}: {found}")
        return found

    @classmethod
    def from_overridden(cls, tree: Any, overrides: Sequence[str], where: str) -> Self:
        """The same from a tree with overrides; an error names the last one without which it would not be."""
        found = cls._built(apply_overrides(tree, overrides))
        if not isinstance(found, str):
            return found
        for place in reversed(range(len(overrides))):
            others = [*overrides[:place], *overrides[place + 1 :]]
            try:
                without = cls._built(apply_overrides(tree, others))
            except UserError:  # others go on from what this one sets
                continue
            if without != found:
                where = as_typed(overrides[place])
                break
        raise UserError(f"{where}: {found}")

    @classmethod
    def _built(cls, tree: Any) -> Self | str:
        """The config of a tree, or what is wrong in it."""
        try:
            return cls.model_validate(_lists_to_tuples(tree))
        except ValidationError as error:
            return _first_fault(error, tree)

    def to_tree(self) -> dict[str, Any]:
        """The config as plain values, every default spelled out."""
        return self.model_dump(mode="json")


class Short(str):
    """An override for which the user typed something else, as an option that is short for it."""

    typed: str

    def __new__(cls, override: str, typed: str) -> Self:
        """The override, and what was typed for it."""
        short = super().__new__(cls, override)
        short.typed = typed
        return short


def as_typed(override: str) -> str:
    """What the user typed for an override, as errors name it."""
    return override.typed if isinstance(override, Short) else f"'{override}'"


def read_yaml(path: Path) -> Any:
    """Read a YAML file of plain values; duplicate keys are an error, `1e-4` is a number."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error})") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML text into plain values; `where` names its origin in errors."""
    try:
        return _copy(yaml.load(text, Loader=_StrictLoader))  # noqa: S506 - a SafeLoader
    except Exception as error:  # PyYAML's constructors raise errors of any kind, as for 2024-13-45
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{where}:{line} not valid YAML ({problem})") from None


def apply_overrides(tree: Any, overrides: Sequence[str]) -> Any:
    """Return a copy of `tree` with each `key.path=value` set; values are YAML.

    Items of lists go by number, or by the `name` that they have.

    A section that `tree` lacks begins as it is by default, as in the tree of a whole config; another `name`
    than the default's makes it one of that kind. An override that a later one would undo is refused.

    >>> apply_overrides({"stages": [{"epochs": 60}]}, ["stages.0.epochs=2"])
    {'stages': [{'epochs': 2}]}
    """
    tree, given = _copy(tree), dict[str, str]()
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path:
            raise UserError(f"'{override}': an override reads key.path=value")
        for key, earlier in given.items():
            if f"{key}.".startswith(f"{path}."):
                undone = f"{as_typed(override)} undoes it"
                raise UserError(f"{as_typed(earlier)}: {undone}; give one of the two")
        value = parse_yaml(text, as_typed(override))
        given |= dict.fromkeys(leaves(value, path), override)
        tree = _set(tree, path.split("."), value, as_typed(override))
    return tree


def leaves(tree: object, prefix: str = "") -> dict[str, object]:
    """The plain values of a tree by their key paths; an empty list is one."""
    if isinstance(tree, dict):
        items = list(tree.items())
    elif isinstance(tree, list) and tree:
        items = list(enumerate(tree))
    else:
        return {prefix: tree}
    found: dict[str, object] = {}
    for key, value in items:
        found |= leaves(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def _copy(tree: Any, left: list[int] | None = None) -> Any:
    """A copy in which a YAML alias and its anchor are no longer one object; `left` counts down its size."""
    left = [_MOST_VALUES] if left is None else left
    left[0] -= 1
    if left[0] < 0:
        raise ValueError(f"more than {_MOST_VALUES} values")
    if isinstance(tree, dict):
        return {key: _copy(value, left) for key, value in tree.items()}
    return [_copy(value, left) for value in tree] if isinstance(tree, list) else tree


def _set(node: Any, path: Sequence[str], value: Any, override: str) -> Any:
    if not path:
        return value
    key, rest = path[0], path[1:]
    if isinstance(node, list):
        place = _item(node, key, override)
        node[place] = _set(node[place], rest, value, override)
    elif node is None or isinstance(node, dict):
        node = _Partial() if node is None else node
        node[key] = _set(node.get(key), rest, value, override)
    else:
        raise UserError(f"{override}: '{key}' is below {node!r}, which has no keys")
    return node


def _item(items: Sequence[Any], key: str, override: str) -> int:
    """The place of the item that `key` gives the number or the name of."""
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    if not key.isdecimal() and names.count(key) == 1:
        return names.index(key)
    if not key.isdecimal() or int(key) >= len(items):
        named = "".join(f", {name}" for name in names if isinstance(name, str))
        there = f"an item 0 to {len(items) - 1} of the list{named}" if items else "in the list: it is empty"
        raise UserError(f"{override}: '{key}' is not {there}")
    return int(key)


class _Partial(dict[str, Any]):
    """A section of which overrides name a part; the rest is what it is by default."""


def _completed(value: Any, default: Any) -> Any:
    """What a section is whose default is a config, or the tree of one; only a `_Partial` one changes."""
    if isinstance(default, Config):
        default = _lists_to_tuples(default.to_tree())
    if not isinstance(value, _Partial) or not isinstance(default, dict):
        return value
    if value.get("name", default.get("name")) != default.get("name"):
        return value
    return default | {key: _completed(part, default.get(key)) for key, part in value.items()}


def _lists_to_tuples(tree: Any) -> Any:
    """Configs are immutable, so their sequences are tuples; strict mode takes no list for one."""
    if isinstance(tree, dict):
        return type(tree)((key, _lists_to_tuples(value)) for key, value in tree.items())
    if isinstance(tree, list | tuple):
        return tuple(_lists_to_tuples(value) for value in tree)
    return tree


def _first_fault(error: ValidationError, tree: Any) -> str:
    """The first fault in words: the key path as the user wrote it, what is wrong, how to mend."""
    fault = error.errors(include_url=False)[0]
    path, value = _user_path(fault["loc"], tree, missing=fault["type"] == "missing")
    message = fault["msg"].removeprefix("Value error, ")
    context = fault.get("ctx", {})
    if fault["type"] == "missing":
        message = "this key is missing"
    elif fault["type"] == "union_tag_invalid":
        choices = re.findall(r"'([^']+)'", str(context["expected_tags"]))
        message = f"unknown name '{context['tag']}'; {nearest(context['tag'], choices)}"
    elif fault["type"] == "union_tag_not_found":
        message = "the key 'name' is missing; it says which kind this is"
    elif fault["type"] == "literal_error":
        expected = str(context["expected"])
        choices = re.findall(r"'([^']+)'", expected) or re.findall(r"\d+", expected)
        message = f"'{value}' is not possible; {nearest(str(value), choices)}"
    elif fault["type"] != "unknown_key" and not isinstance(value, dict | list):
        message = f"{message}, not {value!r}"
    message = message.replace("valid tuple", "list").replace("valid dictionary", "mapping")
    message = message.replace(" or object to extract fields from", "").replace(" after validation", "")
    message = message.replace("Tuple should", "List should")
    message = message[0].lower() + re.sub(r" or instance of \w+", "", message[1:])
    return f"{path}: {message}" if path else message


def _user_path(loc: Sequence[int | str], tree: Any, *, missing: bool) -> tuple[str, Any]:
    """Turn pydantic's location into the keys the user wrote (it adds the tags of unions).

    Its last part is a key that the user did not write where that key is `missing`.
    """
    keys, node = [], tree
    if loc and loc[-1] == "[key]":  # a fault of a key itself: its mapping is the place
        loc = loc[:-2]
    for position, part in enumerate(loc):
        inside_list = isinstance(node, list) and isinstance(part, int) and part < len(node)
        if inside_list or (isinstance(node, Mapping) and part in node):
            node = node[part]
            keys.append(str(part))
        elif missing and position == len(loc) - 1:
            keys.append(str(part))
    return ".".join(keys), node


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader, with YAML 1.2 floats and no duplicate keys."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Check the keys as they are written, before merge keys add others to them."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        first: dict[str, yaml.Mark] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                problem = f"key {key!r} is no text"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            if key in first:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", first[key])
            first[key] = key_node.start_mark
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Take over what merge keys name, within the bounds of `_MOST_VALUES`."""
        super().flatten_mapping(node)
        if len(node.value) > _MOST_VALUES:
            problem = f"more than {_MOST_VALUES} values"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)
