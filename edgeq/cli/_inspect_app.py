"""What ``edgeq inspect --app`` prints."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from edgeq.cli._output import print_facts, print_json
from edgeq.errors import GateError, UsageError


def show_app(folder: Path, app: str, others: Mapping[str, object], as_json: bool) -> None:
    """Print what an app's library would not load of a folder; raises GateError where there is an error."""
    from edgeq.apps.lint import lint
    from edgeq.apps.registry import find

    for option, given in others.items():
        if given:
            raise UsageError(f"--app and {option} do not go together; give one of them")
    layout = find(app)
    findings = lint(folder, layout)
    counts = Counter(finding.severity.value for finding in findings)
    if as_json:
        entries = [dataclasses.asdict(finding) for finding in findings]
        record = {
            "folder": str(folder),
            "app": layout.name,
            "ok": not counts["error"],
            "counts": dict(counts),
        }
        print_json(record | {"findings": entries})
    else:
        for finding in findings:
            facts = [(finding.severity.value, finding.where), ("", finding.what)]
            print_facts([*facts, ("", f"→ {finding.remedy}")] if finding.remedy else facts)
        what = f"{counts['error']} errors, {counts['warning']} warnings, {counts['note']} notes"
        print_facts(
            [
                ("folder", str(folder)),
                ("app", layout.name),
                ("lint", what if findings else "nothing was found"),
            ]
        )
    if counts["error"]:
        raise GateError(f"{folder}: {layout.name} would not load it: {findings[0].where} {findings[0].what}")
