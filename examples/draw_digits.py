"""One base that reads images and draws them: handwritten digits and their names, trained both ways in one trunk. Run: python examples/draw_digits.py

The images are those of scikit-learn (8 x 8 pixels). After 500 steps (three minutes on one core) the base names 0.97 of the digits that it has not seen,
and the nearest real digits recognise all of the 40 that it draws. Another number of steps: python examples/draw_digits.py STEPS
"""

import io
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from onebase.base.config import TextShape, native_base
from onebase.base.model import BaseModel
from onebase.data.order import ExampleOrder, one_by_one
from onebase.engine.drawing import Drawing, drawn
from onebase.modality.patches.config import ImagePatchesConfig
from onebase.modality.patches.pictures import from_patches, grid, to_image
from onebase.modality.patches.tokens import MEDIA_SPECIALS, MediaCodec
from onebase.modality.text.codec import TextCodec
from onebase.modality.text.sample import SPECIALS, Sample, Segment, Tokens
from onebase.modality.text.tokenizer import Tokenizer
from onebase.objective.mixed import FlowConfig, Mixed
from onebase.train.config import TrainConfig
from onebase.train.loop import Job, run

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
OUT = Path("runs/digits.png")
steps = int(sys.argv[1]) if len(sys.argv) > 1 else 500

digits = load_digits()
order = np.random.default_rng(0).permutation(len(digits.target))
train, test = order[:1500], order[1500:]


def png(i: int) -> bytes:
    """A digit as the file that people have."""
    out = io.BytesIO()
    Image.fromarray((digits.images[i] * 15.9).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


patches = ImagePatchesConfig(kind="image_patches", patch=2, channels=1, bottleneck=32)
tokenizer = Tokenizer.train([*NAMES, "4x4"] * 3, 320, specials=(*SPECIALS, *MEDIA_SPECIALS))
codec = MediaCodec(TextCodec(tokenizer), {patches.kind: patches})


def sample(i: int) -> Tokens:
    """A picture and its name. Mixed turns a share of them round: the name, and the picture that is to be drawn."""
    name = NAMES[digits.target[i]]
    segments = (Segment("image", png(i)), Segment("text", name, loss=True), Segment("end", None, loss=True))
    return codec.tokens(Sample(segments, str(i), "digits"))


rows = [sample(i) for i in train]
length = max(map(len, rows))
base = BaseModel(
    native_base(
        TextShape(width=128, depth=4, head_dim=32, context=64, vocab_size=tokenizer.vocab_size), patches
    )
)
base.reset(0)
objective = Mixed.of(base, length, FlowConfig(generate=0.5))
job = Job(
    base,
    objective,
    ExampleOrder(one_by_one(rows), 64),
    TrainConfig(steps=steps, batch_size=64, sequence_length=length, micro_batch=64),
)
result = run(job)
print(f"trained {steps} steps: loss {result.losses[0]:.2f} to {np.mean(result.losses[-10:]):.2f}")

# It reads: the name of each picture that it has not seen, by the likeliest first token.
base.eval()
read = Mixed.of(base, length, FlowConfig(generate=0.0, damage=0.0))
firsts = [tokenizer.encode(name, follows="special")[0] for name in NAMES]
hits = 0
for part in np.array_split(test, 3):
    tokens = [sample(i) for i in part]
    batch = read.batch([(t,) for t in tokens], 0).inputs["text"]
    with torch.no_grad():
        h_BTD = base.hidden(batch.ids_BT, batch.cols, batch.mask, media=batch.media).hidden
    ends = torch.tensor([t.media[0].stop for t in tokens])  # the end mark, before the name
    logits_BV = base.text.logits(h_BTD[torch.arange(len(tokens)), ends])
    hits += int((logits_BV[:, firsts].argmax(1).numpy() == digits.target[part]).sum())
print(f"named {hits / len(test):.3f} of {len(test)} digits that it has not seen")

# It draws: four of each, which the nearest real digits judge.
first = codec.text.tokens(Sample(())).ids.tolist()  # what begins every text
opening = codec.opening(patches.kind, (4, 4))
judge = KNeighborsClassifier(3).fit(digits.data[train] / 16, digits.target[train])
strips, known = [], 0
for d, name in enumerate(NAMES):
    prompt = [*first, *tokenizer.encode(name, follows="special"), *opening]
    made_BNP = drawn(
        base,
        patches.kind,
        prompt,
        grid(4, 4),
        4,
        Drawing(steps=20, guidance=2.0),
        unprompted=[*first, *opening],
    )
    pictures = [from_patches(x_NP, 4, patches) for x_NP in made_BNP]
    strips.append(torch.cat(pictures, 2))
    values = [((p.clamp(-1, 1) + 1) / 2).flatten().numpy() for p in pictures]
    known += int((judge.predict(values) == d).sum())
OUT.parent.mkdir(exist_ok=True)
to_image(torch.cat(strips, 1)).resize((4 * 64, 10 * 64), Image.Resampling.NEAREST).save(OUT)
print(f"drew 40 digits, of which the nearest real ones recognise {known}: {OUT}")
