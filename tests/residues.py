"""A tiny protein model in transformers' layout, with weights as they start."""

from pathlib import Path

import torch

from onebase.modality.text.residues import ALPHABET


def esm(folder: Path) -> Path:
    """A folder as ESM-2 is published: 33 tokens, two layers of width 32."""
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(ALPHABET))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "EsmTokenizer"}')
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    tokens = {"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32, "token_dropout": True}
    cfg = transformers.EsmConfig(
        **sizes, **tokens, max_position_embeddings=66, position_embedding_type="rotary"
    )
    torch.manual_seed(0)
    transformers.EsmForMaskedLM(cfg).save_pretrained(folder)
    return folder
