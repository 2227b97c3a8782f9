"""``edgeq plan``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeq.cli._options import no_nan
from edgeq.cli._output import JsonFlag, print_facts, print_json, print_table
from edgeq.cli.devices import device


class App(StrEnum):
    """What kind of program loads the file."""

    ios = "ios"
    android = "android"
    browser = "browser"
    desktop = "desktop"
    server = "server"


class Unit(StrEnum):
    """What multiplies."""

    auto = "auto"
    cpu = "cpu"
    gpu = "gpu"


def register(app: typer.Typer) -> None:
    app.command("plan")(plan)


def plan(
    model: Annotated[
        Path,
        typer.Argument(help="A config.json (no weights needed), a model directory, a GGUF or ONNX file."),
    ],
    target: Annotated[
        str,
        typer.Option(
            "--target", help="A device: see `edgeq devices list`; the name `this` is the machine at hand."
        ),
    ] = "this",
    profile: Annotated[Path | None, typer.Option(help="A profile of your own, instead of --target.")] = None,
    context: Annotated[
        int, typer.Option(min=0, help="Tokens of context; 0 is the model's own, at most 4096.")
    ] = 0,
    app: Annotated[
        App | None,
        typer.Option(
            help="The kind of program, which decides how much memory it gets; without it the device's first one. (The "
            "libraries that `edgeq export --app` lays files out for are something else.)"
        ),
    ] = None,
    unit: Annotated[
        Unit, typer.Option(help="CPU or GPU; auto takes the GPU where there is one.")
    ] = Unit.auto,
    memory: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            max=100_000,
            callback=no_nan,
            help="GB of memory, where the device is sold with several sizes.",
        ),
    ] = None,
    threads: Annotated[
        int, typer.Option("--threads", "-t", min=0, help="Threads; 0 as the profile says.")
    ] = 0,
    quant: Annotated[
        list[str] | None,
        typer.Option(help="Rank this format alone, as Q5_0 or int4; repeat it for several."),
    ] = None,
    most_loss: Annotated[
        float | None,
        typer.Option(
            min=0, callback=no_nan, help="The most KL divergence to float (1 - cosine of encoders) to accept."
        ),
    ] = None,
    least_speed: Annotated[
        float, typer.Option(min=0, callback=no_nan, help="The fewest tokens per second to accept.")
    ] = 0.0,
    evaluation: Annotated[
        Path | None,
        typer.Option(help="An edgeq.json with the model's own quality; without it one beside the model."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Rank the formats a model could have on a device: size, memory, predicted speed, expected quality.

    Exit code 3 where none can be had there, as `edgeq export --target` has it.

    **Examples**

    `edgeq plan path/to/config.json --target raspberry-pi-5`

    `edgeq plan model-Q4_K_M.gguf --target iphone-15-pro --app ios --context 8192`
    """
    from edgeq.devices.profile import with_memory
    from edgeq.plan import Request, run
    from edgeq.planning.formats import named_quants
    from edgeq.planning.nothing_fits import nothing_fits

    found = device(target, profile)
    request = Request(
        model=model,
        profile=found if memory is None else with_memory(found, memory),
        context=context,
        app=app.value if app else None,
        unit=unit.value,
        threads=threads,
        most_loss=most_loss,
        least_speed=least_speed,
        evaluation=evaluation,
        quants=named_quants(quant) if quant else None,
    )
    record = run(request)
    if as_json:
        print_json(record)
    else:
        _print(record)
    if record["choice"] is None:
        raise nothing_fits(record)


def _print(record: dict[str, Any]) -> None:
    model, device = record["model"], record["device"]
    quality = "KL" if model["kind"] == "decoder" else "1 - cosine"
    print_facts(
        [
            ("model", f"{model['name']} ({model['architecture']}, {model['parameters']:,} parameters)"),
            ("device", f"{device['name']}, {device['app']} app, {record['formats'][0]['unit']}"),
            ("memory", record["limit"]["why"]),
            ("context", f"{record['context']:,} tokens"),
        ]
    )
    print()
    both = any(len(row["speed_by_unit"]) > 1 for row in record["formats"])
    cpu = ("on CPU",) if both else ()
    header = ("", "format", "file GB", "memory GB", "read t/s", "generate t/s", *cpu, "range", quality, "why")
    print_table(
        header, [_row(row, both) for row in record["formats"]], right=(0, 2, 3, 4, 5, *(6 for _ in cpu))
    )
    print()
    print_facts(_choice(record))


def _row(row: dict[str, Any], both: bool) -> tuple[str, ...]:
    """``both``: with what the CPU generates alone, beside the GPU."""
    decode = row["speed"].get("decode")
    on_cpu = row["speed_by_unit"].get("cpu", {}).get("decode")
    shown = decode or row["speed"]["prefill"]
    loss = row["quality"]
    return (
        str(row["place"] or "-"),
        f"{row['format']} {row['quant']}",
        _gb(row["file_bytes"]),
        _gb(row["memory"]["total"]),
        f"{row['speed']['prefill']['tokens_per_second']:,.0f}",
        f"{decode['tokens_per_second']:,.1f}" if decode else "-",
        *([f"{on_cpu['tokens_per_second']:,.1f}" if on_cpu else "-"] if both else []),
        f"{shown['low']:,.1f} to {shown['high']:,.1f}",
        "?" if loss is None else f"{loss['value']:.2g}{'' if loss['measured'] else ' typical'}",
        row["reason"],
    )


def _gb(size: float) -> str:
    """GB with two decimals; of little models two digits that say something."""
    return f"{size / 1e9:.2f}" if size >= 0.1e9 else f"{size / 1e9:.2g}"


def _choice(record: dict[str, Any]) -> list[tuple[str, str]]:
    if record["choice"] is None:
        return [("choice", "none")]
    best = record["formats"][0]
    rows = [("choice", f"{record['choice']}: {best['reason']}"), ("runs in", best["runs_on"])]
    if best["n_gpu_layers"] is not None:
        rows.append(("n_gpu_layers", str(best["n_gpu_layers"])))
    if best["stored"]:
        return [*rows, ("make it", "it is this file")]
    return [*rows, ("make it", _command(Path(record["model"]["path"]), best["format"], best["quant"]))]


def _command(model: Path, target: str, quant: str) -> str:
    """What makes that format of the model; a config alone lacks the weights that must lie beside it."""
    if model.suffix == ".gguf":
        return f"edgeq quantize {model} --quant {quant} -o {model.stem}-{quant}.gguf"
    folder = model.parent if model.suffix == ".json" else model
    return f"edgeq export {folder} --to {target} --quant {quant}"
