"""Checkpoints as they are found: trunks alone, shards, half precision, old spellings, tensors kept twice."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from onebase.artifact.tensors import save_tensors
from onebase.base.model import BaseModel
from onebase.errors import ArtifactError, UserError
from onebase.formats.hf.folder import HFFolder
from onebase.formats.reader import ConfigReader
from onebase.formats.weight_loading import load_weights
from onebase.model.mask import Cols
from tests.formats.parity import close, exported, imported, shaken, weights_of
from tests.formats.sizes import LLAMA3, SMALL

transformers = pytest.importorskip("transformers")
IDS = torch.arange(3, 15)[None]


def llama(**more: Any) -> Any:
    return shaken(transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL | more)))


def says_the_same(model: BaseModel, theirs: Any) -> None:
    with torch.no_grad():
        close(model.logits(IDS), theirs(input_ids=IDS).logits)


def rewritten(folder: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    tensors = weights_of(folder)
    change(tensors)
    save_tensors(folder / "model.safetensors", tensors)


def reconfigured(folder: Path, drop: tuple[str, ...] = (), **more: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config = {k: v for k, v in config.items() if k not in drop} | more
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("Llama", {}),
        ("Qwen3", {"head_dim": 12}),
        ("Gemma2", {"head_dim": 8, "tie_word_embeddings": False}),
        ("Gemma3Text", {"head_dim": 8, "tie_word_embeddings": False}),
        ("GPT2", {"tie_word_embeddings": False}),
        ("Phi3", {}),
    ],
)
def test_a_trunk_alone(kind: str, more: dict[str, Any], tmp_path: Path) -> None:
    """Saved without a head, and so without a prefix: hidden states are equal, there are no logits, and it goes back so."""
    cfg = getattr(transformers, f"{kind}Config")(**SMALL | more)
    theirs = shaken(getattr(transformers, f"{kind}Model")(cfg))
    theirs.save_pretrained(tmp_path / "theirs")
    family, model = imported(tmp_path / "theirs")
    assert not model.cfg.text.head
    with torch.no_grad():
        want = theirs(input_ids=IDS).last_hidden_state
        close(model.hidden(IDS).hidden, want)
        with pytest.raises(UserError, match="predicts no tokens"):
            model.logits(IDS)
        exported(tmp_path / "back", family, model)
        again = transformers.AutoModel.from_pretrained(tmp_path / "back").eval()
        assert type(again) is type(theirs)
        close(again(input_ids=IDS).last_hidden_state, want)
    assert imported(tmp_path / "back")[1].cfg == model.cfg


def test_shards(tmp_path: Path) -> None:
    theirs = llama()
    theirs.save_pretrained(tmp_path, max_shard_size="8KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 3
    says_the_same(imported(tmp_path)[1], theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_numbers_stay_as_they_are_stored(dtype: torch.dtype, tmp_path: Path) -> None:
    theirs = llama().to(dtype)
    theirs.save_pretrained(tmp_path / "theirs")
    family, model = imported(tmp_path / "theirs")
    assert {p.dtype for p in model.parameters()} == {dtype}
    exported(tmp_path / "back", family, model)
    before, after = weights_of(tmp_path / "theirs"), weights_of(tmp_path / "back")
    assert before.keys() == after.keys()
    assert all(torch.equal(after[k], x) and after[k].dtype == dtype for k, x in before.items())
    assert json.loads((tmp_path / "back" / "config.json").read_text())["dtype"] == str(dtype)[6:]
    again = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "back")
    assert again.dtype == dtype
    # What the numbers mean: the same model with them in fp32.
    source = HFFolder(tmp_path / "theirs")
    wide = load_weights(
        family.read(ConfigReader(source.config, "config.json")), family, source, dtype=torch.float32
    )
    says_the_same(wide, transformers.LlamaForCausalLM.from_pretrained(tmp_path / "theirs", dtype="float32"))


def test_numbers_of_one_byte_are_widened(tmp_path: Path) -> None:
    theirs = llama()
    theirs.save_pretrained(tmp_path)
    name = "model.layers.0.mlp.up_proj.weight"
    rewritten(tmp_path, lambda t: t.update({name: t[name].to(torch.float8_e4m3fn)}))
    model = imported(tmp_path)[1]
    found = model.get_parameter("trunks.text.blocks.0.ff.up.weight")
    assert found.dtype == torch.bfloat16
    assert torch.equal(found.float(), weights_of(tmp_path)[name].float())


def test_whole_numbers_are_no_weights(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path)
    name = "model.layers.0.mlp.up_proj.weight"
    rewritten(tmp_path, lambda t: t.update({name: t[name].to(torch.int8)}))
    with pytest.raises(ArtifactError, match=r"up_proj.weight' has dtype int8"):
        imported(tmp_path)


@pytest.mark.parametrize(
    ("rope", "old"),
    [
        ({"rope_type": "default", "rope_theta": 5000.0}, {"rope_theta": 5000.0}),
        ({"rope_type": "default", "rope_theta": 10000.0}, {"rope_scaling": None}),
        (
            {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
            {"rope_scaling": {"type": "linear", "factor": 4}},
        ),
        (
            LLAMA3,
            {
                "rope_theta": 10000,
                "rope_scaling": {k: v for k, v in LLAMA3.items() if k != "rope_theta"},
            },
        ),
    ],
)
def test_rotary_positions_before_transformers_5(
    rope: dict[str, Any], old: dict[str, Any], tmp_path: Path
) -> None:
    theirs = llama(rope_parameters=dict(rope))
    theirs.save_pretrained(tmp_path)
    reconfigured(tmp_path, ("rope_parameters", "head_dim"), **old)
    says_the_same(imported(tmp_path)[1], theirs)


def test_an_export_is_understood_by_older_readers(tmp_path: Path) -> None:
    """They look for `rope_theta` and `rope_scaling`, and would take the default for what they do not find."""
    theirs = llama(rope_parameters=dict(LLAMA3) | {"rope_theta": 7000.0})
    theirs.save_pretrained(tmp_path / "theirs")
    family, model = imported(tmp_path / "theirs")
    exported(tmp_path / "back", family, model)
    reconfigured(tmp_path / "back", ("rope_parameters",))
    again = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "back").eval()
    says_the_same(model, again)
    assert imported(tmp_path / "back")[1].cfg == model.cfg


def angles(base: float) -> Tensor:
    return base ** (-torch.arange(0, 8, 2).float() / 8)


def test_angles_kept_in_old_checkpoints_are_looked_at(tmp_path: Path) -> None:
    theirs = llama()
    theirs.save_pretrained(tmp_path)
    name = "model.layers.1.self_attn.rotary_emb.inv_freq"
    rewritten(tmp_path, lambda t: t.update({name: angles(10000.0).half()}))
    says_the_same(imported(tmp_path)[1], theirs)
    rewritten(tmp_path, lambda t: t.update({name: angles(20000.0)}))
    with pytest.raises(ArtifactError, match="inv_freq"):
        imported(tmp_path)


EMBED = "model.embed_tokens.weight"


@pytest.mark.parametrize(
    "part", [1, 7 * 32 * 4, 2**24]
)  # bytes read at a time: a row, seven rows, all of them
def test_a_tied_head_that_is_there_must_be_equal(
    part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onebase.formats.hf.folder.PART", part)
    theirs = llama(tie_word_embeddings=True)
    theirs.save_pretrained(tmp_path)
    rewritten(tmp_path, lambda t: t.update({"lm_head.weight": t[EMBED].clone()}))
    says_the_same(imported(tmp_path)[1], theirs)
    for row in (0, -1):
        rewritten(tmp_path, lambda t, row=row: t["lm_head.weight"][row].add_(1))  # type: ignore[misc]
        with pytest.raises(ArtifactError, match=r"ties 'lm_head.weight'"):
            imported(tmp_path)
        rewritten(tmp_path, lambda t, row=row: t["lm_head.weight"][row].copy_(t[EMBED][row]))  # type: ignore[misc]


def test_a_tied_head_may_be_all_that_is_there(tmp_path: Path) -> None:
    theirs = llama(tie_word_embeddings=True)
    theirs.save_pretrained(tmp_path)
    rewritten(tmp_path, lambda t: t.update({"lm_head.weight": t.pop(EMBED)}))
    says_the_same(imported(tmp_path)[1], theirs)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.pop("model.layers.1.mlp.up_proj.weight"), "model.layers.1.mlp.up_proj.weight"),
        (lambda t: t.update({"model.layers.2.mlp.up_proj.weight": torch.ones(2)}), "layers.2.mlp.up_proj"),
        (lambda t: t.update({"model.norm.weight": torch.ones(31)}), r"model.norm.weight' has shape \[31\]"),
        (lambda t: t.update({"model.norm.bias": torch.ones(32)}), "no rule reads tensor 'model.norm.bias'"),
    ],
)
def test_what_does_not_fit_is_named(
    change: Callable[[dict[str, Tensor]], None], named: str, tmp_path: Path
) -> None:
    llama().save_pretrained(tmp_path)
    rewritten(tmp_path, change)
    with pytest.raises(ArtifactError, match=named):
        imported(tmp_path)


def test_weights_are_copies(tmp_path: Path) -> None:
    """Not views of the mapped file: it may be written anew."""
    llama().save_pretrained(tmp_path)
    model = imported(tmp_path)[1]
    before = {n: p.clone() for n, p in model.named_parameters()}
    rewritten(tmp_path, lambda t: [x.zero_() for x in t.values()] and None)
    assert all(torch.equal(before[n], p) for n, p in model.named_parameters())
    assert len({p.untyped_storage().data_ptr() for p in model.parameters()}) == len(before)


def test_the_model_is_frozen(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path)
    model = imported(tmp_path)[1]
    assert not model.training and not any(p.requires_grad for p in model.parameters())


def test_a_class_of_another_task_is_refused(tmp_path: Path) -> None:
    """A head that classifies has no place in a base: its tensor is named, not dropped."""
    cfg = transformers.LlamaConfig(**SMALL, num_labels=3)
    transformers.LlamaForSequenceClassification(cfg).save_pretrained(tmp_path)
    with pytest.raises(ArtifactError, match="score.weight"):
        imported(tmp_path)


def test_a_config_of_many_blocks_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a model of that size is made."""
    llama().save_pretrained(tmp_path)
    reconfigured(tmp_path, num_hidden_layers=4096)
    monkeypatch.setattr("onebase.formats.weight_loading.BaseModel", None)
    start = time.process_time()
    with pytest.raises(ArtifactError, match=r"model.layers.10\.\S+ is missing"):
        imported(tmp_path)
    assert time.process_time() - start < 10


@pytest.mark.parametrize("rope", [{}, LLAMA3])
def test_far_from_the_start(rope: dict[str, Any], tmp_path: Path) -> None:
    """One bit of an angle is an error of a hundredth at position 200,000: angles are computed as theirs are."""
    theirs = llama(
        head_dim=64, max_position_embeddings=2**18, **({"rope_parameters": dict(rope)} if rope else {})
    )
    theirs.save_pretrained(tmp_path)
    model = imported(tmp_path)[1]
    with torch.no_grad():
        hidden = model.hidden(IDS, Cols.simple(1, IDS.shape[1], start=200_000)).hidden
        positions = torch.arange(200_000, 200_000 + IDS.shape[1])[None]
        close(model.text.logits(hidden), theirs(input_ids=IDS, position_ids=positions).logits)
