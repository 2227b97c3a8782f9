"""``edgeq export`` from its checked options to what it prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgeq.cli._dialect import Dialect
from edgeq.cli._export_optimum import Exporter, export_by_optimum
from edgeq.cli._export_options import Choice, Given, choose
from edgeq.cli._output import print_facts, print_json, progress_bar, warn

if TYPE_CHECKING:
    from edgeq.evaluation.budget import Budget
    from edgeq.export import Progress, Request, Result

_NOTES = 4  # of the report's, that are printed


def run_export(given: Given) -> None:
    """Export and print; raises EdgeqError, GateError where a gate said no."""
    from edgeq.cli._evaluation import say_broken
    from edgeq.errors import GateError
    from edgeq.evaluation.budget import read_budget
    from edgeq.export import run
    from edgeq.hub import model_name, resolve

    choice = choose(given)
    limits = read_budget(given.budget) if given.budget else None
    folder = resolve(given.model)
    out = given.out or Path(f"{model_name(folder)}-edgeq")
    if given.exporter is Exporter.optimum:
        export_by_optimum(choice, folder, out)
        return
    with progress_bar() as progress:
        request = _request(choice, folder, out, progress)
        result = run(request)
        broken = [] if limits is None else _broken(limits, request, result)
    if given.as_json:
        print_json(result.record)
    else:
        _print(result)
    say_broken(broken)
    if result.refused:
        raise GateError("; ".join(result.refused))


def _request(choice: Choice, folder: Path, out: Path, progress: Progress) -> Request:
    from edgeq.export import Request
    from edgeq.formats.effort import Effort

    given = choice.given
    return Request(
        model=folder,
        to=choice.to.value,
        quant=choice.quant,
        out=out,
        calibration=given.calibration,
        percentile=given.percentile,
        full_range=given.full_range,
        dialect=(given.dialect or Dialect.standard).value,
        block_size=given.block_size or 32,
        symmetric=not given.asymmetric,
        accuracy_level=choice.accuracy_level,
        tied_bits=given.tied_bits or 8,
        external_from=given.external_from,
        effort=given.effort or Effort.normal,
        imatrix=given.imatrix,
        method=None if given.method is None else given.method.value,
        tensor_types=given.tensor_type or (),
        apps=given.app or (),
        proof=given.proof,
        force=given.force,
        threads=given.threads,
        target=choice.settings,
        wanted=choice.wanted,
        progress=progress,
        warn=warn,
    )


def _broken(limits: Budget, request: Request, result: Result) -> list[str]:
    """A line for each limit that the file breaks, which its record and its bundles' manifests keep."""
    from edgeq.apps.manifest import note_gates
    from edgeq.evaluation.apart import evaluate_apart

    request.progress("checking the budget", 0, 1)
    measured = evaluate_apart(
        result.path, request.model, request.calibration, result.path.parent, request.threads
    )
    broken = result.record["broken"] = limits.broken(measured)
    for bundle in result.record.get("apps", ()):
        bundle["gates"] = broken
        note_gates(Path(bundle["folder"]), broken)
    return broken


def _print(result: Result) -> None:
    from edgeq.report.facts import facts

    for note in result.record["notes"][:_NOTES]:
        warn(note)
    print_facts([*facts(result.record), *(("written", str(path)) for path in result.files)])
