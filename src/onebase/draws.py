"""Draws that repeat for ever: orders and numbers as pure functions of a key, whatever the machine, the day and the versions of libraries.

Key to SHA-256, its first 16 bytes (big-endian) to the key of Philox 4x64-10 (Salmon et al., SC 2011), whose words are counted from 0. numpy
promises the raw words of its Philox for ever (https://numpy.org/doc/stable/reference/random/compatibility.html); what its `Generator` makes of
words (`permutation`, `integers`, `random`) it may change, and so may Python's `random` but for `random()`. So everything behind the words is here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


class Draws:
    """A stream of numbers that the key alone decides. `Draws(seed, "infill", 7)`: parts are joined by colons."""

    def __init__(self, *key: object) -> None:
        digest = hashlib.sha256(":".join(map(str, key)).encode()).digest()
        self._words = np.random.Philox(key=int.from_bytes(digest[:16], "big"))

    def words(self, count: int) -> NDArray[np.uint64]:
        """The next words, uint64 [count]."""
        found: NDArray[np.uint64] = self._words.random_raw(count)
        return found

    def uniform(self, count: int) -> NDArray[np.float64]:
        """Numbers from 0 to below 1, float64 [count]: the upper 53 bits of a word each."""
        return (self.words(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def below(self, limit: int, count: int) -> NDArray[np.int64]:
        """Whole numbers from 0 to below `limit`, int64 [count]. No number is more likely than another by more than limit / 2**53."""
        return (self.uniform(count) * limit).astype(np.int64)

    def permutation(self, count: int) -> NDArray[np.int64]:
        """The numbers 0 to count - 1 in the order of as many words, int64 [count]; equal words keep their order."""
        return np.argsort(self.words(count), kind="stable").astype(np.int64)

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in another order."""
        return [items[i] for i in self.permutation(len(items)).tolist()]

    def seeds(self, count: int) -> list[int]:
        """Seeds for other streams, 32 bits each."""
        return (self.words(count) >> np.uint64(32)).tolist()


def permutation(seed: object, epoch: object, n: int) -> NDArray[np.int64]:
    """The order of an epoch, int64 [n]. `seed` may name the content too: a text such as `7:<hash>`."""
    return Draws(seed, epoch).permutation(n)
