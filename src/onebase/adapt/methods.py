"""The methods we know: one file each."""

from onebase.adapt import full, head, lora, prefix, prompt, soft
from onebase.adapt.method import Method, Part

METHODS: dict[str, Method] = {
    m.name: m for m in (prompt.METHOD, head.METHOD, lora.METHOD, soft.METHOD, prefix.METHOD, full.METHOD)
}
BY_STEPS = tuple(name for name, m in METHODS.items() if m.learn is not None)
"""Those that learn by the loop."""
PARTS: dict[str, Part] = {name: m.part for name, m in METHODS.items() if m.part is not None}
"""What adapters may have beside the base's own weights, by the field of `AdapterConfig` that says so."""
