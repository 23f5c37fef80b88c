"""Adapters where pictures are: what leads a text stands before its pictures too, and what leads a text learns no pictures."""

import pytest
import torch

from onebase.adapt import prefix, soft
from onebase.api.base import Base
from onebase.base.config import BaseConfig
from onebase.base.folder import LoadedBase, load_base
from onebase.base.links import ConnectorConfig, Link
from onebase.errors import UserError
from onebase.model.mask import Cols
from onebase.model.proj import Active
from tests.adapt.conformance.kinds import drawn
from tests.adapt.conformance.made import folder, pictures
from tests.helpers import tiny_base

TOLERANCE = 1e-5
TOKEN = 5


def both() -> LoadedBase:
    """A decoder that takes pictures into its text, by the place of one token each vector."""
    text, sees = tiny_base(), load_base(folder("sees"))
    cfg = BaseConfig(
        trunks=text.model.cfg.trunks | sees.model.cfg.trunks,
        codecs=text.model.cfg.codecs | sees.model.cfg.codecs,
        links=(Link(src="image", dst="text", how="embed", connector=ConnectorConfig(token=TOKEN)),),
    )
    return drawn(cfg, text.words)


def rows() -> list[dict[str, str]]:
    return [
        {"image": str(path), "label": "odd" if name in "ac" else "even"} for name, path in pictures().items()
    ] * 3


@pytest.mark.parametrize("method", ["soft", "prefix"])
@torch.no_grad()
def test_what_leads_a_text_stands_before_its_pictures(method: str) -> None:
    base = both()
    model, P, ids = base.model, 3, torch.tensor([[1, TOKEN, TOKEN, 30, 40]])
    inserts = torch.randn(2, model.text.width, generator=torch.Generator().manual_seed(0))
    (soft if method == "soft" else prefix).inject(model, "led", torch.tensor([7, 8, 9]))
    lead = model.leads["led"]
    after = model.text.stem.tokens(ids).clone()
    after[0, 1:3] = inserts
    if method == "soft":
        hand = model.trunk(torch.cat((lead.vectors_PD[None], after), 1), Cols.simple(1, P + 5)).hidden[:, P:]
    else:
        cache = model.new_cache(1, P + 5)
        cache.extend(Cols.simple(1, P))
        for layer, k_PGH, v_PGH in zip(cache.layers, lead.keys, lead.values, strict=True):
            layer.append(k_PGH.transpose(0, 1)[None], v_PGH.transpose(0, 1)[None])
        hand = model.trunk(after, Cols.simple(1, 5, start=P), cache=cache).hidden
    found = model.hidden(ids, active=Active.all_rows("led"), inserts=inserts).hidden
    torch.testing.assert_close(found, hand, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("method", ["soft", "prefix"])
def test_what_leads_a_text_learns_no_pictures(method: str) -> None:
    with pytest.raises(UserError, match=f"{method} stands before a text, and these rows are pictures"):
        Base(both()).adapt(rows(), task="classify", method=method, virtual=3)


@pytest.mark.parametrize("kind", ["alone", "with text"])
def test_lora_learns_pictures_and_a_plan_says_what_it_takes(kind: str) -> None:
    """Pictures of noise are told apart by what the trunk that sees has learnt, from a head that cannot; on a base with text as well."""
    base = Base(load_base(folder("sees")) if kind == "alone" else both())
    plan = base.plan_adapt(rows(), task="classify", method="lora", rank=2, epochs=4, rows=4).facts
    assert (plan["steps"], plan["rows_per_step"], plan["rows"]) == (12, 4, 12)
    assert (
        plan["tokens"] == 12 * 4 * 17 and plan["tokens_supervised"] == 12 * 4
    )  # 4 x 4 patches and the class
    adapter = base.adapt(rows(), task="classify", method="lora", rank=2, epochs=30, rows=4, lr=1e-2)
    assert adapter.record.get("train.final_loss") < 0.2
    said = base.with_adapter(adapter).classify_images(list(pictures().values()))
    assert [x.label for x in said] == ["odd", "even", "odd", "even"]


def test_the_vector_of_a_text_is_none_of_a_picture() -> None:
    with pytest.raises(UserError, match="pooling 'vector' is read of texts"):
        Base(load_base(folder("sees"))).adapt(rows(), task="classify", method="lora", pooling="vector")
