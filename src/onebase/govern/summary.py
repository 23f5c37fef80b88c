"""The summary of an artifact: what it is, its sources, purpose, scores and licence, and what is unknown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from onebase.artifact.record import Record

Answer = tuple[str, str, str]
"""(question, answer, origin)"""
SHOWN = 8
"""Number of scores, or unknown fields, that are listed; the rest is counted."""
RECORD, MANIFEST = "record", "manifest"


def summary(record: Record, kind: str, unknown: Sequence[str]) -> list[Answer]:
    """The rows of the summary, in order. unknown: fields without a value."""
    return [
        ("what it is", _what(record, kind), MANIFEST),
        ("from what", "; ".join(_from(record)) or "nothing recorded", RECORD),
        *(("for what", text, RECORD) for text in _purpose(record)),
        ("how good", *_scores(record)),
        *_licences(record, kind),
        ("unknown", _some(list(unknown)) or "nothing of what is expected", RECORD),
    ]


def _what(record: Record, kind: str) -> str:
    name, parts = record.get("name"), [f"{'an' if kind[:1] in 'aeiou' else 'a'} {kind}"]
    if name:
        parts[0] += f" called {name}"
    if (count := record.get("parameters") or record.get("config.parameters")) is not None:
        parts.append(f"{_number(count)} parameters")
    if (family := record.get("imported.model_type") or record.get("imported.architecture")) is not None:
        parts.append(f"of family {family}")
    if (line := record.get("config.storage")) and isinstance(line, dict):
        parts.append(f"in {line.get('bits')} bits")
    return ", ".join(parts)


def _from(record: Record) -> Iterator[str]:
    for parent in record.parents:
        yield f"{parent['kind']} {parent['name'] or parent['fingerprint'][:16] or '(no name)'}"
    if (source := record.get("imported.from")) is not None:
        hub = record.get("imported.hub")
        yield f"{record.get('imported.format')} {hub['repo'] if isinstance(hub, dict) and 'repo' in hub else source}"
    if (source := record.get("source")) is not None:
        yield _text(source)
    if (models := record.get("made_from")) is not None:
        yield f"made from {_text(models)}"
    if text := _data(record):
        yield f"data: {text}"


def _data(record: Record) -> str:
    """The training data in one line; "" if nothing is recorded."""
    rows = record.get("data.rows")
    count = f" ({_number(rows)} rows)" if rows is not None else ""
    if names := [str(f.get("name")) for f in _dicts(record.get("data.files"))]:
        return _some(names) + count
    if isinstance(source := record.get("data.source"), dict) and "repo" in source:
        return f"{source['repo']}{count}"
    if isinstance(sources := record.get("data.sources") or record.get("sources"), dict):
        return _some(list(sources))
    if (names := record.get("data.datasets") or record.get("data.trained_on")) is not None:
        return _some([names] if isinstance(names, str) else [str(n) for n in names])
    return f"{_number(rows)} rows" if rows is not None else ""


def _purpose(record: Record) -> Iterator[str]:
    task, method = record.get("task"), record.get("method")
    if task is not None:
        labels = record.get("data.labels")
        of = f" ({_some([str(x) for x in labels])})" if isinstance(labels, list) and labels else ""
        yield f"{_text(task)}{of}" + (f", trained with {_text(method)}" if method is not None else "")
    elif (language := record.get("language")) is not None:
        yield f"language: {_text(language)}"


def _scores(record: Record) -> tuple[str, str]:
    """Scores with their intervals and test data."""
    scores: dict[str, tuple[str, str]] = {}
    for e in record.events:
        if e.field.startswith("scores.") and isinstance(e.value, dict) and _is_number(e.value.get("value")):
            v = e.value
            text = f"{e.field.removeprefix('scores.')} {v['value']:.4g}"
            if _is_number(v.get("low")) and _is_number(v.get("high")):
                text += f" (95%: {v['low']:.4g} to {v['high']:.4g}, n = {v.get('n', '?')})"
            scores[e.field] = text, _text(v.get("on") or e.origin)
    if not scores:
        return "not measured", RECORD
    by_data: dict[str, list[str]] = {}
    for text, on in scores.values():
        by_data.setdefault(on, []).append(text)
    gate = record.get("gate")
    parts = [
        f"{_some(texts)}, {on if on.startswith('measured') else f'on {on}'}" for on, texts in by_data.items()
    ]
    if isinstance(gate, dict) and gate.get("line"):
        parts.append(f"the gate: {gate['line']}")
    return "; ".join(parts), RECORD


def _licences(record: Record, kind: str) -> Iterator[Answer]:
    stated = [e for e in record.events if e.field == "licence" and e.value is not None]
    if stated:
        yield "licence", _text(stated[-1].value), stated[-1].origin
        for other in {_text(e.value): e for e in stated[:-1]}.values():
            if _text(other.value).casefold() != _text(stated[-1].value).casefold():
                yield "licence, otherwise", _text(other.value), other.origin
    elif kind in ("base", "adapter"):
        yield "licence", "unknown", "not recorded"
    if (event := record.event("data.licence")) is not None:
        yield "licence of the data", _text(event.value), event.origin
    elif isinstance(by_source := record.get("data.licences"), dict):
        text = "; ".join(f"{name}: {_text(value)}" for name, value in by_source.items())
        event = record.event("data.licences")
        yield "licence of the data", text, event.origin if event else RECORD
    elif kind == "adapter":
        yield "licence of the data", "unknown", "not recorded"
    elif kind == "dataset":
        of_sources = [
            e for e in record.events if e.field.startswith("sources.") and e.field.endswith(".licence")
        ]
        for e in of_sources:
            yield f"licence of {e.field[8:-8]}", _text(e.value), e.origin


def _dicts(value: Any) -> list[Mapping[str, Any]]:
    return [x for x in value if isinstance(x, dict)] if isinstance(value, list) else []


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _text(value: Any) -> str:
    if isinstance(value, list):
        return _some([str(x) for x in value])
    return "unknown" if value is None else str(value)


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
