"""Recognises folders and files with a model in an unsupported format, and explains what to give instead.

They are recognised by file names alone; only the first bytes of possible Git LFS pointers are read.
"""

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from onebase.errors import ArtifactError

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
POINTER = b"version https://git-lfs.github.com/spec/"
MAX_NAMES = 10_000
SAM = ("sam", "sam_hq", "sam2", "sam2_video", "sam3", "sam3_video")
_OTHER = "give the same model as a Hugging Face folder (config.json and *.safetensors) or a .gguf file"
_PIPELINE = "give the folder of a whole DiTPipeline on the disk, the one with model_index.json (docs/drawing.md); other pipelines are not supported"
_CLIP = "give the same model in the transformers format (config.json with model_type clip, *.safetensors)"
_TRAINED = "give the model that the training saved (save_pretrained; for DeepSpeed zero_to_fp32.py --safe_serialization)"
_META = (
    "give the same model as a Hugging Face folder (repos often have both, or end in -hf), or convert it where transformers is installed "
    "(convert_llama_weights_to_hf, convert_mistral_weights_to_hf)"
)
# The first match counts; one of the patterns must match: (patterns, what it is, what to give).
_PUBLISHED: tuple[tuple[Sequence[str], str, str], ...] = (
    (("model_index.json",), "is a diffusers pipeline", _PIPELINE),
    (("diffusion_pytorch_model*",), "is a part of a diffusers pipeline", _PIPELINE),
    (("open_clip_*",), "has a CLIP model in the OpenCLIP format", _CLIP),
    (
        ("params.json", "consolidated*", "tokenizer.model.v*"),
        "has its weights in the format of Meta and Mistral",
        _META,
    ),
    (("openvino_*.xml",), "has its weights in the OpenVINO format", _OTHER),  # its *.bin is not a pickle
    (("*.distcp", ".metadata"), "is a sharded checkpoint of torch.distributed", _TRAINED),
    (("zero_to_fp32.py", "global_step*"), "is a DeepSpeed checkpoint", _TRAINED),
)
_FORMATS: tuple[tuple[Sequence[str], str, str], ...] = tuple(
    (patterns, f"has its weights in the {name} format", _OTHER)
    for name, patterns in {
        "ONNX": ("*.onnx", "onnx/*.onnx"),
        "older MLX": ("*.npz",),
        "TensorFlow": ("*.h5", "*.keras", "saved_model.pb"),
        "Flax": ("*.msgpack",),
        "Core ML": ("*.mlpackage", "*.mlmodelc"),
        "TensorFlow Lite": ("*.tflite",),
        "TensorRT": ("*.engine",),
        "NeMo": ("*.nemo",),
    }.items()
)
_PICKLED = (
    "has its weights as a pickle ({}), which can run any code when opened",
    "use safetensors: most models have them; or convert it in an isolated environment",
)


def what_it_is(path: Path) -> ArtifactError | None:
    """The error for a folder or file in an unsupported format; None if it is not recognised."""
    if path.is_file():
        return _a_file(path)
    names = _names(path)
    inside = [n for n in names if (path / n / "config.json").is_file()]
    if "adapter_config.json" in names:
        return ArtifactError(
            f"{path} is a PEFT adapter, not a base",
            f"give the base that it was made for, and --adapter {path}",
        )
    if "refs" in names and "snapshots" in names:
        snapshots = sorted((path / "snapshots").iterdir()) if (path / "snapshots").is_dir() else []
        return ArtifactError(
            f"{path} is a folder of the Hub's cache",
            f"give one of its snapshots: {snapshots[0] if snapshots else 'it has none'}",
        )
    steps = sorted((n for n in inside if n.startswith("checkpoint-")), key=lambda n: (len(n), n))
    if (found := _first(str(path), names, _PUBLISHED)) is not None:
        return found
    if steps:
        return ArtifactError(
            f"{path} has training checkpoints, each of them a model", f"give one: {path / steps[-1]}"
        )
    if any(n.endswith(".safetensors") for n in names):
        return ArtifactError(
            f"{path} has weights, but no config.json, so the model is not known",
            "take the whole folder of the model",
        )
    if (found := by_names(str(path), names)) is not None:
        return found
    if inside:
        return ArtifactError(
            f"{path} is not a model, but a folder of models",
            f"give one: {path / inside[0]}",
        )
    return None


def no_weights(path: Path, wanted: str) -> ArtifactError:
    """The error for a folder with a config.json but without supported weights. wanted: the expected file names."""
    names = _names(path)
    if "adapter_model.safetensors" in names:
        return ArtifactError(
            f"{path} has the weights of an adapter, but not of a base",
            f"give the base that it was made for, and --adapter {path}",
        )
    others = [n for n in names if n.endswith(".safetensors")]
    named = [
        n for n in others if fnmatch(n, "model.*.safetensors") or fnmatch(n, "pytorch_model*.safetensors")
    ]
    if named:
        return ArtifactError(
            f"{path} has its weights as {named[0]}, and neither {wanted}",
            "if they are the whole model, rename the file to model.safetensors",
        )
    if any(fnmatch(n, "model-*-of-*.safetensors") for n in others):
        return ArtifactError(
            f"{path} has shards, but no model.safetensors.index.json that lists them",
            "take an intact copy of the folder",
        )
    if (found := by_names(str(path), names)) is not None:
        return found
    return ArtifactError(f"{path} has neither {wanted}", "give a folder of a saved model")


def no_model_type(config: dict[str, Any], where: str) -> ArtifactError | None:
    """The error for a config.json without `model_type`; None if its format is not recognised."""
    if "_class_name" in config or "_diffusers_version" in config:
        part = f"{where} is of a part of a diffusers pipeline ({config.get('_class_name')})"
        return ArtifactError(part, _PIPELINE)
    if "pretrained_cfg" in config or ("architecture" in config and "num_features" in config):
        what = f"of a timm model ({config.get('architecture')})"
    elif "model_cfg" in config and "preprocess_cfg" in config:
        what = "of a CLIP model in the OpenCLIP format"
    elif {"bos_token", "eos_token", "unk_token"} <= config.keys():
        what = "of CTranslate2, which is supported only for Whisper"
    elif "peft_type" in config:
        what = "of a PEFT adapter"
    else:
        return None
    return ArtifactError(f"{where} is {what}: it has no model_type", _OTHER)


def segments(config: dict[str, Any], where: str) -> ArtifactError | None:
    """The error for Segment Anything and its successors, with the parts that the trunk does not have; None for any other model."""
    if (kind := str(config.get("model_type"))) not in SAM:
        return None
    return ArtifactError(
        f"{where}: {kind} (Segment Anything) cannot be read: its encoder attends in windows of patches with relative positions that depend on the query, "
        "and its decoder changes the image's states while it reads the prompts (docs/design.md)",
        "train masks on a base of images (ViT, DINOv2): onebase adapt BASE --task segment (docs/segmentation.md)",
    )


def packed(config: dict[str, Any], where: str) -> ArtifactError | None:
    """The error for weights in an unsupported quantization, by its key in config.json; None without one."""
    for key in ("quantization_config", "quantization", "compression_config"):
        value = config.get(key)
        if value in (None, {}, False):
            continue
        options = value if isinstance(value, dict) else {}
        name = options.get("quant_method") or ("mlx" if key == "quantization" else "an unnamed method")
        bits = options.get("bits")
        return ArtifactError(
            f"{where}: '{key}': its weights have a quantization that is not supported ({name}"
            + (f", {bits} bits)" if isinstance(bits, int) else ")"),
            "give the model from before it was quantized, or a .gguf file of it; "
            "onebase can quantize it itself (docs/commands.md: quantize)",
        )
    return None


def pointer(path: Path) -> ArtifactError | None:
    """The error for a file that is a Git LFS pointer; None for other files."""
    try:
        with open(path, "rb") as f:
            head = f.read(len(POINTER))
    except OSError:
        return None
    if head != POINTER:
        return None
    return ArtifactError(
        f"{path} is a Git LFS pointer, not the file itself",
        "fetch the files: git lfs pull, or hf download REPO",
    )


def _a_file(path: Path) -> ArtifactError | None:
    if (found := pointer(path)) is not None:
        return found
    if path.suffix == ".safetensors":
        return ArtifactError(f"{path} is a single file of weights", f"give its folder: {path.parent}")
    if path.suffix in PICKLES:
        what, remedy = _PICKLED
        return ArtifactError(f"{path} {what.format(path.name)}", remedy)
    return _first(str(path), [path.name], (*_PUBLISHED, *_FORMATS))


def by_names(where: str, names: Sequence[str]) -> ArtifactError | None:
    """The error for a folder without safetensors, by the names of its files; None if its format is not recognised."""
    if (found := _first(where, names, _PUBLISHED)) is not None:
        return found
    if ggufs := [n for n in names if n.endswith(".gguf")]:
        return ArtifactError(
            f"{where} is a folder of GGUF files", f"name one of them: {where}/{f', {where}/'.join(ggufs[:4])}"
        )
    if pickled := [n for n in names if n.endswith(PICKLES)]:
        what, remedy = _PICKLED
        return ArtifactError(f"{where} {what.format(pickled[0])}", remedy)
    return _first(where, names, _FORMATS)


def _first(
    where: str, names: Sequence[str], kinds: Sequence[tuple[Sequence[str], str, str]]
) -> ArtifactError | None:
    for patterns, what, remedy in kinds:
        if (name := next((n for n in names if any(fnmatch(n, p) for p in patterns)), None)) is not None:
            return ArtifactError(f"{where} {what} ({name}), which is not supported", remedy)
    return None


def _names(path: Path) -> list[str]:
    """The names in a folder, and in its subfolder `onnx`."""
    try:
        names = [p.name for p, _ in zip(path.iterdir(), range(MAX_NAMES), strict=False)]
        names += [f"onnx/{p.name}" for p in (path / "onnx").iterdir()] if "onnx" in names else []
    except OSError:
        return []
    return sorted(names)
