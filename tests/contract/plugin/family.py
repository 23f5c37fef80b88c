"""A family of its own: Llama's lines under a model_type of ours, and a window in every block."""

from onebase.formats.families import register
from onebase.formats.families.decoder import Rope, decoder_family, decoder_lines, window_line

register(decoder_family("mine", *decoder_lines("mine", "Mine", context=2048), Rope(), window_line(None)))
