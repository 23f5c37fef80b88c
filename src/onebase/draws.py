"""Reproducible random numbers and orders: pure functions of a key, independent of machine, date and library versions.

The SHA-256 of the key gives, by its first 16 bytes (big-endian), the key of Philox 4x64-10 (Salmon et al., SC 2011), counted from 0. numpy
guarantees the raw words of its Philox forever (https://numpy.org/doc/stable/reference/random/compatibility.html). It may change what its
`Generator` derives from them (`permutation`, `integers`, `random`), and Python may change `random` except `random()`. So those steps are here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


class Draws:
    """A random stream that depends only on the key. `Draws(seed, "infill", 7)`: parts are joined by colons."""

    def __init__(self, *key: object) -> None:
        digest = hashlib.sha256(":".join(map(str, key)).encode()).digest()
        self._words = np.random.Philox(key=int.from_bytes(digest[:16], "big"))

    def words(self, count: int) -> NDArray[np.uint64]:
        """The next words, uint64 [count]."""
        words: NDArray[np.uint64] = self._words.random_raw(count)
        return words

    def uniform(self, count: int) -> NDArray[np.float64]:
        """Uniform numbers in [0, 1), float64 [count]: the upper 53 bits of one word each."""
        return (self.words(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def below(self, limit: int, count: int) -> NDArray[np.int64]:
        """Uniform integers in [0, limit), int64 [count]. Probabilities differ by at most limit / 2**53."""
        return (self.uniform(count) * limit).astype(np.int64)

    def permutation(self, count: int) -> NDArray[np.int64]:
        """A permutation of 0 to count - 1, int64 [count]: the stable order of as many words."""
        return np.argsort(self.words(count), kind="stable").astype(np.int64)

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in random order."""
        return [items[i] for i in self.permutation(len(items)).tolist()]

    def seeds(self, count: int) -> list[int]:
        """Seeds for other generators, 32 bits each."""
        return (self.words(count) >> np.uint64(32)).tolist()


def permutation(seed: object, epoch: object, n: int) -> NDArray[np.int64]:
    """The order of an epoch, int64 [n]. `seed` may include the content: a text such as `7:<hash>`."""
    return Draws(seed, epoch).permutation(n)
