"""Packing weights for products: GB of encoded weights a second, beside copying them.

python benchmarks/packing.py [--types Q4_K,Q6_K] [--threads 2] [--json]
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np

from edgeq.devices.cpu import usable_cores
from edgeq.devices.detect import instruction_set
from edgeq.formats.blocks import by_name
from edgeq.kernels_cpu import products, threads

N, K, TURNS = 8192, 2048, 7
TYPES = "Q4_0,Q4_1,Q5_0,Q5_1,Q8_0,Q2_K,Q3_K,Q4_K,Q5_K,Q6_K,IQ4_NL,IQ4_XS"


def seconds(function: Callable[[], object]) -> tuple[float, float]:
    """Wall clock and CPU, of all threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - cpu


def measured(name: str) -> dict[str, object]:
    rows = np.random.default_rng(0).integers(0, 256, (N, by_name(name).row_bytes(K)), np.uint8)
    products.pack(name, rows[:64], K, instruction_set())  # compiles
    turns = [(seconds(lambda: products.pack(name, rows, K, instruction_set())), seconds(rows.copy))
             for _ in range(TURNS)]  # fmt: skip
    wall, cpu, copy = zip(*((packing[0], packing[1], copying[0]) for packing, copying in turns), strict=True)
    rates = (rows.nbytes / statistics.median(column) / 1e9 for column in (wall, cpu, copy))
    return {"type": name, **dict(zip(("gbs", "gbs_per_core", "copy_gbs"), rates, strict=True))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--types", default=TYPES)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    threads.set_threads(options.threads)
    figures = [measured(name) for name in options.types.split(",")]
    if options.json:
        print(json.dumps({"threads": options.threads, "figures": figures}))
        return
    print(
        f"{'type':8}{'GB/s':>8}{'a core':>8}{'copy':>8}   {options.threads} threads, {instruction_set().name}"
    )
    for f in figures:
        print(f"{f['type']:8}{f['gbs']:8.2f}{f['gbs_per_core']:8.2f}{f['copy_gbs']:8.2f}")


if __name__ == "__main__":
    main()
