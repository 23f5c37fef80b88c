"""A signal while a base is adapted: no half adapter is kept, and the base is as it was."""

import os
import signal
from typing import Any

import pytest

from onebase.api.base import Base
from onebase.train.signals import EXIT_STOPPED, Stopped
from tests.helpers import tiny_base

ROWS = [{"prompt": f"bread {i} is", "completion": " good and fresh"} for i in range(24)]
LABELLED = [{"text": f"bread {i}", "label": "ab"[i % 2]} for i in range(24)]


class Stops:
    """Asks the process to stop after the first step."""

    def step(self, info: Any) -> None:
        if info.step == 0:
            os.kill(os.getpid(), signal.SIGTERM)

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


@pytest.mark.parametrize(
    ("task", "method", "rows"),
    [("complete", "lora", ROWS), ("complete", "full", ROWS), ("classify", "lora", LABELLED)],
)
def test_half_an_adapter_is_not_kept(task: str, method: str, rows: list[dict[str, str]]) -> None:
    base = Base(tiny_base())
    before = base.logits([1, 2, 3])
    with pytest.raises(Stopped, match="a partly trained adapter is not saved") as e:
        base.adapt(rows, task=task, method=method, epochs=3, callbacks=[Stops()])
    assert e.value.exit_status == EXIT_STOPPED
    assert (base.logits([1, 2, 3]) == before).all()
    assert not base.loaded.model.sites()["text.0.attn.q"].deltas
