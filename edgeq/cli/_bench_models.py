"""``edgeq bench MODEL…``: the command of the group ``bench`` that needs no name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from edgeq.cli._options import Engine, EngineOption, ForceOption, no_nan
from edgeq.cli._output import JsonFlag, print_facts, print_json, print_table, progress_bar, warn

if TYPE_CHECKING:
    from edgeq.bench.compare import Comparison

NAME = "models"


class ModelsUnlessNamed(TyperGroup):
    """A group in which words that begin with no command's name are for ``models``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As click's, with the command's name put in front where it is left out."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [NAME, *args]
        return super().parse_args(ctx, args)


def models(
    model: Annotated[
        list[Path] | None,
        typer.Argument(help="GGUF files, ONNX files, model directories.", show_default=False),
    ] = None,
    engine: EngineOption = Engine.auto,
    threads: Annotated[
        str, typer.Option("--threads", "-t", help="Numbers of threads, such as 1,2,4; 0 is all cores.")
    ] = "0",
    prompt: Annotated[
        str, typer.Option(help="Tokens of a prompt (of an encoder's text), each measured.")
    ] = "128,512",
    gen: Annotated[
        int, typer.Option(min=0, max=65536, help="Tokens to generate after each prompt; 0 is none.")
    ] = 64,
    repeat: Annotated[
        int, typer.Option(min=1, max=10000, help="Turns that count, after one that warms up.")
    ] = 5,
    out: Annotated[
        list[Path] | None,
        typer.Option("--output", "-o", help="Write a .json, .csv or .md file; may be given several times."),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            help="Two .json results, the earlier first: what became slower or faster beyond the noise. "
            "Nothing is measured."
        ),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(
            min=0,
            max=10,
            callback=no_nan,
            help="With --compare: differences up to this share are never told.",
        ),
    ] = 0.03,
    fail_if_slower: Annotated[
        bool,
        typer.Option("--fail-if-slower", help="With --compare: exit code 3 where something became slower."),
    ] = False,
    pack: Annotated[
        Path | None,
        typer.Option(
            help="Write a zip that measures a device with Python, numpy and numba on it, and writes its profile. "
            "Nothing is measured here."
        ),
    ] = None,
    force: ForceOption = False,
    as_json: JsonFlag = False,
) -> None:
    """Time models on this machine: reading, generating, first token, load, memory; energy and heat where readable.

    Each combination is measured in a process of its own. The word `models` may be left out.

    **Examples**

    `edgeq bench models model-Q4_K_M.gguf --engine llama.cpp --threads 1,2,4 --prompt 128,512 -o result.json`

    `edgeq bench models --compare before.json after.json --fail-if-slower`

    `edgeq bench models --pack device-bench.zip`
    """
    from edgeq.errors import UsageError

    if compare is not None:
        if model or pack or out:
            raise UsageError("--compare goes with no models, --pack or -o: it reads two results")
        _compare(*compare, tolerance, fail_if_slower, as_json)
        return
    if fail_if_slower:
        raise UsageError("--fail-if-slower goes with --compare")
    if pack is not None:
        if model or out:
            raise UsageError("--pack goes with no models and no -o: the zip is given a model where it runs")
        _pack(pack, force, as_json)
        return
    if not model:
        raise UsageError("give a model to measure, or --compare, or --pack")
    _measure(model, engine, (threads, prompt), (gen, repeat), out or [], force, as_json)


def _measure(
    paths: list[Path],
    engine: Engine,
    lists: tuple[str, str],
    numbers: tuple[int, int],
    out: list[Path],
    force: bool,
    as_json: bool,
) -> None:
    from edgeq.bench import models as measuring
    from edgeq.bench import tables
    from edgeq.devices.cpu import usable_cores
    from edgeq.errors import EdgeqError
    from edgeq.formats.atomic import check_output, write_text

    threads, prompts = _counts("--threads", lists[0], 0, 1024), _counts("--prompt", lists[1], 1, 1 << 20)
    for path in out:
        tables.check_suffix(path)
        check_output(path, force=force)
    with progress_bar() as progress:
        options = measuring.Options(
            models=paths,
            engine=engine.value,
            threads=[count or usable_cores() for count in threads],
            prompts=prompts,
            gen=numbers[0],
            repeat=numbers[1],
            progress=progress,
        )
        record = measuring.run(options)
    for path in out:
        write_text(path, tables.text_of(path, record), force=force)
    for note in dict.fromkeys(
        note for one in record["results"] for note in (one["measured"] or {}).get("notes", ())
    ):
        warn(note)
    failed = [result["error"] for result in record["results"] if result["error"]]
    if as_json:
        print_json(record)
    elif len(failed) < len(record["results"]):
        heading, rows = tables.table(record)
        print_table(heading, rows, right=range(2, len(heading)))
        print()
        busy = record["machine"]["load_average"]
        print_facts(
            [
                ("machine", record["machine"]["name"]),
                ("load average", "unknown" if busy is None else f"{busy[0]:.1f}"),
                ("written", ", ".join(map(str, out)) or "nothing; -o FILE.json, .csv or .md"),
            ]
        )
    if failed:
        raise EdgeqError(f"{len(failed)} of {len(record['results'])} failed; the first: {failed[0]}")


def _compare(before: Path, after: Path, tolerance: float, fail_if_slower: bool, as_json: bool) -> None:
    from dataclasses import asdict

    from edgeq.bench.compare import busy_with, compare
    from edgeq.bench.models import read_record
    from edgeq.errors import GateError

    old, new = read_record(before), read_record(after)
    if old["machine"]["name"] != new["machine"]["name"]:
        warn(f"two machines: {old['machine']['name']} and {new['machine']['name']}")
    for path, record in ((before, old), (after, new)):
        if busy := busy_with(record["machine"]):
            warn(f"{path}: measured on a busy machine ({busy}), so it may be slow for no reason of its own")
    found = compare(old, new, tolerance)
    if as_json:
        print_json([asdict(one) | {"ratio": one.ratio} for one in found])
    else:
        _print_comparison(found)
    slower = [one for one in found if one.verdict == "slower"]
    if slower and fail_if_slower:
        worst = max(slower, key=lambda one: one.ratio)
        raise GateError(
            f"{len(slower)} of {len(found)} figures became slower; the worst: {worst.figure} of {worst.key[0]} in "
            f"{worst.key[1]} takes {worst.ratio:.2f} times as long"
        )


def _print_comparison(found: list[Comparison]) -> None:
    rows = []
    for one in found:
        times, unit = (1e-6, "MB") if one.figure == "peak_memory" else (1.0, "s")
        what = (*map(str, one.key[:4]), one.figure)
        values = [f"{value * times:,.4g} {unit}" for value in (one.before, one.after)]
        chance = "" if one.chance is None else f"{one.chance:.3f}"
        rows.append(
            (*what, *values, f"{one.ratio:.3f}", chance, "" if one.verdict == "told" else one.verdict)
        )
    header = ("model", "engine", "threads", "prompt", "figure", "before", "after", "ratio", "by chance", "")
    print_table(header, rows, right=(2, 3, 5, 6, 7, 8))


def _pack(path: Path, force: bool, as_json: bool) -> None:
    from edgeq.bench.pack import write_pack

    files = write_pack(path, force=force)
    if as_json:
        print_json({"file": str(path), "files": files, "bytes": path.stat().st_size})
        return
    print_facts(
        [
            ("written", f"{path} ({path.stat().st_size / 1e6:.1f} MB)"),
            ("on the device", f"pip install numpy numba && python {path.name} -o device.toml"),
            ("then", "edgeq plan MODEL --profile device.toml"),
        ]
    )


def _counts(option: str, text: str, least: int, most: int) -> list[int]:
    from edgeq.errors import UsageError

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and least <= int(part) <= most for part in parts):
        raise UsageError(f"{option} {text}: must be numbers from {least} to {most}, such as 1,2,4")
    return [int(part) for part in dict.fromkeys(parts)]
