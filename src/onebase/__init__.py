"""onebase: one base, every task, known origins.

The public API, loaded on first use so that `import onebase` is quick: `load`, `pretrain`, `import_base`, `combine`, `compare`,
`documents_read`, `evaluate`, `audit`, `lm_eval`, `Base`, `Adapter`, `Constraint`, `Label`, `Span`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onebase.api.base import Adapter, Base, Label, Span
    from onebase.api.evaluating import evaluate
    from onebase.api.loading import import_base, load, pretrain
    from onebase.assess.auditing import audit
    from onebase.assess.comparing import compare
    from onebase.assess.harness import lm_eval
    from onebase.derive.combining import combine
    from onebase.engine.constrain import Constraint
    from onebase.errors import UserError
    from onebase.pretraining.documents import documents_read

__version__ = "0.1.0"
__all__ = [
    "Adapter",
    "Base",
    "Constraint",
    "Label",
    "Span",
    "UserError",
    "__version__",
    "audit",
    "combine",
    "compare",
    "documents_read",
    "evaluate",
    "import_base",
    "lm_eval",
    "load",
    "pretrain",
]

_WHERE = {
    "Adapter": "onebase.api.base",
    "Base": "onebase.api.base",
    "Constraint": "onebase.engine.constrain",
    "Label": "onebase.api.base",
    "Span": "onebase.api.base",
    "UserError": "onebase.errors",
    "audit": "onebase.assess.auditing",
    "combine": "onebase.derive.combining",
    "compare": "onebase.assess.comparing",
    "documents_read": "onebase.pretraining.documents",
    "evaluate": "onebase.api.evaluating",
    "import_base": "onebase.api.loading",
    "lm_eval": "onebase.assess.harness",
    "load": "onebase.api.loading",
    "pretrain": "onebase.api.loading",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'onebase' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
