"""The decode engine: the same numbers with a cache and without, alone and in a batch; streaming; limits."""

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onebase.base.folder import LoadedBase
from onebase.engine import Completion, PromptTooLong, Sampling, generate, stream
from onebase.engine.batching import rows_of
from onebase.engine.decoder import Decoder
from onebase.errors import UserError
from onebase.model.proj import AdapterRouting
from tests.helpers import add_lora, tiny_base


@cache
def base() -> LoadedBase:
    made = tiny_base(window=8, window_every=2, kv_heads=1)
    add_lora(made, "one", 1)
    add_lora(made, "two", 2)
    return made


def prompt(length: int, seed: int = 0) -> list[int]:
    g = torch.Generator().manual_seed(1000 * seed + length)
    t = base().codec.tokenizer
    return [t.bos, *torch.randint(len(t.specials), t.vocab_size, (length - 1,), generator=g).tolist()]


ALL = Sampling(max_tokens=9, logprobs=3)


def uncached(ids: list[int], n: int, routing: AdapterRouting | None = None) -> tuple[list[int], list[float]]:
    """Greedy decoding by whole forwards."""
    b, logprobs = base(), []
    ids, start = list(ids), len(ids)
    t = b.codec.tokenizer
    with torch.no_grad():
        for _ in range(n):
            z = b.model.logits(torch.tensor([ids]), routing)[0, -1]
            ids.append(int(z[: t.vocab_size].argmax()))
            logprobs.append(float(z.log_softmax(-1)[ids[-1]]))
            if ids[-1] in (t.eos, t.id_of("<|end|>")):
                break
    return ids[start:], logprobs


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.sampled_from([None, "one"]))
def test_cached_is_uncached(lengths: list[int], adapter: str | None) -> None:
    routing = AdapterRouting.all_rows(adapter) if adapter else None
    prompts = [prompt(n) for n in lengths]
    for p, c in zip(prompts, generate(base(), prompts, ALL, routing)):
        ids, logprobs = uncached(p, 9, routing)
        assert list(c.ids) == ids
        assert c.logprobs == pytest.approx(logprobs, abs=1e-5)


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=7, max_size=7), st.booleans())
def test_alone_is_in_a_batch_of_seven(lengths: list[int], mixed: bool) -> None:
    names: list[str | None] = ["one", None, "two", "one", None, None, "two"] if mixed else [None] * 7
    prompts = [prompt(n, i) for i, n in enumerate(lengths)]
    each = [Sampling(max_tokens=2 + i, temperature=i % 2, seed=i, logprobs=2) for i in range(7)]
    together = generate(base(), prompts, each, AdapterRouting.per_row(names))
    for p, s, name, got in zip(prompts, each, names, together):
        alone = generate(base(), [p], s, AdapterRouting.all_rows(name) if name else None)[0]
        assert got.ids == alone.ids
        assert got.logprobs == pytest.approx(alone.logprobs, abs=1e-5)
        assert (got.text, got.finish, got.prompt_tokens) == (alone.text, alone.finish, len(p))


@settings(max_examples=12, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([None, "one", "two"]), st.sampled_from([0, 0, 1, 4])),
        min_size=1,
        max_size=9,
    )
)
def test_what_is_asked_again_is_read_once_and_answered_as_alone(
    asked: list[tuple[int, str | None, int]],
) -> None:
    """Rows of three prompts under three adapters, some of which ask for no token at all."""
    prompts = [prompt(5 + 4 * i, i) for i, _, _ in asked]
    names = [name for _, name, _ in asked]
    each = [Sampling(max_tokens=n, temperature=1.0, seed=i, logprobs=2) for i, (_, _, n) in enumerate(asked)]
    read: list[int] = []
    hidden = base().model.hidden

    def counted(ids_BT: torch.Tensor, *args: Any, **options: Any) -> Any:
        read.append(len(ids_BT))
        return hidden(ids_BT, *args, **options)

    base().model.hidden = counted  # type: ignore[method-assign]
    try:
        together = generate(base(), prompts, each, AdapterRouting.per_row(names), batch=len(asked))
    finally:
        del base().model.hidden
    different = len({(i, name) for i, name, _ in asked})
    assert not read or read[0] <= different
    if all(n for _, _, n in asked):
        assert read[0] == different
    for p, s, name, got in zip(prompts, each, names, together):
        alone = generate(base(), [p], s, AdapterRouting.all_rows(name) if name else None)[0]
        assert got.ids == alone.ids and got.finish == alone.finish
        assert got.logprobs == pytest.approx(alone.logprobs, abs=1e-5)


def test_batches_of_any_size_give_the_answers_in_order() -> None:
    prompts = [prompt(n, n) for n in (9, 3, 14, 1, 7)]
    routing = AdapterRouting.per_row(["one", None, "two", None, "one"])
    whole = generate(base(), prompts, ALL, routing)
    assert [c.ids for c in generate(base(), prompts, ALL, routing, batch=2)] == [c.ids for c in whole]


def test_rows_of_follows_the_rows() -> None:
    routing = AdapterRouting.per_row(["a", None, "b", "a"])
    assert rows_of(routing, [3, 1]) == AdapterRouting((("a", (0,)),))
    assert rows_of(AdapterRouting.all_rows("a"), [2]) == AdapterRouting.all_rows("a")
    assert rows_of(None, [0]) is None


def test_greedy_is_repeatable_and_seeds_are() -> None:
    prompts = [prompt(5), prompt(9)]
    hot = Sampling(max_tokens=12, temperature=1.0, seed=4, top_p=0.95)
    assert generate(base(), prompts, ALL) == generate(base(), prompts, ALL)
    first = generate(base(), prompts, hot)
    assert [c.ids for c in first] == [c.ids for c in generate(base(), prompts, hot)]
    other = Sampling(max_tokens=12, temperature=1.0, seed=5, top_p=0.95)
    assert [c.ids for c in first] != [c.ids for c in generate(base(), prompts, other)]


def test_streaming_joined_is_generate() -> None:
    prompts = [prompt(n, n) for n in (2, 30, 11)]
    each = [Sampling(max_tokens=m, temperature=1.0, seed=m, stop=("a", "e"), logprobs=1) for m in (3, 20, 40)]
    texts, ids, finish = [""] * 3, [()] * 3, [None] * 3
    for pieces in stream(base(), prompts, each):
        for p in pieces:
            assert finish[p.row] is None  # nothing comes after the last piece
            texts[p.row] += p.text
            ids[p.row] += p.ids
            finish[p.row] = p.finish
            assert len(p.ids) == len(p.logprobs) == len(p.top)
    whole = generate(base(), prompts, each)
    assert [(c.text, c.ids, c.finish) for c in whole] == list(zip(texts, ids, finish))


def spoken(script: list[int], sampling: Sampling, monkeypatch: pytest.MonkeyPatch) -> Completion:
    """What the engine says when the model's likeliest tokens are `script`."""
    left = list(script)

    def logits(self: Decoder) -> torch.Tensor:
        z = torch.zeros(1, base().model.cfg.text.vocab_size)
        z[0, left.pop(0)] = 9.0
        return z

    monkeypatch.setattr(Decoder, "_logits", logits)
    return generate(base(), [prompt(4)], sampling)[0]


def test_a_stop_string_ends_the_text_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = base().codec.tokenizer.encode("The lazy dog.\nUser: and so on")
    got = spoken(ids, Sampling(max_tokens=50, stop=("\nUser:", "zzz")), monkeypatch)
    assert (got.text, got.finish) == ("The lazy dog.", "stop")
    assert len(got.ids) < len(ids)


def test_the_closing_tokens_end_and_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    t = base().codec.tokenizer
    for name in ("<|eos|>", "<|end|>"):
        script = [*t.encode("Yes"), t.id_of(name), *t.encode("more")]
        got = spoken(script, Sampling(max_tokens=50), monkeypatch)
        assert (got.text, got.finish, got.ids) == ("Yes", "stop", (*t.encode("Yes"), t.id_of(name)))


def test_what_was_held_back_is_shown_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    t = base().codec.tokenizer
    ids = t.encode("and so\nUs")
    held = Sampling(max_tokens=len(ids), stop=("\nUser:",))
    assert spoken(ids, held, monkeypatch).text == "and so\nUs"
    half = next(i for i in range(t.vocab_size) if t.bytes_of(i) == b"\xe4")
    assert spoken([*ids, half], Sampling(max_tokens=len(ids) + 1), monkeypatch).text == "and so\nUs\ufffd"


def test_other_special_tokens_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    t = base().codec.tokenizer
    got = spoken([*t.encode("Y"), t.pad, *t.encode("o")], Sampling(max_tokens=3), monkeypatch)
    assert (got.text, got.finish) == ("Yo", "length")


def test_ids_of_a_padded_vocabulary_are_never_chosen() -> None:
    padded = tiny_base(vocab_size=400)
    with torch.no_grad():
        padded.model.text.head_weight_VD[padded.codec.tokenizer.vocab_size :] *= 30
    got = generate(padded, [prompt(4)], Sampling(max_tokens=20, temperature=1.0, seed=0))[0]
    assert max(got.ids) < padded.codec.tokenizer.vocab_size


def test_a_prompt_too_long_is_refused_with_its_numbers() -> None:
    for n in (64, 65, 200):
        with pytest.raises(PromptTooLong) as e:
            stream(base(), [prompt(3), prompt(n)])  # at once, not at the first step
        assert str(n) in e.value.cause
        assert "64 tokens" in e.value.cause
        assert "prompt 2 of 2" in e.value.cause
        assert str(n - 63) in e.value.remedy


def test_max_tokens_is_cut_to_the_context() -> None:
    got = generate(base(), [prompt(60), prompt(63)], Sampling(max_tokens=1000, temperature=3.0, seed=1))
    assert [(len(c.ids), c.finish) for c in got] == [(4, "length"), (1, "length")]


def test_no_tokens_asked_for_gives_none() -> None:
    assert generate(base(), [prompt(3)], Sampling(max_tokens=0)) == [Completion("", (), "length", (), 3)]
    assert generate(base(), []) == []


@pytest.mark.parametrize("ids", [[], [-1], [10**6]])
def test_prompts_that_are_no_tokens_are_refused(ids: list[int]) -> None:
    with pytest.raises(UserError, match="the prompt has"):
        generate(base(), [ids])


def test_counts_must_agree() -> None:
    with pytest.raises(UserError, match="2 prompts"):
        stream(base(), [prompt(3)] * 2, [Sampling()])


def test_no_gradient_mode_leaks_out_of_a_stream() -> None:
    steps = stream(base(), [prompt(3)], ALL)
    next(steps)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_finished_rows_leave_the_batch() -> None:
    decoder = Decoder(
        base(), [prompt(5)] * 4, [Sampling(max_tokens=m, temperature=5.0, seed=m) for m in (1, 1, 1, 30)]
    )
    decoder.step()
    decoder.step()
    assert decoder._cache.layers[0].k.shape[0] == 1
