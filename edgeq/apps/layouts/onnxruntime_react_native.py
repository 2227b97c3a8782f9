"""onnxruntime-react-native: one ``.ort`` file (ONNX Runtime's own format) and the manifest of its inputs and outputs.

Source: onnxruntime-react-native's README (``InferenceSession.create`` takes a path or a buffer); ORT format holds
everything in one file of at most 2 GB, and every build reads it, the small mobile ones too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgeq.apps.manifest import NAME, read_manifest
from edgeq.apps.onnx_model import TESTED_RUNTIME, ONNXModel
from edgeq.apps.place import place
from edgeq.apps.registry import ONNXLayout, layout
from edgeq.errors import EdgeqError, FormatError, InputError
from edgeq.inspection.findings import Finding, error
from edgeq.runtimes.ort_format import convert

_MOST_BYTES = 2**31 - 1


@layout
class ONNXRuntimeReactNative(ONNXLayout):
    """``NAME.ort``; the tokenizer files where there are any."""

    name = "onnxruntime-react-native"

    def pack(self, model: ONNXModel, folder: Path) -> str:
        main = f"{model.name}.ort"
        if model.precision == "bfloat16":
            raise InputError(
                f"{model.path}: has bfloat16 weights, which phones' ONNX Runtime does not compute with"
            )
        # Pairs that ARM multiplies as int8 stay pairs (tools/convert_onnx_models_to_ort.py, --target_platform arm).
        convert(model.path, folder / main, {"session.qdqisint8allowed": "1"})
        for name, path in model.companions.items():
            place(path, folder / name)
        return main

    def runtime(self, model: ONNXModel) -> dict[str, str]:
        return {"onnxruntime-react-native": f"{TESTED_RUNTIME}.0"}  # ORT format alone wants 1.16

    def lint(self, folder: Path) -> Iterator[Finding]:
        from edgeq.runtimes.onnxruntime import OnnxSession

        paths = sorted((*folder.glob("*.ort"), *folder.glob("*.onnx")))
        if not paths:
            yield error(
                ".", "holds no .ort file", "edgeq pack MODEL.onnx --app onnxruntime-react-native makes one"
            )
        for path in paths:
            if path.stat().st_size > _MOST_BYTES:
                yield error(
                    path.name, "is larger than the 2 GB of one buffer", "take fewer bits or a smaller model"
                )
                continue
            try:
                session = OnnxSession(path)
            except EdgeqError as refusal:
                yield error(path.name, str(refusal).removeprefix(f"{path}: "), "pack it again")
                continue
            yield from _described(folder, path.name, list(session.inputs), session.outputs)


def _described(folder: Path, where: str, inputs: list[str], outputs: list[str]) -> Iterator[Finding]:
    """The manifest must tell the app the graph's own inputs and outputs."""
    try:
        manifest = read_manifest(folder)
    except FormatError:
        yield error(NAME, "does not say the graph's inputs and outputs", "pack it again")
        return
    for key, names in (("inputs", inputs), ("outputs", outputs)):
        listed = manifest.get(key)
        said = (
            [one.get("name") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
        )
        if said != names:
            yield error(NAME, f"says other {key} than {where} has: {', '.join(names)}", "pack it again")
