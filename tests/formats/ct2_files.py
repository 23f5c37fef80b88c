"""Files of CTranslate2 written by hand, after its format, and tiny Whispers of transformers put into them."""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[Any]
TYPES = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}


def string(text: bytes) -> bytes:
    return struct.pack("<H", len(text) + 1) + text + b"\0"


def variable(name: str, x: Array) -> bytes:
    head = string(name.encode()) + struct.pack("<B", x.ndim) + struct.pack(f"<{x.ndim}I", *x.shape)
    return head + struct.pack("<BI", TYPES[str(x.dtype)], x.nbytes) + x.tobytes()


def file(
    arrays: Mapping[str, Array],
    second: Sequence[tuple[str, str]] = (),
    *,
    spec: bytes = b"WhisperSpec",
    version: int = 6,
) -> bytes:
    parts = [struct.pack("<I", version), string(spec), struct.pack("<II", 3, len(arrays))]
    parts += [variable(name, x) for name, x in arrays.items()]
    parts += [struct.pack("<I", len(second)), *(string(a.encode()) + string(b.encode()) for a, b in second)]
    return b"".join(parts)


def whisper_arrays(theirs: Any, kind: str = "float32") -> tuple[dict[str, Array], list[tuple[str, str]]]:
    """The variables of a tiny Whisper and their second names. kind: float32, float16, int8 (and float32), or int16."""
    state = {k.removeprefix("model."): v.detach().numpy() for k, v in theirs.state_dict().items()}
    cfg, width = theirs.config, theirs.config.d_model
    out: dict[str, Array] = {}

    def put(name: str, x: Array) -> None:
        weight = name.endswith("weight")
        if kind == "float16":
            x = x.astype(np.float16)
        elif kind == "int8" and weight:
            flat = x.reshape(len(x), -1)
            scale = 127.0 / np.abs(flat).max(1)
            x = np.rint(flat * scale[:, None]).astype(np.int8).reshape(x.shape)
            out[name + "_scale"] = scale.astype(np.float32)
        elif kind == "int16" and weight:
            scale = np.array(2.0**10 / np.abs(x).max(), np.float32)
            x = np.clip(np.rint(x * scale), -(2**15), 2**15 - 1).astype(np.int16)
            out[name + "_scale"] = scale
        out[name] = x

    def both(theirs_name: str, name: str, norm: bool = False) -> None:
        for a, b in (("weight", "gamma"), ("bias", "beta")) if norm else (("weight",) * 2, ("bias",) * 2):
            put(f"{name}/{b}", state[f"{theirs_name}.{a}"])

    def fused(theirs_name: str, name: str, parts: str) -> None:
        put(f"{name}/weight", np.concatenate([state[f"{theirs_name}.{p}_proj.weight"] for p in parts]))
        zero = np.zeros(width, np.float32)
        put(f"{name}/bias", np.concatenate([state.get(f"{theirs_name}.{p}_proj.bias", zero) for p in parts]))

    for i in (1, 2):
        both(f"encoder.conv{i}", f"encoder/conv{i}")
    put("decoder/embeddings/weight", state["decoder.embed_tokens.weight"])
    for side, layers, heads in (
        ("encoder", cfg.encoder_layers, cfg.encoder_attention_heads),
        ("decoder", cfg.decoder_layers, cfg.decoder_attention_heads),
    ):
        put(f"{side}/position_encodings/encodings", state[f"{side}.embed_positions.weight"])
        both(f"{side}.layer_norm", f"{side}/layer_norm", norm=True)
        out[f"{side}/num_heads"] = np.array(heads, np.int16)
        for i in range(layers):
            a, b = f"{side}.layers.{i}", f"{side}/layer_{i}"
            both(f"{a}.self_attn_layer_norm", f"{b}/self_attention/layer_norm", norm=True)
            fused(f"{a}.self_attn", f"{b}/self_attention/linear_0", "qkv")
            both(f"{a}.self_attn.out_proj", f"{b}/self_attention/linear_1")
            both(f"{a}.final_layer_norm", f"{b}/ffn/layer_norm", norm=True)
            both(f"{a}.fc1", f"{b}/ffn/linear_0")
            both(f"{a}.fc2", f"{b}/ffn/linear_1")
            if side == "decoder":
                both(f"{a}.encoder_attn_layer_norm", f"{b}/attention/layer_norm", norm=True)
                both(f"{a}.encoder_attn.q_proj", f"{b}/attention/linear_0")
                fused(f"{a}.encoder_attn", f"{b}/attention/linear_1", "kv")
                both(f"{a}.encoder_attn.out_proj", f"{b}/attention/linear_2")
    for key, value in (("activation", 3), ("alibi", 0), ("pre_norm", 1), ("scale_embeddings", 0)):
        out[f"decoder/{key}"] = np.array(value, np.int8)
    if cfg.tie_word_embeddings:
        return out, [("decoder/projection/weight", "decoder/embeddings/weight")]
    put("decoder/projection/weight", theirs.proj_out.weight.detach().numpy())
    return out, []


def rounded(theirs: Any, kind: str) -> Any:
    """The model with its weights as `kind` keeps them: what a reader of the file should compute with."""
    with torch.no_grad():
        for name, p in theirs.named_parameters():
            if kind == "float16":
                p.copy_(p.half().float())
            elif (
                kind in ("int8", "int16")
                and name.endswith("weight")
                and p.ndim > 1
                and "positions" not in name
            ):
                flat = p.reshape(len(p), -1)
                if kind == "int8":  # a fused matrix has a scale a row, as its parts would have
                    scale = (127.0 / flat.abs().amax(1)).reshape(-1, *([1] * (p.ndim - 1)))
                    p.copy_((p * scale).round() / scale)
    return theirs
