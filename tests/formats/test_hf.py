"""A Hugging Face folder in and out, through the real commands: the same tokens and numbers as transformers all the way."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import onebase
from onebase.assess.gating import shipped_bytes
from onebase.errors import ArtifactError, ConfigError, UserError
from onebase.formats.hf import base as hf
from onebase.govern.verify import verify_tree
from tests.formats.parity import close, shaken
from tests.formats.words import write_words
from tests.helpers import tiny_base
from tests.pretrained import onebase as command

transformers = pytest.importorskip("transformers")
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
MODELS = {
    "llama3": ("LlamaConfig", "LlamaForCausalLM", SIZES),
    "mistral": ("MistralConfig", "MistralForCausalLM", SIZES | {"sliding_window": 8}),
    "qwen": ("Qwen2Config", "Qwen2ForCausalLM", SIZES | {"tie_word_embeddings": True}),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}),
}
TALK = [{"role": "user", "content": "Is this a question?"}]
ROWS = [{"text": f"{word} {i}", "label": word} for i in range(6) for word in ("brown", "lazy")]


def make(folder: Path, kind: str, dtype: torch.dtype = torch.float32, **more: Any) -> Any:
    """A tiny random model with the tokenizer of its kind; the matrix of embeddings has some rows more than there are tokens."""
    inner = write_words(folder, kind)
    config, model, sizes = MODELS[kind]
    ids = [t for t in (inner.token_to_id("<|eot_id|>"), inner.token_to_id("</s>")) if t is not None]
    cfg = getattr(transformers, config)(
        vocab_size=inner.get_vocab_size() + 7, bos_token_id=None, eos_token_id=ids or None, **sizes | more
    )
    theirs = shaken(getattr(transformers, model)(cfg)).to(dtype)
    theirs.generation_config.eos_token_id = ids or None
    theirs.save_pretrained(folder)
    return theirs


def run(*args: str) -> str:
    done = command(*args)
    assert done.status == 0, done.err
    return str(done.out)


@pytest.mark.parametrize("kind", MODELS)
def test_a_folder_answers_as_in_transformers(kind: str, tmp_path: Path) -> None:
    theirs = make(tmp_path / "model", kind)
    tok = transformers.AutoTokenizer.from_pretrained(tmp_path / "model", local_files_only=True)
    base = onebase.load(tmp_path / "model")
    prompt = "The quick brown fox"
    ids = tok(prompt, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        close(base.logits(ids[0].tolist()), theirs(input_ids=ids).logits[0])
        close(
            base.hidden(ids[0].tolist()),
            theirs(input_ids=ids, output_hidden_states=True).hidden_states[-1][0],
        )
        out = theirs.generate(ids, max_new_tokens=24, do_sample=False, attention_mask=torch.ones_like(ids))
    new = [i for i in out[0, ids.shape[1] :].tolist() if i not in base.tokenizer.stop_ids]
    assert base.generate(prompt, max_tokens=24) == base.tokenizer.decode(new, start=False)
    if tok.chat_template is not None:
        ids = tok.apply_chat_template(
            TALK, add_generation_prompt=True, return_tensors="pt", return_dict=False
        )
        with torch.no_grad():
            out = theirs.generate(
                ids, max_new_tokens=16, do_sample=False, attention_mask=torch.ones_like(ids)
            )
        new = [i for i in out[0, ids.shape[1] :].tolist() if i not in base.tokenizer.stop_ids]
        assert base.chat(TALK, max_tokens=16) == base.tokenizer.decode(new, start=False)
        assert "".join(base.stream(TALK, max_tokens=16)) == base.chat(TALK, max_tokens=16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_import_then_export_by_commands(dtype: torch.dtype, tmp_path: Path) -> None:
    theirs = make(tmp_path / "model", "qwen", dtype)
    direct = onebase.load(tmp_path / "model")
    said = run("import", str(tmp_path / "model"), "--out", str(tmp_path / "base"))
    assert direct.fingerprint[:16] in said
    base = onebase.load(tmp_path / "base")
    assert base.fingerprint == direct.fingerprint
    assert base.tokenizer.digest == direct.tokenizer.digest
    assert base.generate("The quick", max_tokens=8) == direct.generate("The quick", max_tokens=8)
    assert base.chat(TALK, max_tokens=8) == direct.chat(TALK, max_tokens=8)
    assert all("ok" in r.line() for r in verify_tree(tmp_path / "base"))
    shown = run("show", str(tmp_path / "base"))
    assert "imported" in shown and "qwen2" in shown
    assert not base.record.parents
    assert len(base.record.get("imported.files")["model.safetensors"]["sha256"]) == 64

    run("export", str(tmp_path / "base"), "--format", "hf", "--out", str(tmp_path / "back"))
    again = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "back", local_files_only=True, dtype="auto"
    )
    assert again.dtype == dtype
    tok = transformers.AutoTokenizer.from_pretrained(tmp_path / "back", local_files_only=True)
    first = transformers.AutoTokenizer.from_pretrained(tmp_path / "model", local_files_only=True)
    for text in ("The quick brown fox", "Grüße 😀 <think>", "<|im_end|>"):
        assert tok(text)["input_ids"] == first(text)["input_ids"]
    assert tok.apply_chat_template(TALK, tokenize=False) == first.apply_chat_template(TALK, tokenize=False)
    assert (tok.eos_token_id, tok.pad_token_id) == (first.eos_token_id, first.pad_token_id)
    assert again.generation_config.eos_token_id == sorted(base.tokenizer.stop_ids)
    for (name, a), (_, b) in zip(theirs.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    assert onebase.load(tmp_path / "back").fingerprint == base.fingerprint


def test_a_portable_base_of_ours_is_a_llama_there(tmp_path: Path) -> None:
    own = tiny_base(portable=True, qk_norm=False, softcap=None, lambdas=False)
    base = onebase.Base(own)
    base.export(tmp_path / "out")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", local_files_only=True).eval()
    tok = transformers.AutoTokenizer.from_pretrained(tmp_path / "out", local_files_only=True)
    ids = base.tokenizer.encode("The quick brown fox", bos=True)
    assert tok("The quick brown fox")["input_ids"] == ids
    with torch.no_grad():
        close(base.logits(ids), theirs(input_ids=torch.tensor([ids])).logits[0])
    chat = tok.apply_chat_template(TALK, add_generation_prompt=True, return_dict=False)
    assert chat == own.codec.chat_ids(TALK)
    again = onebase.load(tmp_path / "out")
    assert again.loaded.codec.chat_ids(TALK) == chat
    assert again.generate("The", max_tokens=6) == base.generate("The", max_tokens=6)


def test_a_gguf_file_out_and_in(tmp_path: Path) -> None:
    theirs = make(tmp_path / "model", "llama3")
    tok = transformers.AutoTokenizer.from_pretrained(tmp_path / "model", local_files_only=True)
    run(
        "export",
        str(tmp_path / "model"),
        "--format",
        "gguf",
        "-o",
        "kind=F32",
        "--out",
        str(tmp_path / "a.gguf"),
    )
    base = onebase.load(tmp_path / "a.gguf")
    ids = tok("The quick brown fox")["input_ids"]
    assert base.tokenizer.encode("The quick brown fox", bos=True) == ids
    with torch.no_grad():
        close(base.logits(ids), theirs(input_ids=torch.tensor([ids])).logits[0])
    assert base.loaded.codec.chat_ids(TALK) == onebase.load(tmp_path / "model").loaded.codec.chat_ids(TALK)
    assert shipped_bytes(base) == (0, (tmp_path / "a.gguf").stat().st_size)
    run("import", str(tmp_path / "a.gguf"), "--out", str(tmp_path / "base"))
    assert onebase.load(tmp_path / "base").chat(TALK, max_tokens=5) == base.chat(TALK, max_tokens=5)
    with pytest.raises(UserError, match="no option 'bits'"):
        base.export(tmp_path / "b.gguf", format="gguf", bits=3)
    with pytest.raises(UserError, match="kind 'Q9'"):
        base.export(tmp_path / "b.gguf", format="gguf", kind="Q9")


def test_adapters_of_peft_in_and_out(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    theirs = make(tmp_path / "model", "mistral")
    adapted = peft.get_peft_model(
        theirs, peft.LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj", "down_proj"])
    )
    shaken(adapted.base_model.model.model.layers[0].mlp.down_proj.lora_B, seed=3)
    adapted.eval().save_pretrained(tmp_path / "peft")
    base = onebase.load(tmp_path / "model")
    ids = base.tokenizer.encode("The quick brown fox", bos=True)
    with torch.no_grad():
        want = adapted(input_ids=torch.tensor([ids])).logits[0]
    assert not torch.allclose(base.logits(ids), want)
    close(base.with_adapter(tmp_path / "peft").logits(ids), want)
    run("import", str(tmp_path / "peft"), "--base", str(tmp_path / "model"), "--out", str(tmp_path / "ours"))
    close(base.with_adapter(tmp_path / "ours").logits(ids), want)
    run(
        "export",
        str(tmp_path / "model"),
        "--adapter",
        str(tmp_path / "ours"),
        "--format",
        "peft",
        "--out",
        str(tmp_path / "back"),
    )
    fresh = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", local_files_only=True)
    with torch.no_grad():
        close(
            peft.PeftModel.from_pretrained(fresh, tmp_path / "back")
            .eval()(input_ids=torch.tensor([ids]))
            .logits[0],
            want,
        )
    with pytest.raises(UserError, match="no adapter is attached"):
        base.export(tmp_path / "none", format="peft")


def test_what_no_layout_can_express_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot express"):
        onebase.Base(tiny_base()).export(tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="unknown format 'onnx'"):
        onebase.Base(tiny_base()).export(tmp_path / "out", format="onnx")


@pytest.mark.parametrize("kind", ["qwen", "mistral"])
def test_adapters_learn_on_it_and_are_bound_to_it(kind: str, tmp_path: Path) -> None:
    make(tmp_path / "model", kind)
    base = onebase.load(tmp_path / "model")
    head = base.adapt(ROWS, task="classify", method="head")
    head.save(tmp_path / "head")
    shutil.copytree(tmp_path / "model", tmp_path / "copy")
    again = onebase.load(tmp_path / "copy").with_adapter(tmp_path / "head")
    assert [x.label for x in again.classify(["brown 1", "lazy 2"])] == ["brown", "lazy"]
    chats = [{"messages": [*TALK, {"role": "assistant", "content": "Yes, it is."}]}] * 8
    lora = base.adapt(chats, task="chat", method="lora", epochs=60, rank=4, batch_size=4, lr=1e-2, sites=())
    lora.save(tmp_path / "lora")
    assert base.with_adapter(lora).chat(TALK, max_tokens=20).strip() == "Yes, it is."
    rows = [{"prompt": "The quick", "completion": " lazy dog"}] * 8
    base.adapt(rows, task="complete", method="lora", epochs=1, rank=2)

    run(
        "export",
        str(tmp_path / "model"),
        "--adapter",
        str(tmp_path / "lora"),
        "--out",
        str(tmp_path / "merged"),
    )
    merged = onebase.load(tmp_path / "merged")
    assert merged.chat(TALK, max_tokens=20).strip() == "Yes, it is."
    assert (
        run("generate", str(tmp_path / "model"), "The quick", "--max-tokens", "4")
        == base.generate("The quick", max_tokens=4) + "\n"
    )
    with pytest.raises(ArtifactError):
        merged.with_adapter(tmp_path / "head")


def test_an_encoder_gives_vectors(tmp_path: Path) -> None:
    inner = write_words(tmp_path, "bert")
    cfg = transformers.BertConfig(
        vocab_size=inner.get_vocab_size(), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=40, max_position_embeddings=64,
    )  # fmt: skip
    theirs = shaken(transformers.BertModel(cfg))
    theirs.save_pretrained(tmp_path)
    tok = transformers.AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    base = onebase.load(tmp_path)
    texts = ["The quick brown fox", "questions"]
    with torch.no_grad():
        for text, vector in zip(texts, base.embed(texts), strict=True):
            ids = torch.tensor([[i for i in tok(text)["input_ids"] if i != 0]])
            close(vector, theirs(input_ids=ids).last_hidden_state[0].mean(0))
    with pytest.raises(UserError, match="reads in both directions"):
        base.generate("The")


def test_how_a_text_becomes_a_vector_is_kept(tmp_path: Path) -> None:
    test_an_encoder_gives_vectors(tmp_path / "model")
    from onebase.formats.hf.sentence import write_sentence
    from onebase.modality.text.pooling import EmbeddingConfig

    plain = onebase.load(tmp_path / "model").embed(["The quick brown fox jumps"])
    write_sentence(tmp_path / "model", EmbeddingConfig(pooling="cls", normalise=True, limit=4), 32)
    base = onebase.import_base(tmp_path / "model", tmp_path / "base")
    found = base.embed(["The quick brown fox jumps", "The quick brown"])
    assert torch.allclose(found.norm(dim=-1), torch.ones(2))
    assert not torch.allclose(found[0], plain[0])
    ids = base.tokenizer.framed(base.tokenizer.encode("The quick brown fox jumps")[:2])
    first = base.hidden(ids)[0]
    close(found[0], first / first.norm())
    base.export(tmp_path / "back")
    close(onebase.load(tmp_path / "back").embed(["The quick brown"])[0], found[1])


def test_a_model_one_level_down_is_found(tmp_path: Path) -> None:
    """Older sentence-transformers folders keep the model in `0_Transformer`."""
    test_an_encoder_gives_vectors(tmp_path / "0_Transformer")
    (tmp_path / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (tmp_path / "0_Transformer" / "sentence_bert_config.json").write_text('{"max_seq_length": 16}')
    kinds = {"0_Transformer": "Transformer", "1_Pooling": "Pooling"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    found = onebase.load(tmp_path).embed(["questions"])
    close(found, onebase.load(tmp_path / "0_Transformer").embed(["questions"]))


def test_the_padding_row_of_positions_is_exported(tmp_path: Path) -> None:
    inner = write_words(tmp_path / "model", "bert")
    cfg = transformers.RobertaConfig(
        vocab_size=inner.get_vocab_size(), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=40, max_position_embeddings=66, pad_token_id=3,
    )  # fmt: skip
    theirs = shaken(transformers.RobertaModel(cfg, add_pooling_layer=False))
    theirs.save_pretrained(tmp_path / "model")
    onebase.load(tmp_path / "model").export(tmp_path / "back")
    again = transformers.RobertaModel.from_pretrained(tmp_path / "back", add_pooling_layer=False).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        close(again(input_ids=ids).last_hidden_state, theirs(input_ids=ids).last_hidden_state)


def test_what_has_no_record_is_told_how_to_get_one(tmp_path: Path) -> None:
    make(tmp_path, "qwen")
    for name in ("show", "verify"):
        said = command(name, str(tmp_path))
        assert said.status == 1
        assert "onebase import" in said.err


def test_damaged_folders_are_refused(tmp_path: Path) -> None:
    make(tmp_path / "model", "qwen")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copytree(tmp_path / "model", tmp_path / name)
        whole = (tmp_path / name / name).read_bytes()
        for bad in (b"", whole[: len(whole) // 2], b"[]", b"\xff\xfe"):
            (tmp_path / name / name).write_bytes(bad)
            with pytest.raises(UserError, match=name):
                onebase.load(tmp_path / name)
    with pytest.raises(UserError, match="already exists"):
        onebase.Base(tiny_base(portable=True)).export(tmp_path / "model")
    with pytest.raises(UserError, match="is not a model, but a folder of models"):
        onebase.import_base(tmp_path, tmp_path / "new")


def test_the_config_may_name_several_ends(tmp_path: Path) -> None:
    make(tmp_path, "llama3")
    (tmp_path / "generation_config.json").unlink()
    config = json.loads((tmp_path / "config.json").read_text())
    base = onebase.load(tmp_path)
    assert base.tokenizer.stop_ids == {base.tokenizer.id_of("<|eot_id|>")}
    config["eos_token_id"] = [base.tokenizer.id_of("<|eot_id|>"), base.tokenizer.id_of("<|end_of_text|>")]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert len(onebase.load(tmp_path).tokenizer.stop_ids) == 2


def test_words_that_a_folder_would_read_otherwise_are_not_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong in writing, the folder is read back before it is there."""
    base = tiny_base(portable=True)
    whole = hf.framed_json
    monkeypatch.setattr(
        hf, "framed_json", lambda t: json.dumps(json.loads(whole(t)) | {"post_processor": None})
    )
    with pytest.raises(ConfigError, match="would not read text like this base"):
        hf.save_hf(base, tmp_path / "out")
    assert not list(tmp_path.iterdir())
