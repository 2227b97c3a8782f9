"""``edgeq bench``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from edgeq.cli import _bench_models
from edgeq.cli._effort import EffortOption
from edgeq.cli._options import ThreadsOption
from edgeq.cli._output import JsonFlag, print_json, print_table, warn
from edgeq.formats.effort import Effort


def register(app: typer.Typer) -> None:
    bench = typer.Typer(
        cls=_bench_models.ModelsUnlessNamed,
        help="Time models on this machine (`edgeq bench MODEL…`), or edgeq's kernels beside their peers.",
        no_args_is_help=True,
    )
    bench.command(_bench_models.NAME)(_bench_models.models)
    bench.command("codecs")(codecs)
    bench.command("kernels")(kernels)
    app.add_typer(bench, name="bench")


def codecs(
    types: Annotated[
        str, typer.Option(help="Block types, such as Q4_K,Q6_K; all that edgeq has without it.")
    ] = "",
    rows: Annotated[int, typer.Option(min=1, help="Rows of the matrix of Gaussian values.")] = 1024,
    columns: Annotated[int, typer.Option(min=1, help="Its columns.")] = 2048,
    importance: Annotated[
        bool, typer.Option("--importance", help="Encode under a random importance matrix.")
    ] = False,
    effort: EffortOption = Effort.ggml,
    threads: ThreadsOption = 0,
    repeats: Annotated[int, typer.Option(min=1, help="Turns that each side takes; medians count.")] = 5,
    as_json: JsonFlag = False,
) -> None:
    """Encoders and decoders of GGUF's block types: speed and error beside ggml's, on as many threads.

    The sides take turns. Without llama-cpp-python, encoding has no peer; decoding has writing floats to memory.

    **Example**

    `edgeq bench codecs --types Q4_K,Q6_K --effort normal`
    """
    from edgeq.bench.codecs import Options, measure
    from edgeq.devices.cpu import usable_cores
    from edgeq.devices.detect import instruction_set
    from edgeq.kernels_cpu.threads import get_threads, set_threads
    from edgeq.runtimes import ggml

    set_threads(threads or usable_cores())
    if ggml.library() is None:
        warn("llama-cpp-python is not installed: encoding is timed without a peer")
    figures = list(measure(Options(_known(types), rows, columns, importance, effort, repeats)))
    if as_json:
        conditions = {"threads": get_threads(), "instruction_set": instruction_set().name}
        asked = {"rows": rows, "columns": columns, "importance": importance, "effort": effort.value}
        print_json({**conditions, **asked, "figures": [asdict(f) for f in figures]})
        return
    cells = [
        (
            f.type_name,
            f.operation,
            f"{f.rate:.0f}",
            "-" if f.peer_rate is None else f"{f.peer_rate:.0f}",
            "-" if f.ratio is None else f"{f.ratio:.2f}",
            f.peer,
            "" if f.error is None else f"{f.error:.4f}",
            "" if f.same_bytes is None else ("yes" if f.same_bytes else "no"),
        )
        for f in figures
    ]
    print(f"million values a second, {get_threads()} threads, {instruction_set().name}")
    header = ("type", "operation", "edgeq", "peer", "ratio", "peer is", "error / peer's", "same bytes")
    print_table(header, cells, right=(2, 3, 4, 6))


def kernels(
    types: Annotated[
        str,
        typer.Option(help="Types, such as Q4_K,Q8_0,int4x32 (MatMulNBits, blocks of 32); all without it."),
    ] = "",
    rows: Annotated[str, typer.Option(help="Rows of activations, each measured.")] = "1,8,32,256",
    threads: ThreadsOption = 0,
    seconds: Annotated[float, typer.Option(min=0.1, help="Time spent on each line.")] = 3.0,
    as_json: JsonFlag = False,
) -> None:
    """Products with packed weights: GB/s for one row, GOPS for more, beside this machine's limit and a peer.

    The limit is reading memory for one row, else int8 arithmetic on registers; the peer is ggml's vec_dot or, for
    int4, ONNX Runtime's MatMulNBits. All take turns, so other load falls on all.

    **Example**

    `edgeq bench kernels --types Q4_K,Q8_0 --rows 1,256`
    """
    from edgeq.bench.kernels import TYPES, Options, measure
    from edgeq.devices.cpu import usable_cores
    from edgeq.devices.detect import instruction_set
    from edgeq.kernels_cpu.threads import get_threads, set_threads
    from edgeq.runtimes import ggml

    names = _one_of(types, TYPES) or TYPES
    counts = _counts(rows)
    set_threads(threads or usable_cores())
    if ggml.library() is None:
        warn("llama-cpp-python is not installed: GGUF's types are timed without a peer")
    figures = list(measure(Options(names, counts, seconds)))
    if as_json:
        conditions = {"threads": get_threads(), "instruction_set": instruction_set().name}
        print_json({**conditions, "figures": [asdict(f) for f in figures]})
        return
    cells = [
        (
            f.type_name,
            str(f.rows),
            f"{f.ours:.1f}",
            f"{f.limit:.1f}",
            "-" if f.peer is None else f"{f.peer:.1f}",
            f.unit,
            f"{f.of_limit:.2f}",
            "-" if f.of_peer is None else f"{f.of_peer:.2f}",
        )
        for f in figures
    ]
    print(f"{get_threads()} threads, {instruction_set().name}; medians of ratios of neighbouring turns")
    header = ("type", "rows", "edgeq", "limit", "peer", "", "of limit", "of peer")
    print_table(header, cells, right=(1, 2, 3, 4, 6, 7))


def _one_of(text: str, names: Sequence[str]) -> list[str]:
    from edgeq.errors import UsageError

    by_lower = {name.lower(): name for name in names}
    wanted = [part.strip().lower() for part in text.split(",") if part.strip()]
    for name in wanted:
        if name not in by_lower:
            raise UsageError(f"--types {name}: has no integer product; there are {', '.join(names)}")
    return [by_lower[name] for name in wanted]


def _counts(text: str) -> list[int]:
    from edgeq.errors import UsageError

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 0 < int(part) <= 4096 for part in parts):
        raise UsageError(f"--rows {text}: must be numbers from 1 to 4096, such as 1,32,256")
    return [int(part) for part in parts]


def _known(types: str) -> list[str]:
    from edgeq.formats.blocks import by_name
    from edgeq.options import parsed

    names = [part.strip() for part in types.split(",") if part.strip()]
    return [parsed("--types", name, by_name).name for name in names]
