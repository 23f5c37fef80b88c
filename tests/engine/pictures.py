"""Folders of tiny random models of images and text, whole with tokenizer and the way pictures are prepared; and some pictures."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import UnigramTrainer
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
)

from tests.formats.parity import shaken
from tests.formats.words import TEXTS

TOWER = {"intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16}
VISION = TOWER | {"image_size": 16, "patch_size": 4}
LLAVA = """{% for m in messages %}{% if m['role'] != 'system' %}{{ m['role'].upper() + ': ' }}{% endif %}{% for c in m['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}{% if m['role'] != 'assistant' %}{% for c in m['content'] | selectattr('type', 'equalto', 'text') %}{{ c['text'] + ' ' }}{% endfor %}{% else %}{% for c in m['content'] | selectattr('type', 'equalto', 'text') %}{% generation %}{{ c['text'] + ' ' }}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"""
"""After the published template of llava-1.5: all images of a message first, then its text."""

SMOLVLM = """<s>{% for message in messages %}{{message['role'] | capitalize}}{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"""
"""After the published template of SmolVLM."""


def some_pictures(folder: Path, count: int = 3) -> list[Path]:
    """Coloured noise in several sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    paths = []
    for i in range(count):
        small = draw.integers(0, 256, (4 + i, 5, 3), dtype=np.uint8)
        paths.append(folder / f"{i}.png")
        Image.fromarray(small).resize((40 + 11 * i, 30), Image.Resampling.NEAREST).save(paths[-1])
    return paths


def clip_words() -> CLIPTokenizer:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*letters, *(f"{x}</w>" for x in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={name: i for i, name in enumerate(names)}, merges=[], model_max_length=64)


def siglip_words() -> PreTrainedTokenizerFast:
    """Pieces of small letters; what ends a text also fills it up."""
    inner = Tokenizer(models.Unigram())
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    names = ["<unk>", "</s>"]
    inner.train_from_iterator(
        TEXTS, UnigramTrainer(vocab_size=120, special_tokens=names, unk_token="<unk>", show_progress=False)
    )
    inner.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    said = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    found = PreTrainedTokenizerFast(tokenizer_object=inner, **said, model_max_length=64)
    found.model_input_names = ["input_ids"]  # as the published ones: every place is attended
    return found


def llava_words(*more: str) -> PreTrainedTokenizerFast:
    """A token for each letter of ASCII: whatever a random model says is text. more: special tokens behind the usual ones."""
    letters = ["Ċ", "Ġ", *(chr(i) for i in range(33, 127))]  # a new line, a space
    inner = Tokenizer(models.BPE(vocab={x: i for i, x in enumerate(letters)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(["<s>", "</s>", "<image>", *more])
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 96)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")


def write_clip(folder: Path) -> tuple[Any, Any, Any]:
    """Model, tokenizer and image processor of transformers, as they were saved."""
    words = clip_words()
    text = TOWER | {"vocab_size": 514, "max_position_embeddings": 64, "eos_token_id": 513}
    model = shaken(CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=12)))
    pictures = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    return _saved(folder, model, words, pictures)


def paired(folder: Path) -> Path:
    """The folder of a CLIP."""
    write_clip(folder)
    return folder


def write_siglip(folder: Path) -> tuple[Any, Any, Any]:
    words = siglip_words()
    text = TOWER | {"vocab_size": 130, "max_position_embeddings": 64}
    model = shaken(SiglipModel(SiglipConfig(text_config=text, vision_config=VISION)))
    return _saved(folder, model, words, SiglipImageProcessorPil(size={"height": 16, "width": 16}))


def write_llava(folder: Path) -> tuple[Any, Any, Any]:
    words = llava_words()
    decoder = LlamaConfig(
        **TOWER, vocab_size=99, num_key_value_heads=1, max_position_embeddings=256, eos_token_id=97
    )
    cfg = LlavaConfig(text_config=decoder, vision_config=CLIPVisionConfig(**VISION), image_token_index=98)
    pictures = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    found = _saved(folder, shaken(LlavaForConditionalGeneration(cfg)), words, pictures)
    (folder / "chat_template.jinja").write_text(LLAVA)
    return found


def write_idefics3(folder: Path) -> tuple[Any, Any, Any]:
    words = llava_words("<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
    decoder = LlamaConfig(
        **TOWER, vocab_size=102, num_key_value_heads=1, max_position_embeddings=256, eos_token_id=97
    )
    cfg = Idefics3Config(text_config=decoder, vision_config=VISION, image_token_id=98)
    pictures = Idefics3ImageProcessorPil(
        size={"longest_edge": 40}, max_image_size={"longest_edge": 16}, do_image_splitting=False
    )
    found = _saved(folder, shaken(Idefics3ForConditionalGeneration(cfg)), words, pictures)
    (folder / "chat_template.jinja").write_text(SMOLVLM)
    return found


def _saved(folder: Path, *parts: Any) -> tuple[Any, Any, Any]:
    for part in parts:
        part.save_pretrained(folder)
    model, words, pictures = parts
    return model, words, pictures
