"""A base in a foreign layout: what it can express comes out equal, what it cannot is named."""

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from onebase.base.config import BaseConfig, TextShape, text_base
from onebase.base.folder import LoadedBase
from onebase.base.model import BaseModel
from onebase.errors import ConfigError
from onebase.formats.families import FAMILIES, family_of
from onebase.formats.families.compose import layout
from onebase.formats.family import written
from onebase.formats.hf.base import layout_of
from onebase.formats.reader import Reader
from onebase.model.config import BlockConfig, NormConfig, RopeConfig, TrunkConfig
from tests.formats.parity import close, exported, grads, imported, shaken

transformers = pytest.importorskip("transformers")
LLAMA = family_of("llama", "a test")
SHAPE = TextShape(width=64, depth=3, head_dim=16, vocab_size=300, context=64, portable=True)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_a_portable_base_of_ours_is_a_llama(kv_heads: int, tied: bool, tmp_path: Path) -> None:
    base = BaseModel(text_base(replace(SHAPE, kv_heads=kv_heads, tied=tied)))
    base.reset(0)
    shaken(base)
    exported(tmp_path, LLAMA, base)
    peer = transformers.LlamaForCausalLM.from_pretrained(tmp_path)
    ids = torch.randint(0, 300, (3, 40), generator=torch.Generator().manual_seed(1))
    ours, theirs = base.logits(ids), peer(input_ids=ids).logits
    close(ours, theirs)
    a, b = grads(ours.logsumexp(-1).sum(), base), grads(theirs.logsumexp(-1).sum(), peer)
    for rule in LLAMA.rules(base.cfg):
        if hasattr(rule, "steps"):
            close(a[rule.ours[0]], b[rule.theirs[0]])
    _, again = imported(tmp_path)
    for (name, x), (_, y) in zip(base.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(x, y), name


def trunk(**more: Any) -> BaseConfig:
    cfg = text_base(SHAPE)
    return replace(cfg, trunks={"text": replace(cfg.trunks["text"], **more)})


def codec(**more: Any) -> BaseConfig:
    cfg = text_base(SHAPE)
    return replace(cfg, codecs={"text": replace(cfg.text, **more)})


def blocks(which: slice = slice(None), **more: Any) -> BaseConfig:
    """The portable base with `more` in the parts of some blocks: attn, ff, norms."""
    made: list[BlockConfig] = list(text_base(SHAPE).trunks["text"].blocks)
    for i in range(len(made))[which]:
        parts = {part: replace(getattr(made[i], part), **change) for part, change in more.items()}
        made[i] = replace(made[i], **parts)
    return trunk(blocks=tuple(made))


PLAIN = NormConfig(affine=False)


@pytest.mark.parametrize(
    ("cfg", "named"),
    [
        (codec(softcap=15.0), "codecs.text.softcap = 15.0"),
        (codec(scale=8.0), "codecs.text.scale = 8.0"),
        (codec(positions=64), "codecs.text.positions = 64"),
        (codec(head_bias=True), "codecs.text.head_bias = True"),
        (trunk(lambdas=True), "trunks.text.lambdas = True"),
        (trunk(input_norm=PLAIN), "trunks.text.input_norm = "),
        (trunk(final_norm=None), "trunks.text.final_norm = None"),
        (trunk(direction="both"), "trunks.text.direction = 'both'"),
        (blocks(attn={"softcap": 50.0}), "blocks.0.attn.softcap = 50.0"),
        (blocks(attn={"qk_norm": NormConfig()}), "blocks.0.attn.qk_norm = "),
        (blocks(attn={"window": 8}), "blocks.0.attn.window = 8"),
        (blocks(slice(1, 2), attn={"window": 8}), "blocks.1.attn.window = 8"),
        (blocks(attn={"scale": 1.0}), "blocks.0.attn.scale = 1.0"),
        (blocks(attn={"bias": ("q", "k", "v")}), "blocks.0.attn.bias = "),
        (blocks(attn={"rope": None}), "blocks.0.attn.rope = None"),
        (blocks(attn={"rope": RopeConfig(dim=8)}), "partial_rotary_factor"),
        (blocks(slice(2, 3), attn={"rope": RopeConfig(base=5e5)}), "blocks.2.attn.rope.base = 500000.0"),
        (blocks(ff={"activation": "relu2"}), "'hidden_act' is 'relu2'"),
        (blocks(ff={"activation": "gelu"}), "blocks.0.ff.activation = 'gelu'"),
        (blocks(slice(1, 2), ff={"hidden": 96}), "blocks.1.ff.hidden = 96"),
        (blocks(norms={"norm": PLAIN}), "blocks.0.norms.norm.affine = False"),
        (blocks(norms={"norm": NormConfig(kind="layer")}), "blocks.0.norms.norm.kind = 'layer'"),
        (blocks(norms={"norm": NormConfig(offset=1.0)}), "blocks.0.norms.norm.offset = 1.0"),
        (blocks(norms={"where": "sandwich"}), "blocks.0.norms.where = 'sandwich'"),
        (text_base(replace(SHAPE, portable=False)), "'hidden_act' is 'relu2'"),
        (text_base(replace(SHAPE, portable=False, ff="swiglu")), "codecs.text.softcap = 15.0"),
    ],
)
def test_what_the_layout_cannot_express_is_named(cfg: BaseConfig, named: str) -> None:
    with pytest.raises(ConfigError, match="the llama layout cannot express") as e:
        written(LLAMA, cfg)
    assert named in e.value.cause
    assert "portable" in e.value.remedy


def test_how_weights_once_started_does_not_matter() -> None:
    cfg = text_base(replace(SHAPE, zero_out=True, head_std=0.5))
    assert written(LLAMA, cfg)["hidden_size"] == 64


def test_a_second_trunk_is_named() -> None:
    cfg = text_base(SHAPE)
    with pytest.raises(ConfigError, match="trunks.image"):
        written(LLAMA, replace(cfg, trunks=cfg.trunks | {"image": cfg.trunks["text"]}))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.model_types[0])
def test_no_family_takes_a_base_with_lambdas_for_its_own(family: Any) -> None:
    with pytest.raises(ConfigError):
        written(family, trunk(lambdas=True))


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"attn": {"window": 8}}, "mistral"),
        ({"attn": {"bias": ("q", "k", "v")}}, "qwen2"),
        ({"attn": {"qk_norm": NormConfig()}}, "qwen3"),
        ({"attn": {"rope": RopeConfig(dim=6)}}, "phi3"),
    ],
)
def test_another_layout_can(change: dict[str, Any], kind: str) -> None:
    assert written(family_of(kind, "a test"), blocks(**change))["model_type"] == kind


@pytest.mark.parametrize("dim", range(2, 98, 2))
def test_any_part_of_a_head_can_turn(dim: int) -> None:
    """Their factor is a quotient that is rounded down to features: it must not lose one."""
    cfg = text_base(replace(SHAPE, width=98 * 2, head_dim=98))
    attn = replace(cfg.trunks["text"].blocks[0].attn, rope=RopeConfig(dim=dim))
    made: TrunkConfig = cfg.trunks["text"]
    cfg = replace(cfg, trunks={"text": replace(made, blocks=(replace(made.blocks[0], attn=attn),) * 3)})
    written(family_of("phi3", "a test"), cfg)


def test_an_unknown_family_is_refused() -> None:
    for wrong in ("gpt5", None, 3, ["llama"], "Llama"):
        with pytest.raises(ConfigError, match="model_type"):
            family_of(wrong, "config.json")


def _read(model_type: str, names: frozenset[str]) -> BaseConfig:
    """The config of a family's default model; of several parts with an image token that is there."""
    more: dict[str, Any] = {"esm": {"vocab_size": 33}}.get(model_type, {})
    tree = transformers.AutoConfig.for_model(model_type, **more).to_dict() | {"model_type": model_type}
    tree |= {k: 5 for k in ("image_token_id", "image_token_index") if k in tree}
    tree |= {"scale_factor": 1} if "scale_factor" in tree else {}
    if model_type == "gemma3":
        tree = {"model_type": "gemma3", "text_config": tree["text_config"]}
    return family_of(model_type, "a test").read(Reader(tree, "a test", names))


HEADS = frozenset({"cls.predictions.transform.dense.weight", "lm_head.dense.weight", "lm_head.weight"})
HEADS |= {"vocab_transform.weight", "head.dense.weight", "lm_head.decoder.weight"}
TYPES = [t for family in FAMILIES for t in family.model_types]


@pytest.mark.parametrize("model_type", TYPES)
def test_every_family_says_of_every_base_why_it_cannot_express_it(model_type: str) -> None:
    """By ConfigError alone: whoever looks for the one that can must not take a bug for a no."""
    for names in (frozenset(), HEADS):
        try:
            cfg = _read(model_type, names)
        except ConfigError:
            assert names == frozenset()  # what lacks a head is no whole model of several parts
            continue
        for family in FAMILIES:
            with contextlib.suppress(ConfigError):
                written(family, cfg)


@pytest.mark.parametrize("error", [AssertionError, AttributeError, KeyError, TypeError])
def test_a_bug_of_a_family_is_no_refusal(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(cfg: BaseConfig) -> dict[str, Any]:
        raise error("our own")

    families = (replace(LLAMA, write=broken), *FAMILIES)
    monkeypatch.setattr("onebase.formats.hf.base.FAMILIES", families)
    monkeypatch.setattr("onebase.formats.families.compose.SINGLE", families)
    cfg = text_base(SHAPE)
    with pytest.raises(error, match="our own"):
        layout(cfg)
    with pytest.raises(error, match="our own"):
        layout_of(LoadedBase(BaseModel(cfg), None))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"text_config": {"model_type": "llama", "hidden_size": "x"}}, "hidden_size"),
        ({"text_config": {"model_type": "bert"}}, "text_config"),
        ({"text_config": {"model_type": "vit"}}, "text_config"),
        ({"text_config": []}, "text_config"),
        ({"vision_config": {"model_type": "llama"}}, "vision_config"),
        ({"vision_config": {"hidden_size": 0}}, "vision_config"),
        ({"vision_config": None}, "vision_config"),
    ],
)
def test_a_bad_part_of_a_config_is_named(change: dict[str, Any], named: str) -> None:
    tree = transformers.AutoConfig.for_model("llava").to_dict() | {
        "image_token_index": 5,
        "image_token_id": 5,
    }
    with pytest.raises(ConfigError, match=named):
        family_of("llava", "a test").read(Reader(tree | change, "a test", HEADS))
