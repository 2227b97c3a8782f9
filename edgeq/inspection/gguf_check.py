"""``edgeq inspect --check``: the format's own rules, then whether the content can work."""

from __future__ import annotations

from pathlib import Path

from edgeq.errors import FormatError
from edgeq.formats.gguf.split import open_gguf
from edgeq.inspection.check_layout import layout_findings
from edgeq.inspection.check_metadata import metadata_findings
from edgeq.inspection.check_tensors import tensor_findings
from edgeq.inspection.check_tokenizer import tokenizer_findings
from edgeq.inspection.findings import Finding, Severity, error
from edgeq.inspection.stream import Progress

__all__ = ["Finding", "Severity", "check_gguf"]

_ORDER = list(Severity)


def check_gguf(path: Path, progress: Progress) -> list[Finding]:
    """Everything that is wrong with a GGUF file, or all shards of a split one, errors first.

    Raises EdgeqError where it cannot be opened or a shard is missing.

    The reader enforces the structure (each rule of ``gguf_init_from_reader``, see ``formats.gguf.parse``) and
    stops at the first breach: nothing behind it can be trusted, so that is then the only finding.
    """
    try:
        file = open_gguf(path)
    except FormatError as breach:
        return [error("file", breach.problem, breach.remedy)]
    with file:
        findings = [
            *metadata_findings(file),
            *layout_findings(file),
            *tokenizer_findings(file),
            *tensor_findings(file, progress),
        ]
    return sorted(findings, key=lambda finding: _ORDER.index(finding.severity))
