"""Reads foreign configs strictly: every value by name and type. Keys that are never read are reported."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from onebase.errors import ConfigError

T = TypeVar("T")
_NAMES = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    dict: "a map",
    list: "a list",
}


MAX_SIZE = 2**20
"""Larger widths, heads or layers are refused: a hostile config could fill the memory."""


class ConfigReader:
    """The keys of one `config.json`. where: the file, for errors; tensors: names in the checkpoint; look: reads one of them, for values that no
    key has."""

    def __init__(
        self,
        data: Mapping[str, Any],
        where: str,
        tensors: frozenset[str] = frozenset(),
        look: Callable[[str], Tensor] | None = None,
    ) -> None:
        self.data, self.where, self.tensors, self.look = data, where, tensors, look
        self.asked: set[str] = set()
        self.passed: list[str] = []  # keys of inner maps that were ignored

    def has(self, key: str) -> bool:
        """Whether the key is there and not null."""
        self.asked.add(key)
        return self.data.get(key) is not None

    def get(self, key: str, kind: type[T], default: T | None = None) -> T:
        """The value of `key`, or `default` if it is missing or null. Raises ConfigError for another type, for numbers that are not finite, and
        for a missing key without a default.
        """
        if not self.has(key):
            if default is None:
                file = Path(self.where.split(": ")[0]).name
                raise ConfigError(
                    f"{self.where}: key '{key}' is missing",
                    f"it must be {_NAMES[kind]}; take an intact copy of {file}",
                )
            return default
        value = self.data[key]
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value) if abs(value) < 2**63 else math.inf
        if isinstance(value, float) and not math.isfinite(value):
            raise self.refuse(key, "a finite number")
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.refuse(key, _NAMES[kind])
        return value

    def size(self, key: str, default: int | None = None, most: int = MAX_SIZE) -> int:
        """A whole number from 1 to `most`."""
        value = self.get(key, int, default)
        if not 1 <= value <= most:
            raise self.refuse(key, f"a whole number from 1 to {most:,}")
        return value

    def positive(self, key: str, default: float | None = None) -> float:
        """A number above 0."""
        value = self.get(key, float, default)
        if value <= 0:
            raise self.refuse(key, "a number above 0")
        return value

    def size_or_none(self, key: str, default: int | None) -> int | None:
        """Like `size`: a null means none, a missing key `default`."""
        return self.size(key) if self.has(key) else None if key in self.data else default

    def positive_or_none(self, key: str, default: float | None) -> float | None:
        """Like `positive`: a null means none, a missing key `default`."""
        return self.positive(key) if self.has(key) else None if key in self.data else default

    def one_of(self, key: str, table: Mapping[str, T], default: str | None = None) -> T:
        """The entry of `table` under the text at `key`."""
        value = self.get(key, str, default)
        if value not in table:
            raise self.refuse(key, "one of " + ", ".join(table))
        return table[value]

    def must(self, key: str, wanted: Any, default: Any, why: str) -> None:
        """Refuse a value that enables a feature that the trunk does not have."""
        value = self.data.get(key) if self.has(key) else default
        if value != wanted:
            raise ConfigError(f"{self.where}: '{key}' is {value!r}: {why}", f"only {wanted!r} is supported")

    def part(self, key: str) -> "ConfigReader":
        """The config inside the map at `key`."""
        return ConfigReader(self.get(key, dict), f"{self.where}: {key}", self.tensors)

    def refuse(self, key: str, accepted: str) -> ConfigError:
        """An error about the value of `key`."""
        return ConfigError(f"{self.where}: '{key}' is {self.data.get(key)!r}", f"accepted: {accepted}")

    def checked(self, make: Callable[[], T]) -> T:
        """`make()`; its ConfigErrors get the name of the file."""
        try:
            return make()
        except ConfigError as e:
            raise e if self.where in e.cause else ConfigError(f"{self.where}: {e.cause}", e.remedy) from None

    @property
    def unread(self) -> list[str]:
        """Keys that were never read. The record lists them."""
        return sorted(self.data.keys() - self.asked) + self.passed
