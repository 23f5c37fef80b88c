"""LoRA of PEFT for every family: one made there on transformers' own model answers the same here, and one of ours opens and answers there."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from onebase.base.link_modules import PairLink  # noqa: E402
from onebase.base.model import BaseModel  # noqa: E402
from onebase.formats.peft.folder import CONFIG, WEIGHTS  # noqa: E402
from onebase.methods import lora  # noqa: E402
from onebase.methods.lora import LoraConfig  # noqa: E402
from onebase.methods.peft import OpenedPeft  # noqa: E402
from onebase.model.cross import Memory  # noqa: E402
from onebase.model.mask import Cols  # noqa: E402
from onebase.model.proj import AdapterRouting  # noqa: E402
from tests.formats.parity import close, imported, shaken  # noqa: E402
from tests.formats.peft_files import load_peft, save_peft  # noqa: E402

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
TEXT = SIZES | {"vocab_size": 50, "max_position_embeddings": 64}
DECODER = TEXT | {"num_key_value_heads": 2, "pad_token_id": 0, "head_dim": 8}
SIGHT = SIZES | {"image_size": 8, "patch_size": 2}
IDS = torch.randint(3, 38, (2, 12), generator=torch.Generator().manual_seed(1))
PIXELS = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
SOUND = torch.randn(2, 8, 20, generator=torch.Generator().manual_seed(3))
ON = AdapterRouting.all_rows("x")
Said = tuple[Tensor, ...]


@dataclass(frozen=True)
class Kind:
    """make: a tiny model there. there, here: what it says. leaves: last words of the modules that are adapted there."""

    make: Callable[[], Any]
    there: Callable[[Any], Said]
    here: Callable[[BaseModel], Said]


def logits_there(m: Any) -> Said:
    return (m(input_ids=IDS).logits,)


def logits_here(m: BaseModel) -> Said:
    return (m.logits(IDS, ON),)


def hidden_there(m: Any) -> Said:
    return (m(input_ids=IDS).last_hidden_state,)


def hidden_here(m: BaseModel) -> Said:
    return (m.hidden(IDS, routing=ON).hidden,)


def seen_there(m: Any) -> Said:
    return (m(pixel_values=PIXELS).last_hidden_state,)


def seen_here(m: BaseModel) -> Said:
    return (m.states("image", PIXELS, routing=ON).hidden,)


def pooled_there(m: Any) -> Said:
    return (m(pixel_values=PIXELS).pooler_output,)


def pooled_here(m: BaseModel) -> Said:
    return (m.image.pooled(*seen_here(m)),)


def decoder(name: str, **more: Any) -> Kind:
    config = getattr(
        transformers, name.replace("ForCausalLM", "TextConfig" if "Gemma3" in name else "Config")
    )
    return Kind(lambda: getattr(transformers, name)(config(**DECODER | more)), logits_there, logits_here)


def encoder(name: str, head: bool, **more: Any) -> Kind:
    config = getattr(transformers, name + "Config")
    kind = getattr(transformers, name + ("ForMaskedLM" if head else "Model"))
    said = (logits_there, logits_here) if head else (hidden_there, hidden_here)
    return Kind(lambda: kind(config(**more)), *said)


def vision(name: str, **more: Any) -> Kind:
    config = getattr(transformers, name.removesuffix("Model") + "Config")
    return Kind(lambda: getattr(transformers, name)(config(**SIGHT | more)), seen_there, seen_here)


def classifier() -> Any:
    return transformers.ViTForImageClassification(transformers.ViTConfig(**SIGHT, num_labels=3))


def classes_here(m: BaseModel) -> Said:
    return (m.image.scores(m.image.pooled(m.states("image", PIXELS, routing=ON).hidden)),)


def together(name: str) -> Kind:
    config = getattr(transformers, name + "Config")
    text = TEXT | {"max_position_embeddings": 16} | ({} if name == "Siglip" else {"eos_token_id": 2})

    def there(m: Any) -> Said:
        out = m(input_ids=IDS, pixel_values=PIXELS)
        return out.text_model_output.last_hidden_state, out.image_embeds

    def here(m: BaseModel) -> Said:
        pair = m.link("pair")
        assert isinstance(pair, PairLink)
        return (*hidden_here(m), pair.placed(*pooled_here(m), "src"))

    make = getattr(transformers, name + "Model")
    return Kind(lambda: make(config(text_config=text, vision_config=SIGHT)), there, here)


def sees(name: str) -> Kind:
    """16 or 4 places of an image in each row."""
    config = getattr(transformers, name + "Config")
    llava = name == "Llava"
    sight = SIGHT | ({"model_type": "clip_vision_model"} if llava else {})
    key = "image_token_index" if llava else "image_token_id"
    more = {} if llava else {"scale_factor": 2}
    places = 16 if llava else 4
    ids = torch.cat((IDS[:, :3], torch.full((2, places), 45), IDS[:, 3:]), 1)

    def make() -> Any:
        text = {"model_type": "llama"} | DECODER
        cfg = config(text_config=text, vision_config=sight, **{key: 45}, **more)
        return getattr(transformers, name + "ForConditionalGeneration")(cfg)

    def there(m: Any) -> Said:
        return (m(input_ids=ids, pixel_values=PIXELS if llava else PIXELS[:, None]).logits,)

    def here(m: BaseModel) -> Said:
        hidden = m.hidden(ids, Cols.simple(*ids.shape), routing=ON, inserts=m.seen(PIXELS, routing=ON)).hidden
        return (m.text.logits(hidden),)

    return Kind(make, there, here)


def gemma3_sees() -> Kind:
    """4 places of an image in each row, which see each other."""
    ids = torch.cat((IDS[:, :3], torch.full((2, 4), 45), IDS[:, 3:]), 1)

    def make() -> Any:
        text = transformers.Gemma3TextConfig(**DECODER | {"query_pre_attn_scalar": 8})
        sight = transformers.SiglipVisionConfig(**SIGHT, vision_use_head=False)
        cfg = transformers.Gemma3Config(
            text_config=text, vision_config=sight, image_token_index=45, mm_tokens_per_image=4
        )
        return transformers.Gemma3ForConditionalGeneration(cfg)

    def there(m: Any) -> Said:
        return (m(input_ids=ids, pixel_values=PIXELS, token_type_ids=(ids == 45).long()).logits,)

    def here(m: BaseModel) -> Said:
        hidden = m.hidden(ids, Cols.simple(*ids.shape), routing=ON, inserts=m.seen(PIXELS, routing=ON)).hidden
        return (m.text.logits(hidden),)

    return Kind(make, there, here)


def whisper() -> Kind:
    cfg = transformers.WhisperConfig(
        vocab_size=50,
        d_model=32,
        **{f"{side}_{k}": v for side in ("encoder", "decoder") for k, v in WHISPER.items()},
        num_mel_bins=8,
        max_source_positions=10,
        max_target_positions=20,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )

    def there(m: Any) -> Said:
        return (m(input_features=SOUND, decoder_input_ids=IDS).logits,)

    def here(m: BaseModel) -> Said:
        memory = Memory(m.states("audio", SOUND, routing=ON).hidden, Cols.simple(2, 10))
        return (m.text.logits(m.hidden(IDS, routing=ON, memory=memory).hidden),)

    return Kind(lambda: transformers.WhisperForConditionalGeneration(cfg), there, here)


WHISPER = {"layers": 2, "attention_heads": 4, "ffn_dim": 40}
IDS_OF = {"pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
DISTIL = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 40, "vocab_size": 50}
ESM = TEXT | {"pad_token_id": 1, "mask_token_id": 4, "token_dropout": False}
KINDS: dict[str, Kind] = {
    "llama": decoder("LlamaForCausalLM"),
    "mistral": decoder("MistralForCausalLM", sliding_window=None),
    "qwen2": decoder("Qwen2ForCausalLM"),
    "qwen3": decoder("Qwen3ForCausalLM"),
    "gemma2": decoder("Gemma2ForCausalLM", query_pre_attn_scalar=8, attn_implementation="eager"),
    "gemma3": decoder("Gemma3ForCausalLM", query_pre_attn_scalar=8),
    "phi3": decoder("Phi3ForCausalLM"),
    "smollm3": decoder("SmolLM3ForCausalLM"),
    "olmo2": decoder("Olmo2ForCausalLM"),
    "granite": decoder("GraniteForCausalLM", residual_multiplier=0.3, logits_scaling=4.0),
    "bert": encoder("Bert", True, **TEXT),
    "bert-bare": encoder("Bert", False, **TEXT),
    "roberta": encoder("Roberta", True, **TEXT, pad_token_id=1),
    "roberta-bare": encoder("Roberta", False, **TEXT, pad_token_id=1),
    "xlm-roberta": encoder("XLMRoberta", True, **TEXT, pad_token_id=1),
    "distilbert": encoder("DistilBert", True, **DISTIL),
    "distilbert-bare": encoder("DistilBert", False, **DISTIL),
    "mpnet": encoder("MPNet", True, **TEXT, **IDS_OF),
    "mpnet-bare": encoder("MPNet", False, **TEXT, **IDS_OF),
    "modernbert": encoder("ModernBert", True, **TEXT, **IDS_OF),
    "modernbert-bare": encoder("ModernBert", False, **TEXT, **IDS_OF),
    "esm": encoder("Esm", True, **ESM),
    "esm-bare": encoder("Esm", False, **ESM),
    "vit": vision("ViTModel"),
    "vit-classes": Kind(classifier, lambda m: (m(pixel_values=PIXELS).logits,), classes_here),
    "dinov2": vision("Dinov2Model"),
    "dinov2-swiglu": vision("Dinov2Model", use_swiglu_ffn=True),
    "dinov2-registers": vision("Dinov2WithRegistersModel", num_register_tokens=2),
    "clip-vision": replace(vision("CLIPVisionModel"), there=pooled_there, here=pooled_here),
    "siglip-vision": vision("SiglipVisionModel"),
    "clip": together("CLIP"),
    "siglip": together("Siglip"),
    "llava": sees("Llava"),
    "idefics3": sees("Idefics3"),
    "smolvlm": sees("SmolVLM"),
    "gemma3-sees": gemma3_sees(),
    "whisper": whisper(),
}


def drawn(parameters: Iterator[Tensor]) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in parameters:
            p.copy_(torch.randn(p.shape, generator=generator) * 0.2)


def same(a: Said, b: Said) -> None:
    for x, y in zip(a, b, strict=True):
        close(x, y)


def put(model: BaseModel, low: OpenedPeft) -> None:
    lora.put(model, "x", low.config, low.tensors)


@pytest.mark.parametrize("kind", KINDS)
def test_one_of_ours_opens_there_and_one_of_theirs_here(kind: str, tmp_path: Path) -> None:
    """On all of our sites, there and back."""
    it = KINDS[kind]
    theirs = shaken(it.make()).eval()
    theirs.save_pretrained(tmp_path / "base")
    family, model = imported(tmp_path / "base")
    cfg = LoraConfig(rank=3, alpha=5.0, sites=())
    drawn(iter(lora.inject(model, "x", cfg)))
    for name, x in lora.tensors(model, "x").items():
        if ".pool." in name and name.endswith(".b"):  # nothing acts on it here, so nothing is learnt
            x.data.zero_()
    (tmp_path / "ours").mkdir()
    save_peft(tmp_path / "ours", cfg, lora.tensors(model, "x"), model, family)
    with torch.no_grad():
        plain, said = it.there(theirs), it.here(model)
        there = peft.PeftModel.from_pretrained(theirs, tmp_path / "ours").eval()
        same(it.there(there), said)
        assert all((a - b).abs().max() > 1e-3 for a, b in zip(plain, said, strict=True))
    # Not a module more than ours has.
    wanted = {k.split(".lora_")[0] for k in there.state_dict() if ".lora_A." in k}
    assert len(wanted) == sum(".lora_A." in k for k in peft.get_peft_model_state_dict(there))
    # Theirs, made by their own words on the same modules.
    tree = json.loads((tmp_path / "ours" / CONFIG).read_text())
    config = peft.LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=tree["target_modules"],
        task_type=tree["task_type"],
        fan_in_fan_out=tree["fan_in_fan_out"],
    )
    fresh = type(theirs).from_pretrained(tmp_path / "base").eval()
    made = peft.get_peft_model(fresh, config).eval()
    drawn(p for n, p in made.named_parameters() if "lora_" in n)
    made.save_pretrained(tmp_path / "theirs")
    _, model = imported(tmp_path / "base")
    put(model, load_peft(tmp_path / "theirs", model, family))
    with torch.no_grad():
        same(it.here(model), it.there(made))


OLDER = {
    "llava": [
        ("model.language_model.", "language_model.model."),
        ("model.vision_tower.encoder.", "model.vision_tower.vision_model.encoder."),
    ],
    "vit": [("layers.", "encoder.layer."), (".q_proj", ".attention.query"), (".o_proj", ".output.dense")],
    "bert": [("base_model.model.bert.", "base_model.model.")],
    "clip-vision": [("base_model.model.encoder.", "base_model.model.vision_model.encoder.")],
}


@pytest.mark.parametrize("kind", OLDER)
def test_names_of_other_years_are_understood(kind: str, tmp_path: Path) -> None:
    theirs = shaken(KINDS[kind].make())
    theirs.save_pretrained(tmp_path / "base")
    family, model = imported(tmp_path / "base")
    cfg = LoraConfig(rank=3, alpha=5.0, sites=("q", "o"))
    drawn(iter(lora.inject(model, "x", cfg)))
    ours = lora.tensors(model, "x")
    save_peft(tmp_path, cfg, ours, model, family)
    tensors = load_file(tmp_path / WEIGHTS)
    renamed = {}
    for name, x in tensors.items():
        new = name
        for a, b in OLDER[kind]:
            new = new.replace(a, b)
        renamed[new] = x
    assert renamed.keys() != tensors.keys()
    save_file(renamed, tmp_path / WEIGHTS)
    again = load_peft(tmp_path, model, family)
    assert all(torch.equal(again.tensors[k], x) for k, x in ours.items())
