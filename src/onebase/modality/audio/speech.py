"""The special tokens of a speech base: start and end, languages and tasks, timestamps, suppressed tokens."""

from dataclasses import field

from onebase.config import config
from onebase.errors import ConfigError


@config
class SpeechConfig:
    """Token ids (Whisper, 2212.04356).

    start begins a transcript and end ends it. After start come a language and a task (none for a monolingual base), then `no_timestamps`
    or the first timestamp. Timestamps are the ids from `no_timestamps` + 1 on, `step` seconds apart. previous: precedes the text of the
    previous window; no_speech: its probability at the start is that of silence. suppress: tokens never generated; suppress_first: never
    generated first (end of text, and a blank). first_timestamp: maximum of the first timestamp, in steps.
    language, task: the defaults (null: detect the language; the first task).
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
            raise ConfigError(
                "a speech config has a negative token id, or a step of 0 or less",
                "give ids from 0 up, and a step above 0",
            )
        if max(ids) > self.no_timestamps:
            raise ConfigError(
                f"token {max(ids)} of a speech config is in the range of the timestamps (from {self.no_timestamps + 1} on)",
                "all other special tokens must be below them",
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
        """The time of a timestamp token, in seconds."""
        return (token - self.first) * self.step
