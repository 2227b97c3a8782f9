"""The error of predicted decode speeds against published ones: ``python benchmarks/prediction.py [--fit|--unseen]``.

``--fit`` prints which shares of bandwidth the rows marked "fit" ask for, by kind of device. ``--unseen`` predicts every
device as if no speed of it had been seen: without measurements of its own in the profile, and with its kind's share of
bandwidth from the rows of the other devices. Rates of the classes stay as they are, so the two devices that those come
from are left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tomllib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeq import families
from edgeq.devices.classes import defaults
from edgeq.devices.library import find
from edgeq.devices.machine import Machine, cpu_of, gpu_of
from edgeq.devices.predict import decode_seconds
from edgeq.devices.profile import Profile
from edgeq.devices.work import Work
from edgeq.formats.gguf.mixes import choose_types
from edgeq.planning.from_config import planned, tensor_bytes
from edgeq.planning.model import PlannedModel

PATH = Path(__file__).with_name("published_speeds.toml")
_DEPTH = 64  # tokens before the one that is generated, half of what most benchmarks generate


@dataclasses.dataclass(frozen=True)
class Row:
    """A published speed and the predicted one, tokens per second."""

    device: str
    kind: str
    model: str
    quant: str
    measured: float
    predicted: float
    held_out: bool
    wanted_gbs: float  # of reading, for the prediction to be right

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1


def rows() -> list[Row]:
    """Every published row with its prediction."""
    data = tomllib.loads(PATH.read_text("utf-8"))
    models = {name: _model(name, entry["config"]) for name, entry in data["models"].items()}
    return [_row(entry, models[entry["model"]]) for entry in data["rows"]]


def _model(name: str, config: dict[str, Any]) -> PlannedModel:
    family = families.for_config(config, name)
    hp = family.from_config(config)
    tensors = [(spec.name, spec.shape) for spec in family.tensors(hp) if not spec.optional]
    return planned(Path(name), family, hp, tensors, exact=False)


def _row(
    entry: dict[str, Any], model: PlannedModel, profile: Profile | None = None, share: float = 0.0
) -> Row:
    """``profile`` instead of the device's own; ``share`` of the peak is read, where it is given."""
    profile = profile or find(entry["device"])
    if share and profile.memory.peak_gbs:
        reached = share / defaults().bandwidth[profile.kind]
        memory = dataclasses.replace(profile.memory, peak_gbs=profile.memory.peak_gbs * reached)
        profile = dataclasses.replace(profile, memory=memory)
    if "peak_gbs" in entry:
        memory = dataclasses.replace(profile.memory, peak_gbs=entry["peak_gbs"], read_gbs=None)
        profile = dataclasses.replace(profile, memory=memory)
    if "ghz" in entry:
        clusters = tuple(dataclasses.replace(c, ghz=entry["ghz"]) for c in profile.clusters)
        profile = dataclasses.replace(profile, clusters=clusters)
    types = {c.name: c.type_name for c in choose_types(entry["quant"], model.shape, model.tensors)}
    work, machine = model.work(types), _machine(profile, entry)
    return Row(
        device=entry["device"],
        kind=profile.kind,
        model=entry["model"],
        quant=entry["quant"],
        measured=entry["speed"],
        predicted=1 / decode_seconds(work, machine, _DEPTH),
        held_out=entry["use"] == "held out",
        wanted_gbs=_wanted_gbs(work, machine, entry["speed"]),
    )


def _machine(profile: Profile, entry: dict[str, Any]) -> Machine:
    if entry.get("unit") == "gpu":
        return gpu_of(profile, profile.gpus[0])
    return cpu_of(profile, entry.get("threads", 0))


def _wanted_gbs(work: Work, machine: Machine, speed: float) -> float:
    """The bandwidth at which the prediction would equal the measured speed; 0 where none would do."""
    low, high = 0.1, 2000.0
    for _ in range(60):
        middle = (low + high) / 2
        fast = 1 / decode_seconds(work, dataclasses.replace(machine, read_gbs=middle), _DEPTH)
        low, high = (middle, high) if fast < speed else (low, middle)
    return 0.0 if high > 1999 else low


@dataclasses.dataclass(frozen=True)
class Range:
    """A published range of GB/s (tokens/s × bytes of the weights) and the predictions for some models."""

    device: str
    quant: str
    low: float
    high: float
    predicted: tuple[float, ...]

    @property
    def error(self) -> float:
        """How far the middle prediction is from the middle of the range, relative to it."""
        middle = (self.low + self.high) / 2
        return statistics.median(self.predicted) / middle - 1


def ranges() -> list[Range]:
    """Every published range with its predictions."""
    data = tomllib.loads(PATH.read_text("utf-8"))
    names = data["ranges"]["models"]
    models = [_model(name, data["models"][name]["config"]) for name in names]
    found = []
    for device, quants in data["ranges"].items():
        if isinstance(quants, dict):
            for quant, (low, high) in quants.items():
                speeds = tuple(_effective_gbs(model, quant, device) for model in models)
                found.append(Range(device, quant, low, high, speeds))
    return found


def _effective_gbs(model: PlannedModel, quant: str, device: str) -> float:
    types = {c.name: c.type_name for c in choose_types(quant, model.shape, model.tensors)}
    size = sum(tensor_bytes(types[name], shape) for name, shape in model.tensors)
    return size / decode_seconds(model.work(types), cpu_of(find(device)), _DEPTH) / 1e9


def summary(found: Sequence[Row]) -> dict[str, float]:
    """Median of the absolute errors, share within ±35 %, the tenth and ninetieth hundredth of measured/predicted."""
    errors = [abs(row.error) for row in found]
    ratios = [row.measured / row.predicted for row in found]
    tenths = statistics.quantiles(ratios, n=10, method="inclusive")
    return {
        "rows": len(found),
        "median_error": statistics.median(errors),
        "within_35_percent": sum(error <= 0.35 for error in errors) / len(errors),
        "low": tenths[0],
        "high": tenths[-1],
    }


def _print_summary(name: str, found: Sequence[Row]) -> None:
    print(name, ", ".join(f"{key} {value:.3g}" for key, value in summary(found).items()))


def _print_fit(found: Sequence[Row]) -> None:
    by_kind: dict[str, list[float]] = defaultdict(list)
    for row in found:
        peak = find(row.device).memory.peak_gbs
        if not row.held_out and peak and row.wanted_gbs:
            by_kind[row.kind].append(row.wanted_gbs / peak)
            print(f"{row.device:24} {row.quant:8} asks for {row.wanted_gbs:6.1f} of {peak:6.1f} GB/s")
    for kind, shares in by_kind.items():
        print(f"{kind:8} share {statistics.median(shares):.2f}, is {defaults().bandwidth[kind]}")


_RATED = ("ryzen-9-7950x", "apple-m2-max")  # what the classes' rates were measured on


def unseen() -> list[Row]:
    """Every row, each device predicted without any row of it."""
    data = tomllib.loads(PATH.read_text("utf-8"))
    models = {name: _model(name, entry["config"]) for name, entry in data["models"].items()}
    asked = _shares(rows())
    found = []
    for entry in data["rows"]:
        if entry["device"] in _RATED:
            continue
        profile = find(entry["device"])
        others = [share for name, share in asked[profile.kind] if name != entry["device"]]
        share = statistics.median(others) if others else defaults().bandwidth[profile.kind]
        found.append(_row(entry, models[entry["model"]], without_measurements(profile), share))
    return found


def without_measurements(profile: Profile) -> Profile:
    """What the maker says of a device alone."""
    memory = dataclasses.replace(profile.memory, read_gbs=None, read_source="")
    return dataclasses.replace(profile, memory=memory, rates=())


def _shares(found: Sequence[Row]) -> dict[str, list[tuple[str, float]]]:
    """By kind: each device, and the median share of its peak that its rows ask for; those that memory does not bound
    ask for none."""
    by_device: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in found:
        peak = find(row.device).memory.peak_gbs
        if peak and 0 < row.wanted_gbs <= peak:
            by_device[row.kind, row.device].append(row.wanted_gbs / peak)
    shares: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for (kind, device), asked in by_device.items():
        shares[kind].append((device, statistics.median(asked)))
    return shares


def main() -> None:
    """Print every row and the two summaries."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fit", action="store_true", help="what the rows marked fit ask for")
    parser.add_argument("--unseen", action="store_true", help="each device without any row of it")
    options = parser.parse_args()
    found = unseen() if options.unseen else rows()
    if options.fit:
        _print_fit(found)
        return
    for row in sorted(found, key=lambda row: (row.held_out, row.device)):
        use = "held out" if row.held_out else "fit"
        print(
            f"{row.device:20} {row.model:18} {row.quant:8} {row.measured:6.2f} t/s, predicted {row.predicted:6.2f} "
            f"({row.error:+.0%}) {use}"
        )
    if options.unseen:
        for kind in sorted({row.kind for row in found}):
            _print_summary(f"unseen {kind}", [row for row in found if row.kind == kind])
        _print_summary("unseen", found)
        return
    for part_range in ranges():
        speeds = ", ".join(f"{speed:.1f}" for speed in part_range.predicted)
        print(
            f"{part_range.device:24} {part_range.quant:8} {part_range.low:g} to {part_range.high:g} GB/s, "
            f"predicted {speeds} ({part_range.error:+.0%}) fit"
        )
    for name, part in (("fit", False), ("held out", True)):
        _print_summary(name, [row for row in found if row.held_out is part])


if __name__ == "__main__":
    main()
