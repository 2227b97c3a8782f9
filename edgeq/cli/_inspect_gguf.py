"""What ``edgeq inspect --diff`` and ``--check`` print."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from edgeq.cli._output import print_facts, print_json, print_table, progress_bar
from edgeq.errors import UsageError
from edgeq.inspection import is_gguf


def only_for_gguf(options: Mapping[str, bool], model: Path, other: Path | None) -> None:
    """Raise UsageError for two of these options at once, or for one with files that are not GGUF."""
    given = [option for option, is_given in options.items() if is_given]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} do not go together; give one of them")
    for option in given:
        for path in filter(None, (model, other)):
            if not is_gguf(path):
                kind = "a directory" if path.is_dir() else "no GGUF file"
                raise UsageError(f"{path}: is {kind}; {option} is for GGUF files only")


def show_diff(a: Path, b: Path, as_json: bool) -> None:
    from edgeq.inspection.gguf_diff import diff_gguf

    with progress_bar() as progress:
        found = diff_gguf(a, b, progress)
    if as_json:
        print_json(found)
        return
    _print_metadata(found["metadata"])
    _print_tensors(found["tensors"])
    _print_errors(found["tensors"]["common"])
    print_facts([("a", found["a"]), ("b", found["b"]), ("content", _content(found))])


def _print_metadata(changes: dict[str, Any]) -> None:
    from edgeq.inspection import shortened

    rows = [
        *(("added", key, "", shortened(value)) for key, value in changes["added"].items()),
        *(("removed", key, shortened(value), "") for key, value in changes["removed"].items()),
        *(
            (
                "changed",
                c["key"],
                *((c["detail"], "") if c["detail"] else (shortened(c["a"]), shortened(c["b"]))),
            )
            for c in changes["changed"]
        ),
    ]
    if rows:
        print_table(("metadata", "key", "a", "b"), rows)
        print()


def _print_tensors(changes: dict[str, Any]) -> None:
    rows = [
        *(("added", t["name"], "", _kind(t)) for t in changes["added"]),
        *(("removed", t["name"], _kind(t), "") for t in changes["removed"]),
        *(("reshaped", t["name"], _kind(t["a"]), _kind(t["b"])) for t in changes["reshaped"]),
    ]
    if rows:
        print_table(("tensors", "name", "a", "b"), rows)
        print()


def _kind(tensor: dict[str, Any]) -> str:
    return f"{tensor['type_name']} {' × '.join(map(str, tensor['shape']))}".strip()


def _print_errors(common: list[dict[str, Any]]) -> None:
    """The tensors that differ, worst first; the identical ones are only counted."""
    differing = [t for t in common if not t["identical"]]
    if differing:
        rows = [(t["name"], t["a_type"], t["b_type"], *_errors(t)) for t in differing]
        print_table(("tensor", "a", "b", "relative RMSE", "max abs", ""), rows, right=(3, 4))
        print()


def _errors(tensor: dict[str, Any]) -> tuple[str, str, str]:
    error, largest = tensor["relative_rmse"], tensor["max_abs"]
    if error is None:
        return "?", "?", "bytes differ; edgeq cannot decode the type"
    remark = f"{tensor['not_finite']:,} NaN or infinite left out" if tensor["not_finite"] else ""
    if error == 0 and not remark:
        remark = "same values"
    return ("inf" if math.isinf(error) else f"{error:.3e}"), f"{largest:.3e}", remark


def _content(found: dict[str, Any]) -> str:
    if found["same_content"]:
        return "the same: metadata and the bytes of every tensor"
    tensors = found["tensors"]
    identical = sum(t["identical"] for t in tensors["common"])
    counts = [
        (sum(map(len, found["metadata"].values())), "metadata keys differ"),
        (len(tensors["added"]), "tensors added"),
        (len(tensors["removed"]), "removed"),
        (len(tensors["reshaped"]), "reshaped"),
        (len(tensors["common"]) - identical, "with other bytes"),
        (identical, "identical"),
    ]
    return ", ".join(f"{count} {what}" for count, what in counts)


def show_check(path: Path, as_json: bool) -> None:
    """Print the findings; ends the command with exit code 1 when one is an error."""
    from edgeq.inspection.gguf_check import Severity, check_gguf

    with progress_bar() as progress:
        findings = check_gguf(path, progress)
    counts = Counter(finding.severity for finding in findings)
    if as_json:
        print_json(
            {
                "file": str(path),
                "ok": not counts[Severity.error],
                "errors": counts[Severity.error],
                "warnings": counts[Severity.warning],
                "findings": [dataclasses.asdict(finding) for finding in findings],
            }
        )
    else:
        for finding in findings:
            facts = [(finding.severity.value, finding.where), ("", finding.what)]
            print_facts([*facts, ("", f"→ {finding.remedy}")] if finding.remedy else facts)
        what = f"{counts[Severity.error]} errors, {counts[Severity.warning]} warnings"
        print_facts([("file", str(path)), ("check", what if findings else "nothing wrong was found")])
    if counts[Severity.error]:
        raise typer.Exit(1)
