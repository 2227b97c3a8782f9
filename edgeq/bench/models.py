"""``edgeq bench MODEL…``: models in engines on this machine, each measured in a process of its own."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from edgeq.bench.child import Job, Measurement
from edgeq.bench.worker import in_child
from edgeq.errors import EdgeqError, FormatError
from edgeq.json_files import read_json
from edgeq.model_size import model_bytes
from edgeq.runtimes.engines import ENGINES, Wanted, engine_for
from edgeq.versions import versions

FORMAT = 1  # of the JSON file
_MOST_BYTES = 64 << 20  # of such a file
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Options:
    """What to measure: all combinations; ``engine`` auto takes the one for each file."""

    models: Sequence[Path]
    engine: Wanted = "auto"
    threads: Sequence[int] = (1,)
    prompts: Sequence[int] = (128, 512)
    gen: int = 64
    repeat: int = 5
    progress: Progress = lambda stage, done, total: None


@dataclass
class Result:
    """One combination: what was measured (None where it failed, ``error`` says why) and the figures made of it."""

    model: str
    bytes: int
    engine: str
    engine_version: str
    threads: int
    prompt: int
    gen: int
    measured: Measurement | None = None
    error: str = ""
    figures: dict[str, float | None] = field(default_factory=dict)


def run(options: Options) -> dict[str, Any]:
    """The record that the files hold; raises UsageError for an engine that does not run a model."""
    jobs, here = list(_jobs(options)), machine()  # how busy it is before our own work
    results = []
    for done, job in enumerate(jobs):
        options.progress(f"{Path(job.path).name} in {job.engine}", done, len(jobs))
        if ENGINES[job.engine].compiles and (not done or jobs[done - 1].path != job.path):
            _compile(job)
        results.append(_result(job))
    return {
        "edgeq_bench": FORMAT,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": here,
        "versions": versions(),
        "results": [asdict(result) for result in results],
    }


def machine() -> dict[str, Any]:
    """This machine as its system describes it, and how busy it was."""
    from edgeq.devices.host import host_facts

    facts = host_facts()
    busy = list(os.getloadavg()) if hasattr(os, "getloadavg") else None  # of the last 1, 5 and 15 minutes
    return {
        "name": facts.name,
        "system": f"{platform.system()} {platform.release()}",
        "cores": [asdict(group) for group in facts.groups],
        "instruction_sets": list(facts.isa),
        "memory_bytes": facts.memory,
        "load_average": busy,
    }


def read_record(path: Path) -> dict[str, Any]:
    """A file that ``edgeq bench`` wrote; raises FormatError for another."""
    if path.is_file() and path.stat().st_size > _MOST_BYTES:
        raise FormatError(path, "is too large for a result of edgeq bench")
    record: dict[str, Any] = read_json(path, dict)
    results, machine = record.get("results"), record.get("machine")
    sound = isinstance(results, list) and all(map(_is_result, results))
    named = isinstance(machine, dict) and isinstance(machine.get("name"), str)
    if record.get("edgeq_bench") != FORMAT or not sound or not named:
        raise FormatError(
            path, "is no result of edgeq bench", "write one with edgeq bench MODEL -o FILE.json"
        )
    return record


def _is_result(entry: object) -> bool:
    """Whether an entry has the kinds of values that comparing reads; one that failed has no figures."""
    if not isinstance(entry, dict):
        return False
    measured, counts = entry.get("measured"), [entry.get(name, 0) for name in ("threads", "prompt", "gen")]
    if measured is None:
        return True
    if not isinstance(measured, dict) or not all(isinstance(count, int) for count in counts):
        return False
    turns = [measured.get(name, []) for name in ("prefill", "decode")]
    single = [measured.get(name, 0) for name in ("load", "peak_memory")]
    if not all(isinstance(one, list) for one in turns):
        return False
    values = [*single, *(value for one in turns for value in one)]
    return all(isinstance(value, float | int) and 0 <= value < float("inf") for value in values)


def _jobs(options: Options) -> Iterator[Job]:
    for model in options.models:
        engine = engine_for(model, options.engine)
        for threads in options.threads:
            for prompt in options.prompts:
                yield Job(str(model), engine, threads, prompt, options.gen, options.repeat)


def _compile(job: Job) -> None:
    """Run the model briefly in another process: its kernels are kept on disk, and loading is timed with them."""
    with contextlib.suppress(EdgeqError):  # what goes wrong is reported by the measurement itself
        in_child(replace(job, prompt=min(job.prompt, 16), gen=min(job.gen, 2), repeat=1))


def _result(job: Job) -> Result:
    path = Path(job.path)
    result = Result(
        model=path.name,
        bytes=_bytes(path),
        engine=job.engine,
        engine_version="",
        threads=job.threads,
        prompt=job.prompt,
        gen=job.gen,
    )
    try:
        result.measured = in_child(job)
        result.engine_version = ENGINES[job.engine].version()
        result.figures = figures(result.measured, job.prompt)
    except EdgeqError as error:
        result.error = str(error)
    return result


def figures(measured: Measurement, prompt: int) -> dict[str, float | None]:
    """Tokens per second and seconds: medians (p50), and p95 of what takes long. None where there is nothing to say.

    ``first_token_s`` is from a prompt to the first token of a loaded model; the time of loading is its own figure.
    Joules are of a turn, prompt and generation, by its tokens. The drops are of the last turn against the first.
    """
    graph = measured.kind == "graph"
    prefill, decode, steps = measured.prefill, measured.decode, measured.steps
    per_turn = len(steps) // len(decode) if decode else 0
    joules = [value for value in measured.joules if value is not None]
    clocks = measured.megahertz
    slowest = decode or prefill
    return {
        "load_s": measured.load,
        "runs_per_s": 1 / statistics.median(prefill),
        "prefill_tokens_per_s": None if graph else prompt / statistics.median(prefill),
        "decode_tokens_per_s": per_turn / statistics.median(decode) if decode else None,
        "first_token_s": statistics.median(prefill) if measured.kind == "decoder" else None,
        "prefill_p50_s": statistics.median(prefill),
        "prefill_p95_s": percentile(prefill, 95),
        "step_p50_s": statistics.median(steps) if steps else None,
        "step_p95_s": percentile(steps, 95) if steps else None,
        "peak_memory_bytes": float(measured.peak_memory),
        "joules_per_token": statistics.median(joules) / (prompt + per_turn) if joules else None,
        "degrees_first": measured.degrees[0],
        "degrees_last": measured.degrees[1],
        "clock_drop": 1 - clocks[1] / clocks[0] if clocks[0] and clocks[1] else None,
        "speed_drop": 1 - slowest[0] / slowest[-1],
    }


def percentile(values: Sequence[float], percent: float) -> float:
    """Of sorted values, between neighbours in proportion."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _bytes(path: Path) -> int:
    try:
        return model_bytes(path)
    except EdgeqError:  # of a file that is damaged
        return path.stat().st_size
