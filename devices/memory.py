"""How much memory a model takes while it runs, and how much an app may take on a device.

Resident memory of llama.cpp: weights as in the file; on a CPU, where the file is mapped, a second copy of those that it
repacks for its faster products (``repacking``); the cache in float16, a window's with one batch more and in whole 256
positions; the hidden states of a batch. Logits of a whole batch are reserved but not touched. Source:
llama_kv_cache_iswa of llama.cpp 0c1e57098; constants fitted to measured peaks (docs/prediction.md).
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from edgeq.devices.fields import read_toml
from edgeq.devices.predict import BATCH
from edgeq.devices.profile import APPS, Profile
from edgeq.devices.repacking import repacked
from edgeq.devices.work import Work

PATH = Path(__file__).with_name("limits.toml")
_STEP = 256  # positions
_FLOAT_BYTES = 4
_BATCH_VALUES = 16  # float32 hidden states of a batch that live at once
_RUNTIME_BYTES, _TOKEN_BYTES = (
    52_000_000,
    130,
)  # a process with llama.cpp in it; and for each token of the vocabulary
_MAPPED_APPS = ("desktop", "server")  # others read the file into memory of their own


@dataclass(frozen=True)
class Footprint:
    """Bytes while running."""

    weights: int
    repacked: int
    cache: int
    compute: int
    runtime: int

    @property
    def total(self) -> int:
        return self.weights + self.repacked + self.cache + self.compute + self.runtime


@dataclass(frozen=True)
class Ceiling:
    """Bytes an app may use, and why."""

    nbytes: float
    why: str


def repacked_types(isa: Collection[str], app: str) -> frozenset[str]:
    """Block types that llama.cpp holds twice on a CPU with these instruction sets, in an app of that kind."""
    if app not in _MAPPED_APPS:
        return frozenset()
    return repacked(isa)


def footprint(work: Work, weight_bytes: int, context: int, twice: Collection[str] = frozenset()) -> Footprint:
    """Memory of a model whose tensors take ``weight_bytes``, with room for ``context`` positions.

    ``twice`` are the types that the runtime holds in a second layout, too (``repacked_types``).
    """
    positions = -(-context // _STEP) * _STEP
    return Footprint(
        weights=weight_bytes,
        repacked=round(sum(p.nbytes for p in work.products if p.type_name in twice)),
        cache=round(work.cache_values(positions, extra=BATCH) * work.cache_bytes),
        compute=min(BATCH, context) * _BATCH_VALUES * work.hidden * _FLOAT_BYTES,
        runtime=_RUNTIME_BYTES + _TOKEN_BYTES * work.vocab,
    )


def ceiling(profile: Profile, app: str, memory_gb: float | None = None) -> Ceiling:
    """What an app of that kind may use: as seen on the device, else by the rule of ``limits.toml``.

    ``memory_gb`` is another memory than the device's main one: a GPU's own.
    """
    if memory_gb is not None:
        return Ceiling(memory_gb * 0.95e9, "95 % of the GPU's memory")
    for limit in profile.limits:
        if limit.app == app:
            return Ceiling(limit.gb * 1e9, f"{limit.gb:g} GB seen under {limit.system}")
    rule = _rules()[app]
    gb = min(rule.share * profile.memory.gb, profile.memory.gb - rule.reserve_gb, rule.most_gb)
    return Ceiling(max(0.0, gb) * 1e9, f"{rule.what}: {gb:.1f} of {profile.memory.gb:g} GB")


@dataclass(frozen=True)
class _Rule:
    what: str
    share: float
    reserve_gb: float
    most_gb: float


@functools.cache
def _rules() -> dict[str, _Rule]:
    top = read_toml(PATH)
    sources = top.sources()
    rules = {}
    for app in APPS:
        table = top.table(app)
        table.choice("source", sources)
        rules[app] = _Rule(
            table.text("what"),
            table.number("share", 0.01, 1),
            table.number("reserve_gb", 0, 1e3),
            table.number("most_gb", 0.1, 1e5),
        )
        table.done()
    top.done()
    return rules
