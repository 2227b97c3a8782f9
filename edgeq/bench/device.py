"""What the zip of ``edgeq bench --pack`` runs on a device: measures it, and models, with numpy and numba alone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from edgeq.errors import EdgeqError
from edgeq.formats.atomic import check_output, write_text


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 with one line on stderr."""
    parser = argparse.ArgumentParser(
        prog="edgeq-bench", description="Measure this device: bandwidth, peaks, the rate of each block type."
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("device.toml"), help="the profile to write")
    parser.add_argument("-t", "--threads", type=int, default=0, help="0 is all cores")
    parser.add_argument("--types", help="block types, such as Q4_K,Q8_0; without it, all that plans need")
    parser.add_argument("-f", "--force", action="store_true", help="replace files that are there")
    parser.add_argument("--model", type=Path, action="append", default=[], help="a GGUF file to time, too")
    parser.add_argument("--prompt", type=int, default=128, help="tokens of its prompt")
    parser.add_argument("--gen", type=int, default=32, help="tokens to generate after it")
    parser.add_argument("--repeat", type=int, default=5, help="turns that count")
    parser.add_argument(
        "--results", type=Path, default=Path("device.json"), help="where models' times are written"
    )
    options = parser.parse_args(arguments)
    try:
        _run(options)
    except EdgeqError as error:
        print(f"edgeq: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> None:
    from edgeq.devices.host import host_facts
    from edgeq.devices.to_toml import profile_toml
    from edgeq.formats.blocks import by_name
    from edgeq.measure_device import TYPES, measured_profile

    outputs = [options.output, *([options.results] if options.model else [])]
    for path in outputs:
        check_output(path, force=options.force)
    types = [by_name(name).name for name in options.types.split(",")] if options.types else TYPES
    profile, _ = measured_profile(host_facts(), options.threads, _progress, types)
    write_text(options.output, profile_toml(profile), force=options.force)
    rates = ", ".join(f"{name} {rate:g}" for name, rate in profile.rates[0].decode.items())
    print(f"{profile.name}: reads {profile.memory.read_gbs:g} GB/s with {profile.threads} threads")
    print(f"1e9 weights a second: {rates}")
    print(f"written: {options.output}")
    if options.model:
        _time(options, profile.threads)


def _time(options: argparse.Namespace, threads: int) -> None:
    from edgeq.bench import models, tables

    wanted = models.Options(
        models=options.model,
        engine="embedded",
        threads=[threads],
        prompts=[options.prompt],
        gen=options.gen,
        repeat=options.repeat,
    )
    record = models.run(wanted)
    write_text(options.results, tables.to_json(record), force=options.force)
    print(tables.to_markdown(record))
    print(f"written: {options.results}")
    failed = [result["error"] for result in record["results"] if result["error"]]
    if failed:
        raise EdgeqError(failed[0])


def _progress(stage: str, done: int, total: int) -> None:
    print(f"{stage}: {done} of {total}", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
