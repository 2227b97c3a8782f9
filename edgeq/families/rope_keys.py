"""How a config.json and GGUF metadata spell a rotary embedding."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from edgeq.errors import InputError
from edgeq.families.base import MetadataReader, config_count, config_number
from edgeq.families.rope import FREQS, LONG, SHORT, LongRope, Rope, Yarn, is_positive, yarn_magnitude

_KINDS = ("default", "linear", "llama3", "yarn", "longrope")


def rope_from_config(config: Mapping[str, Any], head_dim: int) -> Rope:
    """Read ``rope_theta`` and ``rope_scaling`` (or ``rope_parameters`` of transformers 5) of a config.json.

    Raises InputError for a scaling that is not known. Upstream: transformers, ``modeling_rope_utils``.
    """
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(scaling, Mapping):
        raise InputError(f"config.json: rope_scaling must be an object, not {scaling!r}")
    theta = scaling.get("rope_theta", config.get("rope_theta", 10000.0))
    if not is_positive(theta):
        raise InputError(f"config.json: rope_theta must be a positive number, not {theta!r}")
    theta, dim = float(theta), _rotated(config, scaling, head_dim)
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return Rope(theta, dim)
    if kind == "linear":
        return Rope(theta, dim, linear_factor=_number(scaling, "factor"))
    if kind == "llama3":
        return Rope(theta, dim, factors=_llama3_factors(scaling, theta, dim))
    if kind == "yarn":
        return _yarn(config, scaling, theta, dim)
    if kind in ("longrope", "su"):
        return _longrope(config, scaling, theta, dim)
    raise InputError(f"config.json: rope_scaling type {kind!r} is not known; edgeq has {', '.join(_KINDS)}")


def _rotated(config: Mapping[str, Any], scaling: Mapping[str, Any], head_dim: int) -> int:
    """How many values of a head turn."""
    share = scaling.get("partial_rotary_factor", config.get("partial_rotary_factor")) or 1.0
    if not is_positive(share) or share > 1:
        raise InputError(f"config.json: partial_rotary_factor must be above 0 and at most 1, not {share!r}")
    dim = int(head_dim * share)
    if dim % 2 or not dim:
        raise InputError(
            f"config.json: head_dim {head_dim} times partial_rotary_factor {share:g} must be even for rope"
        )
    return dim


def _llama3_factors(scaling: Mapping[str, Any], theta: float, dim: int) -> tuple[float, ...]:
    """Divisors of the frequencies, smoothed between two wavelengths."""
    factor, low, high, original = (
        _number(scaling, key)
        for key in ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    )
    if high <= low:
        raise InputError("config.json: rope_scaling.high_freq_factor must be above low_freq_factor")
    divisors = []
    for frequency in Rope(theta, dim).frequencies().astype(float):
        wavelength = 2 * math.pi / frequency
        smooth = min(1.0, max(0.0, (original / wavelength - low) / (high - low)))
        divisors.append(float(1 / ((1 - smooth) / factor + smooth)))
    return tuple(divisors)


def _yarn(config: Mapping[str, Any], scaling: Mapping[str, Any], theta: float, dim: int) -> Rope:
    if theta <= 1:
        raise InputError(f"config.json: rope_theta must be above 1 for yarn, not {theta!r}")
    if scaling.get("truncate", True) is not True:
        raise InputError("config.json: rope_scaling.truncate false is not supported")
    factor = _number(scaling, "factor")
    yarn = Yarn(
        factor,
        config_count(scaling, "original_max_position_embeddings", config.get("max_position_embeddings")),
        config_number(scaling, "beta_fast", 32.0),
        config_number(scaling, "beta_slow", 1.0),
    )
    magnitude = yarn_magnitude(factor)
    if scaling.get("attention_factor") is not None:
        magnitude = _number(scaling, "attention_factor")
    elif scaling.get("mscale") and scaling.get("mscale_all_dim"):
        scales = _number(scaling, "mscale"), _number(scaling, "mscale_all_dim")
        magnitude = yarn_magnitude(factor, scales[0]) / yarn_magnitude(factor, scales[1])
    return Rope(theta, dim, yarn=yarn, magnitude=magnitude)


def _longrope(config: Mapping[str, Any], scaling: Mapping[str, Any], theta: float, dim: int) -> Rope:
    context = config_count(config, "max_position_embeddings")
    outer = config.get("original_max_position_embeddings")
    original = config_count(scaling, "original_max_position_embeddings", outer or context)
    factor = context / original
    if not outer and scaling.get("factor") is not None:
        factor = _number(scaling, "factor")
    if scaling.get("attention_factor") is not None:
        magnitude = _number(scaling, "attention_factor")
    elif factor > 1 and original > 1:
        magnitude = math.sqrt(1 + math.log(factor) / math.log(original))
    else:
        magnitude = 1.0
    short, long = (_divisors(scaling, key, dim // 2) for key in ("short_factor", "long_factor"))
    return Rope(theta, dim, longrope=LongRope(original, short, long), magnitude=magnitude)


def _divisors(scaling: Mapping[str, Any], key: str, count: int) -> tuple[float, ...]:
    values = scaling.get(key)
    if not isinstance(values, list) or len(values) != count or not all(map(is_positive, values)):
        raise InputError(f"config.json: rope_scaling.{key} must be a list of {count} positive numbers")
    return tuple(map(float, values))


def _number(scaling: Mapping[str, Any], key: str) -> float:
    value = scaling.get(key)
    if not is_positive(value):
        raise InputError(f"config.json: rope_scaling.{key} must be a positive number, not {value!r}")
    return float(value)


def rope_metadata(rope: Rope) -> dict[str, Any]:
    """The GGUF keys of a rope, without the architecture's prefix."""
    keys: dict[str, Any] = {"rope.freq_base": rope.theta, "rope.dimension_count": rope.dim}
    if rope.scaling == "linear":
        keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": rope.linear_factor}
    if rope.yarn is not None:
        keys |= {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": rope.yarn.factor,
            "rope.scaling.original_context_length": rope.yarn.original,
            "rope.scaling.yarn_beta_fast": rope.yarn.beta_fast,
            "rope.scaling.yarn_beta_slow": rope.yarn.beta_slow,
        }
        # llama.cpp has the usual magnitude built in, and multiplies it by this one (llama_context).
        share = rope.magnitude / yarn_magnitude(rope.yarn.factor)
        keys |= {"rope.scaling.attn_factor": share} if share != 1.0 else {}
    if rope.longrope is not None:
        keys |= {
            "rope.scaling.type": "longrope",
            "rope.scaling.original_context_length": rope.longrope.original,
            "rope.scaling.attn_factor": rope.magnitude,
        }
    return keys


def rope_from_metadata(reader: MetadataReader, head_dim: int) -> Rope:
    """The rope of a GGUF file; raises InputError for a scaling that is not known."""
    dim = reader.count("rope.dimension_count", head_dim)
    if dim % 2 or dim > head_dim:
        raise InputError(
            f"GGUF metadata {reader.architecture}.rope.dimension_count: {dim} does not fit heads of {head_dim}"
        )
    plain = Rope(reader.number("rope.freq_base", 10000.0), dim, factors=_vector(reader, FREQS, dim))
    kind = reader.metadata.get(f"{reader.architecture}.rope.scaling.type", "none")
    if LONG in reader.vectors:  # some converters leave the type out
        kind = "longrope"
    if kind == "none":
        return plain
    if kind == "linear":
        factor = reader.number("rope.scaling.factor", 1.0)
        return Rope(plain.theta, dim, factor, plain.factors)
    share = reader.number("rope.scaling.attn_factor", 1.0)
    if kind == "yarn" and plain.theta > 1:
        yarn = Yarn(
            reader.number("rope.scaling.factor", 1.0),
            reader.count("rope.scaling.original_context_length", reader.count("context_length")),
            reader.number("rope.scaling.yarn_beta_fast", 32.0),
            reader.number("rope.scaling.yarn_beta_slow", 1.0),
        )
        magnitude = yarn_magnitude(yarn.factor) * share
        return Rope(plain.theta, dim, factors=plain.factors, yarn=yarn, magnitude=magnitude)
    if kind == "longrope":
        original = reader.count("rope.scaling.original_context_length", reader.count("context_length"))
        short, long = (_vector(reader, name, dim) for name in (SHORT, LONG))
        if short is None or long is None:
            raise InputError(f"GGUF tensors {SHORT} and {LONG} belong together")
        return Rope(plain.theta, dim, longrope=LongRope(original, short, long), magnitude=share)
    raise InputError(
        f"GGUF metadata {reader.architecture}.rope.scaling.type: {kind!r} is not known; "
        "there are none, linear, yarn, longrope"
    )


def _vector(reader: MetadataReader, name: str, dim: int) -> tuple[float, ...] | None:
    values = reader.vectors.get(name)
    if values is not None and (len(values) != dim // 2 or not all(map(is_positive, values))):
        raise InputError(f"GGUF tensor {name} must hold {dim // 2} positive numbers")
    return values
