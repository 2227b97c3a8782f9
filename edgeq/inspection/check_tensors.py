"""What is wrong inside a file's tensors: NaN and infinite floats, tensors of zeros."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.blocks import by_id
from edgeq.formats.gguf.reader import GGUFFile, TensorInfo
from edgeq.formats.gguf.scales import VALUE, not_finite
from edgeq.formats.gguf.types import TENSOR_TYPES
from edgeq.inspection.findings import Finding, error, note, warning
from edgeq.inspection.stream import Progress, pieces

_FIRST_LOOK = 8  # blocks: nearly every tensor shows there that it is not all zeros
_MAKE_AGAIN = "make the file again from the original weights; if they hold it too, the checkpoint is damaged"


@dataclass
class _Bad:
    """A float field's count of NaN and infinities, and the first block that has one."""

    first: int
    nan: int = 0
    infinite: int = 0


@dataclass
class _Seen:
    """What is known of a tensor after the pieces so far."""

    blocks: int = 0
    only_zeros: bool = True
    bad: dict[str, _Bad] = field(default_factory=dict)


def tensor_findings(file: GGUFFile, progress: Progress) -> Iterator[Finding]:
    """Read every tensor once, in pieces."""
    total = sum(tensor.nbytes for tensor in file.tensors.values())
    done = 0
    for tensor in file.tensors.values():
        seen = _Seen()
        for piece in pieces(file, tensor):
            _look(tensor, piece, seen)
            done += piece.nbytes
            progress("check", done, total)
        yield from _report(tensor, seen)
    yield from _types_without_a_codec(file)


def _look(tensor: TensorInfo, piece: NDArray[np.uint8], seen: _Seen) -> None:
    for name, nan, infinite in not_finite(tensor.type_name, piece):
        bad = seen.bad.setdefault(name, _Bad(seen.blocks + int(np.argmax(nan | infinite))))
        bad.nan += int(np.count_nonzero(nan))
        bad.infinite += int(np.count_nonzero(infinite))
    if seen.only_zeros:
        seen.only_zeros = _zeros(tensor, piece[:_FIRST_LOOK]) and _zeros(tensor, piece)
    seen.blocks += len(piece)


def _zeros(tensor: TensorInfo, blocks: NDArray[np.uint8]) -> bool:
    """Whether all values are zero; of a type that cannot be decoded, whether all bytes are."""
    if not blocks.any():
        return True
    codec = by_id(tensor.type_id)
    if codec is None:
        return False
    return not codec.decode(blocks, codec.block_values).any()


def _report(tensor: TensorInfo, seen: _Seen) -> Iterator[Finding]:
    if 0 in tensor.shape:
        remedy = "leave it out, or make the file again: llama.cpp expects values in every tensor"
        yield warning(tensor.name, f"is empty: shape {list(tensor.shape)}", remedy)
        return
    for name, bad in seen.bad.items():
        yield error(tensor.name, _describe(tensor, name, bad, seen.blocks), _MAKE_AGAIN)
    if seen.only_zeros:
        remedy = "check the checkpoint that it came from; an unused bias may be meant so"
        yield warning(tensor.name, f"all of its {_values(tensor):,} values are zero", remedy)


def _describe(tensor: TensorInfo, name: str, bad: _Bad, blocks: int) -> str:
    counts = " and ".join(
        f"{count:,} {kind}" for count, kind in ((bad.nan, "NaN"), (bad.infinite, "infinite")) if count
    )
    per_row = tensor.columns // TENSOR_TYPES[tensor.type_id].block_values
    row, place = divmod(bad.first, per_row)
    if name == VALUE:
        return f"{counts} among {blocks:,} {tensor.type_name} values; first in row {row}, column {place}"
    return f"{counts} among the {name} of {blocks:,} {tensor.type_name} blocks; first in row {row}, block {place}"


def _values(tensor: TensorInfo) -> int:
    return tensor.n_rows * tensor.columns


def _types_without_a_codec(file: GGUFFile) -> Iterator[Finding]:
    """One note per type: its scales were looked at, its values were not."""
    floats: dict[str, list[str]] = {}
    for tensor in file.tensors.values():
        kind = TENSOR_TYPES[tensor.type_id]
        if kind.block_values > 1 and by_id(tensor.type_id) is None:
            floats.setdefault(kind.name, []).append(tensor.name)
    for kind_name, names in floats.items():
        what = f"edgeq cannot decode {kind_name} ({len(names)} tensors): only their scales were checked"
        yield note(names[0], what, "run it in llama.cpp to see that its values are sound")
