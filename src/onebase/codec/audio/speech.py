"""What a speech base's special tokens mean: what begins a transcript, its languages and tasks, its timestamps, what is never chosen."""

from dataclasses import field

from onebase.config import config
from onebase.errors import ConfigError


@config
class SpeechConfig:
    """Ids of tokens (Whisper, 2212.04356).

    start begins a transcript and end ends it; then come a language and a task (none where a base knows one language), then
    `no_timestamps` or the first timestamp. Timestamps are the ids from `no_timestamps` + 1 on, `step` seconds apart. previous: what
    stands before the text that came before; no_speech: its probability at the start says that nobody speaks. suppress: tokens never
    chosen; suppress_first: never chosen first (nothing, and a blank). first_timestamp: steps at most to the first timestamp.
    language, task: what is taken where a user names none (null: the language is detected; the first task).
    """

    start: int
    end: int
    no_timestamps: int
    previous: int | None = None
    no_speech: int | None = None
    languages: dict[str, int] = field(default_factory=dict)
    tasks: dict[str, int] = field(default_factory=dict)
    suppress: tuple[int, ...] = ()
    suppress_first: tuple[int, ...] = ()
    first_timestamp: int | None = 50
    step: float = 0.02
    language: str | None = None
    task: str | None = None

    def __post_init__(self) -> None:
        ids = [self.start, self.end, self.no_timestamps, *self.languages.values(), *self.tasks.values()]
        ids += [x for x in (self.previous, self.no_speech) if x is not None]
        if min([*ids, *self.suppress, *self.suppress_first]) < 0 or self.step <= 0:
            raise ConfigError("a speech config with a token below 0, or no step", "give ids from 0 on")
        if max(ids) > self.no_timestamps:
            raise ConfigError(
                f"token {max(ids)} of a speech config lies among the timestamps (from {self.no_timestamps + 1} on)",
                "all other special tokens come before them",
            )
        for name, known in (("language", self.languages), ("task", self.tasks)):
            value = getattr(self, name)
            if value is not None and value not in known:
                raise ConfigError(f"{name} {value!r} has no token", f"known: {', '.join(known) or 'none'}")

    @property
    def first(self) -> int:
        """The timestamp of second 0."""
        return self.no_timestamps + 1

    def seconds(self, token: int) -> float:
        """The time that a timestamp says."""
        return (token - self.first) * self.step
