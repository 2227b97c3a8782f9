"""Static int8 (QDQ), and what is done instead where no data says the ranges."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx_ir as ir

from edgeq.calibration.ranges import RangeCollector
from edgeq.calibration.smoothed import SMOOTHING_SAMPLES, smooth_and_observe
from edgeq.errors import UsageError
from edgeq.formats.onnx.convolution import find_convolutions
from edgeq.formats.onnx.int8 import SAFE_RANGE, U8U8
from edgeq.formats.onnx.passes.conv_int8 import conv_int8
from edgeq.formats.onnx.passes.conv_weights import conv_weights
from edgeq.formats.onnx.passes.correct_bias import correct_biases
from edgeq.formats.onnx.passes.dynamic_int8 import dynamic_int8
from edgeq.formats.onnx.passes.embedding_int8 import embedding_int8
from edgeq.formats.onnx.passes.equalize import equalizable, equalize
from edgeq.formats.onnx.passes.fold_biases import fold_attention_biases, fold_residual_biases
from edgeq.formats.onnx.passes.lstm_int8 import lstm_int8
from edgeq.formats.onnx.passes.recurrent_weights import recurrent_weights
from edgeq.formats.onnx.passes.smooth import smooth, smoothable
from edgeq.formats.onnx.passes.static_int8 import static_int8
from edgeq.formats.onnx.passes.tanh_gelu import tanh_gelu
from edgeq.formats.onnx.placement import values_to_watch
from edgeq.onnx.job import Apply, Job, onnx_quant
from edgeq.onnx.node_types import DYNAMIC, FLOAT, INT8, INT16, find_layers, wide_values

# A static range that half of the samples do not fill to a third would clip or waste: such layers go dynamic.
_UNSTEADY = 3.0
# ONNX Runtime then dequantizes constant kernels once, when it loads the file.
_FOLD = {"session.disable_quant_qdq": "1"}


@onnx_quant("int8", node_types=(FLOAT, INT8, INT16, DYNAMIC))
def int8(job: Job) -> Apply:
    """Ranges from the data; linear layers with unsteady ones, or that cannot be watched, are quantized at run time."""
    if job.samples is None:
        static = next((name for name, wanted in job.types.items() if wanted in (INT8, INT16)), None)
        if static is not None:
            raise UsageError(
                f"--node-type: {static} cannot be {job.types[static]} without --calibration, which says its range"
            )
        job.notes.append("no --calibration, so no ranges: nothing is quantized statically")
        return _without_data(job)
    fold_attention_biases(job.model)
    collectors = _smoothed_ranges(job)
    seen = {name: collector for name, collector in collectors.items() if collector.samples}
    intervals = {name: job.method(collector) for name, collector in seen.items()}
    kinds = _kinds(job, seen)
    job.session.update(job.profile.session)
    profile = job.profile

    means = {
        name: collector.channel_mean for name, collector in seen.items() if collector.channels is not None
    }

    def apply(model: ir.Model, layers: Collection[str]) -> None:
        chosen = {name: kinds.get(name, INT8) for name in layers}
        if job.exempt_to != FLOAT:
            chosen |= {name: job.exempt_to for name in job.layers if name not in chosen}
        wide = wide_values(find_layers(model), chosen)
        static = [name for name, kind in chosen.items() if kind in (INT8, INT16)]
        at_run_time = [name for name, kind in chosen.items() if kind == DYNAMIC]
        # At run time and in LSTMs weights are int8 in any scheme.
        signed = SAFE_RANGE if profile.types is U8U8 else profile.limit
        scales = job.granularities
        correct_biases(model, profile.limit, means, static, scales)
        correct_biases(model, signed, means, at_run_time, scales)
        fold_residual_biases(model)
        dynamic_int8(model, signed, at_run_time, scales)
        lstm_int8(model, signed, layers, scales)
        conv_int8(model, profile.limit, intervals, profile.types, static, wide, scales)
        static_int8(model, profile.limit, intervals, profile.types, static, wide, scales)
        tanh_gelu(model)
        _tables(model, job)

    return apply


def _kinds(job: Job, seen: Mapping[str, RangeCollector]) -> dict[str, str]:
    """What each layer is to be: what the user wants, or what its range allows."""
    found: dict[str, str] = {}
    left: dict[str, list[str]] = {}  # by what is said of them
    for layer in find_layers(job.model):
        wanted, collector = job.types.get(layer.name), seen.get(str(layer.activation.name))
        if wanted in (INT8, INT16) and collector is None:
            raise UsageError(
                f"--node-type: {layer.name} cannot be {wanted}, no sample says the range of what it reads; "
                f"take {FLOAT if layer.convolution else DYNAMIC}"
            )
        if wanted is not None:
            found[layer.name] = wanted
        elif layer.transposed:  # there is no kernel of it
            found[layer.name] = FLOAT
        elif collector is not None and collector.peak_ratio() <= _UNSTEADY:
            found[layer.name] = INT8
        else:
            found[layer.name] = FLOAT if layer.convolution else DYNAMIC
            what = "left in float" if layer.convolution else "quantized at run time"
            why = "because no sample says a range" if collector is None else "for want of a steady range"
            left.setdefault(f"{what}, {why}", []).append(layer.name)
    job.notes.extend(f"{said}: {', '.join(names)}" for said, names in left.items())
    return found


@onnx_quant("int8-dynamic", node_types=(FLOAT, DYNAMIC))
def int8_dynamic(job: Job) -> Apply:
    """Linear layers at run time, kernels of convolutions as weights only; with data, outliers are folded first."""
    if job.samples is not None:
        _smooth(job)
    return _without_data(job)


def _smoothed_ranges(job: Job) -> dict[str, RangeCollector]:
    """Fold outlier channels as ``_smooth``, and see the ranges behind; one pass, but for what convolutions read."""
    watched = set(values_to_watch(job.model)) - {c.node.inputs[0] for c in find_convolutions(job.model)}
    later = [smoothing for smoothing in smoothable(job.model) if smoothing.value in watched]
    _smooth(job, {smoothing.value for smoothing in later})
    return smooth_and_observe(
        job.model, later, lambda scales: job.observe("ranges", values_to_watch(job.model), smoothed=scales)
    )


def _smooth(job: Job, later: Collection[ir.Value] = ()) -> None:
    """Fold outlier channels of what norms and convolutions give into the layers behind, but for ``later``."""
    watched = set(values_to_watch(job.model)).difference(later)
    found = (*(smoothing.value for smoothing in smoothable(job.model)), *equalizable(job.model))
    values = [value for value in found if value in watched]
    if values:
        collectors = job.observe("smoothing", values, SMOOTHING_SAMPLES)
        channel_max = {name: c.channel_max for name, c in collectors.items() if c.channel_max.size}
        smooth(job.model, channel_max)
        equalize(job.model, channel_max)


def _without_data(job: Job) -> Apply:
    limit, scales = job.profile.limit, job.granularities

    def apply(model: ir.Model, layers: Collection[str]) -> None:
        dynamic_int8(model, limit, layers, scales)
        lstm_int8(model, limit, layers, scales)
        if conv_weights(model, layers, scales) + recurrent_weights(model, layers, scales):
            job.session.update(_FOLD)
        _tables(model, job)

    return apply


def _tables(model: ir.Model, job: Job) -> None:
    if not job.keep_float:
        embedding_int8(model, granularity=job.granularity)
