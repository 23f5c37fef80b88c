"""What stands before a text, on bases of other kinds: shared key heads, windows, tables of positions, both directions, few bits, bf16."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from onebase.api.base import Base
from onebase.base.folder import LoadedBase
from onebase.engine import Sampling, generate
from onebase.engine.scoring import score
from onebase.model.config import StorageConfig
from tests.helpers import tiny_base
from tests.methods.test_soft import LABELLED, METHODS, PAIRS, TOLERANCE, by_hand, put

SHAPES: dict[str, dict[str, Any]] = {
    "shared key heads": {"kv_heads": 1},
    "llama": {"portable": True},
    "windows": {"window": 6},
    "tied": {"tied": True},
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_decoding_is_whole_rows(shape: str, method: str) -> None:
    base = tiny_base(endless=True, **SHAPES[shape])
    active, prompts = put(base, method, method), [[1, 20, 30, 40, 50, 60, 70, 80], [1, 90]]
    for prompt, one in zip(
        prompts, generate(base, prompts, Sampling(max_tokens=9, logprobs=0), active), strict=True
    ):
        ids = [*prompt, *one.ids]
        logp = by_hand(base, method, ids).log_softmax(-1)
        wanted = logp[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
        scored = torch.tensor(score(base, [ids], active)[0])
        torch.testing.assert_close(scored, wanted, atol=TOLERANCE, rtol=TOLERANCE)
        torch.testing.assert_close(
            torch.tensor(one.logprobs), wanted[len(prompt) - 1 :], atol=TOLERANCE, rtol=TOLERANCE
        )


def bf16(base: LoadedBase) -> None:
    base.model.compute_dtype = torch.bfloat16


def eight_bits(base: LoadedBase) -> None:
    base.model.quantise(StorageConfig(bits=8, group=16))


def four_bits(base: LoadedBase) -> None:
    base.model.quantise(StorageConfig(bits=4, group=16))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("how", [bf16, eight_bits, four_bits])
def test_bases_that_hold_less(how: Callable[[LoadedBase], None], method: str) -> None:
    """It learns on them, and says one by one what it says of the whole (bf16: to its rounding)."""
    loaded = tiny_base(endless=True)
    how(loaded)
    base = Base(loaded)
    on = base.with_adapter(base.adapt(PAIRS, task="complete", method=method, virtual=4, epochs=30))
    ids = base.tokenizer.encode("def add(a, b)", bos=True)
    nats = [-float(score(loaded, [ids], active)[0][3:].sum()) for active in (None, on.active)]
    assert nats[1] < nats[0]
    (one,) = generate(loaded, [ids], Sampling(max_tokens=5, logprobs=0), on.active)
    whole = score(loaded, [[*ids, *one.ids]], on.active)[0][len(ids) - 1 :]
    close = 0.1 if how is bf16 else 1e-4
    torch.testing.assert_close(torch.tensor(one.logprobs), torch.tensor(whole), atol=close, rtol=close)


@pytest.mark.parametrize("method", METHODS)
def test_classes_alone_are_those_in_a_batch(method: str) -> None:
    """Texts of other lengths beside it change nothing."""
    base = Base(tiny_base())
    on = base.with_adapter(base.adapt(LABELLED, task="classify", method=method, virtual=4, pooling="all"))
    texts = ["Is it", "Yes it is, and so on it goes", "No"]
    for text, together in zip(texts, on.classify(texts), strict=True):
        (alone,) = on.classify([text])
        for label, p in alone.scores.items():
            assert abs(p - together.scores[label]) < TOLERANCE
