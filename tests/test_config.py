import time
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from builders import one_line
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from ssl_skeleton.config import Config, Short, apply_overrides, leaves, parse_yaml, read_yaml
from ssl_skeleton.errors import UserError


class Small(Config):
    name: Literal["small"] = "small"
    size: int = Field(default=3, ge=1)


class Large(Config):
    name: Literal["large"] = "large"
    rate: float
    order: tuple[int, ...] = ()


Part = Annotated[Small | Large, Field(discriminator="name")]


class Whole(Config):
    title: str
    part: Part = Small()
    parts: tuple[Part, ...] = ()
    mode: Literal["fast", "exact"] = "fast"
    limit: float | None = None
    tags: dict[str, bool] = Field(default={})


def refusal(tree: Any) -> str:
    with pytest.raises(UserError) as caught:
        Whole.from_tree(tree, "here.yaml")
    message = one_line(caught.value)
    assert message.startswith("here.yaml: ")
    return message.removeprefix("here.yaml: ")


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"title": "a", "mood": "fast"}, "unknown key 'mood'; did you mean 'mode'?"),
        ({"title": "a", "part": {"name": "small", "sise": 2}}, "unknown key 'sise'; did you mean 'size'?"),
        (
            {"title": "a", "parts": [{"name": "small"}, {"name": "small", "x": 1}]},
            "parts.1: unknown key 'x'; choose one of name, size",
        ),
        ({"title": "a", "line\nbreak": 1}, "unknown key 'line break'"),
        ({"title": 3}, "title: input should be a valid string, not 3"),
        (
            {"title": "a", "part": {"name": "small", "size": "3"}},
            "part.size: input should be a valid integer",
        ),
        ({"title": "a", "part": {"name": "small", "size": True}}, "part.size: "),
        ({"title": "a", "part": {"name": "small", "size": 0}}, "part.size: input should be greater than or"),
        ({"title": "a", "limit": float("nan")}, "limit: input should be a finite number, not nan"),
        ({"title": "a", "limit": float("inf")}, "limit: "),
        ({"title": "a", "parts": {"name": "small"}}, "parts: input should be a list"),
        ({"title": "a", "part": "small"}, "part: "),
        ({"title": "a", "tags": [1]}, "tags: input should be a mapping"),
        ({}, "title: this key is missing"),
        ({"title": "a", "part": {"name": "large"}}, "part.rate: this key is missing"),
        ({"title": "a", "part": {"name": "smal"}}, "part: unknown name 'smal'; did you mean 'small'?"),
        ({"title": "a", "parts": [{"name": "large", "rate": 1.0, "order": [1, "2"]}]}, "parts.0.order.1: "),
        ({"title": "a", "mode": "exakt"}, "mode: 'exakt' is not possible; did you mean 'exact'?"),
        ({"title": "a", "mode": "zzz"}, "mode: 'zzz' is not possible; choose one of exact, fast"),
        ([], "input should be a mapping"),
        (None, "input should be a mapping, not None"),
        ("text", "input should be a mapping, not 'text'"),
    ],
)
def test_a_mistake_is_named_with_its_place(tree, message):
    assert message in refusal(tree)


def test_configs_cannot_change_after_they_were_read():
    whole = Whole.from_tree({"title": "a", "parts": [{"name": "large", "rate": 1}]}, "here")
    with pytest.raises(ValueError, match="frozen"):
        whole.title = "b"
    assert whole.parts == (Large(rate=1.0),)


numbers = st.floats(allow_nan=False, allow_infinity=False)
parts = st.builds(Small, size=st.integers(1, 99)) | st.builds(
    Large, rate=numbers, order=st.lists(st.integers(), max_size=3).map(tuple)
)
wholes = st.builds(
    Whole,
    title=st.text(),
    part=parts,
    parts=st.lists(parts, max_size=3).map(tuple),
    mode=st.sampled_from(["fast", "exact"]),
    limit=st.none() | numbers,
    tags=st.dictionaries(st.text(), st.booleans(), max_size=3),
)


@given(wholes)
@settings(max_examples=60, deadline=None)
def test_a_tree_gives_its_config_back(whole):
    assert Whole.from_tree(whole.to_tree(), "here") == whole


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*Whole.model_fields, "name", "size", "rate", "x\ny"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@given(plain)
@settings(max_examples=100, deadline=None)
def test_any_tree_is_read_or_refused_in_one_line(tree):
    try:
        Whole.from_tree(tree, "here")
    except UserError as error:
        one_line(error)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("-2.5E+3", -2500.0),
        (".5e1", 5.0),
        ("3", 3),
        ("0.1", 0.1),
        ("1e", "1e"),
        ("e4", "e4"),
        ("'1e-4'", "1e-4"),
        ("[1e2, x]", [100.0, "x"]),
        ("", None),
    ],
)
def test_yaml_values(text, value):
    found = parse_yaml(text, "here")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "here: line 1: not valid YAML (key 'a' stands twice)"),
        ("a:\n  b: 1\n  b: 1", "here: line 2: not valid YAML (key 'b' stands twice)"),
        ("a: 1\nb: [1, 2\nc: 3", "here: line 3: "),
        ("a: 1\n\tb: 2", "here: line 2: "),
        ("a: 1\n3: 2", "here: line 2: not valid YAML (key 3 is no text)"),
        ("on: 1", "here: line 1: not valid YAML (key True is no text)"),
        ("a: *nothing", "here: line 1: "),
        ("!!python/object/apply:os.system [ls]", "here: line 1: "),
        ("a: \0", "here: not valid YAML"),
        ("day: 2024-13-45", "here: not valid YAML (month must be in 1..12)"),
        ("!!map [a]", "here: line 1: not valid YAML (expected a mapping node"),
        ("!!bool perhaps", "here: not valid YAML"),
        ("a: &a [*a]", "here: not valid YAML"),
        ("[" * 5000, "here: not valid YAML"),
    ],
)
def test_broken_yaml_is_refused_with_its_line(text, message):
    with pytest.raises(UserError) as caught:
        parse_yaml(text, "here")
    assert message in one_line(caught.value)


@given(st.text(st.sampled_from("ab:-[]{}&*!|>'\"#,?%@ \n\t.019eE_=<~\0\x85"), max_size=30))
@settings(max_examples=100, deadline=None)
def test_any_text_is_read_or_refused_in_one_line(text):
    try:
        parse_yaml(text, "here")
    except UserError as error:
        one_line(error)


@pytest.mark.parametrize("data", [None, b"a: \xff\xfe"])
def test_a_file_that_cannot_be_read(tmp_path, data):
    path = tmp_path / "recipe.yaml"
    if data:
        path.write_bytes(data)
    for wrong in (path, tmp_path):
        with pytest.raises(UserError) as caught:
            read_yaml(wrong)
        assert one_line(caught.value).startswith(f"{wrong}: ")


def test_a_file_is_read_as_utf8(tmp_path):
    path: Path = tmp_path / "recipe.yaml"
    path.write_bytes("title: Größe\n".encode())
    assert read_yaml(path) == {"title": "Größe"}


SHARED = "first: &one {steps: [{rate: 1}, {rate: 2}], name: x}\nsecond: *one\nthird: *one\n"


def test_an_override_changes_only_the_place_it_names():
    tree = parse_yaml(SHARED, "here")
    changed = apply_overrides(tree, ["second.steps.1.rate=1e-1", "second.extra.deep=[a, {b: null}]"])
    before = {"steps": [{"rate": 1}, {"rate": 2}], "name": "x"}
    after = {"steps": [{"rate": 1}, {"rate": 0.1}], "name": "x", "extra": {"deep": ["a", {"b": None}]}}
    assert tree == {"first": before, "second": before, "third": before}
    assert changed == {"first": before, "second": after, "third": before}


def test_aliases_inside_an_override_part_too():
    changed = apply_overrides({}, ["a=[&x {b: 1}, *x]", "a.0.c=2"])
    assert changed == {"a": [{"b": 1, "c": 2}, {"b": 1}]}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["a.b=1", "a.b=2"], "'a.b=1': 'a.b=2' undoes it; give one of the two"),
        (["a.b.c=1", "x=3", "a={d: 2}"], "'a.b.c=1': 'a={d: 2}' undoes it"),
        (["a={b: 1, c: 2}", "a.c=3"], "'a={b: 1, c: 2}': 'a.c=3' undoes it"),
        (["list=[1, 2]", "list.1=3"], "'list=[1, 2]': 'list.1=3' undoes it"),
        ([Short("a.b=1", "--bee 1"), "a={}"], "--bee 1: 'a={}' undoes it"),
        (["a.b=1", Short("a.b=2", "--bee 2")], "'a.b=1': --bee 2 undoes it"),
    ],
)
def test_no_override_is_undone_silently(overrides, message):
    with pytest.raises(UserError) as caught:
        apply_overrides({"list": [0, 0]}, overrides)
    assert one_line(caught.value).startswith(message)


@pytest.mark.parametrize(
    "overrides",
    [["a.b=1", "a.c=2"], ["a={b: 1}", "a.c=2"], ["ab=1", "a=2"], ["a.b=1", "a.bc=2"], ["a=", "a.b=1"]],
)
def test_overrides_that_add_to_each_other(overrides):
    tree = {}
    for override in overrides:
        tree = apply_overrides(tree, [override])
    assert apply_overrides({}, overrides) == tree


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("a=", {"a": None, "list": [1, [2]]}),
        ("a=b=c", {"a": "b=c", "list": [1, [2]]}),
        ("list=3", {"a": {"b": 1}, "list": 3}),
        ("list.1.0=x", {"a": {"b": 1}, "list": [1, ["x"]]}),
        ("a.b={c: 1}", {"a": {"b": {"c": 1}}, "list": [1, [2]]}),
    ],
)
def test_overrides_read_key_path_and_value(override, wanted):
    assert apply_overrides({"a": {"b": 1}, "list": [1, [2]]}, [override]) == wanted


@pytest.mark.parametrize(
    ("tree", "overrides", "message"),
    [
        ({}, ["limit=x"], "'limit=x': limit: "),
        ({}, ["part={name: small, size: few}"], "'part={name: small, size: few}': part.size: "),
        ({}, [Short("part={name: tiny}", "--part tiny")], "--part tiny: part: unknown name 'tiny'"),
        ({}, ["part={name: large}", "part.rat=2.0"], "'part.rat=2.0': part: unknown key 'rat'"),
        ({}, ["part={name: small}", "part.sizes=2", "limit=1.0"], "'part.sizes=2': part: unknown key"),
        ({"titel": "a"}, ["limit=2.0"], "here: unknown key 'titel'"),
        ({"titel": "a"}, [], "here: unknown key 'titel'"),
    ],
)
def test_a_mistake_is_that_of_the_override_without_which_it_would_not_be(tree, overrides, message):
    whole = {"title": "a", "part": {"name": "small"}} | tree
    with pytest.raises(UserError) as caught:
        Whole.from_overridden(whole, overrides, "here")
    assert one_line(caught.value).startswith(message)
    if not message.startswith("here"):
        Whole.from_overridden(whole, [], "here")


def test_an_override_starts_a_tree():
    assert apply_overrides(None, ["a.b=1", "a.c=2"]) == {"a": {"b": 1, "c": 2}}


class Tuned(Config):
    """Defaults that are not those of the classes themselves."""

    part: Part = Small(size=7)
    inner: Whole = Whole(title="deep", part=Large(rate=2.0, order=(1, 2)), limit=5.0)
    parts: tuple[Whole, ...] = (Whole(title="one"),)


def tuned(tree: Any, *overrides: str) -> Tuned:
    return Tuned.from_tree(apply_overrides(tree, overrides), "here")


INNER = Tuned().inner


@pytest.mark.parametrize(
    ("tree", "overrides", "wanted"),
    [
        (None, ["part.size=9"], {"part": Small(size=9)}),
        (None, ["part.name=small"], {"part": Small(size=7)}),
        (None, ["part.rate=1", "part.name=large"], {"part": Large(rate=1.0)}),
        (None, ["part.name=large", "part.rate=1"], {"part": Large(rate=1.0)}),
        (None, ["part={name: small}"], {"part": Small(size=3)}),
        ({"part": {"name": "small"}}, ["part.size=9"], {"part": Small(size=9)}),
        (
            {},
            ["inner.part.rate=1"],
            {"inner": INNER.model_copy(update={"part": Large(rate=1.0, order=(1, 2))})},
        ),
        ({}, ["inner.part.name=small"], {"inner": INNER.model_copy(update={"part": Small(size=3)})}),
        ({"inner": None}, ["inner.limit="], {"inner": INNER.model_copy(update={"limit": None})}),
        ({"inner": {"title": "a"}}, ["inner.mode=exact"], {"inner": Whole(title="a", mode="exact")}),
        (
            {"parts": [{"title": "a"}]},
            ["parts.0.part.size=9"],
            {"parts": (Whole(title="a", part=Small(size=9)),)},
        ),
    ],
)
def test_a_section_that_overrides_alone_name_begins_as_it_is_by_default(tree, overrides, wanted):
    assert tuned(tree, *overrides) == Tuned().model_copy(update=wanted)


@given(st.permutations(["inner.part.rate=1", "part.size=9", "inner.limit=3.0", "inner.mode=exact"]))
def test_overrides_of_a_bare_tree_do_what_they_do_to_the_whole_one(overrides):
    assert tuned({}, *overrides) == tuned(Tuned().to_tree(), *overrides)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("part.sise=9", "here: part: unknown key 'sise'; did you mean 'size'?"),
        ("part.size=0", "here: part.size: input should be greater than"),
        ("part.name=large", "here: part.rate: this key is missing"),
        ("part.name=smal", "here: part: unknown name 'smal'; did you mean 'small'?"),
        ("inner.part.size=9", "here: inner.part: unknown key 'size'; choose one of name, order, rate"),
    ],
)
def test_a_mistake_in_a_section_that_overrides_alone_name(override, message):
    with pytest.raises(UserError) as caught:
        tuned({}, override)
    assert one_line(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs", "an override reads key.path=value"),
        ("=3", "an override reads key.path=value"),
        ("", "an override reads key.path=value"),
        ("list.2=1", "'2' is not an item 0 to 1 of the list"),
        ("empty.0=1", "'0' is not in the list: it is empty"),
        ("list.-1=1", "'-1' is not an item"),
        ("list.x.y=1", "'x' is not an item"),
        ("named.c.b=1", "'c' is not an item 0 to 2 of the list, a, b, b"),
        ("named.b.b=1", "'b' is not an item 0 to 2 of the list, a, b, b"),
        ("a.b.c=1", "'c' is below 1, which has no keys"),
        ("a=[1", "line 1: not valid YAML"),
        ("a={b: 1, b: 2}", "key 'b' stands twice"),
        ("a\nb.c=[", "not valid YAML"),
    ],
)
def test_a_wrong_override_is_refused(override, message):
    tree = {"a": {"b": 1}, "list": [1, 2], "empty": [], "named": [{"name": name} for name in "abb"]}
    with pytest.raises(UserError) as caught:
        apply_overrides(tree, [override])
    assert message in one_line(caught.value)


def test_an_item_goes_by_its_name():
    tree = {"stages": [{"name": "one", "epochs": 1}, {"name": "two", "epochs": 1}]}
    found = apply_overrides(tree, ["stages.two.epochs=2", "stages.one.name=two"])
    assert found == {"stages": [{"name": "two", "epochs": 1}, {"name": "two", "epochs": 2}]}
    assert apply_overrides({"list": [{"name": "1"}, {"name": "x"}]}, ["list.1.y=2"])["list"][1]["y"] == 2


def test_a_merge_key_takes_over_what_is_not_given():
    tree = parse_yaml("a: &base {lr: 1, epochs: 2}\nb:\n  <<: *base\n  epochs: 3", "file.yaml")
    assert tree["b"] == {"lr": 1, "epochs": 3}
    assert tree["a"] == {"lr": 1, "epochs": 2}


def test_a_merged_mapping_may_itself_be_merged():
    text = "base: &base {lr: 1, n: 2}\na:\n  deep: &deep {<<: *base, lr: 3}\nc: {<<: *deep, n: 4}"
    tree = parse_yaml(text, "file.yaml")
    assert tree["a"]["deep"] == {"lr": 3, "n": 2}
    assert tree["c"] == {"lr": 3, "n": 4}


def test_a_merge_key_hides_no_duplicate():
    with pytest.raises(UserError, match=r"line 3: not valid YAML \(key 'n' stands twice"):
        parse_yaml("a: &a {lr: 1}\nb:\n  n: 1\n  n: 2\n  <<: *a", "file.yaml")


@pytest.mark.parametrize("kind", ["list", "mapping", "merge"])
def test_aliases_of_aliases_are_refused_before_they_fill_the_memory(kind):
    lines = ["a0: &a0 {x: 1}"]
    for number in range(1, 12):
        names = [f"*a{number - 1}"] * 10
        body = {
            "list": f"[{', '.join(names)}]",
            "mapping": "{" + ", ".join(f"k{i}: {name}" for i, name in enumerate(names)) + "}",
            "merge": "{<<: [" + ", ".join(names) + "]}",
        }[kind]
        lines.append(f"a{number}: &a{number} {body}")
    began = time.perf_counter()
    with pytest.raises(UserError, match="more than 100000 values") as caught:
        parse_yaml("\n".join(lines), "here")
    one_line(caught.value)
    assert time.perf_counter() - began < 10


def test_a_mapping_of_many_keys_is_read_fast():
    began = time.perf_counter()
    assert len(parse_yaml("\n".join(f"k{number}: 1" for number in range(20_000)), "here")) == 20_000
    assert time.perf_counter() - began < 60


def test_the_values_of_a_tree_by_their_paths():
    assert leaves({"a": [{"b": 1}, None], "c": {}, "d": []}) == {"a.0.b": 1, "a.1": None, "d": []}
