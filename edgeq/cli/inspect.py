"""``edgeq inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgeq.cli._output import JsonFlag, print_facts, print_json, print_table, progress_bar


def register(app: typer.Typer) -> None:
    app.command("inspect")(inspect)


def inspect(
    model: Annotated[
        Path,
        typer.Argument(help="A GGUF file, an ONNX file, a model directory, or with --app a folder to ship."),
    ],
    sha256: Annotated[
        bool, typer.Option("--sha256", help="GGUF: the SHA-256 of every tensor's bytes.")
    ] = False,
    diff: Annotated[
        Path | None,
        typer.Option(
            help="GGUF: what another file has otherwise: metadata, tensors, and the error of each tensor's values."
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="GGUF: look for what is wrong with the file; exit code 1 when there is an error.",
        ),
    ] = False,
    lint: Annotated[
        bool,
        typer.Option("--lint", help="ONNX: what will run slowly, wrongly or not at all, and how to mend it."),
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="With --lint: exit code 3 when it finds an error or a warning.")
    ] = False,
    ort_version: Annotated[
        str | None, typer.Option(help="With --lint: the ONNX Runtime that will run it, such as 1.17.")
    ] = None,
    app: Annotated[
        str | None,
        typer.Option(
            help="What of the folder a library would not load (transformers.js, wllama, ollama … as `edgeq pack` has "
            "them), and whether the files are those of its manifest; exit code 3 when there is an error."
        ),
    ] = None,
    operators: Annotated[
        Path | None,
        typer.Option(
            help="With --lint: the list of operators (.required_operators.config) that the mobile build was made with; "
            "what the file needs beyond it is found."
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show a model's tensors, types, sizes and metadata; hash, compare or check a GGUF file; lint an ONNX file.

    **Examples**

    `edgeq inspect out/model-Q4_K_M.gguf`

    `edgeq inspect out/model-Q4_K_M.gguf --sha256 --json`

    `edgeq inspect out/model-F16.gguf --diff out/model-Q4_K_M.gguf`

    `edgeq inspect out/model-Q4_K_M.gguf --check`

    `edgeq inspect out/model_int8.onnx --lint --ort-version 1.17`

    `edgeq inspect out/transformers.js --app transformers.js`
    """
    if app is not None:
        from edgeq.cli._inspect_app import show_app

        others = {"--sha256": sha256, "--diff": diff, "--check": check, "--lint": lint, "--strict": strict}
        show_app(model, app, others | {"--ort-version": ort_version}, as_json)
        return
    from edgeq.cli import _inspect_onnx as onnx

    if lint or strict or ort_version is not None or operators is not None:
        gguf = {"--sha256": sha256, "--diff": diff is not None, "--check": check}
        onnx.show_lint(model, gguf, lint, strict, ort_version, operators, as_json)
        return
    from edgeq.cli import _inspect_gguf as toolbox

    toolbox.only_for_gguf({"--sha256": sha256, "--diff": diff is not None, "--check": check}, model, diff)
    if diff is not None:
        toolbox.show_diff(model, diff, as_json)
    elif check:
        toolbox.show_check(model, as_json)
    else:
        _show(model, sha256, as_json)


def _show(model: Path, sha256: bool, as_json: bool) -> None:
    from edgeq.inspection import inspect_model, shortened

    found = inspect_model(model)
    if sha256:
        from edgeq.inspection.hashes import tensor_hashes

        with progress_bar() as progress:
            hashes = tensor_hashes(model, progress)
        for tensor in found["tensors"]:
            tensor["sha256"] = hashes[tensor["name"]]
    if as_json:
        print_json(found)
        return
    print_facts(
        [(key, shortened(value)) for key, value in found["metadata"].items()] or [("metadata", "none")]
    )
    print()
    _print_tensors(found["tensors"])
    print()
    _print_totals(found)


def _print_tensors(tensors: list[dict[str, Any]]) -> None:
    hashed = bool(tensors) and "sha256" in tensors[0]
    rows = [
        (
            t["name"],
            t["type_name"],
            " × ".join(map(str, t["shape"])) or "scalar",
            f"{t['nbytes']:,}",
            *([t["sha256"]] if hashed else []),
        )
        for t in tensors
    ]
    print_table(("tensor", "type", "shape", "bytes", *(["sha256"] if hashed else [])), rows, right=(3,))


def _print_totals(found: dict[str, Any]) -> None:
    from edgeq.report.facts import megabytes

    total = sum(size for _, size in found["by_type"].values())
    rows = [
        (name, str(count), megabytes(size), f"{size / max(total, 1):.1%}")
        for name, (count, size) in found["by_type"].items()
    ]
    print_table(("type", "tensors", "size", "share"), rows, right=(1, 2, 3))
    print()
    print_facts(
        [("file", f"{found['file']}, {found['bytes']:,} bytes"), ("parameters", f"{found['parameters']:,}")]
    )
