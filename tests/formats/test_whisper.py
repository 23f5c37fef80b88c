"""Whisper: what transformers says, with padded text, with a cache, by gradients, and back; and what a folder says of listening."""

import copy
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import onebase
from onebase.base.config import BaseConfig, base_parameters
from onebase.base.folder import load_base, save_base
from onebase.base.model import BaseModel
from onebase.config import from_dict
from onebase.config_plain import to_dict
from onebase.errors import ArtifactError, ConfigError, UserError
from onebase.formats.hf.base import open_folder, save_hf
from onebase.formats.rules import Rule
from onebase.model.cross import Memory
from onebase.model.mask import Cols
from tests.formats.parity import close, exported, grads, imported, shaken, weights_of
from tests.formats.speech import LANGUAGES, SPECIALS, speech_folder, tiny_config, whisper_tokenizer

transformers = pytest.importorskip("transformers")


def made(**more: Any) -> Any:
    return shaken(transformers.WhisperForConditionalGeneration(tiny_config(**more)))


def some() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 8, 20, generator=generator), torch.randint(4, 60, (2, 12), generator=generator)


def said_here(model: BaseModel, mel: Tensor, ids: Tensor, cols: Cols | None = None) -> Tensor:
    memory = Memory(model.states("audio", mel).hidden, Cols.simple(len(mel), 10))
    return model.text.logits(model.hidden(ids, cols, memory=memory).hidden)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"tie_word_embeddings": False},
        {"scale_embedding": True},  # transformers reads it and multiplies by nothing
        {"activation_function": "relu", "decoder_layers": 1, "encoder_attention_heads": 1},
    ],
)
def test_whisper(more: dict[str, Any], tmp_path: Path) -> None:
    theirs = made(**more)
    theirs.save_pretrained(tmp_path / "theirs")
    family, model = imported(tmp_path / "theirs")
    assert from_dict(BaseConfig, json.loads(json.dumps(to_dict(model.cfg)))) == model.cfg
    assert base_parameters(model.cfg) == sum(p.numel() for p in model.parameters())
    mel, ids = some()
    with torch.no_grad():
        states = theirs.model.encoder(mel).last_hidden_state
        close(model.states("audio", mel).hidden, states)
        want = theirs(input_features=mel, decoder_input_ids=ids).logits
        close(said_here(model, mel, ids), want)
        # A shorter text, padded.
        cols = Cols.padded(torch.tensor([12, 7]), 12)
        mask = (cols.doc >= 0).long()
        padded = theirs(input_features=mel, decoder_input_ids=ids, decoder_attention_mask=mask).logits
        close(said_here(model, mel, ids, cols)[1, :7], padded[1, :7])
        # With a cache: the memory is given once.
        cache, memory = model.new_cache(2, 12), Memory(model.states("audio", mel).hidden, Cols.simple(2, 10))
        parts = []
        for a, b in pairwise((0, 5, 6, 12)):
            here = Cols.simple(2, b - a, start=a)
            out = model.hidden(ids[:, a:b], here, cache=cache, memory=memory if a == 0 else None)
            parts.append(model.text.logits(out.hidden))
        close(torch.cat(parts, 1), want)
    _same_gradients(model, theirs, family.rules(model.cfg), mel, ids)
    exported(tmp_path / "back", family, model)
    again = transformers.WhisperForConditionalGeneration.from_pretrained(tmp_path / "back").eval()
    with torch.no_grad():
        close(again(input_features=mel, decoder_input_ids=ids).logits, want)
    _, third = imported(tmp_path / "back")
    assert third.cfg == model.cfg
    for (name, a), (_, b) in zip(model.named_parameters(), third.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def _same_gradients(model: BaseModel, theirs: Any, rules: Any, mel: Tensor, ids: Tensor) -> None:
    """Through decoder, cross-attention, encoder and convolutions. Theirs in fp64, so that only our rounding counts."""
    model.requires_grad_(True)
    weights = torch.randn(2, 12, 60, generator=torch.Generator().manual_seed(2))
    ours = grads((said_here(model, mel, ids) * weights).sum(), model)
    exact = copy.deepcopy(theirs).double().requires_grad_(True)
    peers = grads((exact(input_features=mel.double(), decoder_input_ids=ids).logits * weights).sum(), exact)
    for rule in rules:
        if isinstance(rule, Rule):
            for name, found in zip(rule.theirs, rule.back([ours[n] for n in rule.ours]), strict=True):
                close(found, peers[name].float())


def test_a_model_without_its_head_is_read(tmp_path: Path) -> None:
    theirs = made()
    theirs.model.save_pretrained(tmp_path)
    _, model = imported(tmp_path)
    mel, ids = some()
    with torch.no_grad():
        close(said_here(model, mel, ids), theirs(input_features=mel, decoder_input_ids=ids).logits)


def test_what_the_trunk_lacks_is_refused_by_name(tmp_path: Path) -> None:
    made().save_pretrained(tmp_path)
    tree = json.loads((tmp_path / "config.json").read_text())
    for key, value in (("use_weighted_layer_sum", True), ("activation_function", "tanh"), ("d_model", 33)):
        (tmp_path / "config.json").write_text(json.dumps(tree | {key: value}))
        with pytest.raises(ConfigError, match="d_model|" + key):
            imported(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(tree | {"encoder_layers": 3}))
    with pytest.raises(ArtifactError, match=r"encoder\.layers\.2"):
        imported(tmp_path)


def test_a_tensor_that_no_rule_reads_is_named(tmp_path: Path) -> None:
    from onebase.artifact.tensors import save_tensors

    made().save_pretrained(tmp_path)
    save_tensors(
        tmp_path / "model.safetensors",
        weights_of(tmp_path) | {"model.encoder.layers.0.self_attn.k_proj.bias": torch.zeros(32)},
    )
    with pytest.raises(ArtifactError, match=r"k_proj\.bias"):
        imported(tmp_path)


def test_what_a_folder_says_of_listening(tmp_path: Path) -> None:
    speech_folder(tmp_path)
    speech = open_folder(tmp_path).speech
    inner = whisper_tokenizer()
    ids = {s: inner.token_to_id(s) for s in SPECIALS}
    assert speech is not None
    assert (speech.start, speech.end) == (ids["<|startoftranscript|>"], ids["<|endoftext|>"])
    assert speech.first == speech.no_timestamps + 1 == inner.get_vocab_size()
    assert speech.languages == {x: ids[f"<|{x}|>"] for x in LANGUAGES}
    assert speech.tasks == {t: ids[f"<|{t}|>"] for t in ("translate", "transcribe")}
    assert set(speech.suppress) == {5, 6} | {
        ids[f"<|{x}|>"]
        for x in ("startoftranscript", "translate", "transcribe", "startoflm", "startofprev", "nospeech")
    }
    assert set(speech.suppress_first) == {7, speech.end}
    assert (speech.first_timestamp, speech.previous) == (4, ids["<|startofprev|>"])
    assert (speech.language, speech.task) == (None, None)


def test_one_language_has_no_language_and_task_tokens(tmp_path: Path) -> None:
    speech_folder(tmp_path, multilingual=False)
    speech = open_folder(tmp_path).speech
    assert speech is not None and not speech.languages and not speech.tasks


@pytest.mark.parametrize("how", ["named", "forced"])
def test_a_fixed_language_is_the_default(how: str, tmp_path: Path) -> None:
    speech_folder(tmp_path)
    file = tmp_path / "generation_config.json"
    tree = json.loads(file.read_text())
    de, task = tree["lang_to_id"]["<|de|>"], tree["task_to_id"]["translate"]
    fixed = {"language": "<|de|>", "task": "translate"}
    if how == "forced":
        fixed = {"forced_decoder_ids": [[1, de], [2, task], [3, None]]}  # type: ignore[dict-item]
    file.write_text(json.dumps(tree | fixed))
    speech = open_folder(tmp_path).speech
    assert speech is not None and (speech.language, speech.task) == ("de", "translate")


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("generation_config.json", "suppress_tokens", [10**6]),
        ("generation_config.json", "suppress_tokens", "none"),
        ("generation_config.json", "lang_to_id", {"<|en|>": "x"}),
        ("generation_config.json", "lang_to_id", {"<|en|>": 10**6}),
        ("generation_config.json", "no_timestamps_token_id", 3),
        ("preprocessor_config.json", "n_fft", 512),
        ("preprocessor_config.json", "dither", 0.1),
    ],
)
def test_nonsense_about_listening_is_refused(name: str, key: str, value: Any, tmp_path: Path) -> None:
    speech_folder(tmp_path)
    tree = json.loads((tmp_path / name).read_text())
    (tmp_path / name).write_text(json.dumps(tree | {key: value}))
    with pytest.raises(ConfigError, match=name):
        open_folder(tmp_path)


def test_speech_survives_a_base_folder_and_an_export(tmp_path: Path) -> None:
    speech_folder(tmp_path / "theirs", max_source_positions=100)
    found = open_folder(tmp_path / "theirs")
    assert found.record.get("imported.model_type") == "whisper"
    found = replace(found, speech=replace(found.speech, language="haw", task="translate"))  # type: ignore[type-var]
    save_base(tmp_path / "ours", found)
    assert (tmp_path / "ours/codecs/audio/speech.json").is_file()
    loaded = load_base(tmp_path / "ours")
    assert loaded.speech == found.speech
    save_hf(loaded, tmp_path / "hf")
    again = open_folder(tmp_path / "hf")
    assert again.speech == found.speech
    assert again.fingerprint == loaded.fingerprint == found.fingerprint
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(tmp_path / "hf")
    assert (extractor.feature_size, extractor.n_samples) == (8, 32000)
    start = transformers.WhisperConfig.from_pretrained(tmp_path / "hf").decoder_start_token_id
    assert start == found.speech.start
    there = transformers.GenerationConfig.from_pretrained(tmp_path / "hf")
    assert there.lang_to_id["<|haw|>"] == found.speech.languages["haw"]


def test_a_base_that_listens_does_not_continue_text(tmp_path: Path) -> None:
    speech_folder(tmp_path)
    base = onebase.load(tmp_path)
    for use in (lambda: base.generate("a"), lambda: base.logits([1, 2]), lambda: base.embed(["a"])):
        with pytest.raises(UserError, match="memory"):
            use()
