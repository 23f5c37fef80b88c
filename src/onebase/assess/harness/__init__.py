"""`onebase.lm_eval`: run tasks of lm-evaluation-harness on a base, with its adapter if any. The harness is an extra, imported on use."""

from __future__ import annotations

import contextlib
import difflib
import importlib.metadata
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onebase.artifact.files import plain
from onebase.artifact.record import version_facts
from onebase.errors import DataError, UserError
from onebase.evaluation.bootstrap import Score, mean_score
from onebase.methods.bound import Bound

SEED = 1234
"""Seed for few-shot examples; the harness's own default."""
RESAMPLES = 1000
"""Bootstrap resamples for the harness's own standard errors."""


@dataclass(frozen=True)
class Harnessed:
    """Results of the harness. scores: by `task.metric` (`task.metric.filter` for a named filter), those with an interval: our bootstrap for
    metrics that are means over samples, else 1.96 of the harness's standard errors on each side. results: the harness's own numbers. cut: number
    of contexts that were truncated on the left."""

    scores: dict[str, Score]
    results: dict[str, dict[str, Any]]
    versions: dict[str, Any]
    cut: int

    def to_dict(self) -> dict[str, Any]:
        """JSON data."""
        return {
            "scores": {k: vars(s) for k, s in self.scores.items()},
            "lm_eval": plain(self.results),
            "versions": plain(self.versions),
            "cut": self.cut,
        }


def lm_eval(
    base: Bound,
    tasks: str | Path | Sequence[str | Path],
    *,
    include: str | Path | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Harnessed:
    """Run tasks of lm-evaluation-harness: task files (.yaml), names of built-in tasks, or names of tasks in the folder `include`.

    limit: use only the first samples of each task. A task file may name Python functions that the harness then runs, so give only files that
    you trust. Built-in tasks download their data from the Hugging Face Hub. Raises UserError without the harness, or for an unknown task;
    DataError for a task that cannot be read or run, and for a continuation beyond the context.
    """
    try:
        from lm_eval import evaluator  # noqa: F401
    except ImportError as e:
        raise UserError(
            f"tasks of lm-evaluation-harness need the package {e.name}", 'run: pip install "onebase[eval]"'
        ) from None
    from onebase.assess.harness.model import HarnessLM

    names = [str(t) for t in ([tasks] if isinstance(tasks, (str, Path)) else tasks)]
    model = HarnessLM(base)
    with _quiet():
        results = _run(model, _loaded(names, include), limit)
    versions = {
        "lm_eval": importlib.metadata.version("lm_eval"),
        "tasks": results["versions"],
        **version_facts(),
    }
    return Harnessed(_scores(results, seed), dict(results["results"]), versions, model.cut)


def _loaded(names: Sequence[str], include: str | Path | None) -> Any:
    """The tasks in the form that the harness evaluates."""
    from lm_eval.tasks import TaskManager

    files = [n for n in names if Path(n).suffix in (".yaml", ".yml")]
    for name in files:
        if not Path(name).is_file():
            raise UserError(f"{name}: no such file", "check the path of the task file")
    if include is not None and not Path(include).is_dir():
        raise UserError(f"{include} is not a folder", "give the folder of task files")
    folder = None if include is None else str(include)
    manager = TaskManager(include_path=folder, include_defaults=False)
    if any(n not in files and n not in manager.task_index for n in names):
        # Reading the index of built-in tasks takes seconds, so it is read only if needed.
        manager = TaskManager(include_path=folder)
    for name in names:
        if name not in files and name not in manager.task_index:
            near = difflib.get_close_matches(name, manager.all_tasks, 3)
            raise UserError(
                f"the harness has no task {name!r}",
                f"did you mean {' or '.join(near)}?"
                if near
                else "give a task file (.yaml) or the name of a built-in task",
            )
    try:
        loaded = manager.load(list(names))
    except Exception as e:  # a task file, its functions and its data may raise anything
        raise DataError(
            f"the harness cannot load {', '.join(names)}: {type(e).__name__}: {e}",
            "check the task file and the paths of its data (relative to the working folder); its own tasks need the Hugging Face Hub",
        ) from e
    for task in loaded["tasks"].values():
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=SEED)
    return loaded


def _run(model: Any, loaded: Any, limit: int | None) -> Mapping[str, Any]:
    from lm_eval import evaluator

    try:
        results = evaluator.evaluate(
            model,
            loaded,
            limit=limit,
            bootstrap_iters=RESAMPLES,
            log_samples=True,
            confirm_run_unsafe_code=False,
        )
    except UserError:
        raise
    except Exception as e:  # a task's templates, functions and metrics may raise anything
        raise DataError(
            f"the harness cannot run {', '.join(loaded['tasks'])}: {type(e).__name__}: {e}",
            "correct the task file (--debug shows where it failed)",
        ) from e
    assert results is not None, "a single process has the results"
    return dict(results)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Redirect the harness's output to standard error, and run its resampling in this process."""
    before = os.environ.get("DISABLE_MULTIPROC")
    os.environ["DISABLE_MULTIPROC"] = "1"
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if before is None:
            del os.environ["DISABLE_MULTIPROC"]
        else:
            os.environ["DISABLE_MULTIPROC"] = before


def _scores(results: Mapping[str, Any], seed: int) -> dict[str, Score]:
    """A Score for every metric that has an interval."""
    out = {}
    for task, numbers in results["results"].items():
        for key, value in numbers.items():
            metric, comma, filtered = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, (int, float)):
                continue
            name = f"{task}.{metric}" + ("" if filtered == "none" else f".{filtered}")
            samples = [
                s[metric]
                for s in results.get("samples", {}).get(task, ())
                if metric in s and s.get("filter", filtered) == filtered
            ]
            error = numbers.get(f"{metric}_stderr,{filtered}")
            score = _score(name, float(value), samples, error, seed)
            if score is not None:
                out[name] = score
    return out


def _score(name: str, value: float, samples: Sequence[Any], error: Any, seed: int) -> Score | None:
    """With our bootstrap if the value is the mean of the samples' numbers, else with the harness's standard error."""
    numbers = all(isinstance(x, (int, float, np.number, np.bool_)) for x in samples)
    if samples and numbers and abs(float(np.mean(samples)) - value) < 1e-9:
        return mean_score(name, [float(x) for x in samples], seed=seed)
    if isinstance(error, (int, float)) and np.isfinite(error):
        return Score(name, value, value - 1.96 * error, value + 1.96 * error, len(samples))
    return None
