"""A protein base (ESM) learns classes and values of sequences, by LoRA and by all weights."""

import random
from pathlib import Path

import pytest
import torch

import onebase
from onebase.api.base import Base

RESIDUES = "<cls> <pad> <eos> <unk> L A G V S E R T I D P K Q N F Y M H W C X B U Z O . - <null_1> <mask>"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    transformers = pytest.importorskip("transformers")
    folder: Path = tmp_path_factory.mktemp("esm")
    (folder / "vocab.txt").write_text("\n".join(RESIDUES.split()))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "EsmTokenizer"}')
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    tokens = {"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32, "token_dropout": True}
    cfg = transformers.EsmConfig(
        **sizes, **tokens, max_position_embeddings=66, position_embedding_type="rotary"
    )
    torch.manual_seed(0)
    transformers.EsmForMaskedLM(cfg).save_pretrained(folder)
    return onebase.load(folder)


@pytest.mark.parametrize(("method", "lr"), [("lora", 1e-2), ("full", 1e-3)])
def test_sequences_are_classified_and_measured(method: str, lr: float, base: Base) -> None:
    """Two kinds of residues, told apart on sequences that were not seen."""
    draw = random.Random(0)
    rows = [
        {"text": "".join(draw.choices("LKR" if i % 2 else "GAV", k=12)), "label": "ab"[i % 2], "value": i % 2}
        for i in range(24)
    ]
    for task, score, least in (("classify", "accuracy", 1.0), ("regress", "spearman", 0.8)):
        adapter = base.adapt(rows[:16], task=task, method=method, lr=lr, epochs=4)
        assert onebase.evaluate(base.with_adapter(adapter), rows[16:])[score].value >= least
