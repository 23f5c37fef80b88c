"""`onebase serve`: a base and its adapters, each under a name, behind the HTTP API."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from onebase.adapt.folder import Attached
from onebase.api.loading import load
from onebase.errors import UserError
from onebase.tasks.bound import Bound
from onebase.tasks.table import TASKS

if TYPE_CHECKING:  # serving is an extra
    from starlette.applications import Starlette


def serve_base(
    ref: str,
    *,
    adapters: Sequence[str],
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str | None = None,
    device: str = "auto",
    dtype: str = "fp32",
    tell: Callable[[str], None] = print,
) -> None:
    """Load, attach and serve until stopped. Raises UserError."""
    try:
        from onebase.serve.adapters import attach_all, named_adapters
        from onebase.serve.run import serve
    except ModuleNotFoundError as e:
        raise UserError(f"serving needs {e.name}", 'run: pip install "onebase[serve]"') from None
    base = load(ref, device=device, dtype=dtype)
    attached = attach_all(base, named_adapters(adapters))
    serve(app_of(base, name or base.name, attached, tell), host, port)


def app_of(
    base: Bound, shown: str, attached: Mapping[str, Attached], tell: Callable[[str], None] = print
) -> "Starlette":
    """The app that serves a base under a name, by which the head that it came with is asked too, and adapters under theirs. Raises UserError for a name
    that stands for two things."""
    from onebase.serve.adapters import prompting, task_model
    from onebase.serve.app import create_app

    if shown in attached:
        raise UserError(
            f"two models are called {shown!r}", "give the adapter another NAME in NAME=DIR, or say --name"
        )
    asked = {n: task_model(base.loaded, a) for n, a in attached.items() if TASKS[a.task].answer}
    writing = {n: a for n, a in attached.items() if n not in asked}
    saved = {n: prompting(a) for n, a in writing.items() if a.config.prompt is not None}
    paths = "".join(f"; {n} at {model.path}" for n, model in asked.items())
    tell(f"models: {', '.join([shown, *writing])}{paths}")
    if base.own and base.attached is not None:
        asked[shown] = task_model(base.loaded, base.attached)
        tell(f"its own head: {shown} at {asked[shown].path}")
    return create_app(base.loaded, shown, {n: a.active for n, a in writing.items()}, asked, saved)
