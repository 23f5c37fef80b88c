"""YAML for configs: 1.2 numbers, no duplicate keys, text that stays text, and the line of every key."""

from __future__ import annotations

import functools
import re
import typing
from typing import Any

if typing.TYPE_CHECKING:
    import yaml

Path_ = tuple[str | int, ...]


def lines(node: yaml.Node | None, path: Path_, out: dict[Path_, int]) -> None:
    import yaml

    if isinstance(node, yaml.MappingNode):
        for k, v in node.value:
            if not isinstance(k.value, str):
                continue  # refused by the loader
            at = (*path, k.value)
            out[at] = k.start_mark.line + 1
            lines(v, at, out)
    elif isinstance(node, yaml.SequenceNode):
        for i, v in enumerate(node.value):
            out[(*path, i)] = v.start_mark.line + 1
            lines(v, (*path, i), out)


_NUMBER = re.compile(r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9_]+)[eE][-+]?[0-9]+$")
_WHOLE = re.compile(r"^(?:[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F_]+)$")
_DECIMAL = re.compile(
    r"^(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)


@functools.cache
def loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML 1.2 numbers, and an error for a duplicate key.

        PyYAML reads YAML 1.1: `1e-3` is text, `010` is 8, `1:30` is 90 and `2024-01-01` a date. Here the first is a number, the
        others are text.
        """

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[str] = set()
            for k, _ in node.value:
                if not isinstance(k.value, str):
                    raise yaml.constructor.ConstructorError(None, None, "a key must be text", k.start_mark)
                if k.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key '{k.value}' is given twice", k.start_mark
                    )
                seen.add(k.value)
            return super().construct_mapping(node, deep)

    replaced = {f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "timestamp")}
    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in known if tag not in replaced]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver("tag:yaml.org,2002:int", _WHOLE, list("-+0123456789"))
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _DECIMAL, list("-+0123456789."))
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+0123456789."))
    return Loader


@functools.cache
def dumper() -> Any:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes text that YAML 1.1 or our loader would read as another type."""

    Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+0123456789."))
    return Dumper
