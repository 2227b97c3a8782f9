"""What ``edgeq bench MODEL…`` measured as CSV, Markdown, or JSON, by the suffix of the file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeq.errors import UsageError

_KEYS = ("model", "bytes", "engine", "engine_version", "threads", "prompt", "gen", "error")
# Figure, heading, how a number is shown, what it is multiplied with.
_SHOWN: tuple[tuple[str, str, str, float], ...] = (
    ("load_s", "load s", ".2f", 1),
    ("first_token_s", "first token ms", ",.0f", 1e3),
    ("prefill_tokens_per_s", "read t/s", ",.1f", 1),
    ("decode_tokens_per_s", "generate t/s", ",.1f", 1),
    ("step_p95_s", "p95 ms", ",.1f", 1e3),
    ("prefill_p95_s", "read p95 ms", ",.1f", 1e3),
    ("peak_memory_bytes", "peak MB", ",.0f", 1e-6),
    ("joules_per_token", "J/token", ".3f", 1),
    ("degrees_last", "°C", ".0f", 1),
    ("clock_drop", "clock drop", ".0%", 1),
    ("speed_drop", "speed drop", ".0%", 1),
)


def table(record: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Heading and rows for people; figures that no result has are left out."""
    results = record["results"]
    shown = [column for column in _SHOWN if any(r["figures"].get(column[0]) is not None for r in results)]
    heading = ["model", "engine", "threads", "prompt", "generated", *(name for _, name, _, _ in shown)]
    return heading, [_row(result, shown) for result in results]


def _row(result: Mapping[str, Any], shown: Sequence[tuple[str, str, str, float]]) -> list[str]:
    cells = [str(result[key]) for key in ("model", "engine", "threads", "prompt", "gen")]
    if result["error"]:
        return [*cells, "failed", *[""] * (len(shown) - 1)]
    for figure, _, how, times in shown:
        value = result["figures"].get(figure)
        cells.append("-" if value is None else f"{value * times:{how}}")
    return cells


def check_suffix(path: Path) -> None:
    """Raise UsageError for a file that is none of the three."""
    if path.suffix.lower() not in _WRITERS:
        raise UsageError(f"-o {path}: must end in {', '.join(_WRITERS)}")


def text_of(path: Path, record: Mapping[str, Any]) -> str:
    """What the file shall hold."""
    check_suffix(path)
    return _WRITERS[path.suffix.lower()](record)


def to_csv(record: Mapping[str, Any]) -> str:
    """One line for each result, figures in SI units, machine and versions in the last columns of each."""
    names = list(dict.fromkeys(name for result in record["results"] for name in result["figures"]))
    about = {"date": record["date"], "machine": record["machine"]["name"]} | record["versions"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*_KEYS, *names, *about])
    for result in record["results"]:
        figures = [result["figures"].get(name) for name in names]
        writer.writerow([*(result[key] for key in _KEYS), *figures, *about.values()])
    return out.getvalue()


def to_markdown(record: Mapping[str, Any]) -> str:
    """A heading, a table, and a line about the machine."""
    heading, rows = table(record)
    lines = ["| " + " | ".join(cells) + " |" for cells in (heading, ["---"] * len(heading), *rows)]
    machine, versions = record["machine"], record["versions"]
    cores = ", ".join(f"{group['count']} × {group['name']}" for group in machine["cores"])
    about = f"{machine['name']} ({cores}; {', '.join(machine['instruction_sets'])}), {machine['system']}"
    used = ", ".join(f"{name} {version}" for name, version in versions.items())
    return "\n".join([*lines, "", f"{about}; {record['date']}; {used}.", ""])


def to_json(record: Mapping[str, Any]) -> str:
    """The whole record, all turns among it: what ``--compare`` reads."""
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"


_WRITERS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    ".json": to_json,
    ".csv": to_csv,
    ".md": to_markdown,
}
