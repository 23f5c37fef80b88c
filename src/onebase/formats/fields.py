"""Two-way tables for foreign configs: each line maps a key of theirs to a value of ours, and both reads and writes it.

A value of ours has a path: `trunk.width`, `block.attn.heads`, `codec.context`, `link.connector.token`. `trunk` and `codec` are those of the
table's kind (text, image, audio), `block` is every block of that trunk, `link` is the base's only link; `trunk.depth` counts the blocks.

Reading: every line stores values under paths (`Found`); an `Each` has one value per block. Other names are notes for later lines. The values
then replace those in the table's pattern, whose other values are the same in every model of the family. Values inside a part that is None are
dropped. Writing: every line looks up values (`View`) and puts keys into a tree. A line may express less than the config has: `family.written`
reads the written config back and compares.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from onebase.base.config import BaseConfig
from onebase.base.links import Link
from onebase.errors import ConfigError
from onebase.formats.family import Tree
from onebase.formats.reader import MAX_SIZE, ConfigReader
from onebase.modality.kinds import CodecConfig
from onebase.model.config import BlockConfig, TrunkConfig

T = TypeVar("T")
Found = dict[str, Any]
"""Values by path, and notes."""
LACKS = {
    "text": ("this base reads no text", "this layout is for text decoders: export to another"),
    "image": ("this base reads no images", "this layout is for bases that do"),
    "audio": ("this base reads no audio", "this layout is for bases that do"),
    "latents": ("this base draws no latents", "this layout is for diffusion transformers"),
    "pair": ("this base has no shared space of images and text", "this layout is for bases that have one"),
    "embed": ("this base takes no images in its text", "this layout is for bases that do"),
    "memory": ("this base does not transcribe speech", "export it to another layout"),
}


class OtherParts(ConfigError):
    """A base without a part that all bases of a layout have, so the layout is clearly the wrong one."""


class Each(tuple[Any, ...]):
    """One value for every block."""


class View:
    """The values of a config by path, for a table of this kind. Raises ConfigError if the config lacks the trunk or the link."""

    def __init__(self, cfg: BaseConfig, kind: str | None, how: str | None = None) -> None:
        for lacks in (kind if kind not in cfg.codecs else None, how if cfg.link(how or "") is None else None):
            if lacks is not None:
                raise OtherParts(*LACKS[lacks])
        if how is not None and len(cfg.links) > 1:
            raise ConfigError(
                f"this base has {len(cfg.links)} links", "this layout is for bases with one link"
            )
        self.cfg, self.kind = cfg, kind

    def each(self, path: str) -> list[Any]:
        """The value in every block (for other paths a list of one); None if a part on the path is None."""
        root, *names = path.split(".")
        return [_walk(part, names) for part in self._roots(root)]

    def __getitem__(self, path: str) -> Any:
        """The value (for blocks: of the first one)."""
        return self.each(path)[0]

    def has(self, path: str) -> bool:
        """Whether the part that has the value is there."""
        parent = path.rpartition(".")[0]
        return "." not in parent or self[parent] is not None

    def _roots(self, root: str) -> Iterable[Any]:
        if root == "link":
            return self.cfg.links
        assert self.kind is not None
        if root == "codec":
            return (self.cfg.codecs[self.kind],)
        trunk = self.cfg.trunks[self.kind]
        return trunk.blocks if root == "block" else (trunk,)


def _walk(part: Any, names: list[str]) -> Any:
    for name in names:
        if part is None:
            return None
        part = len(part.blocks) if name == "depth" else getattr(part, name)
    return part


class Line(Protocol):
    """One line of a table."""

    def read(self, r: ConfigReader, found: Found) -> None:
        """Read keys from `r` and put their values into `found`. Raises ConfigError for values that are not accepted."""

    def write(self, base: View, tree: Tree) -> None:
        """Put the keys of this line into `tree`."""


@dataclass(frozen=True)
class Table:
    """The lines of a config, in reading order, and the pattern that they fill: a trunk (its first block is the pattern of every block) and a
    codec, or a link between the parts that `Part` lines read, or all of them."""

    lines: tuple[Line, ...]
    trunk: TrunkConfig | None = None
    codec: CodecConfig | None = None
    link: Link | None = None

    def read(self, r: ConfigReader) -> BaseConfig:
        """Their config as ours. Raises ConfigError with key and file."""
        found: Found = {}
        for line in self.lines:
            line.read(r, found)
        return r.checked(lambda: self._config(found))

    def write(self, cfg: BaseConfig) -> Tree:
        """Ours as theirs. Raises ConfigError for a base without the trunk or the link."""
        base = View(
            cfg, None if self.codec is None else self.codec.kind, None if self.link is None else self.link.how
        )
        tree: Tree = {}
        for line in self.lines:
            line.write(base, tree)
        return tree

    def _config(self, found: Found) -> BaseConfig:
        parts: list[BaseConfig] = found.get("parts", [])
        trunks = {name: t for part in parts for name, t in part.trunks.items()}
        codecs = {name: c for part in parts for name, c in part.codecs.items()}
        if self.codec is not None:
            assert self.trunk is not None
            trunks[self.codec.kind] = _trunk(self.trunk, _inside(found, "trunk"), _inside(found, "block"))
            codecs[self.codec.kind] = placed(self.codec, _inside(found, "codec"))
        links = () if self.link is None else (placed(self.link, _inside(found, "link")),)
        return BaseConfig(trunks=trunks, codecs=codecs, links=links)


def _inside(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {path[len(name) + 1 :]: x for path, x in found.items() if path.startswith(name + ".")}


def _trunk(pattern: TrunkConfig, values: dict[str, Any], each: dict[str, Any]) -> TrunkConfig:
    built: dict[tuple[Any, ...], BlockConfig] = {}  # equal blocks are one object
    blocks = []
    for i in range(values.pop("depth")):
        own = tuple(x[i] if isinstance(x, Each) else x for x in each.values())
        if own not in built:
            built[own] = placed(pattern.blocks[0], dict(zip(each, own, strict=True)))
        blocks.append(built[own])
    return placed(pattern, values | {"blocks": tuple(blocks)})


def placed(part: T, values: Mapping[str, Any]) -> T:
    """A config with these values at their paths; values inside a part that is None are dropped."""
    changes = {}
    for name in dict.fromkeys(path.partition(".")[0] for path in values):
        inner, own = _inside(values, name), values.get(name, getattr(part, name))
        changes[name] = own if own is None or not inner else placed(own, inner)
    return replace(part, **changes)  # type: ignore[type-var]  # a dataclass: configs are


# Lines -----------------------------------------------------------------------------------------------------------------------

AS_MISSING = object()
Default = Any
"""A value, or a function of the values read so far; None: the key is required."""


@dataclass(frozen=True)
class Field:
    """`key` has the value at `path` (or several paths, separated by spaces; the first is written). ask: reads the key, given the default.
    null: the value for null, if it differs from that of a missing key (the default may then be None). into, back: convert their value to ours
    and back; `back` also gets None."""

    key: str
    path: str
    ask: Callable[[ConfigReader, str, Any], Any]
    default: Default = None
    null: Default = AS_MISSING
    into: Callable[[Any], Any] = lambda x: x
    back: Callable[[Any], Any] = lambda x: x

    def read(self, r: ConfigReader, found: Found) -> None:
        default = _given(self.default, found)
        if self.null is AS_MISSING or r.has(self.key):
            value = self.into(self.ask(r, self.key, default))
        else:
            value = _given(self.null, found) if self.key in r.data else default
        found |= dict.fromkeys(self.path.split(), value)

    def write(self, base: View, tree: Tree) -> None:
        path = self.path.split()[0]
        if base.has(path):
            tree[self.key] = self.back(base[path])


def _given(default: Default, found: Found) -> Any:
    return default(found) if callable(default) else default


def size(
    key: str, path: str, default: Default = None, most: int = MAX_SIZE, null: Default = AS_MISSING
) -> Field:
    """A whole number from 1 to `most`."""
    return Field(key, path, lambda r, k, d: r.size(k, d, most), default, null)


def number(key: str, path: str, default: Default = None, null: Default = AS_MISSING) -> Field:
    """A number above 0."""
    return Field(key, path, ConfigReader.positive, default, null)


def flag(key: str, path: str, default: Default = None, on: Any = True, off: Any = False) -> Field:
    """True or false, for the values `on` and `off` of ours. Any value other than `off` is written as true."""
    into: Callable[[Any], Any] = lambda x: on if x else off  # noqa: E731
    return Field(key, path, lambda r, k, d: r.get(k, bool, d), default, into=into, back=lambda x: x != off)


def choice(key: str, path: str, names: Mapping[str, Any], default: str | None = None) -> Field:
    """One of the texts `names`, mapped to our values. The first name of a value is written; a value without a name is written unchanged, so that
    reading back refuses it."""
    first = {ours: theirs for theirs, ours in reversed(list(names.items()))}
    into: Callable[[Any], Any] = lambda x: x  # noqa: E731
    return Field(
        key, path, lambda r, k, d: r.one_of(k, names, d), default, into=into, back=lambda x: first.get(x, x)
    )


@dataclass(frozen=True)
class Must:
    """Only `wanted` is accepted: other values enable an unsupported feature, see `why`. default: the value of a missing key (default: `wanted`);
    if it differs from `wanted`, the key is written."""

    key: str
    wanted: Any
    why: str
    default: Any = AS_MISSING

    def read(self, r: ConfigReader, found: Found) -> None:
        r.must(self.key, self.wanted, self.wanted if self.default is AS_MISSING else self.default, self.why)

    def write(self, base: View, tree: Tree) -> None:
        if self.default is not AS_MISSING and self.default != self.wanted:
            tree[self.key] = self.wanted


@dataclass(frozen=True)
class Put:
    """Keys that are written and not read."""

    tree: Tree

    def read(self, r: ConfigReader, found: Found) -> None:
        pass

    def write(self, base: View, tree: Tree) -> None:
        tree |= self.tree


@dataclass(frozen=True)
class Set:
    """A value computed from others, or a check of them (without a path). It has no key."""

    path: str
    value: Callable[[ConfigReader, Found], Any]

    def read(self, r: ConfigReader, found: Found) -> None:
        value = self.value(r, found)
        found |= dict.fromkeys(self.path.split(), value)

    def write(self, base: View, tree: Tree) -> None:
        pass


@dataclass(frozen=True)
class Part:
    """The config of a part of a base, in the map at `key` (None: in this config itself), with its own table."""

    key: str | None
    table: Table
    open: Callable[[ConfigReader, str], ConfigReader] = ConfigReader.part

    def read(self, r: ConfigReader, found: Found) -> None:
        part = r if self.key is None else self.open(r, self.key)
        found.setdefault("parts", []).append(self.table.read(part))

    def write(self, base: View, tree: Tree) -> None:
        inner = self.table.write(base.cfg)
        tree |= inner if self.key is None else {self.key: inner}
