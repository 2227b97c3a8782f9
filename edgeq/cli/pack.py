"""``edgeq pack``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli._options import ForceOption
from edgeq.cli._output import JsonFlag, print_facts, print_json, warn


def register(app: typer.Typer) -> None:
    app.command("pack")(pack)


def pack(
    model: Annotated[Path, typer.Argument(help="A GGUF file (of shards any one), or an ONNX file.")],
    app: Annotated[
        list[str],
        typer.Option(
            "--app",
            help="The library that shall load it; may be repeated. ONNX: transformers.js, onnxruntime, "
            "onnxruntime-web, onnxruntime-react-native. GGUF: wllama, node-llama-cpp, llama.rn, ollama, lm-studio, "
            "edgeq.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where the apps' folders go; without it, beside the model."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What to call the model in file names; without it what its file says.")
    ] = None,
    force: ForceOption = False,
    as_json: JsonFlag = False,
) -> None:
    """Lay a model's files out as an app's library loads them, with a manifest of hashes, and check them.

    Each library gets a folder of its name. Files on the same disk are linked, not copied. What the library would not
    load is said, with exit code 3. `edgeq inspect FOLDER --app NAME` checks a folder again.

    **Examples**

    `edgeq pack out/model-Q4_K_M.gguf --app ollama --app wllama -o ship/`

    `edgeq pack out/model_int8.onnx --app transformers.js`
    """
    from edgeq.apps.pack import check_format, check_target, form_of, pack, recorded
    from edgeq.apps.registry import find
    from edgeq.errors import GateError

    folder, form = out or model.parent, form_of(model)
    layouts = [find(one) for one in dict.fromkeys(app)]
    for layout in layouts:
        check_format(layout, form)
        check_target(folder / layout.name, force)
    record = recorded(model)
    bundles = [pack(model, layout, folder, name=name, record=record, force=force) for layout in layouts]
    if as_json:
        print_json([bundle.record() for bundle in bundles])
    else:
        for bundle in bundles:
            size = sum(entry["bytes"] for entry in bundle.manifest["files"].values())
            needs = ", ".join(
                f"{package} {release}" for package, release in bundle.manifest["runtime"].items()
            )
            print_facts(
                [
                    ("folder", str(bundle.folder)),
                    ("load", bundle.manifest["main"]),
                    ("files", f"{len(bundle.manifest['files'])}, {size:,} bytes"),
                    ("needs", needs or "any release that knows the model"),
                ]
            )
    for bundle in bundles:
        for line in bundle.warnings():
            warn(f"{bundle.folder}: {line}")
    refused = [f"{bundle.folder}: {line}" for bundle in bundles for line in bundle.errors()]
    if refused:
        raise GateError("; ".join(refused))
