"""`onebase serve`: a base and its adapters, each under a name, behind the HTTP API."""

from collections.abc import Callable, Sequence

from onebase.api.loading import load
from onebase.errors import UserError
from onebase.tasks.table import TASKS


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
        from onebase.serve.adapters import attach_all, named_adapters, prompting, task_model
        from onebase.serve.app import create_app
        from onebase.serve.run import serve
    except ModuleNotFoundError as e:
        raise UserError(f"serving needs {e.name}", 'run: pip install "onebase[serve]"') from None
    base = load(ref, device=device, dtype=dtype)
    attached = attach_all(base, named_adapters(adapters))
    shown = name or base.name
    asked = {n: task_model(base.loaded, a) for n, a in attached.items() if TASKS[a.task].answer}
    writing = {n: a for n, a in attached.items() if n not in asked}
    saved = {n: prompting(a) for n, a in writing.items() if a.config.prompt is not None}
    paths = "".join(f"; {n} at {model.path}" for n, model in asked.items())
    tell(f"models: {', '.join([shown, *writing])}{paths}")
    app = create_app(base.loaded, shown, {n: a.active for n, a in writing.items()}, asked, saved)
    serve(app, host, port)
