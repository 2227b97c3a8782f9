"""An opset that a stated version of ONNX Runtime does not implement."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from edgeq.inspection.findings import Finding, error, note
from edgeq.inspection.onnx_lint import Target, rule

# The newest opset of each release, after its Versioning.md and the releases of ONNX that they name.
_NEWEST = {
    (1, 7): 13, (1, 8): 14, (1, 9): 15, (1, 10): 15, (1, 11): 16, (1, 12): 17, (1, 13): 17, (1, 14): 18,
    (1, 15): 19, (1, 16): 19, (1, 17): 20, (1, 18): 21, (1, 19): 21, (1, 20): 21,
}  # fmt: skip


@rule
def versions(model: ir.Model, target: Target) -> Iterator[Finding]:
    """The model's opset is newer than the runtime's; a version that is not in the table is said not to be."""
    if target.version is None:
        return
    opset, version = model.opset_imports.get("", 1), ".".join(map(str, target.version))
    newest = _NEWEST.get(target.version)
    if newest is None:
        if opset > max(_NEWEST.values()):
            yield note("file", f"has opset {opset}; whether ONNX Runtime {version} has it is not known here")
    elif opset > newest:
        what = f"has opset {opset}, ONNX Runtime {version} ends at {newest}"
        yield error("file", what, f"export it again with opset {newest}, or take a newer runtime")
