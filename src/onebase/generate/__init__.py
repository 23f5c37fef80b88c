"""Decoding and scoring: one engine for the command line, Python, evaluation and the server."""

from onebase.generate.engine import Decoder, generate, stream
from onebase.generate.request import Completion, Finish, Piece, PromptTooLong, Top, check_prompts
from onebase.generate.sampler import Sampler, Sampling
from onebase.generate.score import score
from onebase.generate.text import TextStream

__all__ = [
    "Completion",
    "Decoder",
    "Finish",
    "Piece",
    "PromptTooLong",
    "Sampler",
    "Sampling",
    "TextStream",
    "Top",
    "check_prompts",
    "generate",
    "score",
    "stream",
]
