"""Is the format that ``--target this`` chooses among the fastest? ``python benchmarks/choice.py [--cpu-time]``.

For models of zeros (``plan_memory.py``) the choice is made as ``edgeq export --target this --to gguf`` makes it:
predicted with this machine's measured rates, the nearest formats tried. Then every format that fits under the same
limits (memory, expected quality) is measured anew, all in turns: medians over rounds, with their standard errors. The
bar is 95 % of the fastest. Some four minutes a model on a quiet machine.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import tempfile
from pathlib import Path

from plan_memory import COMMON, MODELS

from edgeq import plan
from edgeq.devices.cpu import usable_cores
from edgeq.devices.host import host_facts
from edgeq.devices.profile import Profile, read_profile
from edgeq.measure_device import measured_profile
from edgeq.planning.formats import GGUF_QUANTS
from edgeq.runtimes import llama_cpp
from edgeq.targeting.choose import Wish, choose
from edgeq.targeting.trial import measured_speeds

BAR = 0.95
_QUANTS = {"gguf": list(GGUF_QUANTS)}


def share(
    config: Path, profile: Profile, engine: str, threads: int, cpu_time: bool, seconds: float
) -> tuple[str, str, float, float]:
    """The chosen format, the fastest one, the chosen one's speed as a share of that, and the share's standard error."""
    rates = "llama.cpp" if engine == "llama.cpp" else "edgeq"
    tried = functools.partial(measured_speeds, engine=engine, threads=threads, cpu_time=cpu_time)
    chosen = choose(Wish(config, profile, to="gguf", engine=rates, tried=tried), _QUANTS).quant
    record = plan.run(plan.Request(config, profile, engine=rates, quants=_QUANTS))
    fitting = [row["quant"] for row in record["formats"] if row["place"] is not None]
    speeds = measured_speeds(
        config, fitting, engine=engine, threads=threads, cpu_time=cpu_time, seconds=seconds
    )
    ordered = sorted(speeds.items(), key=lambda entry: -entry[1].tokens_per_second)
    shown = ", ".join(
        f"{quant} {speed.tokens_per_second:.1f} ± {speed.error:.1f}" for quant, speed in ordered
    )
    print(f"  measured: {shown}", flush=True)
    fastest, top = ordered[0]
    part = speeds[chosen].tokens_per_second / top.tokens_per_second
    noise = math.hypot(speeds[chosen].error, top.error) / top.tokens_per_second if chosen != fastest else 0.0
    return chosen, fastest, part, noise


def main() -> None:
    """Print a line for each model and engine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, default=list(MODELS)[:3], help="which of the six"
    )
    parser.add_argument("--seconds", type=float, default=60, help="for measuring all formats, in rounds")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--cpu-time", action="store_true", help="one thread, on a busy machine")
    parser.add_argument("--profile", type=Path, help="measured before; without it, measured now")
    options = parser.parse_args()
    threads = 1 if options.cpu_time else options.threads or usable_cores()
    if options.profile:
        profile = read_profile(options.profile)
    else:
        profile, _ = measured_profile(host_facts(), threads, lambda stage, done, total: None)
    for name, own in ((name, MODELS[name]) for name in options.models):
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder) / "config.json"
            config.write_text(json.dumps(COMMON | own))
            for engine in ("embedded", *(["llama.cpp"] if llama_cpp.available() else [])):
                chosen, fastest, part, noise = share(
                    config, profile, engine, threads, options.cpu_time, options.seconds
                )
                verdict = "met" if part >= BAR else "missed"
                print(
                    f"{name:22} {engine:10} {chosen} has {part:.1%} ± {noise:.1%} of {fastest}: {verdict}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
