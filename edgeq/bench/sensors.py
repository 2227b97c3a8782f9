"""Energy, temperature and clock, where the system lets a program read them.

Sources: Documentation/power/powercap/powercap.rst and Documentation/admin-guide/pm/cpufreq.rst of Linux 6.12; the
kernel lets only root read energy. Other systems say nothing of these to a program without rights.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/")
_POWERCAP = "sys/class/powercap"
_MOST_DEGREES = 200.0  # a sensor that says more is broken


@dataclass(frozen=True)
class Reading:
    """Joules since some time by energy counter, degrees Celsius of the hottest sensor, mean clock of the cores in MHz.

    What cannot be read is empty or None.
    """

    joules: dict[str, float]
    degrees: float | None
    megahertz: float | None


class Sensors:
    """Reads them; ``root`` is where /sys is, so that a test can be any machine."""

    def __init__(self, root: Path = _ROOT) -> None:
        self._root = root
        zones = sorted((root / _POWERCAP).glob("intel-rapl:*")) if (root / _POWERCAP).is_dir() else []
        # intel-rapl:0 is a package; intel-rapl:0:0 is a part of it that would count twice.
        self._packages = {zone.name: zone for zone in zones if zone.name.count(":") == 1}
        self._wraps = {name: _number(zone / "max_energy_range_uj") for name, zone in self._packages.items()}

    def read(self) -> Reading:
        """What the sensors say now."""
        energy = {name: _number(zone / "energy_uj") for name, zone in self._packages.items()}
        return Reading(
            {name: value / 1e6 for name, value in energy.items() if value is not None},
            self._degrees(),
            self._megahertz(),
        )

    def joules_between(self, before: Reading, after: Reading) -> float | None:
        """Energy of all packages, a counter that began anew included; None where none could be read twice."""
        used = []
        for name in before.joules.keys() & after.joules.keys():
            difference = after.joules[name] - before.joules[name]
            wrap = self._wraps.get(name)
            used.append(difference + (wrap / 1e6 if difference < 0 and wrap else 0.0))
        return sum(used) if used else None

    def _degrees(self) -> float | None:
        zones = (self._root / "sys/class/thermal").glob("thermal_zone*/temp")
        found = [value / 1000 for value in map(_number, zones) if value is not None]
        if not found:
            sensors = (self._root / "sys/class/hwmon").glob("hwmon*/temp*_input")
            found = [value / 1000 for value in map(_number, sensors) if value is not None]
        return max((value for value in found if 0 < value < _MOST_DEGREES), default=None)

    def _megahertz(self) -> float | None:
        folder = self._root / "sys/devices/system/cpu"
        clocks = map(_number, folder.glob("cpu*/cpufreq/scaling_cur_freq"))
        found = [value / 1000 for value in clocks if value]
        return statistics.fmean(found) if found else None


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None
