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
from typing import Any

import numpy as np

from edgeq.formats.blocks.base import Bytes, Floats, by_name
from edgeq.formats.effort import Effort


@functools.cache
def refiner(block_type_name: str) -> ModuleType | None:
    """The module of a type, imported when needed; None where there is nothing to refine."""
    module = f"{__name__}.{by_name(block_type_name).name.lower()}"
    return None if importlib.util.find_spec(module) is None else importlib.import_module(module)


def searches(block_type_name: str, effort: Effort, weighted: bool) -> list[Any]:
    """The searches to run one after the other: the best one starts from what the normal one found.

    A module's ``WEIGHTED_SEARCHES``, if it has some, are those under importance.
    """
    module = refiner(block_type_name)
    if module is None or effort is Effort.ggml:
        return []
    table = getattr(module, "WEIGHTED_SEARCHES", module.SEARCHES) if weighted else module.SEARCHES
    return [table[each] for each in (Effort.normal, Effort.best)[: 1 + (effort is Effort.best)]]


def refine(
    block_type_name: str, values: Floats, importance: Floats | None, encoded: Bytes, effort: Effort
) -> Bytes:
    """Refine uint8 ``[rows, row_bytes]``, the encoding of finite float32 ``[rows, columns]``.

    ``importance`` is float32 ``[columns]`` and weighs the squared error; None weighs all columns alike.
    """
    module = refiner(block_type_name)
    if module is None or not encoded.size:
        return encoded
    block_type = by_name(block_type_name)
    weights = np.ones(values.shape[1], np.float32) if importance is None else importance
    blocks = encoded.reshape(-1, block_type.block_bytes)
    each = (len(blocks), block_type.block_values)
    x = np.asarray(values, np.float32).reshape(each)
    columns = np.broadcast_to(weights, values.shape).reshape(each)
    with np.errstate(all="ignore"):  # trials may divide by zero; they lose every comparison then
        for search in searches(block_type_name, effort, importance is not None):
            blocks = module.refine_blocks(x, columns, blocks, search)
    return np.asarray(blocks).reshape(encoded.shape)
