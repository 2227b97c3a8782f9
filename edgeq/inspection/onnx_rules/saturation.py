"""Int8 weights that saturate on x86 without VNNI."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from edgeq.formats.onnx.int8 import SAFE_RANGE
from edgeq.formats.onnx.integer_products import weight_codes
from edgeq.inspection.findings import Finding, warning
from edgeq.inspection.onnx_lint import Target, rule


@rule
def saturation(model: ir.Model, target: Target) -> Iterator[Finding]:
    """Neighbours along the summed axis that weigh more than 128 together: vpmaddubsw ends at 32,767 = 255 · 128.

    Only weights that meet codes of activations count. An activation that never comes near 255 hides it.
    """
    for node in model.graph.all_nodes():
        codes = weight_codes(node)
        if codes is None or codes.dtype != np.int8:
            continue
        rows = codes.reshape(len(codes), -1).astype(np.int16)
        even = rows[:, : rows.shape[1] // 2 * 2].reshape(len(rows), -1, 2).sum(axis=-1)
        beyond = int(np.count_nonzero(np.abs(even) > 2 * SAFE_RANGE))
        if beyond:
            where = str(node.name or node.outputs[0].name)
            what = f"{beyond:,} of {even.size:,} pairs of weights can saturate on x86 without VNNI"
            yield warning(
                where, what, "quantize for --isa avx2 or generic, or send it to CPUs with VNNI or ARM only"
            )
