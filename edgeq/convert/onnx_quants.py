"""The ONNX quants by name: what each does to a float graph before it is saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import onnx_ir as ir

from edgeq.calibration.collect import collect_ranges
from edgeq.calibration.ranges import RangeCollector
from edgeq.calibration.smoothed import Scales, smooth_and_observe
from edgeq.calibration.text import Text
from edgeq.errors import InputError
from edgeq.formats.onnx.blocked import Scheme
from edgeq.formats.onnx.int8 import FULL_RANGE, SAFE_RANGE, ActivationRange
from edgeq.formats.onnx.linear import find_linears
from edgeq.formats.onnx.passes.blocked_weights import BlockedOptions, blocked_weights
from edgeq.formats.onnx.passes.bnb4_weights import CODES_ON_CPU, bnb4_weights
from edgeq.formats.onnx.passes.dynamic_int8 import dynamic_int8
from edgeq.formats.onnx.passes.embedding_int8 import embedding_int8
from edgeq.formats.onnx.passes.fold_biases import fold_attention_biases, fold_residual_biases
from edgeq.formats.onnx.passes.half_compute import OWN, half_compute
from edgeq.formats.onnx.passes.half_weights import half_weights
from edgeq.formats.onnx.passes.smooth import smooth, smoothable
from edgeq.formats.onnx.passes.static_int8 import static_int8
from edgeq.formats.onnx.passes.tanh_gelu import tanh_gelu
from edgeq.formats.onnx.save import EXTERNAL_FROM
from edgeq.formats.onnx.table_codes import FP4, NF4, Table
from edgeq.runtimes.onnxruntime import Feeds, decoder_feeds, empty_past, encoder_feeds
from edgeq.source import ModelSource
from edgeq.wording import counted

_WINDOW = 128  # tokens of one calibration sample of a decoder
# A static range that half of the samples do not fill to a third would clip or waste: such inputs go dynamic.
_UNSTEADY = 3.0
_HALF_BITS = 16
_ROUTER = "ffn_gate_inp"  # chooses experts: small, and a wrong choice costs more than its bits


@dataclass
class QuantOptions:
    """What the user chose.

    Attributes:
        percentile: how much of the activations a static range holds; None is min-max.
        full_range: int8 uses all 8 bits of a weight.
        dialect: the operators of a decoder's graph, and the form of blocked weights.
        block_size, symmetric: of blocked weights.
        accuracy_level: of MatMulNBits: 4 rounds the activations to int8, 1 does not.
        tied_bits: of a blocked table that is the head, too.
        bits: of single blocked weights, by name; 16 keeps one in float16.
        external_from: bytes of weights from which they go into a file of their own.
        provider: whose kernels the graph is checked against (``edgeq.onnx.providers``); "" for none.
    """

    text: Text
    folder: Path
    percentile: float | None = None
    full_range: bool = False
    dialect: str = "standard"
    block_size: int = 32
    symmetric: bool = True
    accuracy_level: int = 4
    tied_bits: int = 8
    bits: Mapping[str, int] = field(default_factory=dict)
    external_from: int = EXTERNAL_FROM
    provider: str = ""
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None
    notes: list[str] = field(default_factory=list)

    @property
    def limit(self) -> int:
        return FULL_RANGE if self.full_range else SAFE_RANGE


WEIGHT_ONLY = {"int4": 4, "int8-blocks": 8}  # quants in which activations stay float, and their bits
Quant = Callable[[ir.Model, ModelSource, QuantOptions], None]
QUANTS: dict[str, Quant] = {}


def quant(name: str) -> Callable[[Quant], Quant]:
    """Register a function as an ONNX quant."""

    def register(function: Quant) -> Quant:
        QUANTS[name] = function
        return function

    return register


@quant("float32")
def float32(model: ir.Model, source: ModelSource, options: QuantOptions) -> None:
    """The graph as it is."""


@quant("float16")
def float16(model: ir.Model, source: ModelSource, options: QuantOptions) -> None:
    """Weights, cache and arithmetic in float16, for GPUs; logits and vectors in float32."""
    halved = half_compute(model, OWN)
    options.notes.append(f"{counted(halved.weights, 'tensor')} in float16, and the arithmetic")


@quant("int8-dynamic")
def int8_dynamic(model: ir.Model, source: ModelSource, options: QuantOptions) -> None:
    """Dynamic int8, after outlier channels were folded into the norms before the linear layers."""
    collectors = _observe(model, source, options, "smoothing")
    smooth(model, {name: collector.channel_max for name, collector in collectors.items()})
    count = dynamic_int8(model, options.limit)
    tables = embedding_int8(model)
    options.notes.append(
        f"{counted(count, 'linear layer')} in dynamic int8, {counted(tables, 'embedding table')} in int8"
    )


@quant("int8")
def int8_static(model: ir.Model, source: ModelSource, options: QuantOptions) -> None:
    """Static QDQ int8, after folding as above; inputs with unsteady ranges are quantized dynamically."""
    fold_attention_biases(model)
    collectors = smooth_and_observe(
        model, smoothable(model), lambda scales: _observe(model, source, options, "ranges", scales)
    )
    unsteady = [
        linear.name
        for linear in find_linears(model)
        if collectors[str(linear.activation.name)].peak_ratio() > _UNSTEADY
    ]
    if unsteady:
        dynamic_int8(model, options.limit, only=unsteady)
        options.notes.append(f"ranges set by few samples, so quantized at run time: {', '.join(unsteady)}")
    fold_residual_biases(model)
    count = static_int8(model, options.limit, {name: _range(c, options) for name, c in collectors.items()})
    tanh_gelu(model)
    tables = embedding_int8(model)
    options.notes.append(
        f"{counted(count, 'linear layer')} in static int8, {counted(tables, 'embedding table')} in int8"
    )
    if options.text.builtin:
        options.notes.append("ranges come from the built-in text; --calibration FILE takes them from yours")


@quant("int4")
def int4(model: ir.Model, source: ModelSource, options: QuantOptions) -> None:
    """Blocks of 4 bits, tables of 8."""
    _blocked(model, source, options, WEIGHT_ONLY["int4"])


@quant("int8-blocks")
def int8_blocks(model: ir.Model, source: ModelSource, options: QuantOptions) -> None:
    """Blocks of 8 bits."""
    _blocked(model, source, options, WEIGHT_ONLY["int8-blocks"])


@quant("nf4")
def nf4(model: ir.Model, source: ModelSource, options: QuantOptions) -> None:
    """4-bit codes for weights of a normal distribution, tables in blocks of 8 bits."""
    _codes(model, options, NF4)


@quant("fp4")
def fp4(model: ir.Model, source: ModelSource, options: QuantOptions) -> None:
    """The same with floats of 4 bits."""
    _codes(model, options, FP4)


def _codes(model: ir.Model, options: QuantOptions, table: Table) -> None:
    count = bnb4_weights(model, table, options.block_size, lambda linear: _ROUTER in linear.name)
    tables = blocked_weights(
        model, BlockedOptions("ort", Scheme(8, options.block_size), keep=lambda linear: True)
    ).tables
    options.notes.append(
        f"{counted(count, 'linear layer')} in 4-bit codes, {counted(tables, 'table')} in blocks of 8 bits"
    )
    options.notes.append(CODES_ON_CPU)


def _blocked(model: ir.Model, source: ModelSource, options: QuantOptions, bits: int) -> None:
    from edgeq.convert.dialects import DIALECTS
    from edgeq.devices.detect import instruction_set
    from edgeq.kernels_cpu.blocked_weights import quantize_rows

    form = DIALECTS[options.dialect].form
    halves = {name for name, count in options.bits.items() if count == _HALF_BITS}
    chosen = BlockedOptions(
        form,
        Scheme(bits, options.block_size, options.symmetric),
        tied_bits=max(bits, options.tied_bits),
        accuracy_level=options.accuracy_level,
        quantize=partial(quantize_rows, isa=instruction_set()),
        bits=options.bits,
        keep=lambda linear: _ROUTER in linear.name or linear.weight.name in halves,
    )
    result = blocked_weights(model, chosen)
    if halves:
        half_weights(model, "float16", lambda name: name not in halves)
    options.notes.append(
        f"{counted(result.linears, 'linear layer')} in {bits}-bit blocks, {counted(result.tables, 'table')} in blocks"
    )
    for names, what in (
        (result.left, "left float: no block size divides them"),
        (result.stored_twice, "stored twice, as a table and as the head"),
    ):
        if names:
            options.notes.append(f"{what}: {', '.join(names)}")


def _range(collector: RangeCollector, options: QuantOptions) -> ActivationRange:
    return collector.min_max() if options.percentile is None else collector.percentile(options.percentile)


def _observe(
    model: ir.Model,
    source: ModelSource,
    options: QuantOptions,
    stage: str,
    smoothed: Mapping[ir.Value, Scales] | None = None,
) -> dict[str, RangeCollector]:
    samples = calibration_samples(source, options.text)
    total = count_samples(source, options.text)

    def progress(done: int) -> None:
        options.progress(f"calibrating {stage}", done, total)

    return collect_ranges(model, samples, options.folder, progress, smoothed=smoothed)


def calibration_samples(source: ModelSource, text: Text) -> Iterator[Feeds]:
    """Feeds of one sentence each (what embeds or classifies) or one window of tokens each (decoders)."""
    tokenizer = source.tokenizer()
    if not source.family.generates(source.hp):
        tokenizer.enable_truncation(source.hp.context)
        for line in text.lines():
            yield encoder_feeds([tokenizer.encode(line).ids])
        return
    ids = tokenizer.encode(text.content).ids
    if not ids:
        raise InputError(f"{text.name}: has no tokens; give a longer text")
    past = empty_past(source.hp.n_layers, source.hp.n_kv_heads, source.hp.head_dim)
    for start in range(0, len(ids), _WINDOW):
        yield decoder_feeds(ids[start : start + _WINDOW], past)


def count_samples(source: ModelSource, text: Text) -> int:
    """How many samples ``calibration_samples`` gives, about: for progress only."""
    if not source.family.generates(source.hp):
        return len(text.lines())
    return max(1, len(text.content) // (3 * _WINDOW))
