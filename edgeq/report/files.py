"""Writing edgeq.json and report.html; exports into one folder share them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import UndefinedError

from edgeq import __version__
from edgeq.errors import FormatError
from edgeq.formats.atomic import write_json, write_text
from edgeq.json_files import read_json
from edgeq.report.html import render

JSON_NAME, HTML_NAME = "edgeq.json", "report.html"


def write_report(folder: Path, record: dict[str, Any]) -> list[Path]:
    """Add one export to the folder's edgeq.json (replacing an earlier one of the same file) and draw report.html."""
    json_path, html_path = folder / JSON_NAME, folder / HTML_NAME
    exports = [old for old in read_exports(json_path) if old.get("file") != record["file"]] + [record]
    page = render(exports)
    write_json(json_path, {"edgeq": __version__, "exports": exports}, force=True)
    write_text(html_path, page, force=True)
    return [json_path, html_path]


def read_exports(path: Path) -> list[dict[str, Any]]:
    """The exports recorded in an edgeq.json, or none where there is no such file.

    Raises FormatError for one that report.html cannot be drawn from.
    """
    if not path.exists():
        return []
    exports = read_json(path, dict).get("exports")
    try:
        if not isinstance(exports, list):
            raise TypeError
        render(exports)
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        UndefinedError,
    ):  # a field gone, or of another type
        raise FormatError(path, "is not edgeq's record", "move it away or choose another folder") from None
    return exports
