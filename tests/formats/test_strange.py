"""Folders that people point at and that are no model here, and folders with files that disagree: each is said by name."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import onebase
from onebase.errors import ArtifactError, ConfigError, UserError
from onebase.formats.hf.files import INDEX, WEIGHTS
from onebase.formats.hub.files import nothing_to_read, weight_files
from tests.formats.test_hf import make
from tests.helpers import tiny_base

transformers = pytest.importorskip("transformers")
OTHERS: dict[str, tuple[list[str], str, str]] = {
    "Meta's": (["params.json", "consolidated.00.pth", "tokenizer.model"], "Meta and Mistral", "Hugging Face folder"),
    "Mistral's": (["params.json", "consolidated.safetensors", "tekken.json"], "Meta and Mistral", "convert_mistral"),
    "Mistral's, without params": (["consolidated.safetensors"], "Meta and Mistral", "Hugging Face folder"),
    "Meta's, without params": (["consolidated.00.pth", "checklist.chk"], "Meta and Mistral", "convert_llama"),
    "OpenCLIP's": (["open_clip_config.json", "open_clip_model.safetensors"], "OpenCLIP", "model_type clip"),
    "OpenCLIP's pickle": (["open_clip_pytorch_model.bin"], "OpenCLIP", "model_type clip"),
    "a pipeline": (["model_index.json", "unet/config.json", "text_encoder/config.json"], "no transformer", "DiTPipeline"),
    "an adapter": (["adapter_config.json", "adapter_model.safetensors", "tokenizer.json"], "PEFT adapter", "--adapter"),
    "an adapter as a pickle": (["adapter_config.json", "adapter_model.bin"], "PEFT adapter", "--adapter"),
    "GGUF files": (["a-Q4_K_M.gguf", "a-Q8_0.gguf"], "folder of GGUF files", "a-Q4_K_M.gguf"),
    "ONNX": (["model.onnx", "tokenizer.json"], "ONNX", "config.json and"),
    "ONNX one level down": (["onnx/model_quantized.onnx"], "ONNX", "config.json and"),
    "a pickle": (["pytorch_model.bin"], "as a pickle", "safetensors"),
    "a checkpoint of Lightning": (["epoch=3.ckpt"], "as a pickle", "safetensors"),
    "MLX, old": (["weights.npz"], "MLX", "config.json and"),
    "TensorFlow": (["saved_model.pb", "variables/variables.index"], "TensorFlow", "config.json and"),
    "Flax": (["flax_model.msgpack"], "Flax", "config.json and"),
    "OpenVINO": (["openvino_model.xml", "openvino_model.bin"], "OpenVINO", "config.json and"),
    "checkpoints": (["checkpoint-500/config.json", "checkpoint-1000/config.json"], "checkpoints", "checkpoint-1000"),
    "DeepSpeed": (["zero_to_fp32.py", "global_step9/x.pt"], "DeepSpeed", "zero_to_fp32"),
    "shards of torch": ([".metadata", "__0_0.distcp"], "torch.distributed", "save_pretrained"),
    "the Hub's cache": (["refs/main", "snapshots/abc/config.json"], "Hub's cache", "snapshots/abc"),
    "no config": (["model.safetensors", "tokenizer.json"], "no config.json", "whole folder"),
    "folders of models": (["one/config.json", "two/config.json"], "folder of models", "one"),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
def test_a_folder_of_another_kind_is_said_with_what_to_do(kind: str, tmp_path: Path) -> None:
    names, what, remedy = OTHERS[kind]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    for opened in (lambda: onebase.load(tmp_path), lambda: onebase.import_base(tmp_path, tmp_path / "out")):
        with pytest.raises(UserError) as e:
            opened()
        assert what in e.value.cause
        assert remedy in e.value.remedy and str(tmp_path) in e.value.cause


@pytest.mark.parametrize(
    ("names", "what", "remedy"),
    [
        (["consolidated.safetensors", "params.json"], "Meta and Mistral", "Hugging Face"),
        (["adapter_config.json", "adapter_model.safetensors"], "of an adapter", "--adapter"),
        (["model.fp16.safetensors"], "as model.fp16.safetensors", "rename the file to model.safetensors"),
        (["model-00001-of-00002.safetensors"], "no model.safetensors.index.json", "intact"),
        (["diffusion_pytorch_model.safetensors"], "diffusers", "model_index.json"),
        (["pytorch_model.bin", "onnx/model.onnx", "tf_model.h5"], "as a pickle", "safetensors"),
        (["onnx/model.onnx"], "ONNX", "config.json and"),
        (["tf_model.h5"], "TensorFlow", "config.json and"),
        (["model-Q8_0.gguf"], "GGUF", "model-Q8_0.gguf"),
        ([], "has neither model.safetensors nor", "saved model"),
    ],
)
def test_a_config_without_weights_is_said_with_what_to_do(
    names: list[str], what: str, remedy: str, tmp_path: Path
) -> None:
    make(tmp_path, "qwen")
    (tmp_path / WEIGHTS).unlink()
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    with pytest.raises(ArtifactError) as e:
        onebase.load(tmp_path)
    assert what in e.value.cause and remedy in e.value.remedy


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.1"}, "diffusers pipeline"),
        ({"architecture": "vit_base", "num_features": 768, "pretrained_cfg": {}}, "timm model"),
        ({"bos_token": "a", "eos_token": "b", "unk_token": "c"}, "CTranslate2"),
        ({"model_cfg": {}, "preprocess_cfg": {}}, "OpenCLIP"),
        ({"model_type": "mamba"}, "'mamba' is not supported"),
        ({}, "model_type None is not supported"),
        ({"model_type": "llama", "quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq, 4 bits"),
        ({"model_type": "bert", "quantization_config": {"quant_method": "bitsandbytes"}}, "bitsandbytes"),
        ({"model_type": "llama", "quantization": {"group_size": 64, "bits": 4}}, "mlx, 4 bits"),
    ],
)
def test_a_config_of_another_kind_is_said(config: dict[str, Any], what: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"a": torch.zeros(1)}, tmp_path / WEIGHTS)
    with pytest.raises(UserError) as e:
        onebase.load(tmp_path)
    assert what in e.value.cause and e.value.remedy


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", WEIGHTS])
def test_a_pointer_of_lfs_is_called_one(name: str, tmp_path: Path) -> None:
    make(tmp_path, "qwen")
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 5\n")
    with pytest.raises(ArtifactError, match="Git LFS pointer") as e:
        onebase.load(tmp_path)
    assert "git lfs pull" in e.value.remedy


def test_a_file_in_the_place_of_a_folder_is_said(tmp_path: Path) -> None:
    make(tmp_path, "qwen")
    for name, said in ((WEIGHTS, f"give its folder: {tmp_path}"), ("a.onnx", "."), ("a.pth", "safetensors")):
        (tmp_path / name).touch()
        with pytest.raises(ArtifactError) as e:
            onebase.load(tmp_path / name)
        assert said in e.value.remedy


def test_folders_of_ours_are_none_of_these(tmp_path: Path) -> None:
    onebase.Base(tiny_base()).save(tmp_path / "base")
    onebase.load(tmp_path / "base")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="manifest"):
        onebase.load(tmp_path / "empty")


def sharded(folder: Path, **config: Any) -> dict[str, str]:
    """A tiny model in two shards; the table of its index."""
    make(folder, "qwen", **config)
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(weights)
    table = {}
    for i, part in enumerate((names[::2], names[1::2])):
        shard = f"model-0000{i + 1}-of-00002.safetensors"
        save_file({n: weights[n].clone() for n in part}, folder / shard, metadata={"format": "pt"})
        table |= dict.fromkeys(part, shard)
    listed(folder, table)
    return table


def listed(folder: Path, table: dict[str, str]) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": table}))


IDLE = [
    "lm_head.weight",
    "model.layers.0.self_attn.rotary_emb.inv_freq",
    "model.rotary_emb.inv_freq",
]


@pytest.mark.parametrize("name", IDLE)
def test_an_index_may_list_what_nothing_needs(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = sharded(tmp_path)
    want = onebase.load(tmp_path)
    listed(tmp_path, table | {name: next(iter(table.values()))})
    with caplog.at_level(logging.WARNING):
        found = onebase.load(tmp_path)
    assert found.fingerprint == want.fingerprint
    assert f"{name!r} is in no shard" in caplog.text
    transformers.AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True)


def test_a_shard_may_hold_a_second_name_that_the_index_leaves_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = sharded(tmp_path)
    want = onebase.load(tmp_path).fingerprint
    shard = tmp_path / table["model.embed_tokens.weight"]
    weights = load_file(shard)
    save_file(weights | {"lm_head.weight": weights["model.embed_tokens.weight"].clone()}, shard)
    with caplog.at_level(logging.WARNING):
        assert onebase.load(tmp_path).fingerprint == want
    assert "'lm_head.weight' is not in the index" in caplog.text
    save_file(weights | {"lm_head.weight": weights["model.embed_tokens.weight"] + 1}, shard)
    with pytest.raises(ArtifactError, match="ties 'lm_head.weight'"):
        onebase.load(tmp_path)


@pytest.mark.parametrize("tied", [True, False])
def test_a_weight_that_is_missing_is_refused(tied: bool, tmp_path: Path) -> None:
    table = sharded(tmp_path, tie_word_embeddings=tied)
    for name in (
        "model.layers.0.mlp.up_proj.weight",
        "model.norm.weight",
        *([] if tied else ["lm_head.weight"]),
    ):
        shard = tmp_path / table[name]
        whole = load_file(shard)
        save_file({k: v for k, v in whole.items() if k != name}, shard)
        with pytest.raises(ArtifactError, match=name):
            onebase.load(tmp_path)
        save_file(whole, shard)
    listed(tmp_path, table | {"model.layers.0.more.weight": next(iter(table.values()))})
    with pytest.raises(ArtifactError, match=r"more\.weight' is in no shard"):
        onebase.load(tmp_path)


def test_two_sets_of_weights_are_refused_and_an_old_index_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """mlx-vlm#1464."""
    table = sharded(tmp_path / "old")
    make(tmp_path / "new", "qwen", rms_norm_eps=1e-5)
    new = {k: v + 0.01 for k, v in load_file(tmp_path / "new" / WEIGHTS).items()}
    save_file(new, tmp_path / "new" / WEIGHTS, metadata={"format": "pt"})
    want = onebase.load(tmp_path / "new")
    listed(tmp_path / "new", table)
    with caplog.at_level(logging.WARNING):
        assert onebase.load(tmp_path / "new").fingerprint == want.fingerprint
    assert "no shard of" in caplog.text
    peer = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "new", local_files_only=True)
    assert torch.equal(peer.model.norm.weight, new["model.norm.weight"])
    shutil.copy(tmp_path / "old" / "model-00001-of-00002.safetensors", tmp_path / "new")
    with pytest.raises(ArtifactError, match="two sets of weights"):
        onebase.load(tmp_path / "new")
    listed(tmp_path / "new", dict.fromkeys(new, WEIGHTS))  # an index of the one file
    assert onebase.load(tmp_path / "new").fingerprint == want.fingerprint


def test_the_same_on_the_hub(tmp_path: Path) -> None:
    listed(tmp_path, {"a": "model-00001-of-00001.safetensors"})
    names = [INDEX, "config.json", WEIGHTS]
    assert weight_files(tmp_path, names) == [WEIGHTS]
    with pytest.raises(ArtifactError, match="which of the two"):
        weight_files(tmp_path, [*names, "model-00001-of-00001.safetensors"])
    assert weight_files(tmp_path, names[:2]) == ["model-00001-of-00001.safetensors"]
    for names, what in ((["params.json", "consolidated.safetensors"], "Meta"), (["a.onnx"], "ONNX")):
        assert what in nothing_to_read("hf:a/b", "a/b", names).cause


def test_an_adapter_beside_the_weights_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path, "qwen")
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with caplog.at_level(logging.WARNING):
        onebase.load(tmp_path)
    assert "that adapter is not applied" in caplog.text


def test_other_weights_and_tokenizers_beside_count_for_nothing(tmp_path: Path) -> None:
    """docs/bases.md, Tokenizers and Conflicting files in one folder."""
    make(tmp_path, "qwen")
    want = onebase.load(tmp_path)
    for name in (
        "pytorch_model.bin",
        "tf_model.h5",
        "tokenizer.model",
        "consolidated.safetensors",
        "params.json",
    ):
        (tmp_path / name).write_bytes(b"no content")
    (tmp_path / "vocab.json").write_text("{}")
    (tmp_path / "merges.txt").write_text("a b\n")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"torch_dtype": "float16", "dtype": "float16"}))
    found = onebase.load(tmp_path)
    assert found.fingerprint == want.fingerprint and found.tokenizer.digest == want.tokenizer.digest


def test_a_vocabulary_of_another_size_than_the_matrix_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "qwen")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"vocab_size": config["vocab_size"] - 1}))
    with pytest.raises((ArtifactError, ConfigError), match="has shape"):
        onebase.load(tmp_path)


def test_segment_anything_is_refused_with_the_parts_that_do_not_fit(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    vision = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "mlp_dim": 16,
    }
    vision |= {
        "patch_size": 8,
        "output_channels": 16,
        "window_size": 2,
        "global_attn_indexes": [0],
        "num_pos_feats": 8,
    }
    prompt = {"hidden_size": 16, "image_size": 32, "patch_size": 8, "mask_input_channels": 4}
    decoder = {"hidden_size": 16, "mlp_dim": 16, "num_attention_heads": 2, "iou_head_hidden_dim": 16}
    config = transformers.SamConfig(
        vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder
    )
    transformers.SamModel(config).save_pretrained(tmp_path / "sam")
    with pytest.raises(UserError, match="windows of patches with relative positions") as found:
        onebase.import_base(tmp_path / "sam", tmp_path / "base")
    assert "onebase adapt BASE --task segment" in found.value.remedy
    assert not (tmp_path / "base").exists()
