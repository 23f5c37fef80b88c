"""Adapters where pictures are: what leads a text stands before its pictures too, and what leads a text learns no pictures."""

from typing import Any

import pytest
import torch

from onebase.api.base import Base
from onebase.base.folder import LoadedBase, load_base
from onebase.errors import ConfigError, UserError
from onebase.methods import prefix, soft
from onebase.model.mask import Cols
from onebase.model.proj import AdapterRouting
from tests.helpers import taken
from tests.methods.conformance.cases import LABELLED
from tests.methods.conformance.kinds import PLACE
from tests.methods.conformance.made import folder, pictures

TOLERANCE = 1e-5


def both() -> LoadedBase:
    return load_base(folder("both"))


def rows() -> list[dict[str, str]]:
    return [
        {"image": str(path), "label": "odd" if name in "ac" else "even"} for name, path in pictures().items()
    ] * 3


@pytest.mark.parametrize("method", ["soft", "prefix"])
@torch.no_grad()
def test_what_leads_a_text_stands_before_its_pictures(method: str) -> None:
    base = both()
    model, P, ids = base.model, 3, torch.tensor([[1, PLACE, PLACE, 30, 40]])
    inserts = torch.randn(2, model.text.width, generator=torch.Generator().manual_seed(0))
    (soft if method == "soft" else prefix).inject(model, "led", torch.tensor([7, 8, 9]))
    lead = model.virtual["led"]
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
    found = model.hidden(ids, routing=AdapterRouting.all_rows("led"), inserts=inserts).hidden
    torch.testing.assert_close(found, hand, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("method", ["soft", "prefix"])
def test_what_leads_a_text_learns_no_pictures(method: str) -> None:
    with pytest.raises(
        UserError, match=f"{method} puts virtual tokens before a text, and these rows are images"
    ):
        Base(both()).adapt(rows(), task="classify", method=method, **taken(method, virtual=3))


@pytest.mark.parametrize(
    ("data", "trunk", "other"), [("pictures", "image", "text"), ("text", "text", "image")]
)
def test_lora_is_put_on_the_trunk_that_rows_go_through_alone(data: str, trunk: str, other: str) -> None:
    given = rows() if data == "pictures" else LABELLED
    options: dict[str, Any] = {"task": "classify", "method": "lora", "rank": 2, "epochs": 1}
    base = Base(both())
    chosen: dict[tuple[str, ...], tuple[str, ...]] = {
        (): (f"{trunk}.*",),
        (f"{trunk}.0.*",): (f"{trunk}.0.*",),
        ("attn.q",): (f"{trunk}.0.attn.q", f"{trunk}.1.attn.q"),
    }
    for asked, kept in chosen.items():
        adapter = base.adapt(given, **options, sites=asked)
        assert adapter.parts.config.lora is not None and adapter.parts.config.lora.sites == kept
        on = {k for k in adapter.parts.tensors if not k.startswith("head.")}
        assert on and all(k.startswith(f"{trunk}.") for k in on)
    with pytest.raises(ConfigError, match=f"site '{other}.0.[*]' is not in its trunk '{trunk}'"):
        base.adapt(given, **options, sites=["q", f"{other}.0.*"])
    with pytest.raises(ConfigError, match="'qq' is not in this base"):
        base.adapt(given, **options, sites=["qq"])


@pytest.mark.parametrize("kind", ["alone", "with text"])
def test_lora_learns_pictures_and_a_plan_says_what_it_takes(kind: str) -> None:
    """Pictures of noise are told apart by what the trunk that sees has learnt, from a head that cannot; on a base with text as well."""
    base = Base(load_base(folder("sees")) if kind == "alone" else both())
    plan = base.plan_adapt(rows(), task="classify", method="lora", rank=2, epochs=4, batch_size=4).facts
    assert (plan["steps"], plan["batch_size"], plan["rows"]) == (12, 4, 12)
    assert (
        plan["tokens"] == 12 * 4 * 17 and plan["tokens_supervised"] == 12 * 4
    )  # 4 x 4 patches and the class
    adapter = base.adapt(rows(), task="classify", method="lora", rank=2, epochs=30, batch_size=4, lr=1e-2)
    assert adapter.record.get("train.final_loss") < 0.2
    said = base.with_adapter(adapter).classify_images(list(pictures().values()))
    assert [x.label for x in said] == ["odd", "even", "odd", "even"]


@pytest.mark.parametrize("kind", ["sees", "both"])
@pytest.mark.parametrize("method", ["head", "lora", "full"])
def test_what_is_made_of_a_text_is_not_made_of_a_picture(method: str, kind: str) -> None:
    """One error, before any picture is read, of a plan too: these are not there."""
    base = Base(load_base(folder(kind)))
    none = [{"image": f"{i}.png", "label": "ab"[i % 2]} for i in range(6)]
    for go in (base.adapt, base.plan_adapt):
        with pytest.raises(UserError, match="pooling 'vector' is for texts"):
            go(none, task="classify", method=method, pooling="vector")
        with pytest.raises(UserError, match="contrast.first trains vectors of texts, and these rows are im"):
            go(none, task="classify", method=method, contrast={"first": True})


@pytest.mark.parametrize("kind", ["sees", "both"])
def test_a_plan_of_a_head_reads_some_pictures(kind: str) -> None:
    facts = Base(load_base(folder(kind))).plan_adapt(rows(), task="classify", method="head").facts
    assert facts["rows"] == 12 and facts["labels"] == {"odd": 6, "even": 6}
    assert facts["seconds"]["reading"] > 0
