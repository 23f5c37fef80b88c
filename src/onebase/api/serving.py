"""`onebase serve`: a base and its adapters, each under a name, behind the HTTP API."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from onebase.adapt.folder import Attached
from onebase.adapt.methods import METHODS
from onebase.adapt.stacking import stacked
from onebase.api.loading import load
from onebase.errors import UserError
from onebase.formats.adapters import read_adapter
from onebase.formats.opening import find_artifact
from onebase.tasks.answers import classes, ranked
from onebase.tasks.bound import Bound
from onebase.tasks.prompting import Given, prompted

if TYPE_CHECKING:  # serving is an extra
    from starlette.applications import Starlette

    from onebase.serve.app import Classifier, Reranker, Saved


UNANSWERED = ("regress", "tag")
"""Tasks that the server has no answer for."""


def named_adapters(texts: Sequence[str]) -> dict[str, list[Path]]:
    """`NAME=DIR` pairs, each name once; `NAME=DIR+DIR` is a stack. Raises UserError."""
    out: dict[str, list[Path]] = {}
    for text in texts:
        name, sign, folder = text.partition("=")
        if not sign or not name or not folder:
            raise UserError(
                f"--adapter {text!r} is not NAME=DIR", "write for example --adapter chat=runs/chat"
            )
        if name in out:
            raise UserError(f"two adapters are called {name!r}", "give each --adapter a name of its own")
        # A folder may have a + in its name.
        out[name] = [find_artifact(f) for f in ([folder] if Path(folder).exists() else folder.split("+"))]
    return out


def attach_all(base: Bound, adapters: Mapping[str, Path | Sequence[Path]]) -> dict[str, Attached]:
    """Put adapters, or stacks of them, on a base for serving. Raises UserError for one that replaces weights, and so cannot share the base."""
    found = {}
    for name, paths in adapters.items():
        each = [paths] if isinstance(paths, Path) else paths
        found[name] = stacked(base.loaded, [read_adapter(base.loaded, p) for p in each], name)
    for name, attached in found.items():
        if attached.task in UNANSWERED:
            raise UserError(
                f"adapter {name!r} is for task {attached.task}, which the server has no answer for",
                "use onebase apply, or base.predict and base.tag in Python",
            )
        if replacing := [a.method for a in attached.stack if METHODS[a.method].replaces]:
            raise UserError(
                f"adapter {name!r} replaces the base's weights (method {replacing[0]}), so it cannot share the base with others",
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
        from onebase.serve.run import serve
    except ModuleNotFoundError as e:
        raise UserError(f"serving needs {e.name}", 'run: pip install "onebase[serve]"') from None
    base = load(ref, device=device, dtype=dtype)
    attached = attach_all(base, named_adapters(adapters))
    serve(app_of(base, name or base.name, attached, tell), host, port)


def app_of(
    base: Bound, shown: str, attached: dict[str, Attached], tell: Callable[[str], None] = print
) -> "Starlette":
    """The app that serves a base under a name, and adapters under theirs. Raises UserError for a name that stands for two things."""
    from onebase.serve.app import create_app

    if shown in attached:
        raise UserError(
            f"two models are called {shown!r}", "give the adapter another NAME in NAME=DIR, or say --name"
        )
    if base.own and base.attached is not None and base.attached.task not in UNANSWERED:
        attached = {
            **attached,
            shown: base.attached,
        }  # the head that it came with answers under the base's own name
    apart = ("classify", "rerank")
    speaking = {n: a.active for n, a in attached.items() if a.task not in apart and n != shown}
    sorting = {n: classifier(a) for n, a in attached.items() if a.task == "classify"}
    ranking = {n: reranker(a) for n, a in attached.items() if a.task == "rerank"}
    saved = {n: prompting(a) for n, a in attached.items() if n in speaking and a.config.prompt is not None}
    tell(
        f"models: {', '.join([shown, *speaking])}"
        + (f"; classifiers: {', '.join(sorting)}" if sorting else "")
        + (f"; rerankers: {', '.join(ranking)}" if ranking else "")
    )
    return create_app(base.loaded, shown, speaking, sorting, saved, ranking)


def prompting(attached: Attached) -> "Saved":
    """A function from a text or messages, and variables, to what is read in their place."""
    return lambda given, variables: prompted(attached, given, variables).read


def reranker(attached: Attached) -> "Reranker":
    """A function from a query and texts to (number of a text, score), the best first."""
    return lambda query, texts: [(r.index, r.score) for r in ranked(attached, query, texts)]


def classifier(attached: Attached) -> "Classifier":
    """A function from texts (or rows of a saved prompt's variables) to the probability of each label."""

    def classify(texts: Sequence[Given]) -> list[dict[str, float]]:
        labels, logp = classes(attached, texts)
        return [dict(zip(labels, row.exp().tolist(), strict=True)) for row in logp]

    return classify
