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
    """Where the file shall run.

    ``version`` of the runtime, if stated, is (major, minor); ``lacks`` holds what a build of chosen operators does not
    have of those that the file needs, as (domain;opset, operator).
    """

    version: tuple[int, int] | None = None
    lacks: tuple[tuple[str, str], ...] = ()


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


def missing_operators(path: Path, build: Path) -> tuple[tuple[str, str], ...]:
    """What the graph needs, once the runtime has optimized it, and a build's list of operators does not name.

    ``build`` is what the build was made with: ``--include_ops_by_config``. Raises EdgeqError.
    """
    from edgeq.runtimes.ort_format import operators_of, required_operators

    known = {(key, name) for key, names in required_operators(build).items() for name in names}
    needed = operators_of(path)
    return tuple((key, name) for key, names in needed.items() for name in names if (key, name) not in known)


def lint_onnx(path: Path, target: Target) -> list[tuple[str, Finding]]:
    """(rule, finding) of every rule, errors first. Raises FormatError for what cannot be read."""
    from edgeq.inspection import onnx_rules

    for module in pkgutil.iter_modules(onnx_rules.__path__):
        importlib.import_module(f"{onnx_rules.__name__}.{module.name}")
    model = read_model(path)
    found = [(name, finding) for name, check in RULES.items() for finding in check(model, target)]
    return sorted(found, key=lambda pair: _ORDER.index(pair[1].severity))
