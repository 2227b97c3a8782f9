"""Calibrating MiniLM: edgeq's entropy beside ONNX Runtime's percentile calibrator; memory by the number of samples.

    python benchmarks/onnx_calibration.py [--sentences 200] [--rounds 3]

Time: the same sentences, in turns in one process; ONNX Runtime's calibrator takes one shape only, so it gets them
padded to 32 tokens, edgeq both ways. edgeq's is all that comes before the rewriting. CPU seconds of all threads.
Memory: the peak of a process that quantizes with 100 and with 2,000 sentences of their own lengths.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, product
from pathlib import Path

import onnxruntime as ort
from minilm import minilm_folder
from onnxruntime import quantization as theirs

from edgeq import export
from edgeq.calibration.methods import parse_method
from edgeq.calibration.sources import Samples
from edgeq.formats.onnx.prepare import prepare
from edgeq.formats.onnx.read import read_model
from edgeq.onnx.isa import find_profile
from edgeq.onnx.job import Job, find_quant
from edgeq.runtimes.onnxruntime import Feeds, encoder_feeds
from edgeq.tokenization import from_directory

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import heldout

TOKENS, COUNTS = 32, (100, 2000)
_ONE = """
import json, re, sys
from pathlib import Path
from edgeq.onnx import Request, quantize
request = Request(Path(sys.argv[1]), Path(sys.argv[2]), "int8", Path(sys.argv[3]), "entropy", proof=False, cache=False)
record = quantize(request)
peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
print(json.dumps([peak, record["calibration"]["passes"]]))
"""


class Reader(theirs.CalibrationDataReader):
    """Feeds for ONNX Runtime's calibrator."""

    def __init__(self, feeds: Sequence[Feeds]) -> None:
        self._feeds: Iterator[Feeds] = iter(feeds)

    def get_next(self) -> Feeds | None:
        return next(self._feeds, None)


def sentences(count: int) -> list[str]:
    """Different ones: those of the standard library, then two of them in a row."""
    split = heldout.sentences()
    single = [*split.calibration, *split.test]
    pairs = (f"{first} {second}" for first, second in product(single, single) if first != second)
    return [*single[:count], *islice(pairs, max(0, count - len(single)))]


def ours(source: Path, target: Path, feeds: Sequence[Feeds]) -> None:
    model = read_model(source)
    prepare(model)
    samples = Samples("sentences", len(feeds), lambda: iter(feeds))
    job = Job(model, samples, find_profile("generic"), parse_method("entropy"), target.parent, cache=False)
    find_quant("int8").plan(job)


def peer(source: Path, target: Path, feeds: Sequence[Feeds]) -> None:
    calibrator = theirs.create_calibrator(
        source, ["MatMul"], target, calibrate_method=theirs.CalibrationMethod.Percentile
    )
    calibrator.collect_data(Reader(feeds))
    calibrator.compute_data()


def cpu_seconds(make: Callable[..., None], *arguments: object) -> float:
    started = time.process_time()
    make(*arguments)
    return time.process_time() - started


def memory(source: Path, out: Path, count: int) -> tuple[float, int]:
    """(megabytes, samples seen) of a process of its own."""
    text = out / f"{count}.txt"
    text.write_text("\n".join(sentences(count)), encoding="utf-8")
    command = [sys.executable, "-c", _ONE, str(source), str(out / f"{count}.onnx"), str(text)]
    peak, passes = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return peak / 1e3, max(one["samples"] for one in passes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    ort.set_default_logger_severity(3)
    with tempfile.TemporaryDirectory(prefix="edgeq-bench-") as temporary:
        out = Path(temporary)
        made = export.run(export.Request(minilm_folder(), "onnx", "float32", out / "float", proof=False))
        tokenizer = from_directory(minilm_folder())
        ids = [tokenizer.encode(sentence).ids[:TOKENS] for sentence in sentences(options.sentences)]
        batch = encoder_feeds([*ids, [0] * TOKENS])
        feeds = [{name: array[row : row + 1] for name, array in batch.items()} for row in range(len(ids))]
        ragged = [encoder_feeds([row]) for row in ids]
        ours(made.path, out / "warm.onnx", feeds[:4])
        ways = {
            "edgeq entropy": (ours, ragged),
            "edgeq entropy, padded": (ours, feeds),
            "ORT percentile, padded": (peer, feeds),
        }
        rounds = [
            [cpu_seconds(make, made.path, out / "made.onnx", data) for make, data in ways.values()]
            for _ in range(options.rounds)
        ]
        print(f"{len(feeds)} sentences, CPU seconds, and how many times as long as that ORT took")
        for column, name in enumerate(ways):
            seconds = statistics.median(row[column] for row in rounds)
            ratio = statistics.median(row[-1] / row[column] for row in rounds)
            print(f"{name:<24}{seconds:>7.1f}{ratio:>7.2f}")
        for count in COUNTS:
            peak, seen = memory(made.path, out, count)
            print(f"{count:>5} sentences ({seen} calibrated on, the others held out): peak {peak:.0f} MB")


if __name__ == "__main__":
    main()
