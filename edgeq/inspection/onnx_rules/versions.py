"""An opset, or an operator of ONNX Runtime's own, that a stated version of it does not implement."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from edgeq.formats.onnx.edit import attribute
from edgeq.inspection.findings import Finding, error, note
from edgeq.inspection.onnx_lint import Target, rule

# The newest opset of each release, after its Versioning.md and the releases of ONNX that they name.
_NEWEST = {
    (1, 7): 13, (1, 8): 14, (1, 9): 15, (1, 10): 15, (1, 11): 16, (1, 12): 17, (1, 13): 17, (1, 14): 18,
    (1, 15): 19, (1, 16): 19, (1, 17): 20, (1, 18): 21, (1, 19): 21, (1, 20): 21,
}  # fmt: skip

# The first release with each operator (its release notes).
_SINCE = {
    "MatMulNBits": (1, 17), "MatMulBnb4": (1, 17), "GatherBlockQuantized": (1, 20), "GroupQueryAttention": (1, 16),
}  # fmt: skip
_EIGHT_BITS_SINCE = (1, 22)


@rule
def versions(model: ir.Model, target: Target) -> Iterator[Finding]:
    """The model's opset is newer than the runtime's; a version that is not in the table is said not to be."""
    if target.version is None:
        return
    yield from _own_operators(model, target.version)
    opset, version = model.opset_imports.get("", 1), ".".join(map(str, target.version))
    newest = _NEWEST.get(target.version)
    if newest is None:
        if opset > max(_NEWEST.values()):
            yield note("file", f"has opset {opset}; whether ONNX Runtime {version} has it is not known here")
    elif opset > newest:
        what = f"has opset {opset}, ONNX Runtime {version} ends at {newest}"
        yield error("file", what, f"export it again with opset {newest}, or take a newer runtime")


def _own_operators(model: ir.Model, version: tuple[int, int]) -> Iterator[Finding]:
    for node in model.graph.all_nodes():
        if node.domain != "com.microsoft" or node.op_type not in _SINCE:
            continue
        what, since = node.op_type, _SINCE[node.op_type]
        if what == "MatMulNBits" and attribute(node, "bits", 4) == 8:
            what, since = "MatMulNBits of 8 bits", _EIGHT_BITS_SINCE
        if version < since:
            first, ours = (".".join(map(str, one)) for one in (since, version))
            yield error(
                str(node.name or node.outputs[0].name),
                f"{what} is there from ONNX Runtime {first} on, not in {ours}",
                "take a newer runtime, or another --quant",
            )
