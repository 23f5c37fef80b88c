"""`onebase serve`: a base and its adapters, each under a name, behind the HTTP API."""

from collections.abc import Callable, Sequence

from onebase.api.loading import load
from onebase.errors import UserError
from onebase.opening.find import named_adapters


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
    """Load, attach and serve until stopped. Raises UserError."""
    try:
        from onebase.serve.adapters import app_of, attach_all
        from onebase.serve.run import serve
    except ModuleNotFoundError as e:
        raise UserError(f"serving needs {e.name}", 'run: pip install "onebase[serve]"') from None
    base = load(ref, device=device, dtype=dtype)
    attached = attach_all(base, named_adapters(adapters))
    serve(app_of(base, name or base.name, attached, log), host, port)
