"""The table of methods; each has one file."""

from onebase.errors import ConfigError, UserError
from onebase.methods import full, head, lora, prefix, prompt, soft
from onebase.methods.method import Method, MethodPart

METHODS: dict[str, Method] = {
    m.name: m for m in (prompt.METHOD, head.METHOD, lora.METHOD, soft.METHOD, prefix.METHOD, full.METHOD)
}
OURS = tuple(METHODS)
"""Methods of this package."""
BY_STEPS = [name for name, m in METHODS.items() if m.learn is not None]
"""Methods that train by steps, by the loop."""
PARTS: dict[str, MethodPart] = {name: m.part for name, m in METHODS.items() if m.part is not None}
"""Weights that adapters may add to the base's, by method."""


def register(method: Method) -> None:
    """Add a method of another package. Raises ConfigError if its name or its PEFT type is taken."""
    if METHODS.get(method.name, method) is not method:
        raise ConfigError(f"two methods have the name {method.name!r}", "give one of them another name")
    if not isinstance(method.peft, str):
        other = by_peft(method.peft.kind)
        if other not in (None, method):
            raise ConfigError(
                f"two methods have the PEFT type {method.peft.kind}: {other.name} and {method.name}",
                "remove `peft` from one of them",
            )
    METHODS[method.name] = method
    if method.part is not None:
        PARTS[method.name] = method.part
    if method.learn is not None and method.name not in BY_STEPS:
        BY_STEPS.append(method.name)


def method_of(name: str) -> Method:
    """The method of a name. Raises UserError for an unknown one."""
    if name not in METHODS:
        raise UserError(f"method {name!r} is not known", f"methods: {', '.join(METHODS)}")
    return METHODS[name]


def by_peft(kind: str) -> Method | None:
    """The method with the PEFT type `kind`."""
    return next((m for m in METHODS.values() if not isinstance(m.peft, str) and m.peft.kind == kind), None)


def takers(option: str) -> list[str]:
    """The methods that have an option of this name."""
    return [m.name for m in METHODS.values() if option in m.option_names]
