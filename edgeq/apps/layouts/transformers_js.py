"""transformers.js: a model directory with the graph at ``onnx/model{suffix}.onnx``, the suffix said by its dtype.

Sources, @huggingface/transformers 4.3.1: ``DEFAULT_DTYPE_SUFFIX_MAPPING`` in src/utils/dtypes.js, ``getModelDataFiles``
in src/models/session.js (external data ``{file}_data``, ``{file}_data_1`` …), ``transformers.js_config`` in
src/configs.js, the model types of src/models/registry.js and ``getNormalizedConfig``, ``getCacheShapes`` in configs.js.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

from edgeq.apps.for_transformers_js import BATCH, adapt, unnamed_caches
from edgeq.apps.onnx_lint import onnx_findings, unused_data
from edgeq.apps.onnx_model import ONNXModel, least_runtime
from edgeq.apps.place import place
from edgeq.apps.registry import ONNXLayout, layout
from edgeq.apps.relocate import place_graph
from edgeq.errors import FormatError, InputError
from edgeq.formats.atomic import write_json
from edgeq.formats.onnx.passes.plain_gather import OPERATOR
from edgeq.formats.onnx.save import save_model
from edgeq.inspection.findings import Finding, error, warning
from edgeq.json_files import read_json

# What the weights are → (dtype in its options, suffix of the file). On WebAssembly q8 is what it asks for by itself.
DTYPES = {
    "float32": ("fp32", ""), "float16": ("fp16", "_fp16"), "q8": ("q8", "_quantized"), "q4": ("q4", "_q4"),
    "q4f16": ("q4f16", "_q4f16"), "q2": ("q2", "_q2"), "bnb4": ("bnb4", "_bnb4"),
}  # fmt: skip
SUFFIXES = {suffix: dtype for dtype, suffix in DTYPES.values()} | {
    "_int8": "int8", "_uint8": "uint8", "_q1": "q1", "_q1f16": "q1f16", "_q2f16": "q2f16",
}  # fmt: skip
_SETTINGS, _EXTERNAL = "transformers.js_config", "use_external_data_format"
# The releases and the onnxruntime-web that each of them brings (dependencies in their package.json).
_RELEASES = (((1, 20), "3.0.0"), ((1, 21), "3.3.0"), ((1, 22), "3.5.0"), ((1, 25), "4.0.0"))
_NEWEST = "4.3.1"
_TEXT_INPUT = "input_ids"
# Model types that edgeq exports and that its registry does not have: AutoModel refuses or guesses.
_UNKNOWN_TYPES = ("mixtral",)


@layout
class TransformersJS(ONNXLayout):
    """config.json and the tokenizer at the root, the graph and its data in ``onnx/``."""

    name = "transformers.js"
    tested = {"@huggingface/transformers": _NEWEST}  # noqa: RUF012

    def pack(self, model: ONNXModel, folder: Path) -> str:
        if model.precision not in DTYPES:
            raise InputError(
                f"{model.path}: has {model.precision} weights, for which transformers.js has no name"
            )
        dtype, suffix = DTYPES[model.precision]
        main = f"onnx/model{suffix}.onnx"
        chunks = _write(model, folder / main)
        for name, path in model.companions.items():
            if name != "config.json":
                place(path, folder / name)
        config = read_json(model.companions["config.json"], dict) if "config.json" in model.companions else {}
        settings = {"dtype": dtype} | ({_EXTERNAL: {Path(main).name: chunks}} if chunks else {})
        write_json(folder / "config.json", config | {_SETTINGS: settings}, force=False)
        return main

    def runtime(self, model: ONNXModel) -> dict[str, str]:
        least = tuple(map(int, least_runtime(model.graph).split(".")[:2]))
        found = next((release for brings, release in _RELEASES if brings >= least), _NEWEST)
        return {"@huggingface/transformers": found}

    def lint(self, folder: Path) -> Iterator[Finding]:
        config = yield from _config(folder)
        graphs = sorted((folder / "onnx").glob("*.onnx"))
        if not graphs:
            yield error(
                "onnx",
                "holds no ONNX graph",
                "put the graph there, as onnx/model.onnx or model_quantized.onnx",
            )
        for path in sorted(folder.glob("*.onnx")):
            yield warning(
                path.name,
                "lies at the root, where transformers.js does not look",
                f"move it to onnx/{path.name}",
            )
        models: list[ONNXModel] = []

        def rule(where: str, model: ONNXModel) -> Iterator[Finding]:
            models.append(model)
            yield from _name(where, model)
            yield from _external(where, model, config)
            yield from _inputs(folder, where, model, config)
            yield from _kernels(where, model)

        yield from onnx_findings(folder, graphs, rule)
        yield from unused_data(folder, models)


def _write(model: ONNXModel, target: Path) -> int:
    """The graph, changed where transformers.js needs it; returns how many files of external data it has."""
    graph = model.graph.clone()
    if not adapt(graph):
        return place_graph(model, target)
    files = save_model(graph, target, force=False, external_from=1 if model.data_files else None)
    return len(files) - 1


def _config(folder: Path) -> Generator[Finding, None, dict[str, Any]]:
    """The findings of config.json, which is returned."""
    try:
        config: dict[str, Any] = read_json(folder / "config.json", dict)
    except FormatError as breach:
        yield error("config.json", breach.problem, "copy it from the model's repository")
        return {}
    kind = config.get("model_type")
    if not isinstance(kind, str):
        yield error(
            "config.json", "has no model_type, so no pipeline knows the model", "copy it from the checkpoint"
        )
    elif kind in _UNKNOWN_TYPES:
        yield warning(
            "config.json",
            f"model_type {kind} is not known to transformers.js {_NEWEST}",
            "use onnxruntime-web",
        )
    return config


def _split(where: str) -> tuple[str, str | None]:
    """A graph's name for transformers.js, such as ``model``, and its suffix; None where no dtype asks for it."""
    stem = Path(where).stem
    for suffix in sorted(filter(None, SUFFIXES), key=len, reverse=True):
        if stem.endswith(suffix):
            return stem.removesuffix(suffix), suffix
    return (stem, "") if re.fullmatch(r"(\w+_)?model(_merged)?", stem) else (stem, None)


def _name(where: str, model: ONNXModel) -> Iterator[Finding]:
    """The suffix must be one that a dtype asks for, and should be the one of the weights."""
    base, suffix = _split(where)
    if suffix is None:
        names = ", ".join(f"model{one}" for one in SUFFIXES)
        yield warning(where, "no dtype asks for that name", f"names are {names}")
        return
    dtype, ours = SUFFIXES[suffix], DTYPES.get(model.precision)
    if ours and ours[0] != dtype and not (ours[0] == "q8" and dtype in ("int8", "uint8")):
        yield warning(
            where,
            f"is loaded as {dtype} and holds {model.precision} weights",
            f"call it {base}{ours[1]}.onnx",
        )


def _external(where: str, model: ONNXModel, config: Mapping[str, Any]) -> Iterator[Finding]:
    """External data is fetched only where config.json says so, and only by these names."""
    file = Path(where).name
    declared = _declared(config, file)
    wanted = [f"{file}_data" + (f"_{index}" if index else "") for index in range(len(model.data_files))]
    if sorted(model.data_files) != sorted(wanted):
        names = ", ".join(model.data_files)
        yield error(
            where, f"has external data in {names}; transformers.js asks for {', '.join(wanted)}", _PACK
        )
    if len(wanted) != declared:
        what = f"has {len(wanted)} files of external data, config.json declares {declared}"
        yield error(
            where, what, f'put "{_SETTINGS}": {{"{_EXTERNAL}": {{"{file}": {len(wanted)}}}}} into config.json'
        )


_PACK = "edgeq pack MODEL.onnx --app transformers.js renames it"


def _declared(config: Mapping[str, Any], file: str) -> int:
    """How many files of external data config.json says the graph has: a number or a truth value, for all or by name."""
    settings = config.get(_SETTINGS)
    value = settings.get(_EXTERNAL, 0) if isinstance(settings, dict) else 0
    if isinstance(value, dict):
        value = value.get(file, value.get(_split(file)[0], 0))
    return int(value) if isinstance(value, int) else 0


def _inputs(folder: Path, where: str, model: ONNXModel, config: Mapping[str, Any]) -> Iterator[Finding]:
    names = [str(value.name) for value in model.graph.graph.inputs]
    if _TEXT_INPUT in names:
        for file in ("tokenizer.json", "tokenizer_config.json"):
            if not (folder / file).is_file():
                yield error(
                    file, "is missing, and the model reads text", "copy it from the model's repository"
                )
    outputs = [str(value.name) for value in model.graph.graph.outputs]
    pasts = [name for name in names if name.startswith("past_key_values.")]
    if "past_key_values" in "".join(names) or pasts:
        yield from _cache(where, pasts, outputs, config)
    elif "logits" in outputs and str(config.get("architectures", "")).find("CausalLM") >= 0:
        yield warning(
            where, "generates without a cache, which takes quadratic time", "export it with past_key_values"
        )


def _cache(where: str, pasts: list[str], outputs: list[str], config: Mapping[str, Any]) -> Iterator[Finding]:
    """Caches by transformers.js's names, and as many as config.json has layers."""
    odd = [name for name in pasts if not re.fullmatch(r"past_key_values\.\d+\.(key|value)", name)]
    if odd:
        yield error(where, f"input {odd[0]} is not called past_key_values.N.key or .value", "export it again")
    missing = [name for name in pasts if name.replace("past_key_values", "present") not in outputs]
    if missing:
        yield error(
            where, f"has no output {missing[0].replace('past_key_values', 'present')}", "export it again"
        )
    text = config.get("text_config")
    said = {**(text if isinstance(text, dict) else {}), **config}
    layers = said.get("num_hidden_layers", said.get("n_layer"))
    if not isinstance(layers, int):
        yield error(
            "config.json", "does not say num_hidden_layers, by which caches are named", "copy the model's own"
        )
    elif len(pasts) != 2 * layers:
        what = f"has {len(pasts)} caches, config.json says {layers} layers"
        yield error(where, what, "copy the model's own config.json")
    if "logits" not in outputs:
        yield error(where, "has no output logits", "export it again")


def _kernels(where: str, model: ONNXModel) -> Iterator[Finding]:
    """What onnxruntime-web's builds with WebGPU, which transformers.js brings, cannot do on the CPU."""
    if any(node.op_type == OPERATOR for node in model.graph.graph):
        what = f"has {OPERATOR}, of which onnxruntime-web's build for WebGPU has no kernel for WebAssembly"
        yield error(where, what, "edgeq pack MODEL.onnx --app transformers.js writes plain operators")
    caches = unnamed_caches(model.graph)
    if caches:
        what = f"the first axis of {caches[0]} is not called {BATCH}, so empty caches are made for 0 texts"
        yield error(where, what, "edgeq pack MODEL.onnx --app transformers.js names it")
