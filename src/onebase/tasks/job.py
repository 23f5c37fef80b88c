"""A job of adapting a base: the request with its rows, the clock, and the facts for the adapter's record."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from onebase.artifact.files import canonical_json, sha256_bytes
from onebase.artifact.record import Origin, Record, by_given, machine_facts, state, version_facts
from onebase.base.folder import LoadedBase
from onebase.config_plain import to_dict
from onebase.data import Rows
from onebase.data.file_hashes import FileRead
from onebase.errors import DataError
from onebase.evaluation.bootstrap import Score
from onebase.methods.config import AdapterConfig
from onebase.methods.folder import AdapterParts
from onebase.modality.text.sample import Tokens
from onebase.tasks.options import AdaptOptions, flat
from onebase.train.callbacks import Callback
from onebase.train.loop import Job, Result, run

Facts = dict[str, tuple[Any, str]]
"""Facts for the record: by name, the value and its origin."""


@dataclass(frozen=True)
class HeadSize:
    """The cost of fitting a head, estimated before any text is read: bytes at the peak, and seconds."""

    bytes: int
    seconds: float


@dataclass(frozen=True)
class AboutData:
    """Metadata of the rows. licence, source: as stated by the user; files, test_files: the files of the rows and of the test rows."""

    licence: str | None = None
    source: str | None = None
    files: tuple[FileRead, ...] = ()
    test_files: tuple[FileRead, ...] = ()


NO_METADATA = AboutData()


@dataclass
class Adapting:
    """The request, the clock and the record of a job. compared: the columns that identify a test row among the rows. given: the task, method
    and options that the user set; origins: the origin of options set neither by the user nor by default."""

    base: LoadedBase
    rows: Rows
    task: str
    method: str
    options: AdaptOptions
    callbacks: tuple[Callback, ...] = ()
    log: Callable[[str], object] = lambda line: None
    test: Rows | None = None
    resume: Path | None = None
    compared: tuple[str, ...] = ()
    given: Mapping[str, Any] = field(default_factory=dict)
    about: AboutData = NO_METADATA
    origins: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A plan replaces these two: the loop, and the hook that receives the texts or images before the base reads them.
        self.run: Callable[[Job], Result] = run
        self.reads: Callable[[Callable[[], Sequence[Tokens] | Sequence[Path]]], None] = lambda given: None
        self.head: HeadSize | None = None
        self.bound: dict[str, str] = {}
        self.called: dict[str, str] = {}
        self.began = time.perf_counter()

    def bind(self, option: str, given: object, content: str) -> None:
        """Record the content hash of an option (or of `test`) that names a file or folder: checkpoints are bound to it instead of to the
        name. given: that name, for messages; rows have none."""
        self.bound[option] = content
        self.called[option] = f"{option} ({given})" if isinstance(given, (str, Path)) else option

    def labels(self) -> tuple[str, ...]:
        """The labels of the rows, one each, in order. Raises DataError where they are all the same."""
        labels = tuple(sorted({str(r["label"]) for r in self.rows}))
        if len(labels) < 2:
            rows = "the only row has" if len(self.rows) == 1 else f"all {len(self.rows)} rows have"
            raise DataError(f"{rows} the label {labels[0]!r}", "give rows of at least two labels")
        return labels

    def origin(self, option: str) -> str:
        """The origin of an option's value, by its name ("contrast.first")."""
        path = tuple(option.split("."))
        if path == ("date",) and self.given.get("date") is None:
            return f"{Origin.SYSTEM}: the day on which the run began"
        return self.origins.get(path[0]) or by_given(self.given)(path)

    def _note_data(self, record: Record) -> None:
        rows, about = self.rows, self.about
        if rows.columns:
            record.add("data.columns", dict(rows.columns), Origin.USER)
        if rows:
            columns = list(dict.fromkeys(k for r in rows for k in r))
            record.add("data.fields", columns, f"{Origin.SOURCE}: the columns of the rows")
        if separator := rows.notes.get("separator"):
            record.add("data.separator", separator, f"{Origin.SOURCE}: the header of the file")
        for name, files in (("data.files", about.files), ("test.data.files", about.test_files)):
            if files:
                record.add(
                    name,
                    [asdict(f) for f in files],
                    f"{Origin.HASHED}: the bytes of the file, as sha256sum does",
                )
        hub = dict(rows.source)
        licence = hub.pop("licence", None)
        if hub:
            record.add("data.source", hub, f"{Origin.SOURCE}: the Hub")
        if licence:
            record.add("data.licence", licence, f"{Origin.SOURCE}: README.md")
        for stated, name in ((about.source, "data.source"), (about.licence, "data.licence")):
            state(record, name, stated, self.log)

    def parts(self, config: AdapterConfig, tensors: dict[str, Tensor], facts: Facts) -> AdapterParts:
        """The adapter with its record."""
        record = Record("adapter")
        hashes = {k: v for k, v in self.base.hashes.items() if k != "fingerprint"}
        record.add_parent("base", self.base.fingerprint, self.base.name, **hashes)
        record.inherit(self.base.record, self.base.name)
        record.add("task", self.task, self.origin("task"))
        record.add("method", self.method, self.origin("method"))
        record.add("config.adapter", to_dict(config), f"{Origin.COMPUTED} from task, options and data")
        kept = options_kept(self.options)
        record.add_tree("config.options", kept, lambda path: self.origin(".".join(path)))
        self._note_data(record)
        for name, (value, origin) in facts.items():
            record.add(name, value, origin)
        record.add("seconds", round(time.perf_counter() - self.began, 3), "measured")
        record.add("parameters", sum(t.numel() for t in tensors.values()), "counted")
        record.add("machine", machine_facts(), Origin.SYSTEM)
        record.add("versions", version_facts(), Origin.PACKAGES)
        return AdapterParts(config, tensors, record)


def rows_hash(rows: Sequence[Any]) -> str:
    """Hash of rows and their order, which the record stores for an adapter's training data."""
    return sha256_bytes(canonical_json([dict(r) for r in rows]).encode())


def options_kept(options: AdaptOptions) -> dict[str, Any]:
    """The options as a record stores them: rows among them by their number and hash, as for the data itself."""

    def kept(value: Any) -> Any:
        rows = isinstance(value, list) and value and all(isinstance(r, dict) for r in value)
        return {"rows": len(value), "fingerprint": rows_hash(value)} if rows else value

    return {
        name: {k: kept(v) for k, v in value.items()} if isinstance(value, dict) else value
        for name, value in flat(options).items()
    }


def data_facts(rows: Sequence[Any], labels: Sequence[str] = ()) -> Facts:
    facts: Facts = {"data.fingerprint": (rows_hash(rows), "hashed"), "data.rows": (len(rows), "counted")}
    if labels:
        facts["data.labels"] = (list(labels), "counted")
    return facts


def score_facts(scores: Mapping[str, Score]) -> Facts:
    """Scores on test rows, as facts for the record."""
    return {
        f"scores.{name}": (
            {k: getattr(s, k) for k in ("value", "low", "high", "n")},
            "measured on the test rows",
        )
        for name, s in scores.items()
    }
