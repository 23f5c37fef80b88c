"""How much the demo measures."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """test: examples of a labelled task; draws: of training labels, averaged; tokens of held-out text and of the n-gram's reading;
    docstring_*: training and test functions, their longest prompt and text in tokens, passes of SFT; written: texts generated; opened: the most
    labels a class that open bases are given."""

    test: int = 1200
    draws: int = 3
    heldout_tokens: int = 60_000
    ngram_tokens: int = 1_200_000
    docstring_train: int = 2500
    docstring_test: int = 300
    docstring_tokens: int = 128
    docstring_epochs: int = 2
    written: int = 100
    lora_epochs: int = 4
    opened: int = 50

    @staticmethod
    def quick() -> "Size":
        """Enough to see every part run."""
        return Size(60, 1, 5_000, 50_000, 60, 20, 128, 1, 8, 1, 10)
