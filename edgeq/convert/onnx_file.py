"""The ONNX exporter: a checkpoint becomes a graph, is quantized, and is saved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from edgeq.convert import onnx_graph
from edgeq.convert.dialects import DIALECTS
from edgeq.convert.graph_tensors import tensor_results
from edgeq.convert.onnx_quants import QUANTS, QuantOptions
from edgeq.convert.tensor_result import TensorResult, handling_summary
from edgeq.errors import UsageError
from edgeq.formats.onnx.save import save_model
from edgeq.source import ModelSource
from edgeq.wording import counted

_SUFFIXES = {
    "float32": "",
    "float16": "_fp16",
    "int4": "_q4",
    "nf4": "_bnb4",
}  # what transformers.js puts behind "model"; others are the quant's name


@dataclass(frozen=True)
class Written:
    """The files of a saved graph, the graph first, and its tensors."""

    files: list[Path]
    tensors: list[TensorResult]


def canonical_quant(name: str) -> str:
    """The ONNX quant of that name, any case; raises UsageError listing them."""
    key = name.lower().replace("_", "-")
    if key not in QUANTS:
        raise UsageError(f"--quant {name}: for ONNX there are {', '.join(QUANTS)}")
    return key


def file_name(quant: str) -> str:
    """What transformers.js calls the file of a quant."""
    return f"model{_SUFFIXES.get(quant, '_' + quant.replace('-', '_'))}.onnx"


def write(
    source: ModelSource, quant: str, path: Path, options: QuantOptions, *, force: bool = False
) -> Written:
    """Build the float graph, apply the quant and save it."""
    model = onnx_graph.build(source, options.dialect)
    QUANTS[quant](model, source, options)
    if source.family.generates(source.hp):
        DIALECTS[options.dialect].quantized(model)
    if options.provider:
        _tell_what_falls_back(model, options)
    files = save_model(
        model,
        path,
        force=force,
        external_from=options.external_from,
        progress=lambda done, total: options.progress("writing", done, total),
    )
    tensors = tensor_results(model)
    options.notes += handling_summary(tensors)
    return Written([path, *(file for file in files if file != path)], tensors)


def _tell_what_falls_back(model: ir.Model, options: QuantOptions) -> None:
    """A note on the nodes that the provider leaves to the CPU."""
    from edgeq.onnx.providers import left_to_cpu

    left = left_to_cpu(model, options.provider)
    if not left:
        options.notes.append(f"the {options.provider.upper()} provider has kernels for all of the graph")
        return
    kinds = ", ".join(sorted(set(left.values())))
    options.notes.append(
        f"the {options.provider.upper()} provider leaves {counted(len(left), 'node')} to the CPU: {kinds}"
    )
