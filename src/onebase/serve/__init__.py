"""The HTTP server. Its libraries are an extra, so they are imported on use."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from onebase.errors import UserError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.types import ASGIApp

    from onebase.base.folder import LoadedBase
    from onebase.model.proj import AdapterRouting
    from onebase.serve.tasks import TaskModel

__all__ = ["create_app", "serve", "serve_base"]


def create_app(
    base: "LoadedBase",
    name: str,
    adapters: "Mapping[str, AdapterRouting | None] | None" = None,
    tasks: "Mapping[str, TaskModel] | None" = None,
) -> "Starlette":
    """Create the ASGI app (`serve.app.create_app`). Raises UserError when the extra `serve` is not installed."""
    _need()
    from onebase.serve.app import create_app as make

    return make(base, name, adapters, tasks)


def serve(app: "ASGIApp", host: str = "127.0.0.1", port: int = 8000) -> None:
    """Run an app (`serve.run.serve`). Raises UserError when the extra `serve` is not installed."""
    _need()
    from onebase.serve.run import serve as run

    run(app, host, port)


def serve_base(
    ref: str,
    *,
    adapters: Sequence[str],
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str | None = None,
    device: str = "auto",
    dtype: str = "fp32",
    log: Callable[[str], None] = print,
) -> None:
    """`onebase serve`: serve a base and adapters (`NAME=DIR`), each as a named model, until stopped. Raises UserError."""
    _need()
    from onebase.methods.bound import Bound
    from onebase.opening.find import named_adapters
    from onebase.opening.names import open_base
    from onebase.serve.adapters import app_of, attach_all

    base = Bound.opened(open_base(ref, device=device, dtype=dtype))
    attached = attach_all(base, named_adapters(adapters))
    serve(app_of(base, name or base.name, attached, log), host, port)


def _need() -> None:
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as e:
        raise UserError(
            f"serving needs the package {e.name!r}, which is not installed", 'pip install "onebase[serve]"'
        ) from None
