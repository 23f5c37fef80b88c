"""`Base.remembering`: a text is read once, the answers stay the same, and weights that change are found out."""

import pytest
import torch

from onebase.api.base import Base
from onebase.engine.features import features, text_tokens
from onebase.engine.scoring import batch_tokens
from onebase.errors import UserError
from tests.helpers import tiny_base

WORDS = (
    "good bread",
    "hard and stale bread",
    "the fox jumps",
    "what is this",
    "lovely",
    "never again",
    "so so",
)
ROWS = [{"text": f"{w} {i}", "label": "ab"[len(w) % 2]} for i, w in enumerate(WORDS * 3)]
ASKED = [f"{w}, I say" for w in WORDS]


def reads(base: Base) -> list[int]:
    """Rows of each forward from now on."""
    seen: list[int] = []
    base.loaded.model.trunk.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
    return seen


@pytest.mark.parametrize("pooling", ["auto", "mean", "last"])
def test_the_answers_are_the_same_and_a_text_is_read_once(pooling: str) -> None:
    def answers(base: Base) -> list[float]:
        adapter = base.adapt(ROWS, task="classify", method="head", pooling=pooling)
        return [x.scores["a"] for x in base.with_adapter(adapter).classify(ASKED)]

    plain = answers(Base(tiny_base()))
    base = Base(tiny_base())
    seen = reads(base)
    with base.remembering():
        first, second = answers(base), answers(base)
        assert sum(seen) == len({r["text"] for r in ROWS}) + len(ASKED)
        assert base.embed(ASKED, pooling="mean").shape == (len(ASKED), 32)
        assert sum(seen) == len({r["text"] for r in ROWS}) + len(ASKED)
    assert first == second == pytest.approx(plain, abs=1e-5)
    base.embed(ASKED, pooling="mean")
    assert sum(seen) == len({r["text"] for r in ROWS}) + 2 * len(ASKED), "nothing is kept after the block"


def test_what_an_adapter_changes_is_read_by_that_adapter() -> None:
    base = Base(tiny_base())
    lora = base.with_adapter(base.adapt(ROWS, task="classify", method="lora", lr=0.05, epochs=3))
    full = base.with_adapter(
        base.adapt(
            [{"prompt": "a", "completion": " b"}] * 4, task="complete", method="full", lr=0.05, epochs=3
        )
    )
    outside = lora.embed(ASKED), full.embed(ASKED)
    with base.remembering():
        base.embed(ASKED)
        inside = lora.embed(ASKED), full.embed(ASKED)
    for before, after in zip(outside, inside, strict=True):
        torch.testing.assert_close(before, after, atol=1e-5, rtol=1e-5)


def test_weights_that_change_inside_are_told() -> None:
    base = Base(tiny_base())
    adapter = base.adapt(ROWS, task="classify", method="head")
    with pytest.raises(UserError, match="weights changed"), base.remembering():
        base.with_adapter(adapter).classify(ASKED)
        with torch.no_grad():
            base.loaded.model.trunk.blocks[0].ff.up.weight[0, 0] += 1e-3
    assert base.loaded.memory is None


def test_an_error_inside_is_the_one_that_is_told() -> None:
    base = Base(tiny_base())
    with pytest.raises(UserError, match="no adapter that classifies"), base.remembering():
        base.classify(ASKED)
    with base.remembering(), pytest.raises(UserError, match="already caching features"), base.remembering():
        pass


def test_batches_do_not_change_what_is_read() -> None:
    """Texts of all lengths, more than one batch of them, beside each text alone."""
    base = tiny_base()
    texts = ["word " * (1 + i % 9) + str(i) for i in range(300)]
    tokens = text_tokens(base, texts)
    assert sum(len(t) for t in tokens) > batch_tokens(torch.device("cpu"))
    together = features(base, tokens, "all", None)
    alone = torch.cat([features(base, [t], "all", None) for t in tokens[::37]])
    torch.testing.assert_close(together[::37], alone, atol=1e-5, rtol=1e-5)
