"""What every modality of files must hold, ours and one of another package: one suite, the same lines for each."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from onebase.data import prepare
from onebase.data.sources import MARK, Document, MediaFile
from onebase.errors import DataError
from onebase.modality import media
from onebase.modality.kinds import CODECS
from onebase.modality.patches.modules import PatchModule
from tests.data.test_media_tokens import IMAGE, SOUND, png, wav


def numbers(count: int) -> bytes:
    return "".join(f"{math.sin(i / 5):.5f}\n" for i in range(count)).encode()


FILES: dict[str, tuple[bytes, bytes]] = {
    "image": (png(0, (16, 12)), png(1)),
    "audio": (wav(8000), wav(3000)),
    "series": (numbers(50), numbers(9)),
}
"""Two files of each kind."""


@pytest.fixture(params=list(FILES))
def kind(request: Any) -> Iterator[media.MediaKind]:
    from tests.contract.plugin.series import KIND

    media.register(KIND)
    yield media.MEDIA[request.param]
    media.MEDIA.pop("series", None)
    CODECS.pop("series_patches", None)


def config(kind: media.MediaKind) -> Any:
    return {"image": IMAGE, "audio": SOUND}.get(kind.name) or kind.config(kind=kind.codec)


def test_a_file_is_patches_with_coordinates(kind: media.MediaKind, tmp_path: Path) -> None:
    cfg = config(kind)
    path = tmp_path / f"a{kind.suffix}"
    path.write_bytes(FILES[kind.name][0])
    shape = kind.shape(path, cfg, "a")
    patch_NP = kind.patches(path, cfg, "a")
    assert patch_NP.dtype == torch.float32 and bool(patch_NP.isfinite().all())
    assert patch_NP.shape == (math.prod(shape), cfg.values) and len(patch_NP) <= cfg.limit
    assert (
        len(shape) == cfg.axes
        and cfg.shown(shape)
        and media.coordinates(shape).shape == (len(patch_NP), cfg.axes)
    )
    assert torch.equal(patch_NP, kind.patches(path.read_bytes(), cfg, "a")), "a file, or its bytes"
    one, other = (kind.content(data, cfg) for data in FILES[kind.name])
    assert one.digest != other.digest and one.count == len(patch_NP) and one.shown == cfg.shown(shape)
    assert np.array_equal(one.load()[0], patch_NP.numpy())
    assert (
        kind.suffix in kind.suffixes
        and media.of_codec(kind.codec) is kind
        and media.by_suffix()[kind.suffix] is kind
    )


def test_patches_are_a_file_that_can_be_opened(kind: media.MediaKind) -> None:
    cfg, (data, _) = config(kind), FILES[kind.name]
    shape, patch_NP = kind.shape(data, cfg, "a"), kind.patches(data, cfg, "a")
    made = kind.encode(patch_NP, shape, cfg)
    kind.check(made, "made")
    assert kind.shape(made, cfg, "made") == shape and made == kind.encode(patch_NP, shape, cfg)
    near = (kind.patches(made, cfg, "made") - patch_NP).abs().mean()
    assert float(near) < 0.25 * float(patch_NP.std()), "the file is what the patches say"


def test_bad_files_are_named_and_left_out(kind: media.MediaKind, tmp_path: Path) -> None:
    cfg = config(kind)
    for bad in (b"", b"\0\1\2 nothing at all", FILES[kind.name][0][:11] + b"x"):
        for read in (kind.check, lambda data, name: kind.patches(data, cfg, name)):
            with pytest.raises(DataError, match="bad-one"):
                read(bad, "bad-one")
    good, other = (MediaFile(kind.name, d, f"{i}") for i, d in enumerate(FILES[kind.name]))
    given = [
        Document(f"{MARK}{m.name}", "s", media=(m,))
        for m in (good, MediaFile(kind.name, b"nothing", "x"), other)
    ]
    assert prepare(given, tmp_path / "d").stats["s"]["bad_media_removed"] == 1


def test_its_ends_learn(kind: media.MediaKind) -> None:
    """From patches to vectors and back, with a gradient to every weight; its parameters and FLOPs are those that were counted."""
    cfg, width = config(kind), 32
    module = CODECS[kind.codec].module(cfg, width)
    assert isinstance(module, PatchModule)
    module.reset(torch.Generator().manual_seed(0))
    torch.nn.init.normal_(module.head.weight)
    torch.nn.init.normal_(module.modulate.weight, std=0.1)
    assert sum(p.numel() for p in module.parameters()) == CODECS[kind.codec].parameters(cfg, width)
    data = FILES[kind.name][0]
    patch_NP = kind.patches(data, cfg, "a")
    at_NK = torch.from_numpy(media.coordinates(kind.shape(data, cfg, "a")))
    t_N = torch.full((len(patch_NP),), 0.5)
    h_ND = module.embed(patch_NP, at_NK, t_N, torch.float32)
    made_NP = module.predict(h_ND, t_N)
    assert h_ND.shape == (len(patch_NP), width) and made_NP.shape == patch_NP.shape
    made_NP.square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in module.parameters())
