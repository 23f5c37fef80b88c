"""The table of scores: what is computed of which answers, what must be asked for, and what is refused."""

import numpy as np
import pytest

from onebase.errors import UserError
from onebase.evaluation.bootstrap import Score, mean_score
from onebase.evaluation.likelihood import DocumentNats
from onebase.evaluation.metrics import LOWER_IS_BETTER
from onebase.evaluation.predictions import Documents, Judged, Labels, Numbers, Preferred, Written
from onebase.evaluation.scores import SCORES, Metric, check_names, computed, scores_of

TWO = Labels(["a", "b"], ["a", "a"], np.eye(2), np.array([[0.9, 0.1], [0.6, 0.4]]))
SAME = Labels(["a", "a"], ["a", "a"], np.eye(2)[[0, 0]], np.array([[0.9, 0.1], [0.6, 0.4]]))


def test_all_that_need_not_be_asked_for_are_computed() -> None:
    assert list(computed(TWO)) == ["accuracy", "macro_f1", "auroc", "ece"]
    assert list(computed(SAME)) == ["accuracy", "macro_f1", "ece"], "auroc has nothing to say of one label"
    assert computed(TWO)["accuracy"].value == 0.5
    assert list(computed(Numbers([1.0, 2.0], [1.0, 4.0]))) == ["mae", "spearman"]
    assert computed(Numbers([1.0, 2.0], [1.0, 4.0]))["mae"].value == 1.0


def test_those_asked_for_are_computed_in_their_order() -> None:
    found = computed(TWO, 3, ["ece", "accuracy", "ece"])
    assert list(found) == ["ece", "accuracy"]
    assert found["accuracy"] == computed(TWO, 3)["accuracy"]
    with pytest.raises(UserError, match="there is no score 'mae' for this task\n  scores: accuracy, "):
        computed(TWO, 0, ["mae"])
    with pytest.raises(UserError, match="auroc is undefined for these rows"):
        computed(SAME, 0, ["auroc"])
    with pytest.raises(UserError, match="score 'acuracy' is not known\n  scores: accuracy, "):
        check_names(["ece", "acuracy"])


def test_one_that_must_be_asked_for_is_not_computed_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def right(said: Labels, seed: int) -> Score:
        return mean_score("right", [float(t == f) for t, f in zip(said.truth, said.found)], seed=seed)

    monkeypatch.setitem(SCORES, (Labels, "right"), Metric("right", Labels, right, asked=True))
    assert "right" not in computed(TWO)
    assert computed(TWO, 0, ["right"])["right"].value == 0.5

    class Mine(Labels):
        pass

    assert "right" in scores_of(Mine), "a class of one's own has the scores of what it is made from"


def test_scores_that_are_made_together() -> None:
    documents = [DocumentNats("domain", 8.0, 4, 2), DocumentNats("general", 4.0, 4, 2)]
    plain = computed(Documents(documents))
    assert list(plain) == ["domain_bits_per_byte", "general_bits_per_byte"]
    both = computed(
        Documents(documents, [DocumentNats(d.source, d.nats * 2, d.bytes, d.tokens) for d in documents])
    )
    assert set(both) == set(plain) | {f"{k}_before" for k in plain} | {"domain_change", "forgetting"}
    assert both["forgetting"].value == pytest.approx(-1 / np.log(2))
    assert list(computed(Documents([DocumentNats("text", 8.0, 4, 2)]))) == ["bits_per_byte"]
    worth = np.array([[1.0], [0.0]])
    assert list(computed(Judged(worth, None, 1.0))) == ["reward", "success"]
    assert list(computed(Judged(worth, worth, 1.0), 0, ["sampled_success"])) == ["sampled_success"]


def test_what_was_not_learnt_or_judged_is_left_out() -> None:
    logp = np.array([[-1.0, -2.0], [-3.0, -2.0]])
    assert list(computed(Preferred(logp))) == ["preferred"]
    assert list(computed(Preferred(logp, logp, np.array([1.0, 0.5])))) == [
        "reward_accuracy",
        "margin",
        "preferred",
        "win_rate",
    ]
    texts = Written(["a", "b"], ["a", "c"], np.array([1.0, 2.0]), np.array([2.0, 2.0]))
    found = computed(texts)
    assert found["nats_per_token"].value == 0.75 and "json_valid" not in found
    assert "json_match" in computed(Written(["[1]"], ["[1]"], np.ones(1), np.ones(1)))


def test_lower_is_better_of_these_and_no_others() -> None:
    of_documents = {n for (of, n) in SCORES if of is Documents}
    lower = {n for (_, n), metric in SCORES.items() if metric.lower}
    assert (
        lower
        == {"ece", "mae", "nats_per_token", "wer", "cer", "flow_loss", "frechet_distance"} | of_documents
    )
    assert lower >= LOWER_IS_BETTER and "forgetting" in lower
