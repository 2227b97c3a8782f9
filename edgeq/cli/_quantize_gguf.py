"""``edgeq quantize`` to GGUF: its options parsed, its result printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from edgeq.cli._output import print_facts, print_json, print_table, progress_bar, warn
from edgeq.cli._quantize_options import Given, OnNan
from edgeq.errors import UsageError
from edgeq.formats.effort import Effort

_Value = TypeVar("_Value")


def quantize(given: Given) -> None:
    """Run and print; raises EdgeqError, ends with exit code 3 where a budget is broken."""
    from edgeq.cli._evaluation import say_broken
    from edgeq.devices.cpu import usable_cores
    from edgeq.evaluation.apart import evaluate_apart
    from edgeq.evaluation.budget import read_budget
    from edgeq.kernels_cpu.threads import set_threads
    from edgeq.quantize import Request, run

    quant = given.quant if given.target is None else _for_target(given, given.target)
    out = _needed("--output", given.out)
    limits = read_budget(given.budget) if given.budget else None
    set_threads(given.threads or usable_cores())
    with progress_bar() as progress:
        request = Request(
            source=given.source,
            out=out,
            quant=_needed("--quant", quant),
            tensor_types=given.tensor_type or (),
            imatrix=given.imatrix,
            calibration=given.calibration,
            effort=given.effort or (Effort.best if given.calibration else Effort.normal),
            split_max_size=given.split_max_size,
            nan=(given.nan or OnNan.error).value,
            allow_requantize=given.allow_requantize,
            dry_run=given.dry_run,
            force=given.force,
            progress=progress,
            warn=warn,
        )
        record = run(request)
        if limits is not None:
            progress("checking the budget", 0, 1)
            made = Path(record["files"][0])
            found = evaluate_apart(made, given.source, given.calibration, None, given.threads)
            record |= {"measured": found, "broken": limits.broken(found)}
    if given.as_json:
        print_json(record)
    else:
        if given.dry_run:
            _print_plan(record)
        _print_facts(record, given.dry_run)
    say_broken(record.get("broken", ()))


def _needed(option: str, value: _Value | None) -> _Value:
    if value is None:
        raise UsageError(
            f"{option} is missing: to GGUF, `edgeq quantize SOURCE -o OUT -q Q4_K_M`, or --target DEVICE"
        )
    return value


def _for_target(given: Given, target: str) -> str:
    """The mix for a device."""
    from edgeq.cli._target import chosen
    from edgeq.formats.gguf.mixes import file_type
    from edgeq.options import parsed
    from edgeq.planning.formats import GGUF_QUANTS

    names = [parsed("--quant", given.quant, file_type).name] if given.quant else list(GGUF_QUANTS)
    found = chosen(
        target,
        given.source,
        {"gguf": names},
        to="gguf",
        quant=names[0] if given.quant else "",
        context=given.context,
        most_loss=given.most_loss,
    )
    return found.quant


def _print_facts(record: dict[str, Any], is_dry_run: bool) -> None:
    from edgeq.report.facts import megabytes

    rows = [
        ("source", f"{record['source']} ({record['architecture']}, {record['parameters']:,} parameters)"),
        (
            "quant",
            f"{record['quant']}, {record['bits_per_weight']:.2f} bits per weight, effort {record['effort']}",
        ),
    ]
    if is_dry_run:
        rows.append(("size", f"{megabytes(record['tensor_bytes'])} of tensors"))
    else:
        rows.append(("size", megabytes(record["written_bytes"])))
        rate = record["values_per_second"] / 1e6
        rows.append(("time", f"{record['seconds']:.1f} s, {rate:,.0f} million values a second"))
        rows += [("written", path) for path in record["files"]]
    print_facts(rows)


def _print_plan(record: dict[str, Any]) -> None:
    """The table of a dry run."""
    rows = [
        (
            t["name"],
            " × ".join(map(str, t["shape"])),
            t["stored_type"] or "",
            t["type_name"] + (f" (not {t['wanted_type']})" if t["type_name"] != t["wanted_type"] else ""),
            f"{t['nbytes']:,}",
            t["reason"],
        )
        for t in record["tensors"]
    ]
    print_table(("tensor", "shape", "from", "to", "bytes", "why"), rows, right=(4,))
    print()
