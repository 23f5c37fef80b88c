"""SmolLM 3: Llama without rotary positions in some blocks (NoPE). SmolLM and SmolLM2 are saved as `llama`.

Source: transformers `models/smollm3/configuration_smollm3.py`, read for names and defaults.
"""

from onebase.formats.families.decoder import Rope, Windows, decoder_family, decoder_lines
from onebase.formats.families.llama import BIASES
from onebase.formats.family import Tree
from onebase.formats.fields import Each, Found, View
from onebase.formats.reader import ConfigReader


class NoRopeLayers:
    """The blocks with rotary positions: from a list, or all except every nth."""

    def read(self, r: ConfigReader, found: Found) -> None:
        depth, interval = found["trunk.depth"], r.size("no_rope_layer_interval", 4)
        has_rope = r.get("no_rope_layers", list, [int((i + 1) % interval != 0) for i in range(depth)])
        if len(has_rope) < depth or any(x not in (0, 1) for x in has_rope):
            raise r.refuse("no_rope_layers", f"a list of {depth}, each 1 (rotary positions) or 0 (none)")
        rope = found["block.attn.rope"]
        found["block.attn.rope"] = Each(rope if x else None for x in has_rope[:depth])

    def write(self, base: View, tree: Tree) -> None:
        tree["no_rope_layers"] = [int(rope is not None) for rope in base.each("block.attn.rope")]


FAMILY = decoder_family(
    "smollm3",
    *decoder_lines("smollm3", "SmolLM3", context=32768, kv_heads=4, tied=True),
    Rope(2_000_000.0),
    NoRopeLayers(),
    Windows(lambda v, i: v["block.attn.rope"][i] is None, None, switch="use_sliding_window"),
    *BIASES,
)
