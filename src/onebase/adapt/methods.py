"""The methods we know: one file each."""

from onebase.adapt import full, head, lora, prefix, prompt, soft
from onebase.adapt.method import Method, Part
from onebase.errors import ConfigError

METHODS: dict[str, Method] = {
    m.name: m for m in (prompt.METHOD, head.METHOD, lora.METHOD, soft.METHOD, prefix.METHOD, full.METHOD)
}
BY_STEPS = [name for name, m in METHODS.items() if m.learn is not None]
"""Those that learn by the loop."""
PARTS: dict[str, Part] = {name: m.part for name, m in METHODS.items() if m.part is not None}
"""What adapters may have beside the base's own weights, by the field of `AdapterConfig` that says so."""


def register(method: Method) -> None:
    """Make a method known that comes from elsewhere. Raises ConfigError where another has its name."""
    if METHODS.get(method.name, method) is not method:
        raise ConfigError(f"there are two methods called {method.name!r}", "give one of them another name")
    METHODS[method.name] = method
    if method.part is not None:
        PARTS[method.name] = method.part
    if method.learn is not None and method.name not in BY_STEPS:
        BY_STEPS.append(method.name)
