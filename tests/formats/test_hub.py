"""Names on the Hugging Face Hub: the real client against a server on this machine, as users call it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import onebase
from onebase.errors import ArtifactError, UserError
from tests.formats.hub_server import Hub, hub_server
from tests.formats.parity import close
from tests.formats.test_hf import make
from tests.pretrained import Said
from tests.pretrained import onebase as command

hub_package = pytest.importorskip("huggingface_hub")
COMMIT = "1" * 40
REPO = "org/tiny-llama"


@pytest.fixture(scope="module")
def repos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama whole and in shards, with much beside it that must stay where it is; one as GGUF only, one as a pickle only."""
    root = tmp_path_factory.mktemp("repos")
    theirs = make(root / "whole", "llama3")
    for name in (
        "pytorch_model.bin",
        "training_args.bin",
        "consolidated.safetensors",
        "model.fp16.safetensors",
    ):
        (root / "whole" / name).write_bytes(b"not to be fetched")
    for name in (
        "README.md",
        "trainer_state.json",
        "onnx/model.onnx",
        "original/params.json",
        "modeling_own.py",
    ):
        (root / "whole" / name).parent.mkdir(exist_ok=True)
        (root / "whole" / name).write_text("not to be fetched")
    shutil.copytree(root / "whole", root / "shards")
    (root / "shards" / "model.safetensors").unlink()
    theirs.save_pretrained(root / "shards", max_shard_size="20KB")
    onebase.load(root / "whole").export(root / "gguf" / "tiny-F16.gguf", format="gguf")
    (root / "pickle").mkdir()
    shutil.copy(root / "whole" / "config.json", root / "pickle")
    (root / "pickle" / "pytorch_model.bin").write_bytes(b"\x80")
    return root


@pytest.fixture
def hub(repos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The server, and an environment in which the client finds it and nothing else."""
    known = {REPO: "whole", "org/shards": "shards", "org/files": "gguf", "org/pickle": "pickle"}
    with hub_server(Hub({name: repos / folder for name, folder in known.items()})) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        hub_package.utils.close_session() if hasattr(hub_package.utils, "close_session") else None
        yield served


def refused(said: Said, *parts: str) -> None:
    assert said.status == 1 and "Traceback" not in said.err, said.err
    lines = [x for x in said.err.splitlines() if x.startswith("error: ")]
    assert len(lines) == 1, said.err
    for part in parts:
        assert part in said.err, said.err


@pytest.mark.parametrize("repo", [REPO, "org/shards"])
def test_a_name_is_the_model_and_only_what_is_read_is_fetched(repo: str, hub: Hub, repos: Path) -> None:
    base = onebase.load(f"hf:{repo}")
    plain = onebase.load(repos / "whole")
    ids = plain.tokenizer.encode("The quick brown fox", bos=True)
    assert base.fingerprint == plain.fingerprint
    assert torch.equal(base.logits(ids), plain.logits(ids))
    found = {n for n in hub.fetched() if not n.startswith("model-0")}
    small = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "README.md"}
    assert found == small | ({"model.safetensors"} if repo == REPO else {"model.safetensors.index.json"})
    assert base.record.get("imported.hub") == {"repo": repo, "revision": COMMIT}
    assert base.name == repo.split("/")[1]


def test_the_second_time_it_comes_from_the_cache(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    first = onebase.load(f"hf:{REPO}")
    sent = dict(hub.sent)
    assert onebase.load(f"hf:{REPO}").fingerprint == first.fingerprint
    assert {k: v for k, v in hub.sent.items() if k} == {
        k: v for k, v in sent.items() if k
    }  # asked, not sent again
    hub.status = 503
    with caplog.at_level("WARNING"):
        assert onebase.load(f"hf:{REPO}").fingerprint == first.fingerprint
    assert f"using commit {COMMIT} from the cache" in caplog.text
    assert "not complete" not in caplog.text
    assert onebase.load(f"hf:{REPO}@{COMMIT}").fingerprint == first.fingerprint


def test_with_the_server_gone_the_cache_serves_and_nothing_else(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    onebase.load(f"hf:{REPO}")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    assert onebase.load(f"hf:{REPO}").record.get("imported.hub")["revision"] == COMMIT
    refused(
        command("generate", "hf:org/shards", "a"),
        "org/shards is not complete in the cache",
        "cannot be reached",
    )
    monkeypatch.setenv("HF_ENDPOINT", "nonsense")
    refused(command("generate", "hf:org/shards", "a"), "nonsense cannot be reached")


def test_commands_take_the_name_and_the_record_says_where_from(hub: Hub, tmp_path: Path) -> None:
    said = command("import", f"hf:{REPO}@main", "--out", tmp_path / "base")
    assert said.status == 0, said.err
    base = onebase.load(tmp_path / "base")
    assert base.record.get("imported.hub") == {"repo": REPO, "revision": COMMIT}
    assert set(base.record.get("imported.files")) == {
        *(
            "config.json",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "model.safetensors",
            "README.md",
        )
    }
    assert COMMIT in command("show", tmp_path / "base").out
    assert command("export", f"hf:{REPO}", "--out", tmp_path / "out").status == 0
    assert onebase.load(tmp_path / "out").fingerprint == base.fingerprint


def test_one_gguf_file_of_a_repo(hub: Hub, repos: Path) -> None:
    base = onebase.load("hf:org/files/tiny-F16.gguf")
    assert base.fingerprint == onebase.load(repos / "gguf" / "tiny-F16.gguf").fingerprint
    assert base.record.get("imported.hub")["repo"] == "org/files"
    hub.status = 503
    assert onebase.load("hf:org/files/tiny-F16.gguf").fingerprint == base.fingerprint
    hub.status = 200
    refused(
        command("generate", "hf:org/files", "a"), "no safetensors, only GGUF", "hf:org/files/tiny-F16.gguf"
    )
    refused(command("generate", "hf:org/files/no.gguf", "a"), "has no file no.gguf", "tiny-F16.gguf")


def test_an_adapter_of_a_repo(hub: Hub, repos: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(repos / "whole", local_files_only=True)
    adapted = peft.get_peft_model(
        theirs, peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    )
    adapted.eval().save_pretrained(tmp_path / "peft")
    hub.repos["org/lora"] = tmp_path / "peft"
    base = onebase.load(f"hf:{REPO}").with_adapter("hf:org/lora")
    ids = base.tokenizer.encode("The quick brown fox", bos=True)
    with torch.no_grad():
        close(base.logits(ids), adapted(input_ids=torch.tensor([ids])).logits[0])
    said = command("import", "hf:org/lora", "--base", f"hf:{REPO}", "--out", tmp_path / "ours")
    assert said.status == 0, said.err
    assert onebase.Adapter.load(tmp_path / "ours").record.get("imported.hub")["repo"] == "org/lora"


def test_a_sentence_folder_of_a_repo(hub: Hub, tmp_path: Path) -> None:
    from tests.formats.test_hf import test_a_model_one_level_down_is_found

    test_a_model_one_level_down_is_found(tmp_path / "st")
    hub.repos["org/st"] = tmp_path / "st"
    assert torch.equal(
        onebase.load("hf:org/st").embed(["questions"]), onebase.load(tmp_path / "st").embed(["questions"])
    )
    hub.status = 503
    onebase.load("hf:org/st")


def test_what_the_server_does_not_give_is_said(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(command("generate", "hf:org/nothing", "a"), "no model 'org/nothing'", "HF_TOKEN")
    refused(command("generate", f"hf:{REPO}@v9", "a"), "no revision 'v9'")
    refused(command("generate", "hf:org/pickle", "a"), "pytorch_model.bin", "can run any code")
    (tmp_path / "ct2").mkdir()
    for file in ("config.json", "model.bin", "vocabulary.txt"):
        (tmp_path / "ct2" / file).write_text("{}")
    hub.repos["org/ct2"] = tmp_path / "ct2"
    refused(command("generate", "hf:org/ct2", "a"), "CTranslate2", "hf download org/ct2")
    assert "model.bin" not in hub.fetched()
    (tmp_path / "empty").mkdir()
    hub.repos["org/empty"] = tmp_path / "empty"
    refused(command("generate", "hf:org/empty", "a"), "no weights as safetensors or GGUF")
    hub.gated.add(REPO)
    refused(command("generate", f"hf:{REPO}", "a"), "is gated", f"{hub.url}/{REPO}")
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    onebase.load(f"hf:{REPO}")
    hub.status = 403
    refused(command("generate", "hf:org/shards", "a"), "denies access", "403")
    hub.status = 200
    hub.answer = b"<html>a page</html>"
    refused(command("generate", f"hf:{REPO}", "a"), "does not answer like a Hub", "HF_ENDPOINT")


def test_a_download_that_breaks_off_is_gone_on_with(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "time.sleep", lambda seconds: None
    )  # the client waits a second before each of its tries
    hub.broken["model.safetensors"] = 5000
    refused(command("generate", f"hf:{REPO}", "a"), "closed the connection", "run it again")
    hub.status = 503
    for ref in (f"hf:{REPO}", f"hf:{REPO}@{COMMIT}"):
        with pytest.raises(UserError, match="not complete in the cache"):
            onebase.load(ref)
    hub.status = 200
    hub.broken.clear()
    assert onebase.load(f"hf:{REPO}").name == "tiny-llama"


def test_a_new_commit_that_breaks_off_leaves_the_old_one(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    shutil.copytree(hub.repos[REPO], tmp_path / "repo")
    hub.repos[REPO] = tmp_path / "repo"
    old = onebase.load(f"hf:{REPO}")
    make(tmp_path / "repo", "llama3", rms_norm_eps=1e-3)
    (tmp_path / "repo" / "model.safetensors").write_bytes(
        (tmp_path / "repo" / "model.safetensors").read_bytes()[:-4]
    )
    hub.revisions["main"] = "2" * 40
    hub.broken["model.safetensors"] = 0
    assert onebase.load(f"hf:{REPO}").fingerprint == old.fingerprint  # said by the record: commit 1
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert onebase.load(f"hf:{REPO}").record.get("imported.hub")["revision"] == COMMIT


@pytest.mark.parametrize(
    "name", ["../../evil.json", "a/../../evil.json", "/etc/evil.json", "a\\..\\evil.json", ""]
)
def test_a_list_with_a_name_that_leaves_the_folder_is_refused(name: str, hub: Hub, tmp_path: Path) -> None:
    hub.listed.append(name)
    refused(command("generate", f"hf:{REPO}", "a"), "lists the file", "nothing is fetched")
    assert not list(tmp_path.rglob("*evil*")) and not hub.fetched()


def test_an_index_that_leaves_the_folder_and_a_commit_that_is_none(hub: Hub, tmp_path: Path) -> None:
    shutil.copytree(hub.repos["org/shards"], tmp_path / "repo")
    (tmp_path / "repo" / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "../../x.safetensors"}})
    )
    hub.repos["org/odd"] = tmp_path / "repo"
    refused(command("generate", "hf:org/odd", "a"), "has the shard '../../x.safetensors'")
    hub.revisions["main"] = "../../../x"
    refused(command("generate", f"hf:{REPO}", "a"), "lists the commit")


def test_a_path_of_that_name_comes_first(
    hub: Hub, repos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(repos / "whole", tmp_path / "hf:org" / "mine")
    onebase.load("hf:org/mine")
    assert not hub.asked


def test_a_damaged_file_from_the_server_is_refused(hub: Hub, tmp_path: Path) -> None:
    shutil.copytree(hub.repos[REPO], tmp_path / "repo")
    hub.repos[REPO] = tmp_path / "repo"
    (tmp_path / "repo" / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(ArtifactError, match="not a complete safetensors file"):
        onebase.load(f"hf:{REPO}")
