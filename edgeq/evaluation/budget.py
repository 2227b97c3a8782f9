"""Quality gates: the limits of a budget file, and what of a measurement breaks them.

A budget is a TOML file of the keys of ``LIMITS``, such as ``max_kl_mean = 0.02`` or ``max_size = "3.2GB"``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.errors import FormatError


@dataclass(frozen=True)
class Limit:
    """A key of a budget file: what it bounds, where a record has that, and how both are written."""

    key: str
    what: str
    places: Sequence[tuple[str, str]]  # (part of the record, its key); the first that is there counts
    error: str | None = None  # the key of its standard error
    unit: Callable[[float], str] = "{:.5g}".format
    most: float | None = None  # that it can be

    @property
    def is_least(self) -> bool:
        """Whether less is worse."""
        return self.key.startswith("min_")


def _seconds(value: float) -> str:
    return f"{1000 * value:.3g} ms"


def _bytes(value: float) -> str:
    return f"{value / 1e6:,.1f} MB"


def _share(value: float) -> str:
    return f"{value:.2%}"


LIMITS = {
    limit.key: limit
    for limit in (
        Limit(
            "max_perplexity_ratio",
            "perplexity over the reference's",
            [("answers", "perplexity_ratio")],
            "perplexity_ratio_standard_error",
        ),
        Limit("max_perplexity", "perplexity", [("answers", "perplexity")], "perplexity_standard_error"),
        Limit("max_kl_mean", "mean KL", [("answers", "kl_mean")], "kl_standard_error"),
        Limit("max_kl_99", "KL at 99 %", [("answers", "kl_99")]),
        Limit(
            "min_top1",
            "same top token",
            [("answers", "top1_agreement"), ("answers", "same_label")],
            "top1_standard_error",
            _share,
            1,
        ),
        Limit("min_cosine", "mean cosine", [("answers", "cosine_mean")], "cosine_standard_error", most=1),
        Limit(
            "min_overlap", "overlap at 10", [("answers", "overlap_10")], "overlap_10_standard_error", most=1
        ),
        Limit("min_accuracy", "accuracy", [("answers", "accuracy")], "accuracy_standard_error", _share, 1),
        Limit("min_valid", "valid answers", [("structured", "valid")], None, _share, 1),
        Limit("max_p50", "median latency", [("cost", "latency_p50")], None, _seconds),
        Limit("max_p95", "latency at 95 %", [("cost", "latency_p95")], None, _seconds),
        Limit(
            "min_tokens_per_second",
            "tokens generated in a second",
            [("cost", "decode_tokens_per_second")],
        ),
        Limit("max_memory", "peak memory", [("cost", "peak_memory_bytes")], None, _bytes),
        Limit("max_size", "size", [("", "bytes")], None, _bytes),
    )
}
_SIZES = ("max_memory", "max_size")
_TIMES = ("max_p50", "max_p95")
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMG]?)B?", re.IGNORECASE)


@dataclass(frozen=True)
class Budget:
    """The limits of one file, in the records' units: nats, shares of 1, seconds, bytes."""

    path: Path
    limits: Mapping[str, float]

    def broken(self, record: Mapping[str, Any]) -> list[str]:
        """A line for every limit that a record of ``edgeq.evaluate`` breaks, or says nothing of."""
        return [
            line for key, value in self.limits.items() if (line := self._line(LIMITS[key], value, record))
        ]

    def _line(self, limit: Limit, allowed: float, record: Mapping[str, Any]) -> str | None:
        where = f"{record['file']}: {limit.what}"
        value = measured(limit, record)
        if value is None:
            return f"{where} was not measured, and {self.path.name} has {limit.key}"
        if value >= allowed if limit.is_least else value <= allowed:
            return None
        error = record.get(limit.places[0][0], {}).get(limit.error) if limit.error else None
        spread = f" ± {limit.unit(error)}" if error else ""
        side = "below" if limit.is_least else "above"
        return f"{where} is {limit.unit(value)}{spread}, {side} {limit.key} = {limit.unit(allowed)}"


def measured(limit: Limit, record: Mapping[str, Any]) -> float | None:
    """What a record says of a limit's matter; None where it says nothing."""
    for part, key in limit.places:
        value = (record.get(part) or {} if part else record).get(key)
        if isinstance(value, int | float):
            return float(value)
    return None


def read_budget(path: Path) -> Budget:
    """Read a budget file; raises FormatError for what is no TOML, an unknown key or an impossible value."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FormatError(path, f"cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:  # TOML, UTF-8
        raise FormatError(path, f"is no TOML ({error})") from None
    unknown = sorted(content.keys() - LIMITS.keys())
    if unknown:
        raise FormatError(path, f"unknown key {unknown[0]!r}", f"the keys are {', '.join(LIMITS)}")
    if not content:
        raise FormatError(path, "has no limit", f"the keys are {', '.join(LIMITS)}")
    return Budget(path, {key: _limit(path, LIMITS[key], value) for key, value in content.items()})


def _limit(path: Path, limit: Limit, value: object) -> float:
    """A value in the records' unit: sizes may be "3.2GB", times "50ms" or seconds."""
    try:
        number = _number(limit.key, value)
    except (ValueError, TypeError, OverflowError):
        example = '"500MB"' if limit.key in _SIZES else '"50ms"' if limit.key in _TIMES else "0.02"
        raise FormatError(path, f"{limit.key} must be a number such as {example}, not {value!r}") from None
    if not 0 <= number < float("inf") or (limit.most is not None and number > limit.most):
        most = "" if limit.most is None else f" and at most {limit.most:g}"
        raise FormatError(path, f"{limit.key} must be at least 0{most}, not {value!r}")
    return number


def _number(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    if not isinstance(value, str):
        return float(value)
    text = value.strip()
    if key in _SIZES:
        return size_in_bytes(text)
    if key in _TIMES and text.endswith("ms"):
        return float(text[:-2]) / 1000
    if key in _TIMES and text.endswith("s"):
        return float(text[:-1])
    raise ValueError


def size_in_bytes(text: str) -> float:
    """ "3.2GB", "500M" or "3200000" in bytes, in powers of 1000; raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(text)
    return float(match[1]) * 1000 ** " KMG".index(match[2].upper() or " ")
