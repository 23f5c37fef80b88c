"""Soft prompts and prefixes: what stands before a text is part of it wherever the adapter acts, and nothing else learns."""

import pytest
import torch

from onebase.api.base import Base
from onebase.api.evaluating import evaluate
from onebase.base.folder import LoadedBase, base_tensors
from onebase.engine import Decoder, PromptTooLong, Sampling, generate
from onebase.engine.scoring import score
from onebase.errors import ConfigError, DataError, UserError
from onebase.methods import prefix, soft
from onebase.model.mask import Cols
from onebase.model.proj import AdapterRouting
from onebase.serve import create_app
from tests.helpers import client_of, serving, tiny_base

METHODS = ("soft", "prefix")
PAIRS = [
    {"prompt": "def add", "completion": "(a, b)"},
    {"prompt": "The quick", "completion": " brown fox"},
] * 4
CHATS = [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes."}]}] * 6
LABELLED = [
    {"text": t, "label": k}
    for t, k in [("Is it so", "ask"), ("It is so", "tell"), ("What is it", "ask"), ("Go on", "tell")] * 3
]
TOLERANCE = 1e-5


def put(base: LoadedBase, method: str, name: str, seed: int = 0, virtual: int = 4) -> AdapterRouting:
    """An adapter drawn at random, so that it changes much of what the base says."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(200, (virtual,), generator=generator)
    for p in (soft if method == "soft" else prefix).inject(base.model, name, ids):
        p.data.add_(torch.randn(p.shape, generator=generator) * 0.5)
        p.requires_grad_(False)
    return AdapterRouting.all_rows(name)


def by_hand(base: LoadedBase, name: str, ids: list[int]) -> torch.Tensor:
    """Logits after each of `ids` [T, V], what leads put there without any of the code of leads."""
    model, lead = base.model, base.model.virtual[name]
    P, dtype = lead.count, torch.float32
    tokens = model.text.stem.weight[torch.tensor(ids)][None]
    if model.text.cfg.scale is not None:
        tokens = tokens * model.text.cfg.scale
    if name.startswith("soft"):
        x, cache, start = torch.cat((lead.vectors_PD[None], tokens), 1), None, 0
    else:
        x, cache, start = tokens, model.new_cache(1, P + len(ids)), P
        cache.extend(Cols.simple(1, P))
        for layer, k, v in zip(cache.layers, lead.keys, lead.values, strict=True):
            layer.append(k.transpose(0, 1)[None], v.transpose(0, 1)[None])
    cols = Cols.simple(1, x.shape[1], start=start)
    if model.text.stem.positions is not None:
        x = x + model.text.stem.positions[cols.pos + model.text.cfg.first_position]
    h = model.trunk(x.to(dtype), cols, cache=cache).hidden[:, -len(ids) :]
    return model.text.logits(h)[0]


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_logits_are_those_by_hand(method: str) -> None:
    base = tiny_base()
    routing, ids = put(base, method, method), [1, 20, 30, 40, 50]
    plain, on = base.model.logits(torch.tensor([ids])), base.model.logits(torch.tensor([ids]), routing)
    assert on.shape == plain.shape
    assert (on - plain).abs().max() > 0.1
    torch.testing.assert_close(on[0], by_hand(base, method, ids), atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_generating_and_scoring_read_it(method: str) -> None:
    """Greedy tokens and their log-probabilities, one by one with the cache, are those of the whole row by hand."""
    base = tiny_base(endless=True)
    routing, prompts = put(base, method, method), [[1, 20, 30], [1, 60, 61, 62, 63, 64]]
    said = generate(base, prompts, Sampling(max_tokens=8, logprobs=0), routing)
    for prompt, one in zip(prompts, said, strict=True):
        ids = list(prompt)
        for id, logp in zip(one.ids, one.logprobs, strict=True):
            here = by_hand(base, method, ids)[-1].log_softmax(-1)
            assert int(here.argmax()) == id
            assert abs(float(here[id]) - logp) < TOLERANCE
            ids.append(id)
        scored = score(base, [ids], routing)[0][len(prompt) - 1 :]
        torch.testing.assert_close(
            torch.tensor(scored), torch.tensor(one.logprobs), atol=TOLERANCE, rtol=TOLERANCE
        )
    both = [list(p) + list(s.ids) for p, s in zip(prompts, said, strict=True)]
    for row, ids in zip(score(base, both, routing), both, strict=True):
        alone = score(base, [ids], routing)[0]
        torch.testing.assert_close(torch.tensor(row), torch.tensor(alone), atol=TOLERANCE, rtol=TOLERANCE)


@torch.no_grad()
def test_rows_of_a_batch_differ() -> None:
    """Rows with a soft prompt, a longer one, a prefix and nothing: each as alone, with the cache and without."""
    base = tiny_base(endless=True)
    put(base, "soft", "soft")
    put(base, "soft", "soft-long", seed=1, virtual=7)
    put(base, "prefix", "prefix", seed=2, virtual=5)
    names = ["soft", None, "prefix", "soft-long"]
    prompts = [[1, 20, 30, 40], [1, 50], [1, 60, 61, 62, 63, 64], [1, 70, 71]]
    mixed = generate(base, prompts, Sampling(max_tokens=9, logprobs=0), AdapterRouting.per_row(names))
    rows = [[*p, *one.ids] for p, one in zip(prompts, mixed, strict=True)]
    scores = score(base, rows, AdapterRouting.per_row(names))
    for name, prompt, row, one, scored in zip(names, prompts, rows, mixed, scores, strict=True):
        on = AdapterRouting.all_rows(name) if name else None
        alone = generate(base, [prompt], Sampling(max_tokens=9, logprobs=0), on)[0]
        assert alone.ids == one.ids
        torch.testing.assert_close(
            torch.tensor(alone.logprobs), torch.tensor(one.logprobs), atol=TOLERANCE, rtol=TOLERANCE
        )
        torch.testing.assert_close(
            torch.tensor(scored), torch.tensor(score(base, [row], on)[0]), atol=TOLERANCE, rtol=TOLERANCE
        )


@torch.no_grad()
def test_a_soft_prompt_stands_behind_a_prefix() -> None:
    base = tiny_base()
    both = AdapterRouting(put(base, "prefix", "prefix").groups + put(base, "soft", "soft", seed=1).groups)
    model, ids = base.model, torch.tensor([[1, 20, 30, 40]])
    first, then = model.virtual["prefix"], model.virtual["soft"]
    cache = model.new_cache(1, 12)
    cache.extend(Cols.simple(1, 4))
    for layer, k, v in zip(cache.layers, first.keys, first.values, strict=True):
        layer.append(k.transpose(0, 1)[None], v.transpose(0, 1)[None])
    x = torch.cat((then.vectors_PD[None], model.text.stem.tokens(ids)), 1)
    hand = model.trunk(x, Cols.simple(1, 8, start=4), cache=cache).hidden[:, 4:]
    torch.testing.assert_close(model.hidden(ids, routing=both).hidden, hand, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_reach_the_adapter_alone(method: str) -> None:
    base = tiny_base()
    routing = put(base, method, method)
    for name, p in base.model.named_parameters():
        p.requires_grad_(name.startswith("virtual."))
    ids = torch.tensor([[1, 20, 30, 40], [1, 50, 60, 0]])
    cols = Cols.padded(torch.tensor([4, 3]), 4)
    base.model.text.logits(
        base.model.hidden(ids, cols, routing=routing).hidden, routing
    ).square().mean().backward()
    for name, p in base.model.named_parameters():
        assert (p.grad is not None and bool((p.grad != 0).any())) == name.startswith("virtual."), name


@pytest.mark.parametrize("method", METHODS)
def test_it_learns(method: str) -> None:
    """The answers' nats fall by far, though none of the base's weights moves; the same seed gives the same adapter."""
    base = Base(tiny_base())
    before = {k: t.clone() for k, t in base_tensors(base.loaded.model).items()}
    plain = evaluate(base, PAIRS, task="complete", max_tokens=4)["nats_per_token"].value
    made = [base.adapt(PAIRS, task="complete", method=method, virtual=6, epochs=40) for _ in range(2)]
    assert made[0].fingerprint == made[1].fingerprint
    assert all(torch.equal(t, before[k]) for k, t in base_tensors(base.loaded.model).items())
    on = base.with_adapter(made[0])
    scores = evaluate(on, PAIRS, max_tokens=4)
    assert scores["nats_per_token"].value < plain - 1.0
    names = {"soft": 1, "prefix": 2 * len(base.loaded.model.trunk.blocks)}
    assert len(made[0].parts.tensors) == names[method]


@pytest.mark.parametrize("method", METHODS)
def test_all_doors_use_it(method: str) -> None:
    base = Base(tiny_base(endless=True))
    on = base.with_adapter(base.adapt(CHATS, task="chat", method=method, virtual=5, epochs=20))
    name = on._attached.name  # type: ignore[union-attr]
    on.loaded.model.virtual[f"{method}-same"] = on.loaded.model.virtual[name]
    ids = base.loaded.codec.chat_ids(CHATS[0]["messages"][:1])
    hand = by_hand(on.loaded, f"{method}-same", ids)
    torch.testing.assert_close(on.logits(ids), hand, atol=TOLERANCE, rtol=TOLERANCE)
    sampling = Sampling(max_tokens=5)
    said = generate(on.loaded, [ids], sampling, on.routing)[0]
    assert said.ids[0] == int(hand[-1].argmax())
    assert on.chat(CHATS[0]["messages"][:1], max_tokens=5) == said.text
    assert on.generate("The", max_tokens=5) == "".join(on.stream("The", max_tokens=5))
    assert not torch.equal(on.embed(["The quick"]), base.embed(["The quick"]))
    assert not torch.equal(on.hidden(ids), base.hidden(ids))
    sorts = base.with_adapter(base.adapt(LABELLED, task="classify", method=method, virtual=5))
    kept = [x.scores for x in sorts.classify(["Is it", "Yes"])]
    for p in sorts.loaded.model.virtual[sorts._attached.name].parameters():  # type: ignore[union-attr]
        p.data.mul_(3.0)
    assert [x.scores for x in sorts.classify(["Is it", "Yes"])] != kept


@pytest.mark.parametrize("method", METHODS)
def test_a_server_gives_it_a_name(method: str) -> None:
    """Plain and adapted answers side by side, and scores of what was given, as the library has them."""
    base = tiny_base(endless=True)
    routing, prompt = put(base, method, method), [1, 20, 30, 40]
    with serving(create_app(base, "tiny", {"led": routing}, {})) as url, client_of(url) as client:
        for model, on in (("tiny", None), ("led", routing)):
            said = client.completions.create(
                model=model, prompt=prompt, max_tokens=6, logprobs=0, echo=True, temperature=0
            )
            (one,) = generate(base, [prompt], Sampling(max_tokens=6, logprobs=0), on)
            assert said.choices[0].text.endswith(one.text)
            logprobs = said.choices[0].logprobs.token_logprobs  # type: ignore[union-attr]
            wanted = [*score(base, [prompt], on)[0].tolist(), *one.logprobs]
            torch.testing.assert_close(
                torch.tensor(logprobs[1:]), torch.tensor(wanted), atol=TOLERANCE, rtol=TOLERANCE
            )


@pytest.mark.parametrize("method", METHODS)
def test_it_counts_against_the_context(method: str) -> None:
    base = tiny_base(endless=True)
    routing, context = put(base, method, method, virtual=8), base.model.cfg.text.context
    fits = [1] + [30] * (context - 8 - 2)
    (one,) = generate(base, [fits], Sampling(max_tokens=99), routing)
    assert len(one.ids) == 1
    assert len(generate(base, [fits], Sampling(max_tokens=99))[0].ids) == 9
    with pytest.raises(PromptTooLong, match=r"has 56 tokens, the adapter adds 8 before it; .* 64 tokens"):
        Decoder(base, [[*fits, 30]], routing=routing)
    score(base, [[*fits, 30]], routing)
    with pytest.raises(PromptTooLong):
        score(base, [[*fits, 30, 30]], routing)
    with pytest.raises(UserError, match="65 tokens, 8 of them virtual tokens of the adapter"):
        base.model.logits(torch.tensor([[*fits, 30, 30]]), routing)


@pytest.mark.parametrize("method", METHODS)
def test_user_mistakes(method: str) -> None:
    base = Base(tiny_base())
    for options, error, says in [
        ({"virtual": 0}, ConfigError, "'virtual' is 0"),
        ({"virtual": 63}, UserError, "no room in a context of 64"),
        ({"soft_text": ""}, UserError, "'soft_text' has no token"),
        ({"virtual": 60}, DataError, "the limit is 4 after the adapter's 60 virtual tokens"),
    ]:
        with pytest.raises(error, match=says):
            base.adapt(PAIRS, task="complete", method=method, **options)  # type: ignore[arg-type]
        assert not base.loaded.model.virtual, "a failed adaptation left something behind"
    with pytest.raises(DataError, match="after the adapter's 60 virtual tokens"):
        base.adapt(LABELLED, task="classify", method=method, virtual=60, long="refuse")
    adapter = base.adapt(PAIRS, task="complete", method=method, virtual=3, epochs=1)
    with pytest.raises(UserError, match="virtual tokens are not weights of the base"):
        base.with_adapter(adapter).merged()
    cut = {k: t[:2] for k, t in adapter.parts.tensors.items()}
    adapter.parts.tensors.update(cut)
    with pytest.raises(
        ConfigError, match=r"the soft prompt's vectors are of shape|prefix tensor 'prefix.0.k'"
    ):
        base.with_adapter(adapter)
