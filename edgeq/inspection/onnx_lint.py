"""``edgeq inspect model.onnx --lint``: what will run slowly, wrongly or not at all, and how to mend it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from edgeq.errors import InputError
from edgeq.formats.onnx.read import read_model
from edgeq.inspection.findings import Finding, Severity


@dataclass(frozen=True)
class Target:
    """Where the file shall run: the runtime's version, if stated, as (major, minor)."""

    version: tuple[int, int] | None = None


Rule = Callable[[ir.Model, Target], Iterator[Finding]]
RULES: dict[str, Rule] = {}
_ORDER = list(Severity)


def rule(function: Rule) -> Rule:
    """Register a rule under its function's name."""
    RULES[function.__name__] = function
    return function


def parse_version(text: str) -> tuple[int, int]:
    """``1.20`` or ``1.20.1`` as (1, 20); raises InputError."""
    parts = text.split(".")
    if len(parts) < 2 or not all(part.isdecimal() for part in parts):
        raise InputError(f"{text}: is no version; write it as 1.20")
    return int(parts[0]), int(parts[1])


def lint_onnx(path: Path, target: Target) -> list[tuple[str, Finding]]:
    """(rule, finding) of every rule, errors first. Raises FormatError for what cannot be read."""
    from edgeq.inspection import onnx_rules

    for module in pkgutil.iter_modules(onnx_rules.__path__):
        importlib.import_module(f"{onnx_rules.__name__}.{module.name}")
    model = read_model(path)
    found = [(name, finding) for name, check in RULES.items() for finding in check(model, target)]
    return sorted(found, key=lambda pair: _ORDER.index(pair[1].severity))
