"""The server. Its libraries are an extra, so they are imported when it is used."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from onebase.errors import UserError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.types import ASGIApp

    from onebase.base.folder import LoadedBase
    from onebase.model.proj import AdapterRouting
    from onebase.serve.tasks import TaskModel

__all__ = ["create_app", "serve"]


def create_app(
    base: "LoadedBase",
    name: str,
    adapters: "Mapping[str, AdapterRouting | None] | None" = None,
    tasks: "Mapping[str, TaskModel] | None" = None,
) -> "Starlette":
    """The ASGI app of `serve.app.create_app`. Raises UserError when the extra `serve` is not installed."""
    _need()
    from onebase.serve.app import create_app as make

    return make(base, name, adapters, tasks)


def serve(app: "ASGIApp", host: str = "127.0.0.1", port: int = 8000) -> None:
    """Run an app, as `serve.run.serve`. Raises UserError when the extra `serve` is not installed."""
    _need()
    from onebase.serve.run import serve as run

    run(app, host, port)


def _need() -> None:
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as e:
        raise UserError(
            f"serving needs the package {e.name!r}, which is not installed", 'pip install "onebase[serve]"'
        ) from None
