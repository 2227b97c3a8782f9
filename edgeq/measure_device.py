"""This machine as a profile with measured numbers: how fast it reads, and its engines' rates."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from edgeq.bench.rates import measured_rates
from edgeq.devices.host import HostFacts, profile_of
from edgeq.devices.measure import measure, with_measured
from edgeq.devices.profile import Profile
from edgeq.runtimes import llama_cpp
from edgeq.runtimes.engines import EngineName

TYPES = ("Q4_K", "Q8_0", "Q6_K", "Q4_0", "Q5_K", "IQ4_XS", "IQ4_NL", "Q3_K", "Q2_K")
# And their names in profiles.
_ENGINES: dict[EngineName, str] = {"embedded": "edgeq", "llama.cpp": "llama.cpp"}


def measured_profile(
    facts: HostFacts,
    n_threads: int,
    progress: Callable[[str, int, int], None],
    types: Sequence[str] = TYPES,
) -> tuple[Profile, dict[str, Any]]:
    """The machine's profile with its measured bandwidth and rates of these block types, and the figures.

    Of our engine, and of llama.cpp where it is installed. Raises EdgeqError.
    """
    roofs = measure(n_threads)
    engines = {
        engine: name for engine, name in _ENGINES.items() if engine == "embedded" or llama_cpp.available()
    }
    largest = max(facts.caches.values(), default=0)
    rates = measured_rates(engines, roofs, types, facts.isa, largest, progress)
    figures = dataclasses.asdict(roofs) | {"rates": [dataclasses.asdict(one) for one in rates]}
    return with_measured(profile_of(facts), roofs, tuple(rates)), figures
