"""What the classes of cores and the kinds of devices achieve where nobody measured the device itself."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeq.devices.fields import Fields, read_toml
from edgeq.devices.profile import KINDS

PATH = Path(__file__).with_name("classes.toml")


@dataclass(frozen=True)
class CoreClass:
    """Weights (``decode``) and operations (``prefill``) per clock cycle and core, by block type."""

    name: str
    what: str
    decode: Mapping[str, float]
    prefill: Mapping[str, float]
    why: str = ""  # it is like another one


@dataclass(frozen=True)
class Defaults:
    """Everything in ``classes.toml``; seconds, and shares of a peak."""

    classes: Mapping[str, CoreClass]
    similar: Mapping[str, tuple[str, ...]]
    bandwidth: Mapping[str, float]
    core_bandwidth: Mapping[str, float]
    peak: Mapping[str, float]
    per_layer: float
    per_layer_and_thread: float
    gpu_per_layer: float
    per_row: float
    slow_core: float  # what is left of the speed with each thread on a slow core
    measured_range: tuple[float, float]  # measured over predicted speed
    unmeasured_range: tuple[float, float]


@functools.cache
def defaults(path: Path = PATH) -> Defaults:
    """The defaults, read once; raises FormatError naming the field that is wrong."""
    top = read_toml(path)
    sources = top.sources()
    classes: dict[str, CoreClass] = {}
    for name, table in top.table("class").tables():
        classes[name] = _core_class(name, table, classes, sources)
    similar = top.table("similar")
    bandwidth, single, peak = (top.table(name) for name in ("bandwidth", "core_bandwidth", "peak"))
    waiting, spread, slow = top.table("waiting"), top.table("range"), top.table("slow_core")
    for table in (bandwidth, single, peak, waiting, spread, slow):
        table.choice("source", sources)
    found = Defaults(
        classes=classes,
        similar={name: similar.texts(name) for name in similar},
        bandwidth={kind: bandwidth.number(kind, 0.05, 1) for kind in KINDS},
        core_bandwidth={kind: single.number(kind, 0.1, 1e4) for kind in KINDS},
        peak={kind: peak.number(kind, 0.1, 1e5) for kind in KINDS},
        per_layer=waiting.number("per_layer", 0, 1e4) / 1e6,
        per_layer_and_thread=waiting.number("per_layer_and_thread", 0, 1e4) / 1e6,
        gpu_per_layer=waiting.number("gpu_per_layer", 0, 1e4) / 1e6,
        per_row=waiting.number("per_row", 0, 10) / 1e6,
        slow_core=slow.number("rest", 0.1, 1),
        measured_range=_range(spread, "measured"),
        unmeasured_range=_range(spread, "unmeasured"),
    )
    for table in (bandwidth, single, peak, waiting, spread, slow, top):
        table.done()
    return found


def rate_of(table: Mapping[str, float], type_name: str) -> float | None:
    """The rate of a type, or of one that is similar; None where the table has neither."""
    for name in (type_name, *defaults().similar.get(type_name, ())):
        if name in table:
            return table[name]
    return None


def _range(table: Fields, which: str) -> tuple[float, float]:
    return table.number(f"{which}_low", 0.1, 1), table.number(f"{which}_high", 1, 10)


def _core_class(
    name: str, table: Fields, earlier: Mapping[str, CoreClass], sources: Collection[str]
) -> CoreClass:
    what = table.text("what")
    if "like" not in table:
        table.choice("source", sources)
        made = CoreClass(name, what, table.numbers("decode", 0.01, 1e4), table.numbers("prefill", 0.01, 1e5))
    else:
        base = earlier[table.choice("like", earlier)]
        times = table.number("times", 0.01, 10)
        many = table.number("prefill_times", 0.01, 10, default=times)
        made = CoreClass(
            name,
            what,
            {kind: rate * times for kind, rate in base.decode.items()},
            {kind: rate * many for kind, rate in base.prefill.items()},
            table.text("why"),
        )
    table.done()
    return made
