"""The token ledger: which tokens a run would train on, counted before step 1, and problems in the samples.

A finding has a code, the first sample that has the problem, and a remedy. `Ledger.refuse` raises for findings whose code is not allowed.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onebase.errors import ConfigError, DataError
from onebase.modality.text.repeats import RepeatedTexts, text_key
from onebase.modality.text.sample import Tokens
from onebase.modality.text.shown import LedgerRow, ledger_rows, marked, render_rows
from onebase.modality.text.tokenizer import Tokenizer
from onebase.modality.text.validation import name_of, problems, stop_ids

REMEDIES = {
    "all-masked": "give every sample a completion or an assistant message",
    "doubled-bos": "let either the template or the codec write it, not both",
    "no-bos": "make tokens with TextCodec.tokens",
    "bos-learnt": "supervise only the tokens after it",
    "no-eos": "supervise the stop token too ({% generation %} around it in the template)",
    "pad-is-eos": "mask padding by position, not by id, or give it a token of its own: the end must be supervised",
    "template-differs": "use the base's own template, or save the base with this one first and adapt that base",
    "test-in-train": "remove these samples from the training rows or from the test rows",
}
"""All codes of findings, and what to do about each."""


@dataclass(frozen=True)
class Finding:
    """A problem that should stop training. code: one of REMEDIES. samples: how many have it. found: the first such sample and its
    problem. shown: that sample decoded, supervised text between « ». remedy: what to do."""

    code: str
    samples: int
    found: str
    shown: str = ""

    @property
    def remedy(self) -> str:
        return REMEDIES[self.code]


@dataclass(frozen=True)
class Ledger:
    """Counts over the training samples, and the findings.

    samples, tokens, supervised: counts. begun: samples that begin with BOS. bos, ends, ends_learnt: BOS tokens, stop tokens, and
    supervised stop tokens. over_length: samples longer than the limit, which are refused later, never truncated. repeats: samples
    that repeat an earlier one. test, test_in_train: test samples, and those that are also training samples (None without test
    rows). specials: occurrences of each special token. labels: rows by label, for classify. rows: the first samples, decoded.
    """

    samples: int
    tokens: int = 0
    supervised: int = 0
    begun: int = 0
    bos: int = 0
    ends: int = 0
    ends_learnt: int = 0
    over_length: int = 0
    repeats: int = 0
    test: int | None = None
    test_in_train: int | None = None
    specials: dict[str, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    rows: tuple[LedgerRow, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def share(self) -> float:
        """Supervised tokens as a share of all, 0 to 1."""
        return self.supervised / self.tokens if self.tokens else 0.0

    def numbers(self) -> dict[str, Any]:
        """JSON data: the counts, and the number of samples by finding code."""
        names = ["samples", "repeats", "test", "test_in_train"]
        if self.tokens:
            names += [
                "tokens",
                "supervised",
                "begun",
                "bos",
                "ends",
                "ends_learnt",
                "over_length",
                "specials",
            ]
        if self.labels:
            names.append("labels")
        counts = {name: getattr(self, name) for name in names}
        return counts | {"findings": {f.code: f.samples for f in self.findings}}

    def text(self) -> str:
        """The ledger as text, printed before step 1."""
        lines = []
        if self.rows:
            lines += ["supervised text, between « »:", render_rows(self.rows)]
        head = f"token ledger: {_plural(self.samples, 'sample')}"
        if self.tokens:
            head += f", {self.tokens:,} tokens, {self.supervised:,} supervised ({self.share:.1%})"
        lines.append(head)
        if self.tokens:
            lines.append(
                f"  samples with BOS first: {self.begun:,}; BOS tokens: {self.bos:,}; stop tokens: {self.ends:,}, supervised: "
                f"{self.ends_learnt:,}; samples over the length limit: {self.over_length:,}"
            )
        for name, counts in (("special tokens", self.specials), ("labels", self.labels)):
            if counts:
                shown = [f"{k} {n:,}" for k, n in counts.items()]
                lines.append(f"  {name}: " + ", ".join(shown[:20] + ["..."] * (len(shown) > 20)))
        if alike := same_but_for_case(self.labels):
            lines.append(
                f"  labels that differ only in case or spaces: {'; '.join(' and '.join(map(repr, a)) for a in alike)}"
            )
        if self.samples > 9 and len(self.labels) > self.samples / 2 and all(map(_is_number, self.labels)):
            lines.append(
                f"  {len(self.labels)} labels for {self.samples} samples, all numbers: task regress predicts numbers"
            )
        leaked = "no test rows given" if self.test is None else f"{self.test_in_train:,} of {self.test:,}"
        lines.append(f"  repeated samples: {self.repeats:,}; test samples in train: {leaked}")
        for f in self.findings:
            lines.append(f"  {f.code}, {_plural(f.samples, 'sample')}: {f.found}")
            if f.shown:
                lines.append(f"    {f.shown}")
        return "\n".join(lines)

    def refuse(self, allow: Sequence[str] = ()) -> None:
        """Raise DataError for findings whose code is not in `allow`: the first in full, the others by code."""
        check_codes(allow)
        bad = [f for f in self.findings if f.code not in allow]
        if not bad:
            return
        first = bad[0]
        more = "".join(f"; also {f.code} ({_plural(f.samples, 'sample')})" for f in bad[1:])
        shown = f": {first.shown}" if first.shown else ""
        codes = " ".join(f"--allow {f.code}" for f in bad)
        raise DataError(
            f"{first.code}: {first.found}{shown} ({_plural(first.samples, 'sample')}){more}",
            f"{first.remedy}; to train anyway: {codes} (in Python: allow={[f.code for f in bad]})",
        )


def same_but_for_case(labels: Iterable[str]) -> list[list[str]]:
    """Groups of labels that differ only in case and white space: most often one label with two spellings."""
    groups: dict[str, list[str]] = {}
    for label in labels:
        groups.setdefault("".join(label.casefold().split()), []).append(label)
    return [group for group in groups.values() if len(group) > 1]


def _is_number(label: str) -> bool:
    try:
        float(label)
    except ValueError:
        return False
    return True


def check_codes(codes: Iterable[str]) -> None:
    """Raise ConfigError for a code that the ledger does not have, with the nearest one."""
    for code in codes:
        if code not in REMEDIES:
            near = difflib.get_close_matches(str(code), REMEDIES, 1, 0.4)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise ConfigError(
                f"allow: the token ledger has no code {code!r}", f"{hint}codes: {', '.join(REMEDIES)}"
            )


def token_ledger(
    tokens: Sequence[Tokens],
    tokenizer: Tokenizer,
    *,
    limit: int | None = None,
    test: Sequence[Tokens] | None = None,
    templates: tuple[str, str] | None = None,
    rows: int = 3,
) -> Ledger:
    """The ledger of samples for a generative task.

    limit: maximum tokens of a sample. test: samples that must not be among `tokens`. templates: hash of the chat template
    that formatted the samples, and of the base's own; None where no template was used.
    """
    ids = np.concatenate([t.ids for t in tokens]) if tokens else np.zeros(0, np.int32)
    loss = np.concatenate([t.loss for t in tokens]) if tokens else np.zeros(0, np.bool_)
    counts = np.bincount(ids, minlength=tokenizer.vocab_size)
    ends = np.isin(ids, sorted(stop_ids(tokenizer)))
    seen = RepeatedTexts(tokenizer)
    repeats = sum(seen.add(t) for t in tokens)
    leaks = None if test is None else [t for t in test if seen.holds(t)]
    findings = list(_findings(tokens, tokenizer))
    if templates is not None and templates[0] != templates[1]:
        cause = f"the samples are formatted by the template {templates[0][:12]}..., the base's is {templates[1][:12]}..."
        findings.append(Finding("template-differs", len(tokens), cause))
    if leaks:
        row = ledger_rows(leaks, tokenizer, 1)[0]
        cause = f"test {name_of(leaks[0], 1)} is in the training samples"
        findings.append(Finding("test-in-train", len(leaks), cause, marked(row, 120)))
    return Ledger(
        samples=len(tokens),
        tokens=len(ids),
        supervised=int(loss.sum()),
        begun=sum(bool(len(t)) and int(t.ids[0]) == tokenizer.bos for t in tokens),
        bos=0 if tokenizer.bos is None else int(counts[tokenizer.bos]),
        ends=int(ends.sum()),
        ends_learnt=int((ends & loss).sum()),
        over_length=0 if limit is None else sum(len(t) > limit for t in tokens),
        repeats=repeats,
        test=None if test is None else len(test),
        test_in_train=None if leaks is None else len(leaks),
        specials={name: int(counts[i]) for name, i in tokenizer.specials.items() if counts[i]},
        rows=tuple(ledger_rows(tokens, tokenizer, rows)),
        findings=tuple(findings),
    )


def label_ledger(items: Sequence[str], labels: Sequence[str], test: Sequence[str] | None = None) -> Ledger:
    """The ledger of labelled items: texts, or hashes of other data. A test item counts as in train whatever its label."""
    known: set[str] = set()
    repeats = 0
    for key in map(text_key, items):
        repeats += key in known
        known.add(key)
    leaks = None if test is None else [(n, t) for n, t in enumerate(test, 1) if text_key(t) in known]
    findings: tuple[Finding, ...] = ()
    if leaks:
        number, item = leaks[0]
        shown = item if len(item) <= 120 else f"{item[:117]}..."
        cause = f"test sample {number} is in the training samples"
        findings = (Finding("test-in-train", len(leaks), cause, repr(shown)),)
    return Ledger(
        samples=len(items),
        repeats=repeats,
        test=None if test is None else len(test),
        test_in_train=None if leaks is None else len(leaks),
        labels=dict(sorted(Counter(labels).items())),
        findings=findings,
    )


def check_tokens(tokens: Tokens | Iterable[Tokens], tokenizer: Tokenizer) -> None:
    """Refuse samples that would train nonsense: nothing supervised, BOS twice, BOS as a target, or a supervised span without a stop token.

    These are the ledger's checks of a single sample, with nothing allowed. Give whole samples, before long ones are truncated.
    Raises DataError that names the first bad sample.
    """
    for n, item in enumerate([tokens] if isinstance(tokens, Tokens) else tokens, 1):
        for code, cause in problems(item, tokenizer):
            raise DataError(f"{name_of(item, n)}: {cause}", REMEDIES[code])


def _findings(tokens: Iterable[Tokens], tokenizer: Tokenizer) -> Iterator[Finding]:
    first: dict[str, tuple[str, Tokens]] = {}
    counts: Counter[str] = Counter()
    for n, item in enumerate(tokens, 1):
        for code, cause in problems(item, tokenizer):
            first.setdefault(code, (f"{name_of(item, n)}: {cause}", item))
            counts[code] += 1
    for code, (cause, item) in first.items():
        yield Finding(code, counts[code], cause, marked(ledger_rows([item], tokenizer)[0], 120))


def _plural(n: int, what: str) -> str:
    return f"{n:,} {what}" + ("" if n == 1 else "s")
