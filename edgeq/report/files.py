"""Writing edgeq.json and report.html; exports into one folder share them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import UndefinedError

from edgeq import __version__
from edgeq.errors import FormatError
from edgeq.formats.atomic import write_json, write_text
from edgeq.json_files import read_json
from edgeq.outputs import output_folder
from edgeq.report.html import render

JSON_NAME, HTML_NAME = "edgeq.json", "report.html"


def write_report(folder: Path, record: dict[str, Any]) -> list[Path]:
    """Add one export to the folder's edgeq.json (replacing an earlier one of the same file) and draw report.html."""
    return _write(folder, "exports", record)


def write_evaluation(folder: Path, record: dict[str, Any]) -> list[Path]:
    """Add one result of ``edgeq.evaluate`` in the same way, by its file and engine; makes the folder."""
    with output_folder(folder):
        return _write(folder, "evaluations", record)


def _write(folder: Path, part: str, record: dict[str, Any]) -> list[Path]:
    json_path, html_path = folder / JSON_NAME, folder / HTML_NAME
    found = _parts(json_path)
    found[part] = [old for old in found[part] if _identity(old) != _identity(record)] + [record]
    page = _page(json_path, found)
    kept = {name: records for name, records in found.items() if records or name == "exports"}
    write_json(json_path, {"edgeq": __version__, **kept}, force=True)
    write_text(html_path, page, force=True)
    return [json_path, html_path]


def _identity(record: dict[str, Any]) -> tuple[Any, ...]:
    return record.get("file"), record.get("engine"), record.get("data"), record.get("kv_type")


def read_exports(path: Path) -> list[dict[str, Any]]:
    """The exports recorded in an edgeq.json, or none where there is no such file.

    Raises FormatError for one that report.html cannot be drawn from.
    """
    return _read(path)["exports"]


def read_evaluations(path: Path) -> list[dict[str, Any]]:
    """The evaluations, in the same way."""
    return _read(path)["evaluations"]


def _read(path: Path) -> dict[str, list[dict[str, Any]]]:
    found = _parts(path)
    if path.exists():
        _page(path, found)
    return found


def _parts(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The records in the file, empty lists where there is none; they are not looked into."""
    content = read_json(path, dict) if path.exists() else {"exports": []}
    found = {"exports": content.get("exports", ()), "evaluations": content.get("evaluations", [])}
    fine = [
        isinstance(records, list) and all(isinstance(one, dict) for one in records)
        for records in found.values()
    ]
    if not all(fine):
        raise _not_ours(path)
    return found


def _page(path: Path, found: dict[str, list[dict[str, Any]]]) -> str:
    """report.html; raises FormatError for records that it cannot be drawn from."""
    try:
        return render(found["exports"], found["evaluations"])
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        UndefinedError,
    ):  # a field gone, or of another type
        raise _not_ours(path) from None


def _not_ours(path: Path) -> FormatError:
    return FormatError(path, "is not edgeq's record", "move it away or choose another folder")
