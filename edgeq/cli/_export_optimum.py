"""``edgeq export --exporter optimum``: its options checked, its result printed."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from edgeq.cli._output import print_facts, print_json, progress_bar, warn
from edgeq.errors import GateError, UsageError


class Exporter(StrEnum):
    """Who makes the float graph."""

    edgeq = "edgeq"
    optimum = "optimum"


def export(
    model: Path,
    out: Path,
    options: Mapping[str, Any],
    others: Mapping[str, Any],
    *,
    as_json: bool,
) -> None:
    """Run and print; raises UsageError for options of edgeq's own exporter, GateError where a gate said no."""
    from edgeq.optimum import Request, run
    from edgeq.report.facts import facts

    for option, value in others.items():
        if value:
            raise UsageError(f"{option} does not go with --exporter optimum")
    with progress_bar() as progress:
        records = run(Request(model=model, out=out, progress=progress, warn=warn, **options))
    if as_json:
        print_json({"exports": records, "files": sorted(str(path) for path in out.iterdir())})
    for record in [] if as_json else records:
        print_facts([*facts(record), ("written", record["files"][0])])
        print()
    if not records and not as_json:
        print_facts([("written", str(path)) for path in sorted(out.iterdir())])
    gates = [gate for record in records for gate in record["gates"]]
    if gates:
        raise GateError("; ".join(gates))
