"""Predicted against measured speed on this machine: ``python benchmarks/prediction_here.py [--quick] [--json FILE]``.

The machine is measured as ``edgeq devices detect --measure`` does; then six models of zeros (``plan_memory.py``) in
three formats, and one of a shape of its own, generate in the embedded engine and in llama.cpp. All take turns, in
rounds; each one's best turn counts, as in the measurement. On a quiet machine it takes some four minutes with two
threads. On a busy one ``--cpu-time`` takes one thread and the CPU time of the process.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from plan_memory import COMMON, MODELS, QUANTS, write_model

from edgeq.bench.child import Job
from edgeq.bench.worker import Worker, rounds
from edgeq.devices.cpu import usable_cores
from edgeq.devices.host import host_facts
from edgeq.devices.machine import cpu_of
from edgeq.devices.predict import decode_seconds, prefill_seconds
from edgeq.devices.profile import Profile, read_profile
from edgeq.devices.to_toml import profile_toml
from edgeq.measure_device import measured_profile
from edgeq.planning.formats import formats_of
from edgeq.planning.model import open_model
from edgeq.runtimes import llama_cpp

_PROMPT, _GEN = 64, 24
_ENGINES = {"embedded": "edgeq", "llama.cpp": "llama.cpp"}  # the engine and whose rates predict it
# Of no shape that anything was chosen by: no biases, other ratios, few heads for keys.
_OWN: dict[str, dict[str, Any]] = {
    "330M, other shape": {"hidden_size": 1792, "intermediate_size": 4864, "num_hidden_layers": 9,
             "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 24000},
}  # fmt: skip


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


def cases(profile: Profile, names: list[str], cpu_time: bool, seconds: float) -> list[Case]:
    """Every combination; one more round as long as it will end within so many seconds."""
    best: dict[tuple[str, str, str], tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        paths = {
            (name, quant): Path(folder) / f"{i}-{quant}.gguf"
            for i, name in enumerate(names)
            for quant in QUANTS
        }
        for (name, quant), path in paths.items():
            write_model(COMMON | (MODELS | _OWN)[name], quant, path)
        workers = {
            engine: stack.enter_context(Worker())
            for engine in (_ENGINES if llama_cpp.available() else ("embedded",))
        }
        done = 0
        for _ in rounds(seconds):
            for (name, quant), path in paths.items():
                for engine, worker in workers.items():
                    found = worker.measure(
                        Job(str(path), engine, profile.threads, _PROMPT, _GEN, 1, cpu_time)
                    )
                    took = statistics.median(found.steps), statistics.median(found.prefill)
                    before = best.get((name, quant, engine), took)
                    best[name, quant, engine] = min(took[0], before[0]), min(took[1], before[1])
            done += 1
        print(f"{done} rounds")
        return [_case(profile, key, paths[key[:2]], step, prompt) for key, (step, prompt) in best.items()]


def _case(profile: Profile, key: tuple[str, str, str], path: Path, step: float, prompt: float) -> Case:
    model = open_model(path)
    work = model.work(next(iter(formats_of(model))).types)
    machine = cpu_of(profile, profile.threads, _ENGINES[key[2]])
    return Case(
        *key,
        read=_PROMPT / prompt,
        predicted_read=_PROMPT / prefill_seconds(work, machine, _PROMPT),
        generate=1 / step,
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
    parser.add_argument("--own", action="store_true", help="only the model of a shape of its own")
    parser.add_argument(
        "--seconds", type=float, default=180, help="for the rounds, of which there is one at least"
    )
    parser.add_argument("--profile", type=Path, help="measured before; without it, measured now")
    parser.add_argument("--save", type=Path, help="keep the measured profile")
    parser.add_argument("--json", type=Path, help="write the cases")
    options = parser.parse_args()
    threads = 1 if options.cpu_time else options.threads or usable_cores()
    started = time.perf_counter()
    if options.profile:
        profile = read_profile(options.profile)
    else:
        profile, _ = measured_profile(host_facts(), threads, lambda stage, done, total: None)
        print(f"measured in {time.perf_counter() - started:.0f} s")
    if options.save:
        options.save.write_text(profile_toml(profile))
    print(f"{profile.threads} threads, reads {profile.memory.read_gbs:g} GB/s")
    names = list(_OWN) if options.own else list(MODELS)[:2] if options.quick else [*MODELS, *_OWN]
    found = cases(profile, names, options.cpu_time, options.seconds)
    groups: dict[str, list[Case]] = defaultdict(list)
    for case in found:
        _print(case)
        for key in (case.engine, f"{case.engine} {case.quant}"):
            groups[key].append(case)
    for key, part in groups.items():
        generate = statistics.median(abs(case.error) for case in part)
        bias = statistics.median(case.error for case in part)
        read = statistics.median(abs(case.read_error) for case in part)
        read_bias = statistics.median(case.read_error for case in part)
        print(
            f"{key:20} median error {generate:.1%} (bias {bias:+.1%}), reading {read:.1%} (bias {read_bias:+.1%})"
        )
    if options.json:
        options.json.write_text(json.dumps([asdict(case) for case in found], indent=1) + "\n")


if __name__ == "__main__":
    main()
