"""Fast twins of ``edgeq.formats.blocks.refine``: encoded rows become rows of less error, in place.

A module here has ``refine_rows(first, last, values, weights, encoded, search, isa)`` for float32
``[rows, columns]``, weights ``[columns]`` and uint8 ``[rows, row_bytes]``.
"""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.base import Bytes, Floats
from edgeq.formats.blocks.refine import searches
from edgeq.formats.effort import Effort
from edgeq.kernels_cpu import threads
from edgeq.kernels_cpu.isa import Isa
from edgeq.kernels_cpu.registry import kernels
from edgeq.kernels_cpu.views import read_only


def refine(
    block_type_name: str, rows: Floats, importance: Floats | None, encoded: Bytes, isa: Isa, effort: Effort
) -> None:
    """Lower Σ importance · (x − x̂)² of encoded rows in place; ``rows`` are finite, contiguous and read-only.

    No block gets worse. Types without a module stay as their encoder made them.
    """
    module = kernels(__name__, block_type_name)
    if module is None:
        return
    n_rows, columns = rows.shape
    weights = read_only(np.ones(columns, np.float32) if importance is None else importance)
    for search in searches(block_type_name, effort, importance is not None):
        threads.run(module.refine_rows, n_rows, columns, rows, weights, encoded, search, isa)
