"""``edgeq inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli._output import JsonFlag, print_facts, print_json, print_table


def register(app: typer.Typer) -> None:
    app.command("inspect")(inspect)


def inspect(
    model: Annotated[Path, typer.Argument(help="A GGUF file, an ONNX file, or a model directory.")],
    as_json: JsonFlag = False,
) -> None:
    """Show a model's tensors, types, sizes and metadata.

    **Example**

    `edgeq inspect out/model-Q4_K_M.gguf`
    """
    from edgeq.inspection import inspect_model, shortened
    from edgeq.report.facts import megabytes

    found = inspect_model(model)
    if as_json:
        print_json(found)
        return
    print_facts(
        [(key, shortened(value)) for key, value in found["metadata"].items()] or [("metadata", "none")]
    )
    print()
    rows = [
        (t["name"], t["type_name"], " × ".join(map(str, t["shape"])) or "scalar", f"{t['nbytes']:,}")
        for t in found["tensors"]
    ]
    print_table(("tensor", "type", "shape", "bytes"), rows, right=(3,))
    print()
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
