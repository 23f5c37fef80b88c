"""`onebase serve`: a base and its adapters, each under a name, behind the HTTP API."""

from collections.abc import Callable, Sequence
from pathlib import Path

from onebase.adapt.folder import Attached, attach
from onebase.api.base import Base
from onebase.api.exchange import read_adapter
from onebase.api.loading import find_artifact, load
from onebase.api.texts import classify_scores
from onebase.errors import UserError


def named_adapters(texts: Sequence[str]) -> dict[str, Path]:
    """`NAME=DIR` pairs, each name once. Raises UserError."""
    out: dict[str, Path] = {}
    for text in texts:
        name, sign, folder = text.partition("=")
        if not sign or not name or not folder:
            raise UserError(
                f"--adapter {text!r} is not NAME=DIR", "write for example --adapter chat=runs/chat"
            )
        if name in out:
            raise UserError(f"two adapters are called {name!r}", "give each --adapter a name of its own")
        out[name] = find_artifact(folder)
    return out


def attach_all(base: Base, adapters: dict[str, Path]) -> dict[str, Attached]:
    """Put adapters on a base for serving. Raises UserError for one that replaces weights, and so cannot share the base."""
    found = {
        name: attach(base.loaded, read_adapter(base.loaded, path), name) for name, path in adapters.items()
    }
    for name, attached in found.items():
        if attached.task in ("regress", "tag"):
            raise UserError(
                f"adapter {name!r} is for task {attached.task}, which the server has no answer for",
                "use onebase apply, or base.predict and base.tag in Python",
            )
        if attached.method == "full":
            raise UserError(
                f"adapter {name!r} replaces the base's weights (method full), so it cannot share the base with others",
                "serve it alone: onebase.load(base).with_adapter(dir).merged().save(out), then onebase serve out",
            )
    return found


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
        from onebase.serve.app import create_app
        from onebase.serve.run import serve
    except ModuleNotFoundError as e:
        raise UserError(f"serving needs {e.name}", 'run: pip install "onebase[serve]"') from None
    base = load(ref, device=device, dtype=dtype)
    attached = attach_all(base, named_adapters(adapters))
    shown = name or base.name
    speaking = {n: a.active for n, a in attached.items() if a.task != "classify"}
    sorting = {n: classifier(a) for n, a in attached.items() if a.task == "classify"}
    tell(
        f"models: {', '.join([shown, *speaking])}"
        + (f"; classifiers: {', '.join(sorting)}" if sorting else "")
    )
    serve(create_app(base.loaded, shown, speaking, sorting), host, port)


def classifier(attached: Attached) -> Callable[[list[str]], list[dict[str, float]]]:
    """A function from texts to the probability of each label."""

    def classify(texts: list[str]) -> list[dict[str, float]]:
        labels, logp = classify_scores(attached.base, attached.config, attached.name, texts, attached.active)
        return [dict(zip(labels, row.exp().tolist(), strict=True)) for row in logp]

    return classify
