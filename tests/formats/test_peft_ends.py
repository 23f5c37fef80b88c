"""LoRA at the ends of the text, there and here: embedding and matrix of logits as targets, rows of tokens, whole matrices that PEFT saves."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from onebase.api.base import Base  # noqa: E402
from onebase.errors import ArtifactError, ConfigError, UserError  # noqa: E402
from onebase.formats.peft.folder import CONFIG, WEIGHTS  # noqa: E402
from onebase.methods import lora  # noqa: E402
from onebase.methods.lora_config import EMBEDDING, LM_HEAD, LoraConfig  # noqa: E402
from onebase.methods.merge import merge  # noqa: E402
from onebase.methods.table import METHODS  # noqa: E402
from onebase.model.proj import AdapterRouting  # noqa: E402
from tests.formats.parity import close, imported, shaken  # noqa: E402
from tests.formats.peft_files import load_peft, save_peft  # noqa: E402
from tests.formats.test_peft import IDS, SIZES  # noqa: E402
from tests.helpers import tiny_base  # noqa: E402

ON = AdapterRouting.all_rows("x")
GEMMA = SIZES | {"head_dim": 8, "query_pre_attn_scalar": 8, "attn_implementation": "eager"}
GPT2 = {"vocab_size": 50, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32}
Q = ["q_proj"]


def based(kind: str, path: Path) -> Any:
    """A tiny random base of transformers, saved: llama untied or tied, gemma2 (which scales its embedding, and is tied), gpt2 (tied)."""
    if kind == "gemma2":
        theirs = transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**GEMMA))
    elif kind == "gpt2":
        theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2))
    else:
        cfg = transformers.LlamaConfig(**SIZES, tie_word_embeddings=kind == "tied")
        theirs = transformers.LlamaForCausalLM(cfg)
    shaken(theirs).save_pretrained(path)
    return theirs


def trained(theirs: Any, path: Path, **how: Any) -> torch.Tensor:
    """An adapter there, all that learns of it drawn at random and saved; its logits."""
    made = peft.get_peft_model(
        theirs, peft.LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=6, **how)
    ).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for n, p in made.named_parameters():
            if p.requires_grad:
                p.copy_(torch.randn(p.shape, generator=generator) * 0.2 + (0 if "lora_" in n else p))
        out: torch.Tensor = made(input_ids=IDS).logits
    made.save_pretrained(path)
    return out


CASES: list[tuple[str, dict[str, Any]]] = [
    ("untied", {"target_modules": [*Q, "embed_tokens"]}),
    ("untied", {"target_modules": [*Q, "embed_tokens", "lm_head"], "rank_pattern": {"lm_head": 2}}),
    ("untied", {"target_modules": ["lm_head"], "use_rslora": True}),
    ("untied", {"target_modules": Q, "modules_to_save": ["embed_tokens", "lm_head"]}),
    ("untied", {"target_modules": Q, "trainable_token_indices": [7, 3]}),
    ("untied", {"target_modules": Q, "trainable_token_indices": {"embed_tokens": [7, 3], "lm_head": [9]}}),
    ("untied", {"target_modules": "all-linear", "modules_to_save": ["lm_head"]}),
    ("tied", {"target_modules": [*Q, "embed_tokens"]}),
    ("tied", {"target_modules": [*Q, "lm_head"]}),
    ("tied", {"target_modules": Q, "modules_to_save": ["embed_tokens"]}),
    ("tied", {"target_modules": Q, "modules_to_save": ["lm_head"]}),
    ("tied", {"target_modules": Q, "trainable_token_indices": [7, 3]}),
    ("tied", {"target_modules": [*Q, "embed_tokens", "lm_head"], "ensure_weight_tying": True}),
    ("gemma2", {"target_modules": [*Q, "embed_tokens"]}),
    ("gemma2", {"target_modules": Q, "trainable_token_indices": [7, 3]}),
    ("gemma2", {"target_modules": Q, "modules_to_save": ["embed_tokens"]}),
    ("gpt2", {"target_modules": ["c_attn", "wte"], "fan_in_fan_out": True}),
]


@pytest.mark.parametrize(("kind", "how"), CASES)
def test_one_of_theirs_says_the_same_here_merged_too_and_back_there(
    kind: str, how: dict[str, Any], tmp_path: Path
) -> None:
    wanted = trained(based(kind, tmp_path / "base"), tmp_path / "theirs", **how)
    family, model = imported(tmp_path / "base")
    opened = load_peft(tmp_path / "theirs", model, family)
    lora.put(model, "x", opened.config, opened.tensors)
    with torch.no_grad():
        close(model.logits(IDS, ON), wanted)
        assert (model.logits(IDS) - wanted).abs().max() > 1e-3
        mixed = model.logits(IDS, AdapterRouting((("x", (1,)),)))  # one row with it, the other without
        close(mixed[1], wanted[1])
        close(mixed[0], model.logits(IDS)[0])
    (tmp_path / "back").mkdir()
    save_peft(tmp_path / "back", opened.config, opened.tensors, model, family)
    fresh = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    with torch.no_grad():
        close(peft.PeftModel.from_pretrained(fresh, tmp_path / "back").eval()(input_ids=IDS).logits, wanted)
    again = load_peft(tmp_path / "back", model, family)
    assert again.config == opened.config
    for key, t in opened.tensors.items():
        torch.testing.assert_close(again.tensors[key], t, atol=1e-6, rtol=1e-6)
    merge(model, [(METHODS["lora"], "x")])
    with torch.no_grad():
        close(model.logits(IDS), wanted)


TEXTS = [
    {"prompt": "def add", "completion": "(a, b)"},
    {"prompt": "The quick", "completion": " brown fox"},
] * 4


@pytest.mark.parametrize("tied", [False, True])
def test_what_is_learnt_here_at_the_ends_says_the_same_there(tied: bool, tmp_path: Path) -> None:
    base = Base(tiny_base(portable=True, tied=tied))
    base.save(tmp_path / "plain")
    base.export(tmp_path / "base")
    asked = {"sites": ["q", "embedding", "lm_head"], "rank": 2, "epochs": 6, "lr": 2e-2}
    texts = [
        {"text": r["prompt"] + r["completion"]} for r in TEXTS
    ]  # no special tokens: their rows have no place there
    adapter = base.adapt(texts, task="continue", method="lora", **asked)
    cfg = adapter.parts.config.lora
    assert cfg is not None and cfg.ends == (EMBEDDING, LM_HEAD) and cfg.sites == ("q", "embedding", "lm_head")
    learnt = adapter.parts.tensors
    assert learnt[f"{EMBEDDING}.a"].abs().max() > 1e-3 and learnt[f"{LM_HEAD}.b"].abs().max() > 1e-3
    adapter.save(tmp_path / "adapter")
    on = base.with_adapter(tmp_path / "adapter")
    ids = base.tokenizer.encode("def add(a, b)", bos=True)
    close(on.merged().logits(ids), on.logits(ids))
    there = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    on.export(tmp_path / "there", format="peft")
    with torch.no_grad():
        said = peft.PeftModel.from_pretrained(there, tmp_path / "there").eval()(input_ids=torch.tensor([ids]))
    close(said.logits[0], on.logits(ids))


def test_gradients_are_those_of_whole_logits() -> None:
    """The fused loss and the loss by logits teach the same at both ends, whatever else the adapter has there."""
    from onebase.objective.cross_entropy import linear_cross_entropy

    loaded = tiny_base(tied=True)
    cfg = LoraConfig(rank=2, sites=("embedding", "lm_head"), tokens=(5, 9))
    params = lora.inject(loaded.model, "x", cfg, 1)
    for p in loaded.model.parameters():
        p.requires_grad_(False)
    for p in params:
        p.requires_grad_(True)
        p.data.normal_(0, 0.1, generator=torch.Generator().manual_seed(p.numel()))
    h_BTD = loaded.model.hidden(IDS, routing=ON).hidden
    targets = IDS.roll(-1, 1).flatten()
    ((_, head),) = loaded.model.text.head_weights(ON, 2)
    cap = loaded.model.cfg.text.softcap
    total, _ = linear_cross_entropy(h_BTD.flatten(0, 1), head, targets, softcap=cap)
    got = torch.autograd.grad(total, params, retain_graph=True)
    z = loaded.model.text.logits(h_BTD, ON).flatten(0, 1)
    want = torch.autograd.grad(torch.nn.functional.cross_entropy(z, targets, reduction="sum"), params)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    trained(based("untied", tmp_path / "base"), tmp_path / "a", target_modules=[*Q, "embed_tokens"])
    family, model = imported(tmp_path / "base")
    good, tree = load_file(tmp_path / "a" / WEIGHTS), json.loads((tmp_path / "a" / CONFIG).read_text())
    end = "base_model.model.model.embed_tokens"
    cases: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({f"{end}.base_layer.weight": torch.ones(60, 32)}, {}, "as many tokens"),
        ({f"{end}.lora_embedding_A": torch.ones(4, 60)}, {}, r"\[rank, 50\]"),
        ({"base_model.model.lm_head.lora_A.weight": torch.ones(4, 32)}, {}, "only one of A and B"),
        ({}, {"r": 3}, "the config says 3"),
        ({}, {"modules_to_save": ["lm_head"]}, "no tensors of these modules"),
        ({"base_model.model.score.weight": torch.ones(2, 32)}, {"modules_to_save": ["score"]}, "score"),
        ({}, {"trainable_token_indices": [1, 1]}, "different token ids"),
        ({}, {"trainable_token_indices": [1]}, "the file has no such rows"),
        ({}, {"modules_to_save": [""]}, "a list of module names"),
        (
            {"base_model.model.score.weight": torch.tensor(1.0)},
            {"modules_to_save": ["score"], "task_type": "SEQ_CLS"},
            "expected a matrix",
        ),
        (
            {f"{end}.token_adapter.trainable_tokens_delta": torch.ones(1, 32)},
            {"trainable_token_indices": [50]},
            "tokens below 50",
        ),
    ]
    for tensors, said, named in cases:
        save_file(good | tensors, tmp_path / "a" / WEIGHTS)
        (tmp_path / "a" / CONFIG).write_text(json.dumps(tree | said))
        with pytest.raises((ArtifactError, ConfigError), match=named):
            load_peft(tmp_path / "a", model, family)


def test_options_that_name_an_end_are_checked() -> None:
    base = Base(tiny_base())
    with pytest.raises(UserError, match="DoRA at text.embedding"):
        base.adapt(TEXTS, task="complete", method="lora", sites=["embedding"], dora=True)
    adapter = base.adapt(TEXTS, task="complete", method="lora", sites=["text.lm_head"], epochs=1)
    assert {k.rpartition(".")[0] for k in adapter.parts.tensors if not k.endswith(".rows")} == {LM_HEAD}
