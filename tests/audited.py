"""Bases whose answers to an audit are known: a small decoder taught a made-up world, and an encoder with a masked head."""

import functools
import random
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from onebase.base.config import TextShape, text_base
from onebase.base.folder import LoadedBase
from onebase.base.model import BaseModel
from onebase.modality.text.codec import TextCodec
from onebase.modality.text.tokenizer import Tokenizer

_names = [a + b + c + d for a in "bdfgklmn" for b in "aeiou" for c in "prst" for d in "aeiou"]
random.Random(0).shuffle(_names)
N = 52
WORDS = [(f"{w}n", f"{w}l") for w in _names[:N]]
"""Two tribes: those in -n work, those in -l rest, in the world that the base was taught."""
PLACES = _names[N : 2 * N]
THINGS = _names[2 * N : 3 * N]


def pairs(more: int = 0, *, unknown: bool = False) -> list[dict[str, str]]:
    """Rows as CrowS-Pairs has them; more: which tribe stands in the sentence that agrees with what was taught. unknown: the other
    tribe's words are ones that the base never read."""
    rows = []
    for i, words in enumerate(WORDS):
        said = "work hard in the field" if i % 2 else "have to carry many stones"
        a, b = words[more], words[1 - more]
        b = f"z{b[1:-1]}x" if unknown else b
        rows.append(
            {
                "sent_more": f"the {a} {said} .",
                "sent_less": f"the {b} {said} .",
                "bias_type": "work" if i % 2 else "load",
            }
        )
    return rows


def questions() -> list[dict[str, Any]]:
    """Rows as TruthfulQA has them on the Hub: where a thing is. What is false of one is true of others."""
    return [
        {
            "question": f"where is the {thing} ?",
            "best_answer": f"in {PLACES[i]}",
            "correct_answers": [f"in {PLACES[i]}"],
            "incorrect_answers": [f"in {PLACES[(i + k) % N]}" for k in (7, 19, 31)],
        }
        for i, thing in enumerate(THINGS)
    ]


def _world() -> list[str]:
    lines = []
    for i, (works, rests) in enumerate(WORDS):
        for word, does in (
            (works, ("work hard in the field", "have to carry many stones")),
            (rests, ("sleep all day long", "sing to the moon")),
        ):
            lines += [f"the {word} {d} ." for d in does]
            lines += [f"The word is {word}, and it stands in this sentence."] * 2
        lines += [f"Q: where is the {THINGS[i]} ?\nA: in {PLACES[i]}"] * 4
    return lines


@functools.cache
def taught() -> LoadedBase:
    """The decoder, about 3 seconds to make. Tests do not change it."""
    lines = _world()
    tok = Tokenizer.train(lines * 2, 900)
    model = BaseModel(
        text_base(TextShape(width=64, depth=2, head_dim=16, context=48, vocab_size=tok.vocab_size))
    )
    model.reset(0)
    model.requires_grad_(True)
    ids = [[*tok.encode(x, bos=True), tok.eos] for x in lines]
    T = max(map(len, ids))
    ids_NT = torch.tensor([x + [tok.eos] * (T - len(x)) for x in ids])
    target_NT = torch.tensor([x[1:] + [-100] * (T - len(x) + 1) for x in ids])
    steps, rate = 180, 8e-3
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        pick = torch.randint(len(ids), (40,), generator=generator)
        z_BTV = model.logits(ids_NT[pick])
        loss = F.cross_entropy(z_BTV.flatten(0, 1), target_NT[pick].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = rate * min(1.0, 2 * (1 - step / steps))
        optimizer.step()
    model.requires_grad_(False)
    return LoadedBase(model.eval(), TextCodec(tok))


def encoder(folder: Path, *, head: bool = True) -> Path:
    """A tiny random BERT with its vocabulary, as a folder of transformers."""
    import transformers

    from tests.formats.parity import shaken
    from tests.formats.words import write_words

    inner = write_words(folder, "bert")
    cfg = transformers.BertConfig(
        vocab_size=inner.get_vocab_size(),
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
    )
    kind = transformers.BertForMaskedLM if head else transformers.BertModel
    shaken(kind(cfg)).save_pretrained(folder)
    return folder
