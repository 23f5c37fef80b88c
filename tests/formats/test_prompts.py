"""Soft prompts of PEFT: one made there answers the same here, and one of ours answers the same there."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

peft = pytest.importorskip("peft")

from onebase.api.base import Base  # noqa: E402
from onebase.base.model import BaseModel  # noqa: E402
from onebase.errors import ArtifactError, ConfigError, UserError  # noqa: E402
from onebase.formats.peft.folder import CONFIG, WEIGHTS  # noqa: E402
from onebase.formats.recognise import is_peft  # noqa: E402
from onebase.methods import prefix, soft  # noqa: E402
from onebase.methods.soft import SoftConfig  # noqa: E402
from onebase.model.proj import AdapterRouting  # noqa: E402
from tests.formats.parity import close  # noqa: E402
from tests.formats.peft_files import load_peft, save_peft  # noqa: E402
from tests.formats.test_peft import IDS, based  # noqa: E402
from tests.helpers import tiny_base  # noqa: E402
from tests.methods.test_soft import PAIRS  # noqa: E402

P = 5


def made(theirs: Any, path: Path) -> torch.Tensor:
    """A soft prompt there, drawn at random and saved; the logits of the text behind it."""
    cfg = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=P)
    adapted = peft.get_peft_model(theirs, cfg).eval()
    with torch.no_grad():
        for p in adapted.prompt_encoder.parameters():
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(3)) * 0.3)
        out: torch.Tensor = adapted(input_ids=IDS).logits[:, P:]
    adapted.save_pretrained(path)
    return out


@torch.no_grad()
def answers(model: BaseModel, vectors_PD: torch.Tensor) -> torch.Tensor:
    soft.put(model, "x", SoftConfig(virtual=P), {soft.KEY: vectors_PD})
    return model.logits(IDS, AdapterRouting.all_rows("x"))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "phi3"])
def test_in_and_out(kind: str, tmp_path: Path) -> None:
    theirs, family, model = based(kind, tmp_path)
    there = made(theirs, tmp_path / "theirs")
    assert is_peft(tmp_path / "theirs")
    opened = load_peft(tmp_path / "theirs", model, family)
    assert opened.method == "soft"
    here = answers(model, opened.tensors[soft.KEY])
    close(here, there)
    assert (here - model.logits(IDS)).abs().max() > 1e-2
    (tmp_path / "ours").mkdir()
    save_peft(tmp_path / "ours", opened.config, opened.tensors, model, family, method="soft")
    fresh, _, _ = based(kind, tmp_path)
    with torch.no_grad():
        back = peft.PeftModel.from_pretrained(fresh, tmp_path / "ours").eval()(input_ids=IDS).logits[:, P:]
    close(back, here)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "phi3"])
def test_a_prefix_in_and_out(kind: str, tmp_path: Path) -> None:
    """Keys and values that stand in the cache; llama and phi3 have fewer key heads than query heads."""
    theirs, family, model = based(kind, tmp_path)
    cfg = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=P)
    adapted = peft.get_peft_model(theirs, cfg).eval()
    with torch.no_grad():
        for p in adapted.prompt_encoder.parameters():
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(3)) * 0.3)
        wanted = adapted(input_ids=IDS).logits
    adapted.save_pretrained(tmp_path / "theirs")
    opened = load_peft(tmp_path / "theirs", model, family)
    assert opened.method == "prefix"
    prefix.put(model, "x", opened.config, opened.tensors)
    with torch.no_grad():
        close(model.logits(IDS, AdapterRouting.all_rows("x")), wanted)
        assert (model.logits(IDS) - wanted).abs().max() > 1e-2
    (tmp_path / "ours").mkdir()
    save_peft(tmp_path / "ours", opened.config, opened.tensors, model, family, method="prefix")
    fresh, _, _ = based(kind, tmp_path)
    with torch.no_grad():
        back = peft.PeftModel.from_pretrained(fresh, tmp_path / "ours").eval()(input_ids=IDS).logits
    close(back, wanted)


def test_by_the_doors(tmp_path: Path) -> None:
    """A folder of PEFT stands where an adapter stands; ours goes out by `export` and comes in the same."""
    base = Base(tiny_base(portable=True))
    on = base.with_adapter(base.adapt(PAIRS, task="complete", method="soft", virtual=P, epochs=1))
    folder = on.export(tmp_path / "out", format="peft")
    again = base.with_adapter(folder)
    ids = base.tokenizer.encode("def add(a, b)", bos=True)
    assert torch.equal(again.logits(ids), on.logits(ids))
    assert not torch.equal(again.logits(ids), base.logits(ids))
    assert again.attached is not None
    assert (again.attached.method, again.attached.record.get("imported.format")) == ("soft", "peft")
    with pytest.raises(UserError, match="no adapter is attached"):
        base.export(tmp_path / "none", format="peft")
    with pytest.raises(UserError, match="virtual tokens are not weights of the base"):
        on.export(tmp_path / "hf")


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    theirs, family, model = based("llama", tmp_path)
    made(theirs, tmp_path / "theirs")
    path = tmp_path / "theirs"
    tree = json.loads((path / CONFIG).read_text())
    for changed, says in [
        ({"num_transformer_submodules": 2}, "num_transformer_submodules"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"num_virtual_tokens": 0}, "num_virtual_tokens"),
    ]:
        (path / CONFIG).write_text(json.dumps(tree | changed))
        with pytest.raises(ConfigError, match=says):
            load_peft(path, model, family)
    (path / CONFIG).write_text(json.dumps(tree | {"num_virtual_tokens": 4}))
    with pytest.raises(ArtifactError, match=r"\[4, 32\]"):
        load_peft(path, model, family)
    (path / CONFIG).write_text(json.dumps(tree))
    (path / WEIGHTS).rename(path / "adapter_model.bin")
    with pytest.raises(ArtifactError, match="pickle"):
        load_peft(path, model, family)
