"""What ``edgeq eval`` prints, and how broken limits are told."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from edgeq.cli._output import printable

if TYPE_CHECKING:
    from rich.table import Table


def print_evaluation(record: Mapping[str, Any], written: Sequence[Path]) -> None:
    """The record as tables on stdout."""
    from rich.console import Console

    from edgeq.report.evaluation import layer_columns, layer_rows, measured_rows, slice_rows

    console = Console(highlight=False)
    about = f"{record['file']} in {record['runtime']}"
    if record.get("reference"):
        about += f", beside {record['reference']}"
    console.print(printable(about), soft_wrap=True)
    console.print(_table(("what", "value", "±"), measured_rows(record), right=(1, 2)))
    if record.get("slices"):
        header = ("tokens of", "count", "KL", "±", "same top")
        console.print("Where it loses", _table(header, slice_rows(record), right=(1, 2, 3, 4)))
    if record.get("layers"):
        columns = layer_columns(record)
        console.print("Tensors, the worst first", _table(columns, layer_rows(record), right=(2, 3, 4, 5, 6)))
    for path in written:
        console.print(f"written  {printable(str(path))}", soft_wrap=True)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(header):
        # Only the second column may hold something long: the path of a text.
        table.add_column(name, justify="right" if i in right else "left", no_wrap=i != 1, overflow="fold")
    for row in rows:
        table.add_row(*map(printable, row))
    return table


def say_broken(lines: Sequence[str]) -> None:
    """One line on stderr for every broken limit, and exit code 3; nothing without any."""
    for line in lines:
        print(f"edgeq: gate: {printable(line)}", file=sys.stderr)
    if lines:
        raise typer.Exit(3)
