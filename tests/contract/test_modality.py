"""A modality of another package is read, trained, made and saved as ours are, without a change in the trunk, the loop, the data or the objective."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from onebase import config as configs
from onebase.api.base import Base
from onebase.base.folder import load_base
from onebase.engine.drawing import Drawing
from onebase.engine.media_answers import described
from onebase.engine.media_making import made
from onebase.errors import ConfigError
from onebase.modality import media
from onebase.modality.kinds import CODECS
from onebase.pretraining.recipe import Recipe
from onebase.pretraining.run import run_recipe


@pytest.fixture
def series() -> Iterator[media.MediaKind]:
    from tests.contract.plugin.series import KIND

    media.register(KIND)
    yield KIND
    media.MEDIA.pop("series", None)
    CODECS.pop("series_patches", None)


def waves(folder: Path) -> Path:
    folder.mkdir()
    rows = []
    for i in range(24):
        x = np.sin(np.arange(20 + i % 5) * (0.2 if i % 2 else 0.8))
        (folder / f"{i}.series").write_text("".join(f"{v:.4f}\n" for v in x))
        rows.append({"file_name": f"{i}.series", "text": f"{'slow' if i % 2 else 'quick'} {i}"})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


def test_it_is_one_file(series: media.MediaKind, tmp_path: Path) -> None:
    folder, said = waves(tmp_path / "in"), list[str]()
    tree = {
        "name": "waves",
        "data": {"sources": [{"name": "waves", "kind": "mediafolder", "path": str(folder)}], "holdout": 0.2},
        "modalities": [{"kind": "series_patches"}],
        "objective": {"kind": "mixed", "flow": {"generate": 0.5}},
        "model": {"width": 32, "depth": 2, "head_dim": 16, "context": 64, "vocab_size": 280},
        "train": {"steps": 4, "batch_size": 8, "sequence_length": 64, "device": "cpu"},
    }
    run_recipe(configs.from_dict(Recipe, tree, "recipe"), tmp_path / "run", log=said.append)
    assert any("[series of 24]" in line for line in said)
    base = load_base(tmp_path / "run" / "base")
    assert base.model.cfg.trunks["text"].groups == ("text", "series")
    assert "scores.heldout_flow_loss.waves.series_patches.t0.5" in {e.field for e in base.record.events}
    one, again = (made(base, "series", "slow", 1, Drawing(2), shape=(3,))[0] for _ in range(2))
    assert one.data == again.data and len(one.data.split()) == 24
    (tmp_path / "made.series").write_bytes(one.data)
    assert isinstance(described(base, "series", [tmp_path / "made.series"], max_tokens=3)[0], str)
    Base(base).save(tmp_path / "copy")
    assert load_base(tmp_path / "copy").fingerprint == base.fingerprint


def test_names_are_taken_once(series: media.MediaKind) -> None:
    from dataclasses import replace

    for other in (replace(series, suffixes=(".x",)), replace(series, name="x", codec="x")):
        with pytest.raises(ConfigError, match="two modalities"):
            media.register(other)
