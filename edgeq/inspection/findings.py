"""What a check found: the one shape that all of its rules report in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is; only an error makes the command fail."""

    error = "error"  # a runtime refuses the file, or computes nonsense with it
    warning = "warning"  # it loads, but is probably not what was meant
    note = "note"  # what could not be checked


@dataclass(frozen=True)
class Finding:
    """``where`` is a tensor's name, a metadata key, or "file"."""

    severity: Severity
    where: str
    what: str
    remedy: str = ""


def error(where: str, what: str, remedy: str) -> Finding:
    return Finding(Severity.error, where, what, remedy)


def warning(where: str, what: str, remedy: str) -> Finding:
    return Finding(Severity.warning, where, what, remedy)


def note(where: str, what: str, remedy: str = "") -> Finding:
    return Finding(Severity.note, where, what, remedy)
