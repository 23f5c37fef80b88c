"""A tiny base of each kind, with weights that say something: a decoder, an encoder, an encoder-decoder, one that sees. No packages needed."""

import json
from pathlib import Path

import torch

from onebase.base.config import BaseConfig, TextShape, native_base
from onebase.base.folder import LoadedBase, load_base
from onebase.base.links import ConnectorConfig, Link
from onebase.base.model import BaseModel
from onebase.formats.hf.tokenizer_files import read_codec
from onebase.modality.audio.config import AudioCodecConfig
from onebase.modality.patches.tokens import media_specials
from onebase.modality.text.codec import TextCodec
from onebase.modality.text.config import TextCodecConfig
from onebase.modality.text.sample import SPECIALS
from onebase.modality.text.tokenizer import Tokenizer
from onebase.model.config import AttnConfig, BlockConfig, FFConfig, NormConfig, Norms, Part, TrunkConfig
from tests.helpers import LINES, tiny_base
from tests.pictures import sighted

BIASES: tuple[Part, ...] = ("q", "k", "v", "o")
NORM = NormConfig(kind="layer", eps=1e-5)
PLACE = 5
"""The token in whose places the vectors of a picture stand."""
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def drawn(cfg: BaseConfig, words: TextCodec | None) -> LoadedBase:
    """A base of random weights; vectors are drawn around their start."""
    model = BaseModel(cfg)
    model.reset(0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, p in sorted(model.named_parameters()):
            noise = torch.randn(p.shape, generator=generator)
            p.copy_(noise * 0.2 if p.ndim > 1 else noise * 0.1 + p)
    return LoadedBase(model.eval(), words)


def block(where: str = "pre", *, cross: bool = False) -> BlockConfig:
    attn = AttnConfig(heads=2, kv_heads=2, head_dim=16, rope=None, bias=BIASES)
    return BlockConfig(
        attn=attn,
        ff=FFConfig(hidden=48, activation="gelu", bias=True),
        norms=Norms(norm=NORM, where=where),  # type: ignore[arg-type]  # one of two words
        cross=attn if cross else None,
    )


def decoder(folder: Path) -> LoadedBase:
    """As the project pretrains them."""
    return tiny_base()


def encoder(folder: Path) -> LoadedBase:
    """As BERT is made: both directions, norms behind, learned positions and types, [CLS] and [SEP] around a text, no head."""
    letters = [*LETTERS, *(f"##{x}" for x in LETTERS), *"?.,!"]
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    (folder / "vocab.txt").write_text("\n".join(names), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    trunk = TrunkConfig(
        width=32, blocks=(block("post"),) * 2, final_norm=None, input_norm=NORM, direction="both"
    )
    codec = TextCodecConfig(vocab_size=len(names), context=64, positions=64, types=2, head=False)
    return drawn(BaseConfig(trunks={"text": trunk}, codecs={"text": codec}), read_codec(folder, len(names)))


def speech(folder: Path) -> LoadedBase:
    """As Whisper is made: an encoder of sound, and a decoder that looks at what it says."""
    tokenizer = Tokenizer.train(LINES * 4, 300)
    size = tokenizer.vocab_size
    heard = TrunkConfig(width=32, blocks=(block(),) * 2, final_norm=NORM, direction="both")
    said = TrunkConfig(width=32, blocks=(block(cross=True),) * 2, final_norm=NORM)
    cfg = BaseConfig(
        trunks={"audio": heard, "text": said},
        codecs={
            "audio": AudioCodecConfig(kind="audio", mels=8, context=40),
            "text": TextCodecConfig(vocab_size=size, context=32, positions=32, tied=True),
        },
        links=(Link(src="audio", dst="text", how="memory"),),
    )
    return drawn(cfg, TextCodec(tokenizer))


def sees(folder: Path) -> LoadedBase:
    """As a ViT is made."""
    return load_base(sighted(folder / "sees"))


def both(folder: Path) -> LoadedBase:
    """A decoder that takes pictures into its text, by the place of one token each vector: two trunks."""
    text, image = tiny_base(), sees(folder)
    cfg = BaseConfig(
        trunks=text.model.cfg.trunks | image.model.cfg.trunks,
        codecs=text.model.cfg.codecs | image.model.cfg.codecs,
        links=(Link(src="image", dst="text", how="embed", connector=ConnectorConfig(token=PLACE)),),
    )
    return drawn(cfg, text.text_codec)


def series(folder: Path) -> LoadedBase:
    """A decoder that reads and makes what a plug-in defines (`conftest` registers it): text and numbers, each with its feed-forward."""
    from tests.contract.plugin.series import SeriesPatchesConfig

    specials = (*SPECIALS, *media_specials(("series_patches",)))
    tokenizer = Tokenizer.train(LINES * 4, 320, specials)
    shape = TextShape(width=32, depth=2, head_dim=16, context=64, vocab_size=tokenizer.vocab_size)
    return drawn(native_base(shape, SeriesPatchesConfig(kind="series_patches")), TextCodec(tokenizer))


KINDS = {
    "decoder": decoder,
    "encoder": encoder,
    "speech": speech,
    "sees": sees,
    "both": both,
    "series": series,
}
