"""``edgeq gate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli._options import no_nan
from edgeq.cli._output import JsonFlag, print_json
from edgeq.wording import counted


def register(app: typer.Typer) -> None:
    app.command("gate")(gate)


def gate(
    out: Annotated[
        Path, typer.Argument(help="A folder that `edgeq eval --output` wrote to, or its edgeq.json.")
    ],
    baseline: Annotated[
        Path | None,
        typer.Option(
            help="An earlier edgeq.json (or its folder): nothing may be worse than there by more than chance."
        ),
    ] = None,
    budget: Annotated[
        Path | None, typer.Option(help="A budget.toml of limits that every file must keep.")
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(
            min=0,
            max=10,
            callback=no_nan,
            help="How much slower the median token may be, beyond what its spread explains.",
        ),
    ] = 0.05,
    as_json: JsonFlag = False,
) -> None:
    """Check measurements against a budget and against earlier ones: exit code 3 and one line for each thing broken.

    **Examples**

    `edgeq gate out/ --baseline main/edgeq.json`

    `edgeq gate out/ --budget budget.toml`
    """
    from edgeq.cli._evaluation import say_broken
    from edgeq.errors import InputError, UsageError
    from edgeq.evaluation.budget import read_budget
    from edgeq.evaluation.gates import regressions
    from edgeq.report.files import JSON_NAME, read_evaluations

    if baseline is None and budget is None:
        raise UsageError("give --baseline, --budget or both")

    def read(path: Path) -> list[dict[str, object]]:
        file = path / JSON_NAME if path.is_dir() else path
        if not file.exists():
            raise InputError(f"{file}: no such file")
        found = read_evaluations(file)
        if not found:
            raise InputError(f"{file}: has no evaluations; edgeq eval --output writes them")
        return found

    records = read(out)
    limits = read_budget(budget) if budget else None
    broken = [line for record in records for line in (limits.broken(record) if limits else [])]
    if baseline is not None:
        broken += regressions(records, read(baseline), tolerance)
    if as_json:
        print_json({"checked": len(records), "broken": broken})
    elif not broken:
        keep = "keeps" if len(records) == 1 else "keep"
        print(f"{counted(len(records), 'measurement')} {keep} what was asked")
    say_broken(broken)
