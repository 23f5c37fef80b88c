"""Checkpoints: step_N/ with model and optimizer tensors in safetensors, everything else in state.json, manifest last.

A checkpoint appears by rename, so it is complete or absent; the newest valid one is found by listing the folder, not by a pointer.
"""

import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onebase.artifact.disk import disk_errors
from onebase.artifact.files import ArtifactWriter, read_json, understood, verify
from onebase.artifact.tensors import load_tensors, save_tensors
from onebase.errors import ArtifactError

PREFIX = "step_"


@dataclass
class RunState:
    """The state of a run without tensors, and the running totals for the record. formats: number formats, by the step from which they apply
    (`train.formats`). flat: the last step at full learning rates, whose checkpoint is kept. extended: number of extensions of the budget."""

    step: int = 0
    total: int | None = None
    tokens: int = 0
    supervised: int = 0
    rows: int = 0
    seconds: float = 0.0
    sources: dict[str, int] = field(default_factory=dict)
    bad_steps: int = 0
    bad_in_a_row: int = 0
    identity: dict[str, str] = field(default_factory=dict)
    formats: dict[str, dict[str, str]] = field(default_factory=dict)
    flat: int | None = None
    extended: int = 0


def save_checkpoint(
    folder: Path, state: RunState, model: dict[str, Tensor], optim: dict[str, Tensor], keep: int
) -> Path:
    """Write checkpoints/step_N atomically, then remove all except the newest `keep` and that of step `state.flat`."""
    path = folder / checkpoint_name(state.step)
    if path.exists():
        return path
    stamp = {"step": str(state.step), "identity": json.dumps(state.identity, sort_keys=True)}
    with ArtifactWriter(path, kind="checkpoint", facts={"step": state.step, "identity": state.identity}) as w:
        save_tensors(w.path("model-00001.safetensors"), model, stamp)
        save_tensors(w.path("optim-00001.safetensors"), optim, stamp)
        facts: dict[str, Any] = asdict(state) | {"rng": torch.get_rng_state().numpy().tobytes().hex()}
        w.path("state.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    for old in list_checkpoints(folder)[: -max(1, keep)]:
        if state.flat is None or old.name != checkpoint_name(state.flat):
            shutil.rmtree(old, ignore_errors=True)
    return path


def checkpoint_name(step: int) -> str:
    """The folder name of the checkpoint after this many steps."""
    return f"{PREFIX}{step:08d}"


def list_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints (with a manifest), oldest first."""
    if not folder.is_dir():
        return []
    return sorted(
        p for p in folder.iterdir() if p.name.startswith(PREFIX) and (p / "manifest.json").is_file()
    )


def checkpoint_step(path: Path) -> int:
    """The number of steps before a checkpoint."""
    return int(path.name.removeprefix(PREFIX))


def checkpoint_facts(path: Path) -> dict[str, Any]:
    """The content of a checkpoint's `state.json`, without loading tensors."""
    return read_json(path / "state.json", "step", "identity")


def drop_after(folder: Path, step: int, extended: int) -> None:
    """Remove the checkpoints after `step` of earlier extensions: they belong to a warm-down that the new extension replaces."""
    for path in list_checkpoints(folder):
        if checkpoint_step(path) > step and checkpoint_facts(path).get("extended", 0) < extended:
            # Rename first: if the process is killed, no partial checkpoint stays, and the next save of this step removes the draft.
            draft = path.with_name(f".{path.name}.tmp-{secrets.token_hex(4)}")
            with disk_errors(path):
                os.rename(path, draft)
            shutil.rmtree(draft, ignore_errors=True)


def load_checkpoint(path: Path) -> tuple[RunState, dict[str, Tensor], dict[str, Tensor]]:
    """State, model tensors and optimizer tensors; all hashes are verified first. Raises ArtifactError naming a bad file."""
    verify(path)
    file = path / "state.json"
    facts = read_json(file, "rng", "step", "identity")
    with understood(file):
        rng = bytes.fromhex(facts.pop("rng"))
        torch.set_rng_state(torch.frombuffer(bytearray(rng), dtype=torch.uint8))
        state = RunState(**facts)
    model, optimizer = (load_tensors(path / f"{x}-00001.safetensors") for x in ("model", "optim"))
    return state, _to_new_names(model), _to_new_names(optimizer)


def _to_new_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename tensors of old checkpoints: virtual tokens were once called `leads`."""
    return {re.sub(r"(^|/)leads\.", r"\1virtual.", name): x for name, x in tensors.items()}


def check_identity(
    path: Path, found: dict[str, str], wanted: dict[str, str], called: Mapping[str, str] | None = None
) -> None:
    """Refuse to resume with other data, another recipe, another base, or changed files. called: user-facing names of keys, for messages."""
    for key in dict.fromkeys([*wanted, *found]):
        then, now = found.get(key), wanted.get(key)
        name = (called or {}).get(key, key)
        if found and key not in found and key not in (called or {}):
            raise ArtifactError(
                f"{path} does not record its {name}: it was written by another version of onebase, which resumes differently",
                "finish it with that version, or start again in another --out folder",
            )
        if then != now:
            raise ArtifactError(
                f"{path} was written with another {name} ({str(then)[:20]}, now {str(now)[:20]})",
                f"give the same {name}, or start again in another --out folder",
            )
