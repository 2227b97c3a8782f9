"""Predicted against measured speed on this machine: ``python benchmarks/prediction_here.py [--quick] [--json FILE]``.

The machine is measured as ``edgeq devices detect --measure`` does; then six models of zeros (``plan_memory.py``) in
three formats generate in the embedded engine and in llama.cpp, each in a process of its own. On a quiet machine it
takes some six minutes with two threads. On a busy one ``--cpu-time`` takes one thread and the CPU time of the process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

from plan_memory import COMMON, MODELS, QUANTS, write_model

from edgeq.bench.child import Job
from edgeq.bench.models import in_child
from edgeq.devices.cpu import usable_cores
from edgeq.devices.host import host_facts, profile_of
from edgeq.devices.machine import cpu_of
from edgeq.devices.predict import decode_seconds, prefill_seconds
from edgeq.devices.profile import Profile, read_profile
from edgeq.devices.to_toml import profile_toml
from edgeq.measure_device import measured_profile
from edgeq.planning.formats import formats_of
from edgeq.planning.model import open_model
from edgeq.runtimes import llama_cpp

_PROMPT, _GEN, _REPEAT = 64, 24, 3
_ENGINES = {"embedded": "edgeq", "llama.cpp": "llama.cpp"}  # the engine and whose rates predict it


@dataclass(frozen=True)
class Case:
    """Tokens a second of one model in one engine."""

    model: str
    quant: str
    engine: str
    read: float
    predicted_read: float
    generate: float
    predicted_generate: float

    @property
    def error(self) -> float:
        return self.predicted_generate / self.generate - 1

    @property
    def read_error(self) -> float:
        return self.predicted_read / self.read - 1


def cases(profile: Profile, names: list[str], quants: list[str], cpu_time: bool) -> list[Case]:
    """Every combination, in turn."""
    found = []
    for name in names:
        for quant in quants:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.gguf"
                write_model(COMMON | MODELS[name], quant, path)
                for engine in _ENGINES if llama_cpp.available() else ("embedded",):
                    found.append(_case(profile, name, quant, engine, path, cpu_time))
                    _print(found[-1])
    return found


def _case(profile: Profile, name: str, quant: str, engine: str, path: Path, cpu_time: bool) -> Case:
    model = open_model(path)
    work = model.work(next(iter(formats_of(model))).types)
    machine = cpu_of(profile, profile.threads, _ENGINES[engine])
    done = in_child(Job(str(path), engine, profile.threads, _PROMPT, _GEN, _REPEAT, cpu_time))
    return Case(
        name,
        quant,
        engine,
        read=_PROMPT / statistics.median(done.prefill),
        predicted_read=_PROMPT / prefill_seconds(work, machine, _PROMPT),
        generate=1 / statistics.median(done.steps),
        predicted_generate=1 / decode_seconds(work, machine, _PROMPT + _GEN // 2),
    )


def _print(case: Case) -> None:
    print(
        f"{case.model:22} {case.quant:7} {case.engine:10} generates {case.generate:7.1f} t/s, predicted "
        f"{case.predicted_generate:7.1f} ({case.error:+.0%}); reads {case.read:8.1f}, predicted "
        f"{case.predicted_read:8.1f} ({case.read_error:+.0%})",
        flush=True,
    )


def main() -> None:
    """Print a line for each case, and the errors by engine and by format."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--cpu-time", action="store_true", help="one thread, on a busy machine")
    parser.add_argument("--quick", action="store_true", help="two models")
    parser.add_argument("--profile", type=Path, help="measured before; without it, measured now")
    parser.add_argument("--save", type=Path, help="keep the measured profile")
    parser.add_argument("--json", type=Path, help="write the cases")
    options = parser.parse_args()
    threads = 1 if options.cpu_time else options.threads or usable_cores()
    if options.profile:
        profile = read_profile(options.profile)
    else:
        profile, _ = measured_profile(profile_of(host_facts()), threads, lambda stage, done, total: None)
    if options.save:
        options.save.write_text(profile_toml(profile))
    print(f"{profile.threads} threads, reads {profile.memory.read_gbs:g} GB/s")
    names = list(MODELS)[:2] if options.quick else list(MODELS)
    found = cases(profile, names, list(QUANTS), options.cpu_time)
    groups: dict[str, list[Case]] = defaultdict(list)
    for case in found:
        for key in (case.engine, f"{case.engine} {case.quant}"):
            groups[key].append(case)
    for key, part in groups.items():
        generate = statistics.median(abs(case.error) for case in part)
        bias = statistics.median(case.error for case in part)
        read = statistics.median(abs(case.read_error) for case in part)
        print(f"{key:20} median error {generate:.1%} (bias {bias:+.1%}), reading {read:.1%}")
    if options.json:
        options.json.write_text(json.dumps([asdict(case) for case in found], indent=1) + "\n")


if __name__ == "__main__":
    main()
