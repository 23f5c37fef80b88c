"""Parameters, FLOPs and memory of a trunk from its config alone, before anything is allocated."""

from onebase.model.config import GATED, AttnConfig, BlockConfig, NormConfig, TrunkConfig


def norm_parameters(cfg: NormConfig | None, width: int) -> int:
    """Parameters of one norm."""
    if cfg is None or not cfg.affine:
        return 0
    return width * (2 if cfg.kind == "layer" and cfg.bias else 1)


def _linear(d_in: int, d_out: int, bias: bool) -> int:
    return d_in * d_out + (d_out if bias else 0)


def attention_parameters(cfg: AttnConfig, width: int, memory: int | None = None) -> int:
    """Parameters of q, k, v, o and the QK-norms; memory: input width of keys and values (`width` when null)."""
    q, kv = cfg.heads * cfg.head_dim, cfg.kv_heads * cfg.head_dim
    return (
        _linear(width, q, "q" in cfg.bias)
        + _linear(memory or width, kv, "k" in cfg.bias)
        + _linear(memory or width, kv, "v" in cfg.bias)
        + _linear(q, width, "o" in cfg.bias)
        + norm_parameters(cfg.qk_norm, q if cfg.qk_norm_whole else cfg.head_dim)
        + norm_parameters(cfg.qk_norm, kv if cfg.qk_norm_whole else cfg.head_dim)
    )


def block_parameters(cfg: BlockConfig, width: int, memory: int | None = None, groups: int = 1) -> int:
    """Parameters of one block: attention, cross-attention to a memory of `memory` features, the feed-forward of each group, norms, scales, and the
    projection of conditions."""
    ups = 2 if cfg.ff.activation in GATED else 1
    ff = ups * _linear(width, cfg.ff.hidden, cfg.ff.bias) + _linear(cfg.ff.hidden, width, cfg.ff.bias)
    parts = 2 + (cfg.cross is not None)
    norms = parts * (2 if cfg.norms.where == "sandwich" else 1) - (not cfg.norms.attn)
    total = (
        attention_parameters(cfg.attn, width) + groups * ff + norms * norm_parameters(cfg.norms.norm, width)
    )
    if cfg.cross is not None:
        total += attention_parameters(cfg.cross, width, memory)
    total += _linear(width, 6 * width, True) if cfg.adaptive else 0
    return total + (parts * width if cfg.layer_scale else 0)


def parameters(cfg: TrunkConfig) -> int:
    """Parameters of a trunk."""
    ends = norm_parameters(cfg.input_norm, cfg.width) + norm_parameters(cfg.final_norm, cfg.width)
    return (
        sum(block_parameters(b, cfg.width, cfg.memory, max(1, len(cfg.groups))) for b in cfg.blocks)
        + ends
        + (2 * len(cfg.blocks) if cfg.lambdas else 0)
        + (cfg.relative.buckets * cfg.blocks[0].attn.heads if cfg.relative else 0)
    )


def matrix_parameters(cfg: TrunkConfig, groups: int = 1) -> int:
    """Weights that are multiplied with every token: the projections, without biases and norms; with `groups` the feed-forwards of so many groups. Keys and values of cross-attention are not
    included: they are computed once per memory, however many tokens attend to it; nor are the projections of conditions, computed once per row."""
    total = 0
    for b in cfg.blocks:
        heads = (2 * b.attn.heads + 2 * b.attn.kv_heads) * b.attn.head_dim
        total += cfg.width * (heads + groups * (3 if b.ff.activation in GATED else 2) * b.ff.hidden)
        if b.cross is not None:
            total += 2 * cfg.width * b.cross.heads * b.cross.head_dim
    return total


def seen_keys(attn: AttnConfig, length: int, causal: bool) -> float:
    """Mean number of visible keys per query, in a row of `length` tokens of one document."""
    if not causal:
        return float(length)
    window = min(attn.window or length, length)
    return (window * (window + 1) / 2 + (length - window) * window) / length


def forward_flops(cfg: TrunkConfig, length: int) -> float:
    """Forward FLOPs per token (two per multiply-add): projections, and scores and values of the visible keys."""
    flops = 2.0 * matrix_parameters(cfg)
    for b in cfg.blocks:
        flops += 4.0 * b.attn.heads * b.attn.head_dim * seen_keys(b.attn, length, cfg.direction == "causal")
    return flops


def cache_bytes(cfg: TrunkConfig, tokens: int, bytes_per_number: int = 2) -> int:
    """Bytes of the key-value cache for one row of `tokens` tokens."""
    per_token = sum(2 * b.attn.kv_heads * b.attn.head_dim for b in cfg.blocks)
    return per_token * tokens * bytes_per_number


def activation_bytes(cfg: TrunkConfig, tokens: int, length: int, bytes_per_number: int = 2) -> int:
    """Bytes saved for the backward pass of `tokens` tokens in rows of `length`: an estimate from the tensors that autograd saves.

    Counts inputs of projections, norms (with their fp32 copy), rotary and gate products, and attention weights of the visible
    keys (saved by the plain and blocked backends).
    """
    total = 0.0
    for b in cfg.blocks:
        q, kv = b.attn.heads * b.attn.head_dim, b.attn.kv_heads * b.attn.head_dim
        ups = 2 if b.ff.activation in GATED else 1
        numbers = 4 * cfg.width + 3 * q + 4 * kv + (2 * ups + 1) * b.ff.hidden
        scores = 2 * b.attn.heads * seen_keys(b.attn, length, cfg.direction == "causal")
        total += tokens * ((numbers + scores) * bytes_per_number + 4 * cfg.width * 4 / 2)
    return int(total)
