"""What the commands share: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from edgeq.export import Progress

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]


def print_json(value: object) -> None:
    """A JSON document on stdout; bytes that are no UTF-8 are escaped."""
    print(json.dumps(_strict(value), indent=2, allow_nan=False))


def _strict(value: Any) -> Any:
    """NaN and infinity, which JSON does not have, as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    return [_strict(item) for item in value] if isinstance(value, list | tuple) else value


def print_facts(rows: Sequence[tuple[str, str]]) -> None:
    """Aligned label and value lines on stdout."""
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        print(f"{label:<{width}}  {printable(value)}")


def print_table(header: Sequence[str], rows: Sequence[Sequence[Any]], right: Sequence[int] = ()) -> None:
    """A table on stdout; columns in ``right`` are aligned to the right."""
    cells = [list(header), *([printable(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    for row in cells:
        parts = (
            f"{c:>{w}}" if i in right else f"{c:<{w}}"
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join(parts).rstrip())


def printable(text: str) -> str:
    """Text from a file made safe for a terminal: control characters and broken UTF-8 are escaped."""
    safe = "".join(
        c if c.isprintable() or c == "\u2581" else c.encode("unicode_escape").decode() for c in text
    )
    return safe.encode(errors="backslashreplace").decode()


def warn(message: str) -> None:
    """A line on stderr."""
    print(f"edgeq: {printable(message)}", file=sys.stderr)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A progress callback (stage, done, total); draws on a terminal's stderr what takes over two seconds."""
    if not sys.stderr.isatty():
        yield lambda stage, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    tasks: dict[str, Any] = {}
    started = time.monotonic()

    def update(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            for other in tasks.values():
                bar.update(other, visible=False)
            tasks[stage] = bar.add_task(stage, total=total)
        bar.update(tasks[stage], completed=done, total=total)
        if not bar.live.is_started and time.monotonic() - started > 2:
            bar.start()

    try:
        yield update
    finally:
        bar.stop()
