"""The date that a chat template asks for is an input of learning: what must repeat does on another day."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from onebase.api.base import Adapter, Base
from onebase.api.evaluating import evaluate
from onebase.base.folder import LoadedBase, load_base, save_base
from onebase.errors import ArtifactError, ConfigError
from onebase.modality.text import clock
from onebase.modality.text.codec import TextCodec
from onebase.modality.text.template import DEFAULT, ChatTemplate
from onebase.train.callbacks import NoCallback, StepInfo
from tests.helpers import tiny_base

DATED = "{{ 'It is ' + strftime_now('%d %B %Y') + '. ' }}" + DEFAULT
ROWS = [
    {"messages": [{"role": "user", "content": f"Say {i}"}, {"role": "assistant", "content": f"It is {i}."}]}
    for i in range(8)
]
ASKED: dict[str, Any] = {"task": "chat", "method": "lora", "rank": 2, "batch_size": 4, "epochs": 3}


class Clock:
    """A clock that the test sets."""

    day = 1

    @classmethod
    def now(cls) -> datetime:
        return datetime(2026, 1, cls.day, 23, 59)

    fromisoformat = datetime.fromisoformat


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "datetime", Clock)
    monkeypatch.setattr(Clock, "day", 1)


def base() -> Base:
    own = tiny_base()
    return Base(replace(own, text_codec=TextCodec(own.codec.tokenizer, ChatTemplate(DATED))))


def shown(found: LoadedBase) -> str:
    return found.codec.tokenizer.decode(found.codec.chat_ids([{"role": "user", "content": "Hi"}]))


def test_a_template_finds_the_given_date_or_the_variables_or_todays(monkeypatch: pytest.MonkeyPatch) -> None:
    own = base().loaded
    assert "01 January 2026" in shown(own)
    with clock.at("2020-02-29"):
        assert "29 February 2020" in shown(own)
    monkeypatch.setenv("ONEBASE_DATE", "2021-03-04")
    assert "04 March 2021" in shown(own)
    monkeypatch.setenv("ONEBASE_DATE", "soon")
    with pytest.raises(ConfigError, match="'ONEBASE_DATE' is 'soon'"):
        clock.now()


def test_the_same_rows_on_two_days(monkeypatch: pytest.MonkeyPatch) -> None:
    first = base().adapt(ROWS, date="2026-01-01", **ASKED)
    monkeypatch.setattr(Clock, "day", 2)
    assert base().adapt(ROWS, date="2026-01-01", **ASKED).fingerprint == first.fingerprint
    assert base().adapt(ROWS, **ASKED).fingerprint != first.fingerprint  # the template does ask
    assert first.record.get("config.options")["date"] == "2026-01-01"
    on = base().with_adapter(first)
    today = evaluate(on, ROWS)
    monkeypatch.setattr(Clock, "day", 3)
    assert evaluate(on, ROWS) == today
    with pytest.raises(ConfigError, match="'date' is 'tomorrow'"):
        base().adapt(ROWS, date="tomorrow", **ASKED)


class Stop(NoCallback):
    def step(self, info: StepInfo) -> None:
        if info.step == 2:
            raise KeyboardInterrupt


def test_a_run_that_goes_on_over_midnight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_base(tmp_path / "base", base().loaded)

    def again(**more: Any) -> Adapter:
        return Base(load_base(tmp_path / "base")).adapt(ROWS, **ASKED, **more)

    straight = again()
    assert straight.record.get("config.options")["date"] == "2026-01-01"
    with pytest.raises(KeyboardInterrupt):
        again(resume=tmp_path / "state", callbacks=[Stop()])
    monkeypatch.setattr(Clock, "day", 2)
    with pytest.raises(ArtifactError, match=r"another date \(2026-01-01, now 2026-01-02\)"):
        again(resume=tmp_path / "state", date="2026-01-02")
    resumed = again(resume=tmp_path / "state")
    assert resumed.fingerprint == straight.fingerprint
    assert resumed.record.get("config.options")["date"] == "2026-01-01"
