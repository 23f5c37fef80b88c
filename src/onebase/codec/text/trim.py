"""A smaller vocabulary from a larger one: the tokens that given texts use, and enough to write all other words.

Longest match first makes the choice of pieces safe: a word all of whose tokens stay becomes the same tokens as before, another one becomes
shorter pieces.
"""

import json
from collections.abc import Sequence

import numpy as np
import tokenizers

from onebase.codec.text.tokenizer import Tokenizer
from onebase.errors import ConfigError


def trimmed(tokenizer: Tokenizer, texts: Sequence[str], size: int) -> tuple[Tokenizer, np.ndarray]:
    """A WordPiece tokenizer of at most `size` tokens, and the ids that they had, int64 [size], in order.

    All special tokens stay, and all pieces of one ASCII letter, digit or mark; then what the texts use most. A word with a letter that
    is not there becomes the unknown token. Raises ConfigError for another kind of tokenizer, and a size that does not hold what must stay.
    """
    tree = json.loads(tokenizer.as_json)
    model = tree["model"]
    if model["type"] != "WordPiece":
        raise ConfigError(
            f"the vocabulary is of kind {model['type']}, whose tokens are built on each other",
            "leave the vocabulary whole: only WordPiece is trimmed",
        )
    prefix = model["continuing_subword_prefix"]
    must = {t["id"] for t in tree["added_tokens"]} | {
        i for t, i in model["vocab"].items() if len(t.removeprefix(prefix)) == 1 and t.isascii()
    }
    if size < len(must):
        raise ConfigError(f"a vocabulary of {size} tokens", f"give at least {len(must)}, which must stay")
    counts = np.zeros(tokenizer.vocab_size, np.int64)
    for ids in tokenizer.encode_batch(list(texts)):
        np.add.at(counts, ids, 1)
    counts[sorted(must)] = 0
    used = np.argsort(-counts, kind="stable")[: min(size - len(must), int((counts > 0).sum()))]
    kept = np.array(sorted(must | set(used.tolist())))
    new = {int(old): i for i, old in enumerate(kept)}
    model["vocab"] = {t: new[i] for t, i in model["vocab"].items() if i in new}
    for token in tree["added_tokens"]:
        token["id"] = new[token["id"]]
    for special in ((tree.get("post_processor") or {}).get("special_tokens") or {}).values():
        special["ids"] = [new[i] for i in special["ids"]]
    return Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(tree)), tokenizer.roles), kept
