"""Rotary positions in foreign configs: `rope_parameters` (transformers 5), or `rope_theta` and `rope_scaling` (before).

Source: transformers `modeling_rope_utils.py`, read for names, defaults and which of two keys wins. LongRoPE's factor on cos and
sin: 2402.13753.
"""

import logging
import math

import torch
from torch import Tensor

from onebase.errors import ConfigError
from onebase.formats.family import Tree
from onebase.formats.reader import ConfigReader
from onebase.formats.rules import Ignore
from onebase.model.config import RopeConfig, RopeScaling

ORIGINAL = "original_max_position_embeddings"
SIZED = {"attention_factor": "attention", ORIGINAL: "original"}
WRITTEN: dict[str, dict[str, str]] = {
    "default": {},
    "linear": {"factor": "factor"},
    "dynamic": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        "low_freq_factor": "low",
        "high_freq_factor": "high",
        ORIGINAL: "original",
    },
    "yarn": {"factor": "factor", "beta_fast": "high", "beta_slow": "low", **SIZED},
    "longrope": {"short_factor": "short", "long_factor": "long", **SIZED},
}
"""Each kind of scaling: their key to our field."""
YARN = {"beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"}
READ = {kind: set(keys) for kind, keys in WRITTEN.items()}
READ["yarn"] |= YARN
READ["longrope"].add("factor")
READ["su"] = READ["longrope"]
"""The keys that each kind of scaling reads, in transformers and here, in addition to the keys of all kinds."""
ALWAYS = {"rope_theta", "rope_type", "type", "partial_rotary_factor"}
KNOWN = ALWAYS.union(*WRITTEN.values())
IDLE = {"attn_factor", "finetuned", "extrapolation_factor", "mrope_section", "mrope_interleaved"}
"""Keys of custom code that transformers does not run (YaRN's first authors, DeepSeek), or of image positions, which do not matter without images.
transformers ignores them, and so do we, with a notice; the same for keys of another kind. Not `mscale` of a kind other than YaRN, which would
scale the scores."""
log = logging.getLogger(__name__)


def rope(
    r: ConfigReader, theta: float, head_dim: int, *, original: int | None = None, partial: bool = False
) -> RopeConfig:
    """The rotary config of a model with one kind. original: the family's default context before scaling; partial: whether the family supports
    `partial_rotary_factor`."""
    theta = r.positive("rope_theta", theta)
    key = "rope_scaling" if r.get("rope_scaling", dict, {}) else "rope_parameters"
    s = ConfigReader(r.get(key, dict, {}), f"{r.where}: {key}")
    return one_rope(r, s, theta, head_dim, original=original, partial=partial)


def one_rope(
    r: ConfigReader,
    s: ConfigReader,
    theta: float,
    head_dim: int,
    *,
    original: int | None = None,
    partial: bool = False,
) -> RopeConfig:
    """Rotary positions from the map `s` of the config `r`. Every key may change the angles, so an unknown one is refused; keys without effect are
    ignored with a notice."""
    kind = _kind(s)
    passed = KNOWN | IDLE | (YARN if kind == "yarn" else YARN - {"mscale", "mscale_all_dim"})
    for key in sorted(s.data.keys() - ALWAYS - READ.get(kind, KNOWN)):
        if key not in passed:
            s.must(key, None, None, "its effect on rotary positions is not known")
        elif s.has(key):
            r.passed.append(f"{s.where.removeprefix(r.where + ': ')}: {key}")
            log.warning("%s: %s is %r, which is ignored, as in transformers", s.where, key, s.data[key])
    part = s.positive("partial_rotary_factor", r.positive("partial_rotary_factor", 1.0))
    dim = int(head_dim * part)
    if part != 1.0 and (not partial or not 2 <= dim <= head_dim or dim % 2):
        raise ConfigError(
            f"{r.where}: 'partial_rotary_factor' is {part} of head_dim {head_dim}",
            "accepted: 1, or in the phi3 family a factor that gives an even number of features",
        )
    scaling = _scaling(r, s, dim, original)
    return RopeConfig(
        base=s.positive("rope_theta", theta), dim=None if dim == head_dim else dim, scaling=scaling
    )


def _kind(s: ConfigReader) -> str:
    return s.get("rope_type", str, s.get("type", str, "default"))


def _scaling(r: ConfigReader, s: ConfigReader, dim: int, original: int | None) -> RopeScaling | None:
    kind = _kind(s)
    if kind == "default":
        return None
    if kind == "linear":
        return RopeScaling(kind="linear", factor=s.positive("factor"))
    # A key of the config itself wins over one in the map, as in transformers.
    context = r.size("max_position_embeddings", 2048, 2**40)
    if kind == "dynamic":
        return RopeScaling(kind="dynamic", factor=s.positive("factor"), original=context)
    first = r.size(ORIGINAL, original or s.size(ORIGINAL, context, 2**40), 2**40)
    if kind == "yarn":
        return _yarn(s, context, first)
    if kind == "llama3":
        low, high = s.positive("low_freq_factor"), s.positive("high_freq_factor")
        if high <= low:
            raise s.refuse("high_freq_factor", f"a number above low_freq_factor ({low})")
        return RopeScaling(kind="llama3", factor=s.positive("factor"), low=low, high=high, original=first)
    if kind in ("longrope", "su"):  # `su` is its older name
        stretch = s.positive("factor", context / first)
        size = 1.0 if stretch <= 1 or first == 1 else math.sqrt(1 + math.log(stretch) / math.log(first))
        return RopeScaling(
            kind="longrope",
            original=first,
            short=_divisors(s, "short_factor", dim // 2),
            long=_divisors(s, "long_factor", dim // 2),
            attention=s.positive("attention_factor", size),
        )
    accepted = "default, linear, dynamic, llama3, yarn, longrope"
    raise s.refuse("rope_type" if s.has("rope_type") else "type", accepted)


def _yarn(s: ConfigReader, context: int, first: int) -> RopeScaling:
    """YaRN (2309.00071). The growth of cos and sin follows from the factor, or from two shares of its logarithm (DeepSeek)."""

    def growth(share: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * share * math.log(factor) + 1.0

    factor = s.positive("factor", context / first)
    shares = [s.get(key, float, 0.0) for key in ("mscale", "mscale_all_dim")]
    size = growth(shares[0]) / growth(shares[1]) if all(shares) else growth(1.0)
    # 0 means the default.
    fast, slow = (
        s.get(key, float, 0.0) or default for key, default in (("beta_fast", 32.0), ("beta_slow", 1.0))
    )
    if not 0 < slow < fast:
        raise s.refuse("beta_fast", f"a number above beta_slow ({slow})")
    return RopeScaling(
        kind="yarn",
        factor=factor,
        low=slow,
        high=fast,
        original=first,
        attention=s.positive("attention_factor", size),
        truncate=s.get("truncate", bool, True),
    )


def _divisors(s: ConfigReader, key: str, count: int) -> tuple[float, ...]:
    values = s.get(key, list)
    valid = all(isinstance(x, int | float) and not isinstance(x, bool) and 0 < x < 2**63 for x in values)
    if len(values) != count or not valid:
        raise s.refuse(key, f"a list of {count} numbers above 0, one for each angle")
    return tuple(float(x) for x in values)


def rope_map(cfg: RopeConfig, head_dim: int) -> Tree:
    """One entry of `rope_parameters`."""
    tree: Tree = {"rope_theta": cfg.base, "rope_type": "default"}
    if cfg.dim is not None:
        part = cfg.dim / head_dim
        # transformers rounds down: a slightly too small quotient would lose a feature.
        tree["partial_rotary_factor"] = (
            part if int(head_dim * part) == cfg.dim else math.nextafter(part, math.inf)
        )
    s = cfg.scaling
    if s is None:
        return tree
    values = {key: getattr(s, ours) for key, ours in WRITTEN[s.kind].items()}
    tree |= {key: list(x) if isinstance(x, tuple) else x for key, x in values.items()}
    tree["rope_type"] = s.kind
    return tree if s.truncate else tree | {"truncate": False}


def rope_tree(cfg: RopeConfig, head_dim: int) -> Tree:
    """The keys of a config with one kind of rotary positions, in the new form and in the form of older readers."""
    tree = rope_map(cfg, head_dim)
    old = {"rope_theta": cfg.base, "rope_scaling": tree if cfg.scaling else None}
    if cfg.dim is not None:
        old["partial_rotary_factor"] = tree["partial_rotary_factor"]
    return old | {"rope_parameters": tree}


def cached_angles(ropes: list[RopeConfig], head_dim: int) -> Ignore:
    """Rotary angles in older checkpoints. They follow from the config and must match it."""

    def known(x: Tensor) -> bool:
        for cfg in ropes:
            dim = cfg.dim or head_dim
            angles = cfg.base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
            if cfg.scaling is not None or (
                x.shape == angles.shape and torch.allclose(x.double(), angles, rtol=0.01, atol=1e-6)
            ):
                return True
        return False

    return Ignore(r"(.*\.)?rotary_emb\.inv_freq", "rotary angles follow from the config", known)
