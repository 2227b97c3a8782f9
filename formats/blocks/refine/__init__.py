"""Searches beyond ggml's: encoded blocks in, blocks of less error out, same type and size.

A module here is named as its type and has ``SEARCHES``, the search's parameters by effort, and
``refine_blocks(values, weights, blocks, search)``: float32 ``[n, block_values]`` (values and weights), uint8
``[n, block_bytes]`` as the encoder made them; returns blocks whose weighted squared error Σ w·(x − x̂)² is lower
or, where it finds none, the ones it was given. Types without a module are as good as their encoder makes them.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from types import ModuleType

import numpy as np

from edgeq.formats.blocks.base import Bytes, Floats, by_name
from edgeq.formats.effort import Effort


@functools.cache
def refiner(block_type_name: str) -> ModuleType | None:
    """The module of a type, imported when needed; None where there is nothing to refine."""
    module = f"{__name__}.{by_name(block_type_name).name.lower()}"
    return None if importlib.util.find_spec(module) is None else importlib.import_module(module)


def refine(
    block_type_name: str, values: Floats, importance: Floats | None, encoded: Bytes, effort: Effort
) -> Bytes:
    """Refine uint8 ``[rows, row_bytes]``, the encoding of finite float32 ``[rows, columns]``.

    ``importance`` is float32 ``[columns]`` and weighs the squared error; None weighs all columns alike.
    """
    module = refiner(block_type_name)
    if module is None or effort is Effort.ggml or not encoded.size:
        return encoded
    block_type = by_name(block_type_name)
    weights = np.ones(values.shape[1], np.float32) if importance is None else importance
    blocks = encoded.reshape(-1, block_type.block_bytes)
    each = (len(blocks), block_type.block_values)
    with np.errstate(all="ignore"):  # trials may divide by zero; they lose every comparison then
        refined = module.refine_blocks(
            np.asarray(values, np.float32).reshape(each),
            np.broadcast_to(weights, values.shape).reshape(each),
            blocks,
            module.SEARCHES[effort],
        )
    return np.asarray(refined).reshape(encoded.shape)
