"""SmolLM 3: Llama without rotary positions in some blocks (NoPE). SmolLM and SmolLM2 are saved as `llama`.

Source: transformers `models/smollm3/configuration_smollm3.py`, read for names and defaults.
"""

from onebase.formats.families.decoder import Rope, Windows, decoder_family, decoder_lines
from onebase.formats.families.llama import BIASES
from onebase.formats.family import Tree
from onebase.formats.fields import Each, Found, View
from onebase.formats.reader import Reader


class Turning:
    """Which blocks have rotary positions: as a list says, or all but every nth."""

    def read(self, r: Reader, found: Found) -> None:
        depth, interval = found["trunk.depth"], r.size("no_rope_layer_interval", 4)
        turning = r.get("no_rope_layers", list, [int((i + 1) % interval != 0) for i in range(depth)])
        if len(turning) < depth or any(x not in (0, 1) for x in turning):
            raise r.refuse("no_rope_layers", f"a list of {depth}, each 1 (rotary positions) or 0 (none)")
        rope = found["block.attn.rope"]
        found["block.attn.rope"] = Each(rope if turns else None for turns in turning[:depth])

    def write(self, base: View, tree: Tree) -> None:
        tree["no_rope_layers"] = [int(rope is not None) for rope in base.each("block.attn.rope")]


FAMILY = decoder_family(
    "smollm3",
    *decoder_lines("smollm3", "SmolLM3", context=32768, kv_heads=4, tied=True),
    Rope(2_000_000.0),
    Turning(),
    Windows(lambda v, i: v["block.attn.rope"][i] is None, None, switch="use_sliding_window"),
    *BIASES,
)
