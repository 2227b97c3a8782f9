"""MatMulNBits of a shape that ONNX Runtime's CPU provider has no kernel for."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from edgeq.formats.onnx.edit import attribute
from edgeq.inspection.findings import Finding, error, warning
from edgeq.inspection.onnx_lint import Target, rule

_BITS = (2, 4, 8)
_BLOCKS = (16, 32, 64, 128, 256)


@rule
def blocked_products(model: ir.Model, target: Target) -> Iterator[Finding]:
    """Bits other than 2, 4, 8 or blocks other than 16 to 256 (a power of two): dequantized at every run, or zeros.

    Blocks of another size have given zeros without a word (microsoft/onnxruntime#28551).
    """
    for node in model.graph.all_nodes():
        if node.op_type != "MatMulNBits" or node.domain != "com.microsoft":
            continue
        where = str(node.name or node.outputs[0].name)
        bits, block = int(attribute(node, "bits", 4)), int(attribute(node, "block_size", 0))
        if block not in _BLOCKS:
            yield error(
                where,
                f"MatMulNBits has blocks of {block}: the answer may be zeros",
                "quantize it with blocks of 32",
            )
        elif bits not in _BITS:
            what = f"MatMulNBits has {bits} bits: the matrix is dequantized at every run"
            yield warning(where, what, "quantize it with 4 or 8 bits")
