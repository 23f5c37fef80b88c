"""Combines adapters of one base into one adapter. The record has every parent and its weight."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from onebase.artifact.record import Origin, Record, machine_facts, version_facts
from onebase.config_plain import to_dict
from onebase.errors import UserError
from onebase.methods.config import part_field
from onebase.methods.folder import AdapterParts, load_adapter
from onebase.methods.method import How, Weighed
from onebase.methods.table import METHODS, PARTS
from onebase.opening.find import find_artifact
from onebase.tasks.results import Adapter


def combine(
    adapters: Sequence[Adapter | str | Path],
    weights: Sequence[float] | None = None,
    *,
    how: How | None = None,
    density: float | None = None,
    rank: int | None = None,
) -> Adapter:
    """Combine several adapters of one base into one for the first adapter's task. The method must support it (LoRA does).

    weights: one per adapter (default: equal, with sum 1). how: `linear` (the default) sums the deltas exactly; `ties` trims each to the share
    `density` (default 0.2), elects signs and averages the values that agree (2306.01708). rank: of the result (default: the sum of the ranks).
    Raises UserError for adapters of different bases, with heads or of other methods, and for invalid weights.
    """
    began, given = time.perf_counter(), {"how": how, "density": density, "rank": rank, "weights": weights}
    origins = {k: Origin.DEFAULT if v is None else Origin.USER for k, v in given.items()}
    how, density = how or "linear", 0.2 if density is None else density
    parts = [a.parts if isinstance(a, Adapter) else load_adapter(Path(find_artifact(a))) for a in adapters]
    names = [_name(p, i) for i, p in enumerate(parts)]
    factors = _checked(parts, names, weights, how, density, rank)
    first = parts[0]
    method = METHODS[first.config.method]
    weighed = [Weighed(p.config.part(method.name), p.tensors, w) for p, w in zip(parts, factors, strict=True)]
    assert not isinstance(method.combine, str)
    combined = method.combine(weighed, how, density=density, rank=rank)
    config = replace(first.config, **part_field(method.name, combined.cfg))
    record = Record("adapter")
    base = next((p for p in first.record.parents if p["kind"] == "base"), None)
    hashes = {"tokenizer": config.base.tokenizer, "template": config.base.template}
    name = str(base["name"]) if base else ""
    record.add_parent("base", config.base.fingerprint, name, **{k: v for k, v in hashes.items() if v})
    for part, label, weight in zip(parts, names, factors, strict=True):
        record.add_parent("adapter", part.fingerprint, label, weight=weight)
    record.inherit(first.record, names[0])
    record.add("task", config.task, f"{Origin.PARENT}: the first adapter")
    record.add("method", config.method, f"{Origin.PARENT}: the adapters")
    record.add("config.adapter", to_dict(config), f"{Origin.COMPUTED} from the adapters")
    record.add("combined.how", how, origins["how"])
    record.add("combined.weights", factors, origins["weights"])
    if how == "ties":
        record.add("combined.density", density, origins["density"])
    record.add(
        "combined.rank", rank, origins["rank"] if rank else f"{Origin.DEFAULT}: the sum of the adapters'"
    )
    origin = (
        "computed: nothing is left out"
        if combined.error is None
        else "measured: what the rank leaves out of the deltas"
    )
    record.add("combined.error", combined.error or 0.0, origin)
    record.add("data", None, f"{Origin.PARENT}: the adapters it is made of")
    record.add("seconds", round(time.perf_counter() - began, 3), "measured")
    record.add("parameters", sum(t.numel() for t in combined.tensors.values()), "counted")
    record.add("machine", machine_facts(), Origin.SYSTEM)
    record.add("versions", version_facts(), Origin.PACKAGES)
    return Adapter(AdapterParts(config, combined.tensors, record))


def _checked(
    parts: Sequence[AdapterParts],
    names: Sequence[str],
    weights: Sequence[float] | None,
    how: str,
    density: float,
    rank: int | None,
) -> list[float]:
    """The weights, once all arguments are checked."""
    if len(parts) < 2:
        raise UserError(f"{len(parts)} adapter to combine", "give at least two adapters")
    if how not in get_args(How):
        raise UserError(f"how is {how!r}", f"accepted: {', '.join(get_args(How))}")
    factors = [1 / len(parts)] * len(parts) if weights is None else [float(w) for w in weights]
    if len(factors) != len(parts):
        raise UserError(f"{len(factors)} weights for {len(parts)} adapters", "give one weight per adapter")
    bad = next((w for w in factors if not math.isfinite(w) or w == 0 or (how == "ties" and w < 0)), None)
    if bad is not None:
        raise UserError(
            f"a weight is {bad}", f"give finite numbers {'other than' if how == 'linear' else 'above'} 0"
        )
    if not 0 < density <= 1:
        raise UserError(f"density is {density}", "give a share above 0, at most 1")
    if rank is not None and rank < 1:
        raise UserError(f"rank is {rank}", "give a rank of at least 1")
    for part, name in zip(parts, names, strict=True):
        method = METHODS[part.config.method]
        if isinstance(method.combine, str):
            able = ", ".join(m.name for m in METHODS.values() if not isinstance(m.combine, str))
            raise UserError(
                f"adapter {name!r} has method {method.name}: {method.combine}",
                f"methods whose adapters can be combined: {able}",
            )
        if part.config.method != parts[0].config.method:
            raise UserError(
                f"adapters {names[0]!r} and {name!r} have different methods "
                f"({parts[0].config.method}, {part.config.method})",
                "combine adapters of one method",
            )
        others = [k for k in PARTS if k != method.name and part.config.part(k) is not None]
        if others:
            raise UserError(
                f"adapter {name!r} has a part of kind {others[0]}: only deltas can be added",
                "combine adapters that generate or embed text",
            )
        if method.part is None or not all(method.part.owns(k) for k in part.tensors):
            raise UserError(
                f"adapter {name!r} has tensors that are not of its method", "use it alone, as it was saved"
            )
        if part.config.base != parts[0].config.base:
            raise UserError(
                f"adapters {names[0]!r} and {name!r} were made for different bases "
                f"({parts[0].config.base.fingerprint[:16]}..., {part.config.base.fingerprint[:16]}...)",
                "combine adapters of one base, with the same tokenizer and template",
            )
    return factors


def _name(part: AdapterParts, i: int) -> str:
    return part.path.name if part.path else f"adapter {i + 1}"
