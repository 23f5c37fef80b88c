"""Numbers as people read them: three digits, the unit that fits, never an exponent where a figure does."""

import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onebase.readable import duration, figure, number, size
from tests.pretrained import onebase


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        *((number(100.2), "100"), (number(1234.5), "1,230"), (number(0.0123), "0.0123"), (number(0), "0")),
        *(
            (number(-4.567), "-4.57"),
            (number(99.96), "100"),
            (number(1e-7), "1.00e-07"),
            (number(math.inf), "inf"),
        ),
        *(
            (figure(12.5), "12.5"),
            (figure(1234567.0), "1,234,570"),
            (figure(0.00012), "0.00012"),
            (figure(100.0), "100"),
        ),
        *(
            (size(0), "0 bytes"),
            (size(1), "1 byte"),
            (size(1023), "1,023 bytes"),
            (size(88158 * 1024), "86.1 MiB"),
        ),
        *((size(1024), "1.00 KiB"), (size(1.3e9), "1.21 GiB"), (size(1023.9 * 2**20), "1.00 GiB")),
        *(
            (duration(0.1), "100 ms"),
            (duration(0.00012), "0.120 ms"),
            (duration(0.9999), "1.00 s"),
            (duration(0), "0 s"),
        ),
        *((duration(59.99), "1 min 00 s"), (duration(245), "4 min 05 s"), (duration(3599.9), "1 h 00 min")),
        *((duration(11520), "3 h 12 min"), (duration(200_000), "2 days 8 h")),
    ],
)
def test_as_people_read_them(made: str, wanted: str) -> None:
    assert made == wanted


@given(st.floats(1e-4, 1e15))
def test_no_exponent_and_the_value_is_kept(x: float) -> None:
    text = number(x)
    assert "e" not in text and float(text.replace(",", "")) == pytest.approx(x, rel=0.005)
    assert figure(x, 12).replace(",", "") and float(figure(x, 12).replace(",", "")) == pytest.approx(
        x, rel=1e-11
    )


@given(st.integers(0, 2**55))
def test_a_size_has_at_most_four_digits(n: int) -> None:
    digits, unit = size(n).split(" ")
    assert len(re.sub("[.,]", "", digits)) <= 4 and unit
    factor = 1024.0 ** ["byte", "KiB", "MiB", "GiB", "TiB", "PiB"].index(unit.removesuffix("s"))
    assert float(digits.replace(",", "")) * factor == pytest.approx(n, rel=0.005)


def test_plans_print_figures_that_people_read() -> None:
    said = onebase("plan", Path(__file__).parents[1] / "recipes/124m.yaml")
    assert said.status == 0, said.err
    assert re.search(r"memory +\d+\.\d+ GiB estimated with", said.out) and "at 40% of that speed" in said.out
    for figure_ in re.findall(r"([\d.,]+(?:e[+-]?\d+)?) (?:[KMGT]iB|ms|s|min|h)\b", said.out):
        assert "e" not in figure_ and len(re.sub("[.,]", "", figure_)) <= 4, figure_
