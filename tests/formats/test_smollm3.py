"""SmolLM 3: what transformers says, with blocks that have no positions."""

from pathlib import Path
from typing import Any

import pytest

from tests.formats.parity import check_decoder
from tests.formats.sizes import SMALL

transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize(
    ("more", "turning"),
    [
        ({"no_rope_layer_interval": 2}, [True, False, True]),
        ({"no_rope_layers": [0, 1, 1], "tie_word_embeddings": False}, [False, True, True]),
        ({"no_rope_layers": [0, 0, 0]}, [False] * 3),
        ({"no_rope_layers": [1, 0, 1], "use_sliding_window": True, "sliding_window": 4}, [True, False, True]),
        ({"attention_bias": True, "mlp_bias": True}, [True] * 3),
    ],
)
def test_smollm3(more: dict[str, Any], turning: list[bool], tmp_path: Path) -> None:
    cfg = transformers.SmolLM3Config(**SMALL | {"num_hidden_layers": 3} | more)
    model = check_decoder(transformers.SmolLM3ForCausalLM(cfg), tmp_path)
    assert [b.attn.rope is not None for b in model.cfg.trunks["text"].blocks] == turning
