"""A portable base says what transformers' Llama says with the same weights (tolerance 1e-5 in fp32, logits and gradients).

Needs the extra `bench`; run as the second step of CI (`make slow`).
"""

import pytest
import torch

from onebase.base.config import TextShape, text_base
from onebase.base.model import BaseModel

pytestmark = pytest.mark.slow


def llama(base: BaseModel) -> torch.nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    trunk = base.trunk
    attn, ff = trunk.cfg.blocks[0].attn, trunk.cfg.blocks[0].ff
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=base.cfg.text.vocab_size,
            hidden_size=trunk.cfg.width,
            num_hidden_layers=len(trunk.blocks),
            num_attention_heads=attn.heads,
            num_key_value_heads=attn.kv_heads,
            head_dim=attn.head_dim,
            intermediate_size=ff.hidden,
            rms_norm_eps=1e-6,
            rope_theta=10000.0,
            tie_word_embeddings=False,
        )
    )
    names = {"attn.q": "self_attn.q_proj", "attn.k": "self_attn.k_proj", "attn.v": "self_attn.v_proj"}
    names |= {"attn.o": "self_attn.o_proj", "ff.gate": "mlp.gate_proj", "ff.up": "mlp.up_proj"}
    names |= {
        "ff.down": "mlp.down_proj",
        "attn_norm": "input_layernorm",
        "ff_norm": "post_attention_layernorm",
    }
    own = dict(base.named_parameters())
    state = {
        "model.embed_tokens.weight": own["codecs.text.stem.weight"],
        "lm_head.weight": own["codecs.text.head.weight"],
        "model.norm.weight": own["trunks.text.final_norm.weight"],
    }
    for i in range(len(trunk.blocks)):
        for ours, theirs in names.items():
            state[f"model.layers.{i}.{theirs}.weight"] = own[f"trunks.text.blocks.{i}.{ours}.weight"]
    model.load_state_dict({k: v.detach() for k, v in state.items()}, strict=True)
    return model


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_portable_base_equals_llama(kv_heads: int) -> None:
    shape = TextShape(
        width=64, depth=3, head_dim=16, kv_heads=kv_heads, vocab_size=300, context=64, portable=True
    )
    base = BaseModel(text_base(shape))
    base.reset(0)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in base.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * (0.15 if p.ndim == 2 else 0.1) + (p.ndim == 1))
    peer = llama(base)
    ids = torch.randint(0, 300, (3, 40), generator=g)
    ours, theirs = base.logits(ids), peer(ids).logits
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    ours.logsumexp(-1).sum().backward()
    theirs.logsumexp(-1).sum().backward()
    own, other = dict(base.named_parameters()), dict(peer.named_parameters())
    pairs = {
        "codecs.text.stem.weight": "model.embed_tokens.weight",
        "trunks.text.final_norm.weight": "model.norm.weight",
    }
    pairs |= {"trunks.text.blocks.1.attn.k.weight": "model.layers.1.self_attn.k_proj.weight"}
    for a, b in pairs.items():
        torch.testing.assert_close(own[a].grad, other[b].grad, atol=1e-4, rtol=1e-4)
