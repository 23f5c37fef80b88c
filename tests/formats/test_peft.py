"""LoRA of PEFT: an adapter trained there answers the same here, and one of ours answers the same there."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from onebase.base.model import BaseModel  # noqa: E402
from onebase.errors import ArtifactError, ConfigError  # noqa: E402
from onebase.formats.family import Family  # noqa: E402
from onebase.formats.peft.folder import CONFIG, WEIGHTS  # noqa: E402
from onebase.formats.recognise import is_peft  # noqa: E402
from onebase.methods import lora  # noqa: E402
from onebase.methods.lora import LoraConfig  # noqa: E402
from onebase.methods.peft import OpenedPeft  # noqa: E402
from onebase.model.proj import AdapterRouting  # noqa: E402
from tests.formats.parity import close, imported, shaken  # noqa: E402
from tests.formats.peft_files import load_peft, save_peft  # noqa: E402

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
IDS = torch.randint(3, 50, (2, 12), generator=torch.Generator().manual_seed(1))


def based(kind: str, path: Path) -> tuple[Any, Family, BaseModel]:
    """A tiny random base of transformers, and the same here."""
    if kind == "gpt2":
        sizes = {"vocab_size": 50, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32}
        theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes))
    elif kind == "phi3":
        theirs = transformers.Phi3ForCausalLM(transformers.Phi3Config(**SIZES))
    else:
        theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES))
    shaken(theirs).save_pretrained(path / "base")
    return theirs, *imported(path / "base")


def answers(model: BaseModel, low: OpenedPeft) -> torch.Tensor:
    """Logits with the adapter on."""
    lora.put(model, "x", low.config, low.tensors)
    with torch.no_grad():
        out: torch.Tensor = model.logits(IDS, AdapterRouting.all_rows("x"))
    return out


def trained(theirs: Any, path: Path, **how: Any) -> torch.Tensor:
    """An adapter there, drawn at random and saved; its logits."""
    adapted = peft.get_peft_model(theirs, peft.LoraConfig(task_type="CAUSAL_LM", **how)).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for n, p in adapted.named_parameters():
            if "lora_" in n:
                p.copy_(torch.randn(p.shape, generator=generator) * 0.2 + ("magnitude" in n))
        out: torch.Tensor = adapted(input_ids=IDS).logits
    adapted.save_pretrained(path)
    return out


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("llama", {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}),
        ("llama", {"r": 4, "lora_alpha": 7, "target_modules": "all-linear", "use_rslora": True}),
        ("llama", {"r": 4, "target_modules": ["k_proj", "down_proj"], "layers_to_transform": [1]}),
        (
            "llama",
            {
                "r": 4,
                "target_modules": ["q_proj", "o_proj"],
                "rank_pattern": {"q_proj": 2},
                "alpha_pattern": {"layers.0.self_attn.o_proj": 30},
            },
        ),
        (
            "llama",
            {
                "r": 4,
                "lora_alpha": 9,
                "target_modules": "all-linear",
                "use_rslora": True,
                "rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 7},
            },
        ),
        ("llama", {"r": 4, "target_modules": "all-linear", "use_dora": True, "use_rslora": True}),
        ("gpt2", {"r": 3, "target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True, "use_dora": True}),
        ("phi3", {"r": 4, "target_modules": ["qkv_proj", "gate_up_proj"], "use_dora": True}),
        ("phi3", {"r": 4, "target_modules": ["qkv_proj", "gate_up_proj"]}),
        ("gpt2", {"r": 4, "target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}),
    ],
)
def test_an_adapter_of_peft_answers_the_same_and_goes_back(
    kind: str, how: dict[str, Any], tmp_path: Path
) -> None:
    theirs, family, model = based(kind, tmp_path)
    wanted = trained(theirs, tmp_path / "adapter", **how)
    assert is_peft(tmp_path / "adapter")
    low = load_peft(tmp_path / "adapter", model, family)
    close(answers(model, low), wanted)
    (tmp_path / "back").mkdir()
    save_peft(tmp_path / "back", low.config, low.tensors, model, family)
    theirs = type(theirs).from_pretrained(tmp_path / "base")
    with torch.no_grad():
        close(peft.PeftModel.from_pretrained(theirs, tmp_path / "back").eval()(input_ids=IDS).logits, wanted)
    again = load_peft(tmp_path / "back", model, family)
    assert again.config == low.config
    assert all(torch.equal(again.tensors[k], x) for k, x in low.tensors.items())


@pytest.mark.parametrize("kind", ["llama", "phi3", "gpt2"])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"sites": ("q", "v")},
        {"sites": ("text.1.attn.k", "text.0.ff.down")},
        {"dora": True, "sites": ("q", "v", "text.0.ff.*")},
        {"rslora": True, "ranks": {"q": 2, "text.1.*": 5}, "alphas": {"v": 11.0}},
        {"rslora": True, "dora": True, "ranks": {"text.1.attn.q": 6}},
    ],
)
def test_an_adapter_of_ours_answers_the_same_there(kind: str, how: dict[str, Any], tmp_path: Path) -> None:
    _, family, model = based(kind, tmp_path)
    cfg = LoraConfig(rank=3, alpha=5.0, **how)
    generator = torch.Generator().manual_seed(5)
    for p in lora.inject(model, "y", cfg):
        p.data.copy_(torch.randn(p.shape, generator=generator) * 0.2 + (p.ndim == 1))
    (tmp_path / "out").mkdir()
    save_peft(tmp_path / "out", cfg, lora.tensors(model, "y"), model, family, base="tiny")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    with torch.no_grad():
        there = peft.PeftModel.from_pretrained(theirs, tmp_path / "out").eval()(input_ids=IDS).logits
        close(there, model.logits(IDS, AdapterRouting.all_rows("y")))


def saved(path: Path, **change: Any) -> tuple[BaseModel, Family]:
    theirs, family, model = based("llama", path)
    trained(theirs, path / "a", r=4, target_modules=["q_proj"])
    tree = json.loads((path / "a" / CONFIG).read_text())
    (path / "a" / CONFIG).write_text(json.dumps(tree | change))
    return model, family


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"use_dora": True}, "has no magnitude"),
        ({"peft_type": "LOHA"}, "peft_type"),
        ({"bias": "all"}, "bias"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"something_new": {"on": True}}, "something_new"),
        ({"r": 8}, "rank 4"),
        ({"r": 2**40}, "'r'"),
        ({"lora_alpha": None}, "lora_alpha"),
        ({"rank_pattern": {"q_proj": "many"}}, "many"),
        ({"alpha_pattern": {".*q_proj": 3}}, "alpha_pattern"),
        ({"rank_pattern": {"(a+)+b": 3}}, "rank_pattern"),
        ({"alpha_pattern": {"layers.0.self_attn.q_proj": -3}}, "-3"),
    ],
)
def test_what_is_more_than_lora_is_refused_by_name(
    change: dict[str, Any], named: str, tmp_path: Path
) -> None:
    model, family = saved(tmp_path, **change)
    with pytest.raises((ArtifactError, ConfigError), match=named):
        load_peft(tmp_path / "a", model, family)


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model, family = saved(tmp_path)
    good = load_file(tmp_path / "a" / WEIGHTS)
    key = next(k for k in good if "lora_A" in k)
    cases: list[tuple[dict[str, Any], str]] = [
        ({k: x for k, x in good.items() if k != key}, "only one of A and B"),
        (good | {key: good[key][:, :5].contiguous()}, "the base needs"),
        (
            good
            | {
                "base_model.model.pooler.lora_A.weight": torch.ones(4, 32),
                "base_model.model.pooler.lora_B.weight": torch.ones(50, 4),
            },
            "pooler",
        ),
        (good | {"base_model.model.model.embed_tokens.lora_embedding_A": torch.ones(4, 50)}, "embed_tokens"),
    ]
    for tensors, said in cases:
        save_file(tensors, tmp_path / "a" / WEIGHTS)
        with pytest.raises(ArtifactError, match=said):
            load_peft(tmp_path / "a", model, family)
    (tmp_path / "a" / WEIGHTS).rename(tmp_path / "a" / "adapter_model.bin")
    with pytest.raises(ArtifactError, match="pickle"):
        load_peft(tmp_path / "a", model, family)


def test_rows_of_tokens_that_differ_have_no_place_at_tied_ends(tmp_path: Path) -> None:
    cfg = transformers.LlamaConfig(**SIZES, tie_word_embeddings=True)
    shaken(transformers.LlamaForCausalLM(cfg)).save_pretrained(tmp_path / "base")
    family, model = imported(tmp_path / "base")
    rows = {"text.stem.rows": torch.ones(1, 32), "text.head.rows": torch.zeros(1, 32)}
    with pytest.raises(ConfigError, match=r"text\.stem\.rows"):
        save_peft(tmp_path, LoraConfig(tokens=(1,)), rows, model, family)
