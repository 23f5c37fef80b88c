import dataclasses
import logging
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from onebase.config import OneOf, config, dumps, from_dict, from_file, load, override
from onebase.config_fields import later, renamed, to_new_names
from onebase.config_plain import digest, to_dict, to_hash, without_defaults
from onebase.errors import ConfigError


@config
class Block:
    heads: int = 2
    rate: float = 0.5
    kind: Literal["block"] = "block"


@config
class Other:
    kind: Literal["other"] = "other"
    zeta: str


Either = Annotated[Block | Other, OneOf(lambda: {"block": Block, "other": Other}, "block")]


@config
class Recipe:
    width: int
    mode: Literal["text", "code"] = "text"
    rate: float = 0.0
    blocks: tuple[Block, ...] = ()
    named: dict[str, Block] = dataclasses.field(default_factory=dict)
    maybe: Block | None = None
    either: Either | None = None
    name: str = "n"
    on: bool = False

    def __post_init__(self) -> None:
        if self.width < 0:
            raise ConfigError("width is negative", "give 1 or more")


finite = st.floats(allow_nan=False)
text = st.text(st.characters(exclude_categories=("Cs",)))
blocks = st.builds(Block, heads=st.integers(), rate=finite)
recipes = st.builds(
    Recipe,
    width=st.integers(0),
    mode=st.sampled_from(["text", "code"]),
    rate=finite,
    blocks=st.lists(blocks, max_size=3).map(tuple),
    named=st.dictionaries(text, blocks, max_size=3),
    maybe=st.none() | blocks,
    either=st.none() | blocks | st.builds(Other, zeta=text),
    name=text
    | st.sampled_from(["1e3", "010", "1:30", "2024-01-01", "on", "null", "~", "1_0", "0x1f", ".5", "-.inf"]),
    on=st.booleans(),
)


def read(tmp_path: Path, source: str, *overrides: str) -> Recipe:
    path = tmp_path / "r.yaml"
    path.write_text(source, encoding="utf-8")
    return load(Recipe, path, overrides)


def refused(tmp_path: Path, source: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as e:
        read(tmp_path, source, *overrides)
    return str(e.value)


@given(recipes)
def test_round_trip_dict(recipe: Recipe) -> None:
    assert from_dict(Recipe, to_dict(recipe)) == recipe
    assert digest(from_dict(Recipe, to_dict(recipe))) == digest(recipe)


@settings(max_examples=60)
@given(recipes)
@example(Recipe(width=1, name="\x85", named={"\u2028": Block()}))
@example(Recipe(width=1, name="1e3"))
@example(Recipe(width=1, name="\ufeff\0\r\n "))
def test_round_trip_yaml(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> None:
    path = tmp_path_factory.getbasetemp() / "round.yaml"
    path.write_text(dumps(recipe), encoding="utf-8")
    assert load(Recipe, path) == recipe


@given(recipes, recipes)
def test_digest_tells_apart(a: Recipe, b: Recipe) -> None:
    assert (digest(a) == digest(b)) == (a == b)


def test_digest_of_equal_numbers() -> None:
    assert digest(Recipe(width=1, rate=1)) == digest(Recipe(width=1, rate=1.0))
    assert digest(Recipe(width=1, rate=-0.0)) == digest(Recipe(width=1, rate=0.0))


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("width: 1\nwidht: 2", ("r.yaml:2", "'widht'", "did you mean 'width' (whole number)?")),
        (
            "width: 1\nblocks:\n - heads: 2\n - haeds: 3",
            ("r.yaml:4", "'blocks.1.haeds'", "'heads' (whole number)"),
        ),
        ("width: 1\nnamed:\n  a: {heds: 1}", ("r.yaml:3", "'named.a.heds'", "'heads'")),
        ("width: 1\nnamed:\n  1: {heds: 1}", ("r.yaml:3", "'named.1.heds'", "'heads'")),
        ("width: 1\nmaybe: {heds: 1}", ("r.yaml:2", "'maybe.heds'", "'heads'")),
        (
            "width: 1\neither: {kind: other, zet: a}",
            ("r.yaml:2", "'either.zet'", "'zeta' (text)", "valid keys: kind, zeta"),
        ),
        (
            "width: 1\neither: {heds: 1}",
            ("r.yaml:2", "'either.heds'", "'heads'", "valid keys: heads, rate"),
        ),
        ("width: 1\nqqqq: 2", ("r.yaml:2", "'qqqq'", "valid keys: width, mode")),
    ],
)
def test_unknown_key(tmp_path: Path, source: str, parts: tuple[str, ...]) -> None:
    message = refused(tmp_path, source)
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("width: wide", ("r.yaml:1", "'width' is 'wide' (text)", "accepted: whole number")),
        ("width: true", ("r.yaml:1", "(true/false)", "accepted: whole number")),
        ("width: 1.0", ("r.yaml:1", "accepted: whole number")),
        ("width: 010", ("r.yaml:1", "'010' (text)", "accepted: whole number")),
        ("width: 1\nrate: '3'", ("r.yaml:2", "accepted: number")),
        ("width: 1\nname: on", ("r.yaml:2", "accepted: text")),
        ("width: 1\nmode: c", ("r.yaml:2", "accepted: one of text, code")),
        ("width: 1\nblocks: 3", ("r.yaml:2", "accepted: list of map with keys heads, rate")),
        (
            "width: 1\nblocks:\n- heads: 1\n- heads: x",
            ("r.yaml:4", "'blocks.1.heads'", "accepted: whole number"),
        ),
        ("width: 1\nmaybe: 3", ("r.yaml:2", "or nothing (null)")),
        ("width: 1\neither: {kind: third}", ("r.yaml:2", "'either.kind'", "'third'", "one of block, other")),
        ("width: 1\neither: {kind: other, zeta: 1}", ("r.yaml:2", "'either.zeta'", "accepted: text")),
        ("mode: text", ("'width' is missing", "whole number")),
        ("width: -1", ("r.yaml", "width is negative", "give 1 or more")),
    ],
)
def test_wrong_value(tmp_path: Path, source: str, parts: tuple[str, ...]) -> None:
    message = refused(tmp_path, source)
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("width: 1\nwidth: 2", "r.yaml:2: not valid YAML: key 'width' is given twice"),
        ("width: [1", "r.yaml:1: not valid YAML"),
        ("width: 1\n\tmode: x", "r.yaml:2: not valid YAML"),
        ("? [a]\n: 1", "r.yaml:1: not valid YAML: a key must be text"),
        ("width: &a [*a]", "an alias inside itself"),
        ("a: !!python/object/apply:os.system [id]", "r.yaml:1: not valid YAML"),
        ("", "a mapping of keys"),
        ("- 1", "a mapping of keys"),
    ],
)
def test_not_a_recipe(tmp_path: Path, source: str, part: str) -> None:
    assert part in refused(tmp_path, source)


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(b"width: \xff")
    for path, part in (
        (tmp_path / "none.yaml", "no recipe at"),
        (tmp_path / "r.yaml", "UTF-8"),
        (tmp_path, "is a folder, a recipe is a YAML file"),
    ):
        with pytest.raises(ConfigError, match=part):
            load(Recipe, path)


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("1e-3", 1e-3),
        ("1.5e-3", 1.5e-3),
        ("2E+3", 2e3),
        (".5", 0.5),
        ("1", 1.0),
        ("1_000.5", 1000.5),
        (".inf", float("inf")),
    ],
)
def test_numbers(tmp_path: Path, given: str, value: float) -> None:
    assert read(tmp_path, f"width: 1\nrate: {given}").rate == value
    assert read(tmp_path, "width: 1", f"rate={given}").rate == value


@pytest.mark.parametrize("given", ["2024-01-01", "1:30", "'a: b'", "v1"])
def test_text_stays_text(tmp_path: Path, given: str) -> None:
    assert read(tmp_path, f"width: 1\nname: {given}").name == given.strip("'")


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (("width=3",), {"width": 3}),
        (("maybe.heads=4", "rate=1e-4"), {"maybe": Block(heads=4), "rate": 1e-4}),
        (("maybe=null",), {"maybe": None}),
        (("blocks=[{heads: 5}, {}]",), {"blocks": (Block(heads=5), Block())}),
        (("blocks.0.heads=6",), {"blocks": (Block(heads=6),)}),
        (("named.a.rate=2.5",), {"named": {"a": Block(rate=2.5)}}),
        (("width=3", "width=4"), {"width": 4}),
        (("name=a=b",), {"name": "a=b"}),
    ],
)
def test_overrides(tmp_path: Path, overrides: tuple[str, ...], wanted: dict[str, Any]) -> None:
    found = read(tmp_path, "width: 1\nblocks: [{heads: 1}]", *overrides)
    assert {key: getattr(found, key) for key in wanted} == wanted
    assert override(Recipe(width=1, blocks=(Block(heads=1),)), overrides) == found


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("width", "is not key=value"),
        ("=3", "is not key=value"),
        ("width=[1", "not valid YAML"),
        ("blocks.1.heads=2", "'blocks' is a list of 1"),
        ("blocks.x.heads=2", "'blocks' is a list of 1"),
        ("maybe.heds=1", "override: unknown key 'maybe.heds'"),
        ("bogus.x=1", "override: unknown key 'bogus'"),
        ("width=wide", "override: 'width' is 'wide'"),
    ],
)
def test_bad_overrides(tmp_path: Path, text: str, part: str) -> None:
    assert part in refused(tmp_path, "width: 1\nblocks: [{heads: 1}]", text)


def test_frozen_and_keyword_only() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe(width=1).width = 2  # type: ignore[misc]
    with pytest.raises(TypeError):
        Recipe(1)  # type: ignore[misc]


def test_not_plain_data() -> None:
    with pytest.raises(ConfigError, match="here: a value is not plain data"):
        from_dict(Recipe, {"width": {1, 2}}, "here")
    with pytest.raises(ConfigError, match="heads"):
        from_dict(Recipe, {"width": 1, "maybe": {"heds": 1}})


def test_a_lean_config_has_what_differs_from_the_defaults() -> None:
    full = Recipe(width=3, rate=0, blocks=(Block(heads=3), Block()), maybe=Block(), on=True)
    lean = without_defaults(full)
    assert lean == {"width": 3, "blocks": [{"heads": 3}, {}], "maybe": {}, "on": True}
    assert from_dict(Recipe, lean) == full


@given(recipes)
def test_a_lean_config_means_the_same(recipe: Recipe) -> None:
    recipe = dataclasses.replace(
        recipe, either=None
    )  # a map without keys does not say which of two configs it is
    assert from_dict(Recipe, without_defaults(recipe)) == recipe


@config
class Before:
    rows: int = 2
    seed: int = 0


@config
class HasBefore:
    train: Before = Before()
    more: tuple[Before, ...] = ()
    named: dict[str, Before] = dataclasses.field(default_factory=dict)
    maybe: Before | None = None


@config
class After:
    batch_size: int = renamed("rows", 2)
    seed: int = 0
    new: float | None = later(None)


@config
class HasAfter:
    train: After = After()
    more: tuple[After, ...] = ()
    named: dict[str, After] = dataclasses.field(default_factory=dict)
    maybe: After | None = None


counts = st.builds(Before, rows=st.integers(), seed=st.integers(0, 3))
befores = st.builds(
    HasBefore,
    train=counts,
    more=st.lists(counts, max_size=2).map(tuple),
    named=st.dictionaries(st.sampled_from("ab"), counts, max_size=2),
    maybe=st.none() | counts,
)


@given(befores)
def test_a_field_with_a_new_name_reads_what_was_written_and_changes_no_hash(before: HasBefore) -> None:
    after = from_file(HasAfter, to_dict(before))
    assert after.train.batch_size == before.train.rows
    assert (digest(after), to_hash(after), without_defaults(after)) == (
        digest(before),
        to_dict(before),
        without_defaults(before),
    )
    assert from_file(HasAfter, to_dict(after)) == from_file(HasAfter, without_defaults(after)) == after
    assert to_dict(from_file(HasAfter, to_new_names(HasAfter, to_dict(before)))) == to_dict(after)
    changed = dataclasses.replace(after, train=dataclasses.replace(after.train, new=1.0))
    assert digest(changed) != digest(after) and without_defaults(changed) != without_defaults(after)


def test_what_does_not_fit_keeps_its_names() -> None:
    for tree in ([1], "text", {"train": {"rows": 1, "batch_size": 2}}, {"train": 3, "more": {"rows": 1}}):
        assert to_new_names(HasAfter, tree) == tree


def test_an_old_name_of_a_user_is_read_and_told_the_new_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("maybe:\n  seed: 1\n  rows: 3\n")
    with caplog.at_level(logging.WARNING):
        assert load(HasAfter, path, ["train.rows=5"]) == HasAfter(
            train=After(batch_size=5), maybe=After(batch_size=3, seed=1)
        )
    assert caplog.messages == [f"{path}: 'rows' was renamed to 'batch_size'"]
    path.write_text("maybe:\n  batch_size: 1\n  rows: 3\n")
    with pytest.raises(ConfigError) as e:
        load(HasAfter, path)
    assert e.value.cause == f"{path}:3: 'maybe.rows' was renamed"
    assert e.value.remedy == "write 'batch_size' (whole number)"


@config
class Round:
    kind: Literal["round"] = "round"
    radius: float = 1.0


@config
class Flat:
    kind: Literal["flat"] = "flat"
    sides: tuple[int, ...] = ()


SHAPES: dict[str, type] = {"round": Round}


@config
class Drawing:
    shape: Annotated[object, OneOf(lambda: SHAPES, "round")] = Round()


def drawn(tmp_path: Path, source: str, *overrides: str) -> object:
    path = tmp_path / "d.yaml"
    path.write_text(source)
    return load(Drawing, path, overrides).shape


def test_one_of_several_configs_is_chosen_by_its_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (
        drawn(tmp_path, "shape: {radius: 2}") == drawn(tmp_path, "{}", "shape.radius=2") == Round(radius=2.0)
    )
    with pytest.raises(ConfigError, match=r"d.yaml:1: 'shape' is 'flat' \(text\)\n  accepted: one of round"):
        drawn(tmp_path, "shape: flat")
    monkeypatch.setitem(SHAPES, "flat", Flat)  # as a plug-in does, after the first was read
    assert drawn(tmp_path, "shape: flat") == Flat()
    assert drawn(tmp_path, "shape: flat", "shape.sides=[1, 2]") == Flat(sides=(1, 2))
    assert drawn(tmp_path, "shape: {kind: flat, sides: [3]}") == Flat(sides=(3,))
    assert override(Drawing(shape=Flat(sides=(3,))), []) == Drawing(shape=Flat(sides=(3,)))


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("shape: {kind: rond}", r"d.yaml:1: 'shape.kind' is 'rond' \(text\)\n  accepted: one of round"),
        ("shape: 3", r"d.yaml:1: 'shape' is 3 \(whole number\)\n  accepted: one of round"),
        ("shape: {kind: [1]}", r"'shape.kind' is \[1\] \(list\)"),
        ("shape:\n  radus: 2", r"d.yaml:2: unknown key 'shape.radus'\n  did you mean 'radius' \(number\)\?"),
        ("shape: {radius: big}", r"'shape.radius' is 'big' \(text\)\n  accepted: number"),
    ],
)
def test_what_is_wrong_in_the_chosen_config_is_named(tmp_path: Path, source: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        drawn(tmp_path, source)


CODECS = [
    ({"kind": "audio", "mles": 3}, "unknown key 'codecs.a.mles'", "did you mean 'mels'"),
    ({"kind": "image"}, "key 'codecs.a.size' is missing", "whole number"),
    ({"kind": "image", "size": "x"}, "'codecs.a.size' is 'x'", "whole number"),
    ({"vocab_size": 3, "context": 8, "mels": 80}, "unknown key 'codecs.a.mels'", "vocab_size"),
    ({"kind": "sound"}, "'codecs.a.kind' is 'sound'", "one of text, image, audio"),
    (3, "'codecs.a' is 3", "one of text, image, audio"),
]


@pytest.mark.parametrize(("codec", "cause", "remedy"), CODECS)
def test_an_error_in_one_of_several_kinds_is_about_that_one(codec: Any, cause: str, remedy: str) -> None:
    from onebase.base.config import BaseConfig, TextShape, text_base

    tree = to_dict(text_base(TextShape(vocab_size=300, width=32, depth=1, head_dim=16, context=32)))
    tree["codecs"]["a"] = codec
    with pytest.raises(ConfigError) as e:
        from_dict(BaseConfig, tree)
    assert cause in e.value.cause and remedy in e.value.remedy
    assert "mels" not in e.value.remedy or not isinstance(codec, dict) or codec.get("kind") == "audio"
