"""Long texts: what of them is read, and how it is counted."""

from typing import get_args

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from onebase.modality.text.long import WINDOWS, Long, long_texts, parts_of, picked
from onebase.modality.text.sample import Tokens

HOWS = [how for how in get_args(Long) if how != "refuse"]


@given(size=st.integers(1, 400), room=st.integers(1, 40), how=st.sampled_from(HOWS))
def test_what_is_read_fits_and_is_in_order(size: int, room: int, how: Long) -> None:
    parts = parts_of(size, room, how)
    read = [picked(range(size), p) for p in parts]
    assert all(0 < len(w) <= room for w in read)
    each = [i for w in read for i in w]
    assert each == sorted(set(each)) and len(each) + sum(p.left_out for p in parts) == size
    if size <= room:
        assert len(parts) == 1 and not parts[0].left_out
    elif how == "windows":
        assert len(parts) == min(-(-size // room), WINDOWS)
        assert max(map(len, read)) - min(map(len, read)) <= 1
    else:
        assert len(parts) == 1 and len(each) == room
        kept = {"head": each[0] == 0 and each[-1] == room - 1, "tail": each[-1] == size - 1}
        assert kept.get(how, room == 1 or (each[0] == 0 and each[-1] == size - 1))


def test_windows_of_a_sample_are_its_parts() -> None:
    ids = np.arange(7, dtype=np.int32)
    text = Tokens(ids, ids > 4, "a", "s", types=ids % 2, windows=(3, 4), left_out=5)
    first, second = text.parts
    assert first.ids.tolist() == [0, 1, 2] and second.ids.tolist() == [3, 4, 5, 6]
    assert second.loss.tolist() == [False, False, True, True] and second.types is not None
    assert second.types.tolist() == [1, 0, 1, 0] and Tokens(ids, ids > 4).parts[0].ids is ids
    found = long_texts([text, Tokens(ids, ids > 9)])
    assert (found.texts, found.windowed, found.windows, found.cut, found.left_out) == (2, 1, 2, 1, 5)
    assert (
        str(found)
        == "1 of 2 texts are read in windows, 2 in all; 1 of 2 texts are truncated: 26.3% of all tokens are not read"
    )
    assert not str(long_texts([Tokens(ids, ids > 9)]))
