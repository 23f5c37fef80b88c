import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onebase.errors import DataError
from onebase.evaluation.bootstrap import mean_score
from onebase.evaluation.energy import Usage
from onebase.evaluation.gate import System, gate
from onebase.evaluation.paired import RowSums, mean_sums, rounded


def system(name: str, each: Sequence[float] | np.ndarray, seconds: float = 1.0, size: int = 1000) -> System:
    return System(name, mean_score("accuracy", each), mean_sums(each), seconds, size)


def right(share: float, n: int = 400) -> np.ndarray:
    """A share of right answers, spread evenly: two shares overlap as independent systems roughly do."""
    return (np.random.default_rng(int(share * 1000)).permutation(n) < share * n).astype(float)


def base(share: float) -> System:
    return system("base", right(share), seconds=50, size=300_000)


def test_yes_needs_both() -> None:
    v = gate("accuracy", base(0.85), system("untrained", right(0.6)), system("TF-IDF", right(0.7)))
    assert v.needs_base and v.over_classical.low > 0 and v.over_untrained.low > 0
    assert re.match(
        r"Yes: pretraining adds 0\.15 accuracy \(0\.\d\d to 0\.\d\d\) over TF-IDF and 0\.25 ", v.line
    )
    assert "1/50 of the time and 1/300 of the bytes" in v.line


@pytest.mark.parametrize("ours", [0.82, 0.8])
def test_a_difference_within_its_interval_says_how_many_rows_would_tell_and_advises_nothing(
    ours: float,
) -> None:
    v = gate("accuracy", base(ours), system("untrained", right(0.6)), system("TF-IDF", right(0.81)))
    assert v.answer == "cannot tell" and not v.needs_base
    assert v.over_classical.low < 0 < v.over_classical.high
    assert re.fullmatch(
        r"Cannot tell with 400 test rows: the difference to TF-IDF is -?0\.01 accuracy \(-0\.\d\d to 0\.\d\d\); about [\d,]+ would; "
        r"TF-IDF would take 1/50 of the time and 1/300 of the bytes\.",
        v.line,
    )
    each = right(ours) - right(0.81)
    needed = ((1.959964 + 0.841621) * each.std(ddof=1) / each.mean()) ** 2
    assert f"about {rounded(int(np.ceil(needed))):,} would" in v.line
    assert "ship" not in v.line


def test_worse_says_by_how_much_and_what_to_ship() -> None:
    v = gate("accuracy", base(0.6), system("untrained", right(0.6)), system("TF-IDF", right(0.8)))
    assert v.answer == "no" and v.line.startswith("No: TF-IDF is better by 0.20 accuracy (0.")
    assert v.line.endswith("; ship that.")


def test_without_a_twin_nothing_is_said_of_pretraining() -> None:
    v = gate("accuracy", base(0.85), None, system("TF-IDF", right(0.7)))
    assert v.needs_base and v.over_untrained is None
    assert v.line.startswith("Yes: the base adds 0.15 accuracy (0.") and "untrained" not in v.line
    assert "pretraining" not in gate("accuracy", base(0.5), None, system("TF-IDF", right(0.7))).line


def test_a_twin_within_the_interval_leaves_open_whether_pretraining_helps() -> None:
    v = gate("accuracy", base(0.85), system("untrained", right(0.845)), system("TF-IDF", right(0.7)))
    assert v.answer == "cannot tell"
    assert v.line.startswith(
        "Cannot tell with 400 test rows whether pretraining is what helps: the base adds 0.15"
    )
    assert "untrained base may do as well (difference" in v.line and v.line.endswith(" would.")
    better = gate("accuracy", base(0.8), system("untrained", right(0.95)), system("TF-IDF", right(0.6)))
    assert better.answer == "no" and "untrained base does better" in better.line
    assert better.line.endswith("pretraining is not what helps.")


def test_a_base_from_elsewhere_is_named_and_held_against_the_small_one() -> None:
    def line(big: float, small: float, classical: float) -> str:
        rivals = system("TF-IDF", right(classical))
        twin = system("small", right(small))
        return gate("accuracy", base(big), twin, rivals, twin="the small base", who="Big").line

    assert line(0.9, 0.8, 0.7).startswith("Yes: Big adds 0.20 accuracy (")
    assert "over the small base; TF-IDF would take" in line(0.9, 0.8, 0.7)
    assert line(0.85, 0.845, 0.7).startswith("Cannot tell with 400 test rows whether Big is needed: Big adds")
    assert line(0.85, 0.95, 0.7).endswith(": Big is not needed.")
    assert all("pretraining" not in line(*x) for x in ((0.9, 0.8, 0.7), (0.85, 0.845, 0.7), (0.7, 0.6, 0.8)))


def test_lower_is_better_with_tokens_as_weights() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 30, 200)
    noise = rng.normal(0, 1, 200)
    per = tokens.astype(float)
    ours = System("base", mean_score("x", [4.7]), RowSums(4.7 * tokens + noise, per), 9, 9)
    theirs = System("4-gram", mean_score("x", [4.9]), RowSums(4.9 * tokens - noise, per), 1, 1)
    twin = System("untrained", mean_score("x", [6.2]), RowSums(6.2 * tokens, per), 9, 9)
    yes = gate("nats_per_token", ours, twin, theirs)
    assert yes.needs_base and re.match(r"Yes: pretraining saves 0\.\d\d nats per token", yes.line)
    assert yes.over_classical.value == pytest.approx(0.2, abs=0.05)
    assert not gate("nats_per_token", theirs, twin, ours).needs_base


def test_the_best_classical_system_is_the_rival() -> None:
    rivals = [
        system("majority class", right(0.5)),
        system("TF-IDF", right(0.84)),
        system("neighbour", right(0.7)),
    ]
    assert gate("accuracy", base(0.85), system("untrained", right(0.5)), rivals).classical == "TF-IDF"
    with pytest.raises(DataError):
        gate("accuracy", base(0.85), system("untrained", right(0.5)), [])


def test_a_dearer_classical_system_is_not_recommended() -> None:
    v = gate(
        "accuracy", base(0.6), system("untrained", right(0.5)), system("ensemble", right(0.8), 500, 10**7)
    )
    assert v.answer == "no" and "ship that" not in v.line and ", though it takes 10 times the time" in v.line


def adapted(share: float, seconds: float = 50, size: int = 2_000, shared: int = 900_000) -> System:
    """An adapter on a base that other tasks share."""
    each = right(share)
    return System("base", mean_score("accuracy", each), mean_sums(each), seconds, size, shared)


def test_an_adapter_is_counted_alone_and_with_its_base() -> None:
    """24 kB are more than the adapter's 2 kB, and far less than what the base takes: the line says both."""
    ours, rival = adapted(0.85), system("TF-IDF", right(0.7), size=24_000)
    yes = gate("accuracy", ours, system("untrained", right(0.6)), rival)
    cost = (
        "1/50 of the time to adapt and predict, 12 times the bytes of the adapter alone and 1/38 of the bytes of the adapter "
        "with its base (879 KiB, shared by all its tasks)"
    )
    assert yes.needs_base and yes.line.endswith(f"; TF-IDF would take {cost}.")
    no = gate(
        "accuracy",
        adapted(0.7),
        system("untrained", right(0.6)),
        system("TF-IDF", right(0.8), size=24_000),
    )
    assert not no.needs_base and no.line.endswith(f" at {cost}; ship that.")
    assert ours.whole == 902_000 and rival.whole == 24_000


def test_like_bytes_and_an_adapter_without_any() -> None:
    twin, rival = system("untrained", right(0.6)), system("TF-IDF", right(0.7), size=2_100)
    assert (
        "about the same bytes as the adapter alone and 1/430 of"
        in gate("accuracy", adapted(0.85), twin, rival).line
    )
    line = gate("accuracy", adapted(0.85, size=0, shared=999), twin, rival).line
    assert "predict and 2 times the bytes of the adapter with its base (999 bytes, shared" in line
    assert "alone" not in line


@pytest.mark.parametrize(
    ("size", "end"),
    [
        (1_500, "; ship that."),
        (24_000, "; ship that."),
        (10**7, "(879 KiB, shared by all its tasks)."),
    ],
)
def test_the_advice_on_a_slower_rival_counts_the_base(size: int, end: str) -> None:
    rival = system("ensemble", right(0.8), 500, size)
    v = gate("accuracy", adapted(0.6), system("untrained", right(0.5)), rival)
    assert "ensemble is better" in v.line and v.line.endswith(end)
    assert ("though it takes" in v.line) == (size == 10**7)


def test_a_cost_that_was_not_measured_is_not_compared() -> None:
    """Without the base's seconds the bytes decide alone; without its bytes too, nothing is said of cost."""
    twin = system("untrained", right(0.5))
    for rival, end in [
        (system("TF-IDF", right(0.9), 500, 24_000), "; ship that."),
        (system("TF-IDF", right(0.9), 500, 10**7), "(879 KiB, shared by all its tasks)."),
    ]:
        line = gate("accuracy", adapted(0.8, seconds=0), twin, rival).line
        assert "adapt and predict" not in line and line.endswith(end)
    line = gate(
        "accuracy", adapted(0.7, seconds=0, size=0, shared=0), twin, system("TF-IDF", right(0.9))
    ).line
    assert line.endswith("); ship that.")


def test_few_examples_never_say_yes() -> None:
    v = gate(
        "accuracy", system("base", [1.0] * 10), system("untrained", [0.0] * 10), system("TF-IDF", [0.0] * 10)
    )
    assert (
        v.answer == "cannot tell"
        and v.line == "Cannot tell with 10 test rows, which are too few: give at least 20."
    )


def test_other_examples_are_refused() -> None:
    with pytest.raises(DataError, match="paired comparison"):
        gate("accuracy", base(0.8), system("untrained", right(0.5, 100)), system("TF-IDF", right(0.5)))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_verdict_is_monotone_in_the_base(data: st.DataObject) -> None:
    n = data.draw(st.integers(20, 40))
    bits = st.lists(st.sampled_from([0.0, 1.0]), min_size=n, max_size=n)
    ours, twin, rival = data.draw(bits), data.draw(bits), data.draw(bits)
    better = [max(x, y) for x, y in zip(ours, data.draw(bits), strict=True)]
    before = gate("accuracy", system("base", ours), system("u", twin), system("c", rival))
    after = gate("accuracy", system("base", better), system("u", twin), system("c", rival))
    order = ["no", "cannot tell", "yes"]
    assert order.index(after.answer) >= order.index(before.answer)
    assert before.needs_base == before.line.startswith("Yes") and before.line.count(".\n") == 0


def test_a_system_never_beats_itself() -> None:
    same = right(0.7)
    v = gate("accuracy", system("base", same), system("u", same), system("c", same))
    assert v.answer == "cannot tell" and v.over_classical.value == 0 and "-0.00" not in v.line
    assert "both answer each of them alike" in v.line


def test_the_costs_of_each_choice_stand_in_a_table() -> None:
    def costed(name: str, usage: Usage, size: int, shared: int = 0) -> System:
        each = right(0.8)
        return System(name, mean_score("accuracy", each), mean_sums(each), 1, size, shared, usage)

    ours = costed("base", Usage(4.0, 40.0), 2_000, 900_000)
    rivals = [costed("TF-IDF", Usage(0.4, 2.0, True), 24_000), costed("neighbour", Usage(), 70)]
    v = gate("accuracy", ours, system("untrained", right(0.5)), rivals)
    assert [c.name for c in v.costs] == ["base", "TF-IDF", "neighbour"]
    assert (v.costs[0].ms_per_item, v.costs[0].joules_per_item) == (10.0, 0.1)  # of 400 examples
    assert (v.costs[0].bytes, v.costs[0].shared_bytes) == (2_000, 900_000)
    assert v.costs[1].how.startswith("measured") and v.costs[0].how.startswith("estimated")
    assert v.costs[2].ms_per_item is None and v.costs[2].how == ""
    head, *rows, note = v.table.split("\n")
    assert head.split() == [
        "choice",
        "bytes",
        "of",
        "a",
        "shared",
        "base",
        "ms",
        "an",
        "item",
        "joules",
        "an",
        "item",
    ]
    assert rows[0].split() == ["base", "2,000", "900,000", "10", "0.1"]
    assert rows[1].split() == ["TF-IDF", "24,000", "0", "1", "0.005"]
    assert rows[2].split() == ["neighbour", "70", "0", "-", "-"]
    assert "joules estimated: 10 W" in note and "measured: RAPL" in note
