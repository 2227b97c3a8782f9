"""``edgeq export --exporter optimum``: its options checked, its result printed."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from edgeq.cli._output import print_facts, print_json, progress_bar, warn
from edgeq.errors import GateError, UsageError

if TYPE_CHECKING:
    from edgeq.cli._export_options import Choice


class Exporter(StrEnum):
    """Who makes the float graph."""

    edgeq = "edgeq"
    optimum = "optimum"


# Options of edgeq's own exporter; optimum's graphs know nothing of them.
_OWN = ("--target", "--percentile", "--dialect", "--asymmetric", "--accuracy-level", "--tied-bits", "--external-from",
        "--app", "--effort", "--budget", "--max-size", "--target-bpw", "--max-kl",
        "--min-cosine")  # fmt: skip


def export_by_optimum(choice: Choice, model: Path, out: Path) -> None:
    """Run and print; raises UsageError for options of edgeq's own exporter, GateError where a gate said no."""
    from edgeq.optimum import Request, run
    from edgeq.report.facts import facts

    given = choice.given
    for option in _OWN:
        if given.of(option) is not None:
            raise UsageError(f"{option} does not go with --exporter optimum")
    with progress_bar() as progress:
        request = Request(
            model=model,
            out=out,
            quant=choice.quant,
            python=given.exporter_python,
            calibration=given.calibration,
            block_size=given.block_size,
            full_range=given.full_range,
            proof=given.proof,
            force=given.force,
            threads=given.threads,
            progress=progress,
            warn=warn,
        )
        records = run(request)
    if given.as_json:
        print_json({"exports": records, "files": sorted(str(path) for path in out.iterdir())})
    for record in [] if given.as_json else records:
        print_facts([*facts(record), ("written", record["files"][0])])
        print()
    if not records and not given.as_json:
        print_facts([("written", str(path)) for path in sorted(out.iterdir())])
    gates = [gate for record in records for gate in record["gates"]]
    if gates:
        raise GateError("; ".join(gates))
