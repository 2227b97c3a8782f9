"""Static int8 (QDQ), and what is done instead where no data says the ranges."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from edgeq.formats.onnx.convolution import find_convolutions
from edgeq.formats.onnx.int8 import SAFE_RANGE, U8U8
from edgeq.formats.onnx.linear import find_linears
from edgeq.formats.onnx.passes.conv_int8 import conv_int8
from edgeq.formats.onnx.passes.conv_weights import conv_weights
from edgeq.formats.onnx.passes.dynamic_int8 import dynamic_int8
from edgeq.formats.onnx.passes.embedding_int8 import embedding_int8
from edgeq.formats.onnx.passes.lstm_int8 import lstm_int8
from edgeq.formats.onnx.passes.smooth import smooth, smoothable
from edgeq.formats.onnx.passes.static_int8 import static_int8
from edgeq.formats.onnx.placement import values_to_watch
from edgeq.onnx.job import Apply, Job, onnx_quant

# A static range that half of the samples do not fill to a third would clip or waste: such layers go dynamic.
_UNSTEADY = 3.0
# The largest magnitude of a channel is soon found, and only its root counts.
_SMOOTHING_SAMPLES = 128
# ONNX Runtime then dequantizes constant kernels once, when it loads the file.
_FOLD = {"session.disable_quant_qdq": "1"}


@onnx_quant("int8")
def int8(job: Job) -> Apply:
    """Ranges from the data; linear layers with unsteady ones, or in loops, are quantized at run time."""
    if job.samples is None:
        job.notes.append("no --calibration, so no ranges: nothing is quantized statically")
        return _without_data(job)
    _smooth(job)
    collectors = job.observe("ranges", values_to_watch(job.model))
    seen = {name: collector for name, collector in collectors.items() if collector.samples}
    intervals = {name: job.method(collector) for name, collector in seen.items()}

    def is_unsteady(value: ir.Value | None) -> bool:
        return value is None or value.name not in seen or seen[value.name].peak_ratio() > _UNSTEADY

    unsteady = [linear.name for linear in find_linears(job.model) if is_unsteady(linear.activation)]
    if unsteady:
        job.notes.append(f"quantized at run time, for want of a steady range: {', '.join(unsteady)}")
    floating = [str(c.node.name) for c in find_convolutions(job.model) if is_unsteady(c.node.inputs[0])]
    if floating:
        job.notes.append(f"left in float, for want of a steady range: {', '.join(floating)}")
    job.session.update(job.profile.session)
    profile = job.profile

    def apply(model: ir.Model, layers: Collection[str]) -> None:
        signed = (
            SAFE_RANGE if profile.types is U8U8 else profile.limit
        )  # their weights are int8 in any scheme
        dynamic_int8(model, signed, only=[name for name in unsteady if name in layers])
        lstm_int8(model, signed, only=layers)
        steady = [name for name in layers if name not in floating]
        conv_int8(model, profile.limit, intervals, profile.types, only=steady)
        static_int8(model, profile.limit, intervals, profile.types, only=layers)
        _tables(model, job)

    return apply


@onnx_quant("int8-dynamic")
def int8_dynamic(job: Job) -> Apply:
    """Linear layers at run time, kernels of convolutions as weights only; with data, outliers are folded first."""
    if job.samples is not None:
        _smooth(job)
    return _without_data(job)


def _smooth(job: Job) -> None:
    """Fold outlier channels of what norms give into the layers behind."""
    watched = set(values_to_watch(job.model))
    values = [value for value in smoothable(job.model) if value in watched]
    if values:
        collectors = job.observe("smoothing", values, _SMOOTHING_SAMPLES)
        smooth(job.model, {name: c.channel_max for name, c in collectors.items() if c.channel_max.size})


def _without_data(job: Job) -> Apply:
    limit = job.profile.limit

    def apply(model: ir.Model, layers: Collection[str]) -> None:
        dynamic_int8(model, limit, only=layers)
        lstm_int8(model, limit, only=layers)
        if conv_weights(model, only=layers):
            job.session.update(_FOLD)
        _tables(model, job)

    return apply


def _tables(model: ir.Model, job: Job) -> None:
    if not job.keep_float:
        embedding_int8(model)
