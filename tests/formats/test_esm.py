"""ESM: what transformers says."""

from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import onebase
from onebase.cli import app
from onebase.errors import ArtifactError, ConfigError, DataError, UserError
from onebase.formats.family import written
from onebase.formats.hf.folder import HFFolder, save_folder
from onebase.modality.text.residues import ALPHABET
from onebase.model.mask import Cols
from tests.formats.encoders import check_encoder
from tests.formats.parity import close, imported, shaken
from tests.formats.test_bert import SMALL
from tests.helpers import tiny_base

transformers = pytest.importorskip("transformers")
ESM2: dict[str, Any] = SMALL | {
    "vocab_size": 33,
    "pad_token_id": 1,
    "mask_token_id": 32,
    "position_embedding_type": "rotary",
    "token_dropout": True,
}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"token_dropout": False, "emb_layer_norm_before": True, "rope_theta": 50.0},
        {"position_embedding_type": "absolute", "emb_layer_norm_before": True},
        {"tie_word_embeddings": False},
    ],
)
def test_with_a_head(more: dict[str, Any], tmp_path: Path) -> None:
    check_encoder(transformers.EsmForMaskedLM(transformers.EsmConfig(**ESM2 | more)), tmp_path)


@pytest.mark.parametrize("pooler", [True, False])
def test_bare(pooler: bool, tmp_path: Path) -> None:
    bare = transformers.EsmModel(transformers.EsmConfig(**ESM2), add_pooling_layer=pooler)
    model = check_encoder(bare, tmp_path)
    assert model.cfg.text.scale == pytest.approx(0.88)


def test_angles_that_the_config_does_not_say_are_refused(tmp_path: Path) -> None:
    transformers.EsmModel(transformers.EsmConfig(**ESM2)).save_pretrained(tmp_path)
    source = HFFolder(tmp_path)
    tensors = {name: source.read(name).clone() for name in source.shapes()}
    name = next(n for n in tensors if n.endswith("inv_freq"))
    imported(tmp_path)
    save_folder(tmp_path, source.config, tensors | {name: tensors[name] * 1.1})
    with pytest.raises(ArtifactError, match="inv_freq"):
        imported(tmp_path)


def test_angles_rounded_to_fp16_are_used_so(tmp_path: Path) -> None:
    there = shaken(
        transformers.EsmForMaskedLM(transformers.EsmConfig(**ESM2 | {"max_position_embeddings": 400}))
    )
    angles = there.esm.rotary_embeddings.inv_freq
    angles.copy_(angles.half().float())
    there.save_pretrained(tmp_path)
    family, model = imported(tmp_path)
    rope = model.trunk.cfg.blocks[0].attn.rope
    assert rope is not None and rope.half
    ids = torch.randint(4, 24, (1, 400), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        close(model.logits(ids), there(input_ids=ids).logits)
    with pytest.raises(ConfigError, match="half"):
        written(family, model.cfg)


@pytest.mark.parametrize("mask", [32, 4])
def test_masked_tokens_are_dropped_and_their_text_scaled(mask: int, tmp_path: Path) -> None:
    there = shaken(transformers.EsmForMaskedLM(transformers.EsmConfig(**ESM2 | {"mask_token_id": mask})))
    there.save_pretrained(tmp_path)
    _, model = imported(tmp_path)
    ids = torch.randint(5, 24, (3, 12), generator=torch.Generator().manual_seed(0))
    ids[0, [1, 4, 5]] = mask
    ids[1, 2] = mask
    lengths = [12, 7, 9]
    cols = Cols.padded(torch.tensor(lengths), 12)
    live = cols.doc >= 0
    ids = ids.where(live, 1)
    with torch.no_grad():
        want = there(input_ids=ids, attention_mask=live.long()).logits
        close(model.text.logits(model.hidden(ids, cols).hidden)[live], want[live])
        # Each text of a row counts its own.
        row = torch.cat([ids[i, :n] for i, n in enumerate(lengths)])[None]
        pos = torch.cat([torch.arange(n) for n in lengths])[None]
        doc = torch.cat([torch.full((n,), i) for i, n in enumerate(lengths)])[None]
        close(model.text.logits(model.hidden(row, Cols(pos, doc)).hidden)[0], want[live])


def test_a_table_of_positions_beside_rotary_ones_is_left(tmp_path: Path) -> None:
    transformers.EsmModel(transformers.EsmConfig(**ESM2)).save_pretrained(tmp_path)
    source = HFFolder(tmp_path)
    tensors = {name: source.read(name).clone() for name in source.shapes()}
    save_folder(
        tmp_path, source.config, tensors | {"embeddings.position_embeddings.weight": torch.ones(20, 32)}
    )
    imported(tmp_path)


def with_tokenizer(folder: Path) -> None:
    (folder / "vocab.txt").write_text("\n".join(ALPHABET))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "EsmTokenizer"}')


def test_contacts_are_those_of_transformers_and_are_kept(tmp_path: Path) -> None:
    eager = transformers.EsmConfig(**ESM2, attn_implementation="eager")  # the only one that returns maps
    there = shaken(transformers.EsmForMaskedLM(eager))
    there.save_pretrained(tmp_path / "esm")
    with_tokenizer(tmp_path / "esm")
    sequence = "MKTAYIAKQRQISFVK"
    base = onebase.load(tmp_path / "esm")
    ids = torch.tensor([base.tokenizer.framed(base.tokenizer.encode(sequence))])
    with torch.no_grad():
        wanted = there.predict_contacts(ids, torch.ones_like(ids))[0]
    assert wanted.std() > 1e-3, "the maps say something"
    assert torch.allclose(base.contacts(sequence), wanted, atol=1e-4)
    base.save(tmp_path / "own")
    assert torch.equal(onebase.load(tmp_path / "own").contacts(sequence), base.contacts(sequence))
    base.export(tmp_path / "back", format="hf")
    again = transformers.EsmForMaskedLM.from_pretrained(tmp_path / "back", attn_implementation="eager")
    with torch.no_grad():
        assert torch.allclose(again.predict_contacts(ids, torch.ones_like(ids))[0], wanted, atol=1e-6)
    for bad in ("", "mk<mask>", "M" * 4000):
        with pytest.raises(DataError):
            base.contacts(bad)
    with pytest.raises(UserError, match="encoder of proteins|no regression"):
        onebase.Base.opened(tiny_base()).contacts(sequence)


def test_a_contact_head_of_another_size_is_refused(tmp_path: Path) -> None:
    transformers.EsmModel(transformers.EsmConfig(**ESM2)).save_pretrained(tmp_path)
    source = HFFolder(tmp_path)
    tensors = {name: source.read(name).clone() for name in source.shapes()}
    tensors["contact_head.regression.weight"] = torch.zeros(1, 3)
    save_folder(tmp_path, source.config, tensors)
    with_tokenizer(tmp_path)
    with pytest.raises(ArtifactError, match="heads in all"):
        onebase.load(tmp_path)


def test_the_command_prints_pairs_and_writes_maps(tmp_path: Path) -> None:
    def run(*words: str) -> Any:
        return CliRunner().invoke(app, ["contacts", str(tmp_path / "esm"), *words])

    there = shaken(transformers.EsmForMaskedLM(transformers.EsmConfig(**ESM2)))
    there.save_pretrained(tmp_path / "esm")
    with_tokenizer(tmp_path / "esm")
    sequence = "MKTAYIAKQRQISFVK"
    pairs = [line.split("\t") for line in run(sequence, "--top", "3").stdout.splitlines()]
    assert len(pairs) == 3 and all(int(b[1:]) - int(a[1:]) >= 6 for a, b, _ in pairs)
    (tmp_path / "p.fasta").write_text(f">p\n{sequence}\n")
    assert run(str(tmp_path / "p.fasta"), "--out", str(tmp_path / "map.csv")).exit_code == 0
    lines = (tmp_path / "map.csv").read_text().splitlines()
    assert len(lines) == 1 + 16 * 15 // 2 and lines[1].startswith("1,2,M,K,0.")
    assert run(sequence, "--out", str(tmp_path / "map.png")).exit_code == 0
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "two.fasta").write_text(">p\nMK\n>q\nMK\n")
    assert "has 2 proteins" in str(run(str(tmp_path / "two.fasta")).exception)
