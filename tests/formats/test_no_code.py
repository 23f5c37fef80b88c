"""Nothing that comes with a model is run: no pickle, no Python file, no template that reaches for more than messages."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import onebase
from fuzz.targets import good
from onebase.errors import ArtifactError, UserError
from onebase.formats.hf.files import CONFIG, WEIGHTS
from tests.formats.test_hostile import copied, refused


class Trap:
    """What a pickle of it would do when opened: make a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return Path.touch, (self.place,)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copied("hf", tmp_path)


def test_a_pickle_is_never_opened(folder: Path, tmp_path: Path) -> None:
    (folder / WEIGHTS).unlink()
    torch.save({"a": Trap(tmp_path / "ran")}, folder / "pytorch_model.bin")
    refused(folder, "as a pickle (pytorch_model.bin)", "can run any code")
    (folder / "pytorch_model.bin").rename(folder / WEIGHTS)
    refused(folder, "not a complete safetensors file")
    adapter = copied("peft", tmp_path / "adapter")
    (adapter / "adapter_model.safetensors").unlink()
    torch.save({"a": Trap(tmp_path / "ran")}, adapter / "adapter_model.bin")
    with pytest.raises(ArtifactError, match="as a pickle"):
        onebase.load(good() / "hf").with_adapter(adapter)
    assert not (tmp_path / "ran").exists()


def test_code_in_a_folder_is_never_run(folder: Path, tmp_path: Path) -> None:
    """`auto_map` names Python files that others import when told to trust them."""
    (folder / "modeling_own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    config = json.loads((folder / CONFIG).read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_own.Own"}
    (folder / CONFIG).write_text(json.dumps(config))
    assert "auto_map" in onebase.load(folder).record.get("imported.unread")
    assert not (tmp_path / "ran").exists() and "modeling_own" not in sys.modules


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('touch RAN') }}",
        "{% for i in range(99999999) %}{% for j in range(99999999) %}{% endfor %}{% endfor %}",
    ],
)
def test_a_template_in_a_folder_reaches_nothing(source: str, folder: Path, tmp_path: Path) -> None:
    (folder / "chat_template.jinja").write_text(source.replace("RAN", str(tmp_path / "ran")))
    base = onebase.load(folder)
    with pytest.raises(UserError):
        base.chat([{"role": "user", "content": "Hello"}])
    assert not (tmp_path / "ran").exists()
