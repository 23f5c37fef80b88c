"""`Base`, the main class of the API: generate, chat, score, embed, classify and adapt. An adapter never changes the base's weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from onebase.api.media import MediaAnswers
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


class Base(Generation, Understanding, MediaAnswers):
    """A base, optionally with an adapter attached. Created by `onebase.load`, `onebase.pretrain` or `with_adapter`."""

    @property
    def head(self) -> Adapter | None:
        """The head that this base was published with, as an adapter; `onebase.load` attaches it. None if there is none."""
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
        """Train an adapter on `data` (a file, or rows).

        task, method: names in `onebase.tasks.table.TASKS` and `METHODS` (default: classify with lora). docs/adaptation.md lists the columns of
        each task. Options are those of `AdaptOptions`, the task and the method. The base does not change. Raises UserError.

        Before training, the token ledger is passed to `log`; its findings are errors (docs/adaptation.md) unless the option `allow` lists
        their codes. test: rows (or a file) that must not overlap `data`; they are not used otherwise. columns: maps the task's columns to the
        data's, {"text": "body"}. resume: a folder for checkpoints; the same call resumes from it, and the adapter is bitwise the same.
        data_licence, data_source: licence and origin of the data, for the record.
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
        """Predictions of the attached adapter for texts, or for rows if its task has several input columns. Returns for each the fields that
        `onebase apply --json` prints. Raises UserError without an adapter, and for a task that makes no such predictions."""
        return [a.fields for a in answers(self, list(given))]

    def tune(self, data: Data, *, trials: int, **more: Any) -> Adapter:
        """`adapt` with the best of `trials` learning rates and ranks, validated on rows split off `data` (docs/tuning.md). `more`: arguments of
        `adapt`, except `resume`. Raises UserError."""
        from onebase.tasks.tune import tune  # imports scores, which few callers need

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
        """Plan `adapt` without training: all its checks before the first step, and an estimate of the rest. The plan has `facts` and `text`,
        with rows, labels, the token ledger, steps, tokens, memory and time. The base does not change. trials: plan `tune` with so many trials.
        Raises UserError as `adapt` does."""
        if trials:
            from onebase.tasks.tune import plan_tune

            return plan_tune(
                self, data, task=task, method=method, trials=trials, test=test, columns=columns, **options
            )
        return planned(self, data, task=task, method=method, options=options, columns=columns, test=test)

    def with_adapter(self, adapter: OneAdapter | Sequence[OneAdapter], name: str = "adapter") -> "Base":
        """A copy of this base with an adapter attached (onebase's, or a PEFT folder), replacing the one it has; weights are shared, and the
        original does not change.

        A list stacks adapters: their deltas are summed, and the last one determines the task (docs/adaptation.md). Raises ArtifactError for
        an adapter of another base, UserError for adapters that cannot be stacked."""
        each = [adapter] if isinstance(adapter, Adapter | str | Path) else list(adapter)
        parts = [a.parts if isinstance(a, Adapter) else read_adapter(self._loaded, Path(a)) for a in each]
        return self.with_parts(parts, name)

    def merged(self, *, max_drift: float | None = None, fp32: bool = False) -> "Base":
        """A new base with the adapter's deltas (or replaced weights) merged into its weights, and both as parents in its record.

        A head or a prompt does not change weights and is not merged. If the base ties embedding and head and the adapter has token rows, which
        differ for the two, the merged base is untied. max_drift: maximum change of a quantized base by requantization, in nats per token
        (default: docs/adaptation.md). fp32: store the merged weights in fp32 whatever the base's dtype; in half precision part of the deltas is
        lost to rounding, and the record contains how much. Raises UserError above the drift, and without an adapter that has weights.
        """
        refuse_unmergeable(on := self._attached)
        assert on is not None
        return Base(merged(self._loaded, on, self.name, max_drift, fp32=fp32))

    def save(self, path: str | Path, *, overwrite: bool = False) -> str:
        """Write the base, without an attached adapter, to a folder; returns its fingerprint."""
        return save_base(Path(path), self._loaded, overwrite=overwrite)

    def export(self, out: str | Path, *, format: str = "hf", **options: object) -> Path:
        """Write this base in a format of other programs: `hf` (a folder that transformers opens), or another one of docs/bases.md.

        The weights of an attached adapter are merged into the copy. Raises UserError naming what the format cannot express.
        """
        return export(self, Path(out), format, options)

    def quantize(
        self, bits: int, *, data: str | Path | None = None, **storage: Unpack[StorageOptions]
    ) -> "Base":
        """A quantized copy of this base, its matrices in `bits` (8 or 4); its record contains the change in perplexity.

        group: inputs per scale (4 bits; default 32). head: bits of the output head (default 8), None for no quantization. data: a text file
        to measure perplexity on (default: the Python language reference). Raises UserError.
        """
        return Base(quantised(self.loaded, bits, data, storage))

    def student(self, layers: int, *, tokens: int | None = None, data: Data | None = None) -> "Base":
        """A smaller base with `layers` of this one's layers, as the student for distillation (docs/distillation.md).

        tokens: maximum size of the vocabulary (WordPiece only); the tokens most frequent in the texts of `data` are kept. Raises UserError."""
        return Base(student(self.loaded, layers, tokens=tokens, data=data, name=self.name))
