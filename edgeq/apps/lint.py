"""``edgeq inspect FOLDER --app NAME``: what of a folder its consumer would not load."""

from __future__ import annotations

from pathlib import Path

from edgeq.apps.manifest import manifest_findings
from edgeq.apps.registry import Layout
from edgeq.errors import InputError
from edgeq.inspection.findings import Finding, Severity

_ORDER = list(Severity)


def lint(folder: Path, layout: Layout) -> list[Finding]:
    """The layout's own findings and those of the manifest (files that are missing or changed), errors first.

    Raises InputError for what is no folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; the lint of an app wants the folder that it loads")
    findings = [*manifest_findings(folder, layout.name), *layout.lint(folder)]
    return sorted(findings, key=lambda finding: _ORDER.index(finding.severity))
