"""What ``edgeq inspect --lint`` prints."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from edgeq.cli._output import print_facts, print_json
from edgeq.errors import GateError, InputError, UsageError


def show_lint(
    path: Path,
    others: Mapping[str, bool],
    lint: bool,
    strict: bool,
    version: str | None,
    operators: Path | None,
    as_json: bool,
) -> None:
    """Print the findings; with ``strict``, an error or a warning raises GateError."""
    from edgeq.inspection.onnx_lint import Target, lint_onnx, missing_operators, parse_version
    from edgeq.options import parsed

    if not lint:
        raise UsageError("--strict, --ort-version and --operators go with --lint")
    for option, given in others.items():
        if given:
            raise UsageError(f"--lint and {option} do not go together; give one of them")
    if not path.exists():
        raise InputError(f"{path}: no such file or directory")
    if path.suffix.lower() != ".onnx":
        raise UsageError(f"{path}: is no ONNX file; --lint is for ONNX files only")
    target = Target(
        None if version is None else parsed("--ort-version", version, parse_version),
        () if operators is None else missing_operators(path, operators),
    )
    findings = lint_onnx(path, target)
    counts = Counter(finding.severity.value for _, finding in findings)
    bad = counts["error"] + counts["warning"]
    if as_json:
        entries = [{"rule": name} | dataclasses.asdict(finding) for name, finding in findings]
        print_json({"file": str(path), "ok": not bad, "counts": dict(counts), "findings": entries})
    else:
        for name, finding in findings:
            facts = [(finding.severity.value, f"{finding.where} ({name})"), ("", finding.what)]
            print_facts([*facts, ("", f"→ {finding.remedy}")] if finding.remedy else facts)
        what = f"{counts['error']} errors, {counts['warning']} warnings, {counts['note']} notes"
        print_facts([("file", str(path)), ("lint", what if findings else "nothing was found")])
    if strict and bad:
        raise GateError(f"{path}: lint has {counts['error']} errors and {counts['warning']} warnings")
