"""Decoding and scoring: one engine for the command line, Python, evaluation and the server."""

from onebase.engine.decoder import Decoder, generate, stream
from onebase.engine.request import Completion, Finish, Piece, PromptTooLong, Top, check_prompts
from onebase.engine.sampler import Sampler, Sampling
from onebase.engine.scoring import score
from onebase.engine.stream import TextStream

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
