"""Rotary position embedding: its frequencies, and how configurations spell its scaling."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import InputError


@dataclass(frozen=True)
class Rope:
    """Angles are ``position / linear_factor * theta**(-2i/dim) / factors[i]`` for i below dim / 2."""

    theta: float
    dim: int
    linear_factor: float = 1.0
    factors: tuple[float, ...] | None = None

    def frequencies(self) -> NDArray[np.float32]:
        """Radians per position, float32 ``[dim / 2]``."""
        exponents = np.arange(0, self.dim, 2, dtype=np.float64) / self.dim
        frequencies = self.theta**-exponents / self.linear_factor
        if self.factors is not None:
            frequencies = frequencies / np.asarray(self.factors, np.float64)
        return frequencies.astype(np.float32)


def rope_from_config(config: Mapping[str, Any], dim: int) -> Rope:
    """Read ``rope_theta`` and ``rope_scaling`` (or ``rope_parameters`` of transformers 5) of a config.json.

    Raises InputError for a scaling other than none, linear or llama3.
    """
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(scaling, Mapping):
        raise InputError(f"config.json: rope_scaling must be an object, not {scaling!r}")
    theta = scaling.get("rope_theta", config.get("rope_theta", 10000.0))
    if not is_positive(theta):
        raise InputError(f"config.json: rope_theta must be a positive number, not {theta!r}")
    theta = float(theta)
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return Rope(theta, dim)
    if kind == "linear":
        return Rope(theta, dim, linear_factor=_number(scaling, "factor"))
    if kind == "llama3":
        return Rope(theta, dim, factors=_llama3_factors(scaling, theta, dim))
    raise InputError(
        f"config.json: rope_scaling type {kind!r} is not known; this family has default, linear, llama3"
    )


def is_positive(value: object) -> TypeGuard[int | float]:
    """Whether this is a number above 0 that a float64 holds; true and false are no numbers."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e308


def _llama3_factors(scaling: Mapping[str, Any], theta: float, dim: int) -> tuple[float, ...]:
    """Divisors of the frequencies, smoothed between two wavelengths (transformers, modeling_rope_utils)."""
    factor, low, high, original = (
        _number(scaling, key)
        for key in ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    )
    if high <= low:
        raise InputError("config.json: rope_scaling.high_freq_factor must be above low_freq_factor")
    divisors = []
    for frequency in Rope(theta, dim).frequencies().astype(np.float64):
        wavelength = 2 * math.pi / frequency
        smooth = min(1.0, max(0.0, (original / wavelength - low) / (high - low)))
        divisors.append(float(1 / ((1 - smooth) / factor + smooth)))
    return tuple(divisors)


def _number(scaling: Mapping[str, Any], key: str) -> float:
    value = scaling.get(key)
    if not is_positive(value):
        raise InputError(f"config.json: rope_scaling.{key} must be a positive number, not {value!r}")
    return float(value)


def interleaved_order(n_rows: int, heads: int) -> NDArray[np.int64]:
    """Which Hugging Face row stands at each GGUF row of a Q or K weight.

    Hugging Face pairs row i of a head with row i + D/2, ggml's "norm" rope pairs neighbours, so the converter
    interleaves the halves of each head (upstream: LlamaModel.permute in the HF converter).
    """
    return np.arange(n_rows).reshape(heads, 2, n_rows // heads // 2).swapaxes(1, 2).reshape(-1)
