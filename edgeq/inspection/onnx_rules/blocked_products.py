"""Products with packed weights that ONNX Runtime's CPU provider has no kernel for."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from edgeq.formats.onnx.edit import attribute, constant, dims
from edgeq.inspection.findings import Finding, error, warning
from edgeq.inspection.onnx_lint import Target, rule

_BITS = (2, 4, 8)
_BLOCKS = (16, 32, 64, 128, 256)
_TWO_BIT_BLOCKS = (32, 64, 128)
_EACH_RUN = "the matrix is dequantized at every run"


@rule
def blocked_products(model: ir.Model, target: Target) -> Iterator[Finding]:
    """MatMulNBits of bits, blocks, a level or a shape without a kernel; MatMulBnb4, which has none on the CPU.

    Blocks of another size have given zeros without a word (microsoft/onnxruntime#28551). Two bits have a kernel for
    blocks of 32 to 128 at accuracy level 4 alone: elsewhere level 4 answers as exactly as level 1 does, in ONNX Runtime
    1.31.
    """
    for node in model.graph.all_nodes():
        if node.domain != "com.microsoft":
            continue
        where = str(node.name or node.outputs[0].name)
        if node.op_type == "MatMulBnb4":
            yield warning(where, f"MatMulBnb4 has no kernel on the CPU: {_EACH_RUN}", "quantize it to int4")
        elif node.op_type == "MatMulNBits":
            yield from _blocks(where, node)


def _blocks(where: str, node: ir.Node) -> Iterator[Finding]:
    bits, block = int(attribute(node, "bits", 4)), int(attribute(node, "block_size", 0))
    if block not in _BLOCKS:
        what = f"MatMulNBits has blocks of {block}: the answer may be zeros"
        yield error(where, what, "quantize it with blocks of 32")
        return
    if bits not in _BITS:
        yield warning(where, f"MatMulNBits has {bits} bits: {_EACH_RUN}", "quantize it with 4 or 8 bits")
        return
    level = int(attribute(node, "accuracy_level", 0))
    if bits == 2 and (block not in _TWO_BIT_BLOCKS or level != 4):
        what = f"MatMulNBits has 2 bits in blocks of {block} at accuracy level {level}: {_EACH_RUN}"
        yield warning(where, what, "take blocks of 32, 64 or 128 and --accuracy-level 4")
    packed = constant(node.inputs[1])
    rows, columns = int(attribute(node, "N", 0)), int(attribute(node, "K", 0))
    wanted = (rows, -(-columns // block), block * bits // 8)
    if packed is not None and packed.size != wanted[0] * wanted[1] * wanted[2]:
        what = f"MatMulNBits holds {list(dims(packed))} bytes, its attributes say {list(wanted)}"
        yield error(where, what, "quantize it again")
