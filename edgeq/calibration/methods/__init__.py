"""How a range is chosen from what was seen, one method a file; ``parse_method`` finds them by name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

from edgeq.calibration.ranges import RangeCollector
from edgeq.errors import InputError
from edgeq.formats.onnx.int8 import ActivationRange

Choose = Callable[[RangeCollector, float], ActivationRange]


@dataclass(frozen=True)
class Method:
    """A method and its number, as ``percentile:99.9`` writes them."""

    name: str
    number: float
    choose: Choose

    def __call__(self, collector: RangeCollector) -> ActivationRange:
        return self.choose(collector, self.number)

    def __str__(self) -> str:
        return f"{self.name}:{self.number:g}" if self.number else self.name


@dataclass(frozen=True)
class _Entry:
    choose: Choose
    default: float  # 0: the method has no number
    least: float
    most: float


METHODS: dict[str, _Entry] = {}


def method(
    name: str, default: float = 0.0, least: float = 0.0, most: float = 0.0
) -> Callable[[Choose], Choose]:
    """Register a function as a calibration method; its number lies above ``least`` and is at most ``most``."""

    def register(choose: Choose) -> Choose:
        METHODS[name] = _Entry(choose, default, least, most)
        return choose

    return register


def parse_method(text: str) -> Method:
    """``NAME`` or ``NAME:NUMBER``; raises InputError listing the methods."""
    name, _, rest = text.lower().partition(":")
    entry = METHODS.get(name)
    if entry is None or (rest and not entry.default):
        raise InputError(f"{text}: there are {', '.join(usages())}")
    if not rest:
        return Method(name, entry.default, entry.choose)
    try:
        number = float(rest)
    except ValueError:
        raise InputError(f"{text}: {rest!r} is no number") from None
    if not entry.least < number <= entry.most:
        raise InputError(f"{text}: must be above {entry.least:g} and at most {entry.most:g}")
    return Method(name, number, entry.choose)


def usages() -> list[str]:
    """The methods as they are written, with their default numbers."""
    return [f"{name}:{entry.default:g}" if entry.default else name for name, entry in METHODS.items()]


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
