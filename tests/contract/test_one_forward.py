"""One forward path: a prompt's log-probabilities are equal from the trainer, the evaluator, the engine and the server."""

import numpy as np
import openai
import pytest

from onebase.engine import Sampling, generate, score
from onebase.modality.text.sample import Tokens
from onebase.model.proj import AdapterRouting
from onebase.objective.next_token import NextToken
from onebase.serve import create_app
from tests.helpers import add_lora, client_of, serving, tiny_base

TEXT = "Is this a question? Yes, it is."


@pytest.mark.parametrize("adapter", [None, "one"])
def test_trainer_evaluator_engine_and_server_agree(adapter: str | None) -> None:
    base = tiny_base()
    add_lora(base, "one")
    routing = AdapterRouting.all_rows("one") if adapter else None
    prompt = base.codec.tokenizer.encode(TEXT, bos=True)
    answer = generate(base, [prompt], Sampling(max_tokens=6, logprobs=0), routing)[0]
    whole = [*prompt, *answer.ids]

    scored = score(base, [whole], routing)[0].tolist()
    assert list(answer.logprobs) == pytest.approx(scored[len(prompt) - 1 :], abs=1e-5)

    # The trainer, on a row where the text stands between other documents; one supervised token at a time.
    other = Tokens(np.asarray(prompt[:5], np.int32), np.ones(5, bool), "other")
    objective = NextToken(length=len(whole) + 16, routing=routing)
    trained = []
    for t in range(1, len(whole)):
        loss = np.arange(len(whole)) == t
        piece = Tokens(np.asarray(whole, np.int32), loss, "text")
        silent = Tokens(other.ids, np.zeros(5, bool), "other")
        batch = objective.batch([[silent, piece, silent]], 0)
        total, count = objective.losses(base.model, batch)["next_token"]
        assert count == 1
        trained.append(-float(total.detach()))
    assert trained == pytest.approx(scored, abs=1e-5)

    with (
        serving(create_app(base, "base", {"one": AdapterRouting.all_rows("one")})) as url,
        client_of(url) as client,
    ):
        said = client.completions.create(
            model=adapter or "base", prompt=TEXT, max_tokens=6, temperature=0, echo=True, logprobs=2
        )
    found = said.choices[0].logprobs
    assert isinstance(client, openai.OpenAI)
    assert found is not None
    assert found.token_logprobs is not None
    assert found.token_logprobs[0] is None
    assert found.token_logprobs[1:] == pytest.approx(scored, abs=1e-5)
