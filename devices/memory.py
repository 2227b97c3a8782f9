"""How much memory a model takes while it runs, and how much an app may take on a device.

llama.cpp's buffers: weights as in the file; the cache in float16, a window's with one batch more and in whole
256 positions; compute for 512 positions, of which logits and two hidden states are the most at once. Source:
llama_kv_cache_iswa and graph_reserve of llama.cpp 0c1e57098.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from edgeq.devices.fields import read_toml
from edgeq.devices.predict import BATCH
from edgeq.devices.profile import APPS, Profile
from edgeq.devices.work import Work

PATH = Path(__file__).with_name("limits.toml")
_STEP = 256  # positions
_FLOAT_BYTES = 4
_RUNTIME_BYTES = 40_000_000  # llama.cpp's code, tokenizer and graph


@dataclass(frozen=True)
class Footprint:
    """Bytes while running."""

    weights: int
    cache: int
    compute: int
    runtime: int

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.compute + self.runtime


@dataclass(frozen=True)
class Ceiling:
    """Bytes an app may use, and why."""

    nbytes: float
    why: str


def footprint(work: Work, weight_bytes: int, context: int) -> Footprint:
    """Memory of a model whose tensors take ``weight_bytes``, with room for ``context`` positions."""
    positions = -(-context // _STEP) * _STEP
    cache = work.cache_values(positions, extra=BATCH) * work.cache_bytes
    rows = min(BATCH, context)
    compute = rows * (work.vocab + 2 * work.hidden) * _FLOAT_BYTES
    return Footprint(weight_bytes, cache, compute, _RUNTIME_BYTES)


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
