"""`Base`: what a user holds. It generates, chats, scores, embeds, adapts and classifies; an adapter changes none of its weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from onebase.api.reading import Understanding
from onebase.api.writing import Generation
from onebase.base.folder import save_base
from onebase.data.labelled import Data
from onebase.derive.exporting import export
from onebase.derive.merging import merged
from onebase.derive.quantising import StorageOptions, quantised
from onebase.derive.students import student
from onebase.engine.labels import Label
from onebase.engine.prompter import Given
from onebase.methods.folder import own_head
from onebase.methods.spans import Span
from onebase.methods.stacking import refuse_unmergeable
from onebase.opening.names import read_adapter
from onebase.tasks.plan import planned
from onebase.tasks.results import Adapter, Plan
from onebase.tasks.table import adapted, answers
from onebase.train.callbacks import Callback

__all__ = ["Adapter", "Base", "Label", "Span"]
OneAdapter = Adapter | str | Path


class Base(Generation, Understanding):
    """A base, perhaps with an adapter on it. Made by `onebase.load`, `onebase.pretrain` or `with_adapter`."""

    @property
    def head(self) -> Adapter | None:
        """The head that this base was published with, as an adapter; it is on a base that was just opened. None where it came without."""
        parts = own_head(self._loaded)
        return None if parts is None else Adapter(parts)

    def adapt(
        self,
        data: Data,
        *,
        task: str | None = None,
        method: str | None = None,
        callbacks: Sequence[Callback] = (),
        log: Any = None,
        test: Data | None = None,
        columns: Mapping[str, str] | None = None,
        resume: str | Path | None = None,
        data_licence: str | None = None,
        data_source: str | None = None,
        **options: object,
    ) -> Adapter:
        """Learn an adapter from `data` (a file, or rows).

        task, method: names of the tables `onebase.tasks.table.TASKS` and `METHODS` (classify by lora when not given); docs/adaptation.md has the columns of each task. Options are
        those of `AdaptOptions` and of the method. The base does not change. Raises UserError.

        Before anything is learnt the token ledger is told to `log`, and stops what should not be learnt (docs/adaptation.md); `allow`
        names the codes that do not stop it. test: rows (or a file) that must not be among `data`; nothing else is done with them.
        columns: what the data calls a column, by what the task calls it, {"text": "body"}. resume: a folder for the state of learning:
        the same call goes on from it, to the bitwise same adapter. data_licence, data_source: what you state of the data, for the record.
        """
        return adapted(
            self,
            data,
            task=task,
            method=method,
            options=options,
            callbacks=callbacks,
            log=log,
            test=test,
            columns=columns,
            resume=resume,
            data_licence=data_licence,
            data_source=data_source,
        )

    def apply(self, given: Sequence[Given]) -> list[dict[str, Any]]:
        """What the adapter on this base says of texts, or of rows where it is asked by several columns: for each the fields that `onebase apply
        --json` prints. Raises UserError without an adapter, and for a task that answers no such question."""
        return [a.fields for a in answers(self, list(given))]

    def tune(self, data: Data, *, trials: int, **more: Any) -> Adapter:
        """`adapt` with the best of `trials` learning rates and ranks, judged on rows split off `data` (docs/tuning.md). `more` is what `adapt`
        takes, but `resume`. Raises UserError."""
        from onebase.tasks.tune import tune  # scores, which few need

        return tune(self, data, trials=trials, **more)

    def plan_adapt(
        self,
        data: Data,
        *,
        task: str | None = None,
        method: str | None = None,
        test: Data | None = None,
        columns: Mapping[str, str] | None = None,
        trials: int = 0,
        **options: object,
    ) -> Plan:
        """All that `adapt` does before its first step, and what the rest would take: `facts` and `text`, with rows, labels, the token
        ledger, steps, tokens, memory and time. Nothing is learnt, the base does not change. trials: what `tune` would take. Raises UserError as
        `adapt` does."""
        if trials:
            from onebase.tasks.tune import plan_tune

            return plan_tune(
                self, data, task=task, method=method, trials=trials, test=test, columns=columns, **options
            )
        return planned(self, data, task=task, method=method, options=options, columns=columns, test=test)

    def with_adapter(self, adapter: OneAdapter | Sequence[OneAdapter], name: str = "adapter") -> "Base":
        """This base with an adapter on it (of ours, or a folder of PEFT) in the place of one that it has; the original goes on without.

        A list stacks adapters: what each adds is added up, and the last one says what the stack is for (docs/adaptation.md). Raises
        ArtifactError for an adapter of another base, UserError for adapters that do not stack."""
        each = [adapter] if isinstance(adapter, Adapter | str | Path) else list(adapter)
        parts = [a.parts if isinstance(a, Adapter) else read_adapter(self._loaded, Path(a)) for a in each]
        return self.with_parts(parts, name)

    def merged(self, *, max_drift: float | None = None, fp32: bool = False) -> "Base":
        """A base of its own with the adapter's deltas (or replaced weights) in its weights, and both as parents in its record.

        A head or a prompt is not a change of weights and stays behind. Where the base shares one matrix between its ends and the
        adapter has rows of tokens, which differ for the two, the merged base has two. max_drift: nats a token by which rounding anew may
        change what a base in few bits says (docs/adaptation.md has the default). fp32: the merged base's weights are, whatever those of the
        base: in half precision a part of the deltas is rounded away (its record says how much). Raises UserError beyond the drift, and
        without an adapter that has any weights.
        """
        refuse_unmergeable(on := self._attached)
        assert on is not None
        return Base(merged(self._loaded, on, self.name, max_drift, fp32=fp32))

    def save(self, path: str | Path, *, overwrite: bool = False) -> str:
        """Write the base (never the adapter) as a folder; returns its fingerprint."""
        return save_base(Path(path), self._loaded, overwrite=overwrite)

    def export(self, out: str | Path, *, format: str = "hf", **options: object) -> Path:
        """Write this base for other programs: `hf` (a folder that transformers opens), or another format of docs/bases.md.

        With an adapter on it, its weights are merged into those of the copy. Raises UserError naming what the format cannot express.
        """
        return export(self, Path(out), format, options)

    def quantize(
        self, bits: int, *, data: str | Path | None = None, **storage: Unpack[StorageOptions]
    ) -> "Base":
        """A smaller copy of this base with its matrices in `bits` (8 or 4), its record saying what that cost in perplexity.

        group: inputs that share a scale (4 bits; 32 when not given); head: bits of the matrix that makes logits (8), None leaves it as it is; data: a text file
        that the cost is measured on (the Python language reference when not given). Raises UserError.
        """
        return Base(quantised(self.loaded, bits, data, storage))

    def student(self, layers: int, *, tokens: int | None = None, data: Data | None = None) -> "Base":
        """A smaller base of `layers` of this one's layers, for this one to teach (docs/distillation.md).

        tokens: keep so many of a WordPiece vocabulary at most, those that the texts of `data` use most. Raises UserError."""
        return Base(student(self.loaded, layers, tokens=tokens, data=data, name=self.name))
