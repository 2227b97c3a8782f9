"""A profile as the few rates that a prediction needs: what its CPU or GPU achieves, measured or by class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from edgeq.devices.classes import CoreClass, Defaults, defaults, rate_of
from edgeq.devices.profile import Cluster, Gpu, Profile, Rates
from edgeq.devices.repacking import repacked
from edgeq.formats.errors import EdgeqError
from edgeq.formats.gguf.types import TENSOR_TYPES_BY_NAME

_GPU_DECODE = 1e6  # 10⁹ weights a second: a GPU unpacks faster than it reads
_GPU_PREFILL_SHARE = 0.6  # of the peak of its matrix units, with quantized weights
_SLOW = 0.3  # of the fastest core's rate, and all wait for it: in-order cores beside others
_TERAFLOPS_PER_GBS = 0.1  # where nobody says: half of what a recent GPU has


@dataclass(frozen=True)
class Machine:
    """GB/s of reading weights, 10⁹ weights and operations per second by block type, seconds of waiting per layer.

    A short row of weights costs seconds beside its weights, by type: ``row_seconds`` with one row of activations,
    ``many_row_seconds`` with each of many. ``measured`` says that bandwidth or rates were measured on the device.
    """

    unit: str
    threads: int
    read_gbs: float
    decode: Mapping[str, float]
    prefill: Mapping[str, float]
    waiting: float
    memory_gb: float
    measured: bool
    row_seconds: Mapping[str, float] = field(default_factory=dict)
    many_row_seconds: Mapping[str, float] = field(default_factory=dict)


def cpu_of(profile: Profile, threads: int = 0, engine: str = "llama.cpp") -> Machine:
    """What the CPU does with so many threads (0: those of the profile), the fastest cores first.

    Raises EdgeqError for a device without CPU cores and for a class that ``classes.toml`` does not have.
    """
    known = defaults()
    if not profile.clusters:
        raise EdgeqError(f"{profile.name}: is a GPU, its profile has no CPU cores")
    threads = min(threads or profile.threads, profile.cores)
    rates = next((rates for rates in profile.rates if rates.engine == engine), None)
    read = profile.memory.read_gbs
    left = known.slow_core ** max(0, _slow_cores(profile, threads) - _slow_cores(profile, profile.threads))
    reached = _bandwidth(profile, known, threads) if read is None else _read_by(profile, known, threads, read)
    decode = _by_type(profile, threads, rates, "decode")
    return Machine(
        unit="CPU",
        threads=threads,
        read_gbs=reached * left,
        decode={name: rate * left for name, rate in decode.items()},
        prefill=_by_type(profile, threads, rates, "prefill"),
        waiting=_waiting(known, threads, rates),
        memory_gb=profile.memory.gb,
        measured=(read is not None and profile.memory.read_is == "measured") or rates is not None,
        row_seconds=_row_seconds(profile, known, threads, engine, rates),
        many_row_seconds={} if rates is None else _of_threads(rates.prefill_row_ns, rates, threads),
    )


def gpu_of(profile: Profile, gpu: Gpu) -> Machine:
    """What a GPU does with all layers on it."""
    known = defaults()
    prefill = (gpu.teraflops or gpu.gbs * _TERAFLOPS_PER_GBS) * 1e3 * _GPU_PREFILL_SHARE
    return Machine(
        unit=f"{gpu.name} ({gpu.api})",
        threads=1,
        read_gbs=gpu.gbs * known.bandwidth["gpu"],
        decode=dict.fromkeys(TENSOR_TYPES_BY_NAME, _GPU_DECODE),
        prefill=dict.fromkeys(TENSOR_TYPES_BY_NAME, prefill),
        waiting=known.gpu_per_layer,
        memory_gb=gpu.gb,
        measured=False,
    )


def _bandwidth(profile: Profile, known: Defaults, threads: int) -> float:
    """GB/s where nobody measured it: what such devices reach of their peak, no more than the cores can read."""
    peak = profile.memory.peak_gbs or known.peak[profile.kind]
    return min(peak * known.bandwidth[profile.kind], threads * known.core_bandwidth[profile.kind])


def _read_by(profile: Profile, known: Defaults, threads: int, read: float) -> float:
    """GB/s measured with the profile's threads, as far as fewer of them can read."""
    if threads >= profile.threads:
        return read
    return min(read, threads * max(known.core_bandwidth[profile.kind], read / profile.threads))


def _slow_cores(profile: Profile, threads: int) -> int:
    """How many of so many threads run on cores far slower than the fastest."""
    rates = [ghz * (rate_of(core.decode, "Q4_K") or 0.0) for core, ghz in _fastest(profile)][:threads]
    return sum(rate < _SLOW * rates[0] for rate in rates)


def _waiting(known: Defaults, threads: int, rates: Rates | None) -> float:
    if rates is not None and rates.layer_us is not None:
        return rates.layer_us / 1e6
    return known.per_layer + (known.per_layer_and_thread * threads if threads > 1 else 0.0)


def _row_seconds(
    profile: Profile, known: Defaults, threads: int, engine: str, rates: Rates | None
) -> dict[str, float]:
    """As measured, else by class: llama.cpp calls a function for each row of the types that it does not repack, edgeq
    takes panels of rows.
    """
    if rates is not None and rates.layer_us is not None:
        return _of_threads(rates.row_ns, rates, threads)
    if engine != "llama.cpp":
        return {}
    return dict.fromkeys(TENSOR_TYPES_BY_NAME.keys() - repacked(profile.isa), known.per_row / threads)


def _of_threads(nanoseconds: Mapping[str, float], rates: Rates, threads: int) -> dict[str, float]:
    """Seconds for each type, of fewer threads than were measured more."""
    slower = max(1.0, rates.threads / threads) / 1e9
    found = {name: rate_of(nanoseconds, name) for name in TENSOR_TYPES_BY_NAME}
    return {name: value * slower for name, value in found.items() if value is not None}


def _by_type(profile: Profile, threads: int, rates: Rates | None, what: str) -> dict[str, float]:
    """The rate of each type: measured, scaled to the threads, or the sum over the cores of what their class does."""
    cores = list(_fastest(profile))[:threads]
    found = {}
    for name in TENSOR_TYPES_BY_NAME:
        of_class = sum(ghz * (rate_of(getattr(core, what), name) or 0.0) for core, ghz in cores)
        of_class *= profile.sustained
        measured = None if rates is None else rate_of(getattr(rates, what), name)
        if measured is not None and rates is not None:
            measured *= min(1.0, threads / rates.threads)
        found[name] = measured if measured is not None else of_class
    return {name: rate for name, rate in found.items() if rate > 0}


def _fastest(profile: Profile) -> Iterator[tuple[CoreClass, float]]:
    """(class, GHz) of every core, the fastest first."""
    clusters = [(_class_of(profile, cluster), cluster) for cluster in profile.clusters]
    for core, cluster in sorted(clusters, key=lambda c: -c[1].ghz * (rate_of(c[0].decode, "Q4_K") or 0)):
        yield from [(core, cluster.ghz)] * cluster.count


def _class_of(profile: Profile, cluster: Cluster) -> CoreClass:
    known = defaults().classes
    if cluster.core_class not in known:
        raise EdgeqError(
            f"{profile.path or profile.id}: cores {cluster.name}: there is no class {cluster.core_class}; "
            f"there are {', '.join(known)}"
        )
    return known[cluster.core_class]
