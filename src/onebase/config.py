"""Strict typed configs: frozen dataclasses in, YAML in and out, `a.b=value` overrides.

pydantic validates (strict, no unknown keys); the messages are ours: file, line, the nearest valid key and the accepted type.
Tuples are written as YAML lists.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import re
import typing
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, dataclass_transform

from onebase.config_errors import explained, kind_of
from onebase.config_fields import to_new_names, with_new_names
from onebase.config_plain import to_dict, without_defaults
from onebase.errors import ConfigError
from onebase.yamls import Path_, dumper, loader
from onebase.yamls import lines as lines_of

if typing.TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")


@dataclass_transform(kw_only_default=True, frozen_default=True)
def config(cls: type[T]) -> type[T]:
    """Make `cls` a frozen, keyword-only dataclass that refuses unknown keys and wrong types when read."""
    frozen = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    frozen.__pydantic_config__ = {"extra": "forbid", "strict": True}  # type: ignore[attr-defined]
    return frozen


@dataclasses.dataclass(frozen=True)
class OneOf:
    """The type of a field that holds one of several configs, selected by its key `kind`: `Annotated[object, OneOf(table, default)]`.

    table: returns the configs by name; it is called when a config is read, because other packages add to it. default: the name without
    `kind`. A plain name means that config with all defaults.
    """

    table: Callable[[], Mapping[str, type]]
    default: str

    def read(self, data: Any) -> Any:
        """Parse plain data as the config that it names. Raises pydantic's errors."""
        from pydantic import ValidationError
        from pydantic_core import InitErrorDetails, PydanticCustomError

        tree = {"kind": data} if isinstance(data, str) else data
        kind, known = (tree.get("kind", self.default) if isinstance(tree, dict) else tree), self.table()
        if isinstance(kind, str) and kind in known:
            return _adapter(known[kind]).validate_json(json.dumps(tree))
        error = PydanticCustomError("unknown_kind", "one of {known}", {"known": ", ".join(known)})
        loc = ("kind",) if isinstance(data, dict) else ()
        raise ValidationError.from_exception_data(
            "kind", [InitErrorDetails(type=error, loc=loc, input=kind)], input_type="json"
        )

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(self.read)


def from_dict(cls: type[T], data: Mapping[str, Any], where: str = "") -> T:
    """Build `cls` from plain data; `where` names the source in errors. Raises ConfigError."""
    return _build(cls, data, where, {})


def from_file(cls: type[T], data: Mapping[str, Any], where: str = "") -> T:
    """`from_dict` for files written by onebase, earlier versions included. Raises ConfigError."""
    return from_dict(cls, to_new_names(cls, data), where)


def load(cls: type[T], path: str | Path, overrides: Iterable[str] = ()) -> T:
    """Read a YAML file as `cls`, after `key.sub=value` overrides (values are YAML). Raises ConfigError with file and line."""
    import yaml

    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = next(
            (p for p in (Path("recipes") / f"{path.stem}.yaml", path.with_suffix(".yaml")) if p.is_file()),
            None,
        )
        raise ConfigError(
            f"no recipe at {path}",
            f"did you mean {near}?"
            if near
            else "give the path of a YAML file; recipes/ has some to start from",
        ) from None
    except IsADirectoryError:
        recipes = sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml"))
        raise ConfigError(
            f"{path} is a folder, a recipe is a YAML file",
            f"give one of its files: {', '.join(map(str, recipes[:5]))}"
            if recipes
            else "give the path of a YAML file",
        ) from None
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(
            f"{path} cannot be read as UTF-8 text: {e}", "give the path of a YAML file"
        ) from None
    if path.suffix.lower() in (".jsonl", ".csv", ".tsv"):
        raise ConfigError(
            f"{path} has rows, a recipe is a YAML file",
            f"name it in a recipe: data.sources.0.path={path}; or give it to onebase adapt --data",
        )
    lines: dict[Path_, int] = {}
    try:
        lines_of(yaml.compose(text, Loader=loader()), (), lines)
        data = yaml.load(text, Loader=loader())  # our loader is a SafeLoader
    except RecursionError:
        raise ConfigError(
            f"{path}: nested too deep, or an alias inside itself", "write the recipe with less nesting"
        ) from None
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(
            f"{path}{line}: not valid YAML: {getattr(e, 'problem', e)}", "check indentation and quotes"
        ) from None
    if not isinstance(data, dict):
        raise ConfigError(
            f"{path}: a recipe is a mapping of keys, this is {kind_of(data)}", "start with one of recipes/"
        )
    given, texts = Given(to_new_names(cls, copy.deepcopy(data)), {}), list(overrides)
    for one in texts:
        lines[_override(data, one)] = -1  # an override has no line
    made = _build(cls, with_new_names(cls, data, str(path)), str(path), lines)
    return _note(made, given, texts)


def override(cfg: T, overrides: Iterable[str]) -> T:
    """A copy of `cfg` with `key.sub=value` overrides applied."""
    data = to_dict(cfg)
    lines: dict[Path_, int] = {}
    texts = list(overrides)
    for text in texts:
        lines[_override(data, text)] = -1
    return _note(_build(type(cfg), data, "", lines), given_of(cfg), texts)


@dataclasses.dataclass(frozen=True)
class Given:
    """The keys of a config that were set explicitly, as plain trees with current names: in the file, and by overrides or in Python."""

    file: Any
    overrides: Any


def given_of(cfg: Any) -> Given:
    """The explicitly set keys of a config; of one built in Python, all that differ from the default."""
    given = vars(cfg).get("_given")
    if isinstance(given, Given):
        return given
    return Given({}, to_new_names(type(cfg), without_defaults(cfg)))


def _note(cfg: T, given: Given, overrides: Iterable[str]) -> T:
    tree = copy.deepcopy(given.overrides)
    for text in overrides:
        _override(tree, text)
    # Not a field: it is no part of the config or its hash.
    object.__setattr__(cfg, "_given", Given(given.file, to_new_names(type(cfg), tree)))
    return cfg


def parse_pairs(texts: Iterable[str]) -> dict[str, Any]:
    """Parse `key=value` pairs with YAML values into a mapping. Raises ConfigError for a text that is not a pair."""
    data: dict[str, Any] = {}
    for text in texts:
        _override(data, text)
    return data


def dumps(cfg: Any) -> str:
    """The config as YAML, from which `load` reads an equal config."""
    import yaml

    tree = to_dict(cfg)
    # PyYAML writes these three line breaks unescaped, and folds them to a space when it reads.
    breaks = re.search("[\x85\u2028\u2029]", json.dumps(tree, ensure_ascii=False))
    return str(yaml.dump(tree, Dumper=dumper(), sort_keys=False, allow_unicode=breaks is None))


# ---------------------------------------------------------------------------------------------------------------------------


@functools.cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(cls)


def _build(cls: type[T], data: Mapping[str, Any], where: str, lines: dict[Path_, int]) -> T:
    from pydantic import ValidationError

    try:
        # Through JSON, because only there pydantic's strict mode accepts lists for tuples.
        text = json.dumps(data)
        data = json.loads(text)  # as pydantic sees it: keys are text
    except (TypeError, ValueError, RecursionError) as e:
        raise ConfigError(
            f"{where or cls.__name__}: a value is not plain data: {e}", "use text, numbers, lists, maps"
        ) from None
    try:
        return typing.cast(T, _adapter(typing.cast(Hashable, cls)).validate_json(text))
    except ValidationError as e:
        raise explained(
            cls, data, where, lines, [dict(error) for error in e.errors(include_url=False)]
        ) from None
    except ConfigError as e:  # raised by a __post_init__ check
        raise ConfigError(f"{where}: {e.cause}" if where else e.cause, e.remedy) from None


def _override(data: dict[str, Any], text: str) -> Path_:
    import yaml

    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise ConfigError(f"override {text!r} is not key=value", f"write {key.strip() or 'key'}=VALUE")
    try:
        parsed = yaml.load(value, Loader=loader())
    except yaml.YAMLError:
        raise ConfigError(
            f"override {text!r}: the value is not valid YAML", "quote it, for example name='a: b'"
        ) from None
    parts: list[str | int] = []
    here: Any = data
    keys = key.strip().split(".")
    for i, part in enumerate(keys):
        at: str | int = int(part) if isinstance(here, list) and part.isdigit() else part
        if isinstance(here, list) and (not isinstance(at, int) or at >= len(here)):
            raise ConfigError(
                f"override {text!r}: '{'.'.join(keys[:i])}' is a list of {len(here)}",
                "give an index, for example blocks.0",
            )
        parts.append(at)
        if i == len(keys) - 1:
            here[at] = parsed
        elif isinstance(here, list):
            here = here[at]  # type: ignore[index]  # `at` is an int for a list
        else:
            if not isinstance(here.get(at), (dict, list)):
                # A plain name of a config (`OneOf`) is kept as its `kind`.
                here[at] = {"kind": here[at]} if isinstance(here.get(at), str) else {}
            here = here[at]
    return tuple(parts)
