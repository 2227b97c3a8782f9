"""Products by expert beside one product for each expert: CPU time of all threads, medians of neighbouring turns.

python benchmarks/experts.py [--type Q4_K] [--experts 32] [--used 8] [--threads 1]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from edgeq.devices.detect import instruction_set
from edgeq.formats.blocks import by_name
from edgeq.kernels_cpu import products, threads
from edgeq.kernels_cpu.products.experts import expert_product

N, K, TURNS = 768, 2048, 25  # as in Qwen3-30B-A3B


def seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--type", default="Q4_K")
    parser.add_argument("--experts", type=int, default=32)
    parser.add_argument("--used", type=int, default=8, help="experts of each row")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    threads.set_threads(options.threads)
    rng = np.random.default_rng(0)
    encoded = rng.integers(0, 256, (options.experts * N, by_name(options.type).row_bytes(K)), np.uint8)
    packed = products.pack(options.type, encoded, K, instruction_set(), stacked=options.experts)
    matrices = [packed.matrix(i) for i in range(options.experts)]
    print(f"{'rows':>5}{'by expert, ms':>15}{'one by one, ms':>16}{'ratio':>7}   {options.threads} threads")
    for t in (1, 8, 64):
        x = rng.standard_normal((t, K)).astype(np.float32)
        experts = np.concatenate([rng.permutation(options.experts)[: options.used] for _ in range(t)])
        rows = np.repeat(np.arange(t), options.used)

        def one_by_one() -> None:
            for i in np.unique(experts):  # noqa: B023
                products.product(x[rows[experts == i]], matrices[i])  # noqa: B023

        turns = [
            (seconds(lambda: expert_product(x, packed, rows, experts)), seconds(one_by_one))  # noqa: B023
            for _ in range(TURNS)
        ][1:]
        ours, theirs = (statistics.median(column) * 1e3 for column in zip(*turns, strict=True))
        print(f"{t:5}{ours:15.2f}{theirs:16.2f}{statistics.median(b / a for a, b in turns):7.2f}")


if __name__ == "__main__":
    main()
