"""Attaches named adapters to the base of the server, and builds the app that serves them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onebase.base.folder import LoadedBase
from onebase.engine.prompting import prompted
from onebase.errors import UserError
from onebase.methods.bound import Bound
from onebase.methods.folder import Attached
from onebase.methods.stacking import stacked
from onebase.methods.table import METHODS
from onebase.opening.names import read_adapter
from onebase.serve.tasks import TaskModel
from onebase.tasks.base import never
from onebase.tasks.table import TASKS, answers, asked_by, files_of

if TYPE_CHECKING:  # serving is an extra
    from starlette.applications import Starlette

    from onebase.serve.app import Saved


def attach_all(base: Bound, adapters: Mapping[str, Path | Sequence[Path]]) -> dict[str, Attached]:
    """Attach adapters, or stacks of them, to a base for serving. Raises UserError for one that replaces weights: it cannot share the base."""
    by_name = {}
    for name, paths in adapters.items():
        each = [paths] if isinstance(paths, Path) else paths
        by_name[name] = stacked(base.loaded, [read_adapter(base.loaded, p) for p in each], name)
    for name, attached in by_name.items():
        task = TASKS.get(attached.task)
        if task is None or not (task.answer or task.writes is not never):
            raise UserError(
                f"adapter {name!r} is for task {attached.task}, which the server does not support",
                f"supported: {', '.join(t.name for t in TASKS.values() if t.answer)}, and tasks that generate text",
            )
        if any(METHODS[a.method].replaces for a in attached.stack):
            raise UserError(
                f"adapter {name!r} replaces the base's weights (method full), so it cannot share the base with others",
                "serve it alone: onebase.load(base).with_adapter(dir).merged().save(out), then onebase serve out",
            )
    return by_name


def prompting(attached: Attached) -> "Saved":
    """A function that applies the saved prompt: from a text or messages, and variables, to the input of the model."""
    return lambda given, variables: prompted(attached, given, variables).read


def task_model(base: LoadedBase, on: Attached) -> TaskModel:
    """The model of an adapter, served at the path of its task."""
    task, bound = TASKS[on.task], Bound(base, on)

    def answer(given: list[Any]) -> list[dict[str, Any]]:
        return [shown.fields for shown in answers(bound, given)]

    return TaskModel(task.name, task.path, answer, asked_by(on), task.lists, on.fingerprint, files_of(on))


def app_of(
    base: Bound, shown: str, attached: Mapping[str, Attached], log: Callable[[str], None] = print
) -> "Starlette":
    """The app that serves a base as model `shown`, and adapters under their names. Raises UserError for duplicate names."""
    from onebase.serve.app import create_app

    if shown in attached:
        raise UserError(
            f"two models are called {shown!r}", "give the adapter another NAME in NAME=DIR, or set --name"
        )
    task_models = {n: task_model(base.loaded, a) for n, a in attached.items() if TASKS[a.task].answer}
    generating = {n: a for n, a in attached.items() if n not in task_models}
    saved = {n: prompting(a) for n, a in generating.items() if a.config.prompt is not None}
    if base.own and base.attached is not None and TASKS[base.attached.task].answer:
        # The head of the base's own checkpoint is served under the base's name.
        task_models[shown] = task_model(base.loaded, base.attached)
    paths = "".join(f"; {n} at {model.path}" for n, model in task_models.items())
    log(f"models: {', '.join([shown, *generating])}{paths}")
    return create_app(base.loaded, shown, {n: a.routing for n, a in generating.items()}, task_models, saved)
