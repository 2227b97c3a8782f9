"""ONNX files of others in static int8, edgeq's beside onnxruntime.quantization, on the same data in the same run.

    python benchmarks/onnx_files.py [--threads 2]

The classifier is the digits CNN of the tests: top-1 on 500 images, cosine of the logits, and speed against float with
a batch of 64 (the median of seven paired runs). Then the memory that calibration takes, by the number of samples.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime import quantization as theirs

from edgeq.evaluation.metrics import cosines
from edgeq.evaluation.speed import speed_ratio
from edgeq.onnx import Request, quantize, session

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import digits
from foreign_graphs import saved

CALIBRATION, BATCH = 128, 64
COUNTS = (32, 256, 1024)  # samples of calibration whose memory is compared
Floats = NDArray[np.float32]


class Reader(theirs.CalibrationDataReader):
    """Images one by one for ONNX Runtime's calibrator."""

    def __init__(self, images: Floats) -> None:
        self._feeds: Iterator[dict[str, Floats]] = ({"image": image[None]} for image in images)

    def get_next(self) -> dict[str, Floats] | None:
        return next(self._feeds, None)


def ours(method: str) -> Callable[[Path, Path, Floats], None]:
    def make(source: Path, target: Path, images: Floats) -> None:
        data = [{"image": image[None]} for image in images]
        quantize(Request(source, target, "int8", data, method, proof=False, force=True))

    return make


def peer(method: theirs.CalibrationMethod) -> Callable[[Path, Path, Floats], None]:
    def make(source: Path, target: Path, images: Floats) -> None:
        theirs.quantize_static(source, target, Reader(images), per_channel=True, calibrate_method=method)

    return make


WAYS: dict[str, Callable[[Path, Path, Floats], None]] = {
    "edgeq minmax": ours("minmax"),
    "edgeq entropy": ours("entropy"),
    "ORT MinMax": peer(theirs.CalibrationMethod.MinMax),
    "ORT Entropy": peer(theirs.CalibrationMethod.Entropy),
}


def logits(path: Path, images: Floats) -> Floats:
    return session(path).run(None, {"image": images})[0]


def peak(make: Callable[[Path, Path, Floats], None], source: Path, target: Path, images: Floats) -> int:
    """The most that Python held at once, in bytes."""
    tracemalloc.start()
    try:
        make(source, target, images)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def print_row(cells: Sequence[str]) -> None:
    print(f"{cells[0]:<14}" + "".join(f"{cell:>12}" for cell in cells[1:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    threads = parser.parse_args().threads
    logging.disable(logging.WARNING)
    ort.set_default_logger_severity(3)
    training, test = digits.digits()
    with tempfile.TemporaryDirectory(prefix="edgeq-bench-") as temporary:
        out = Path(temporary)
        source = saved(digits.digits_model(digits.train(training)), out / "float.onnx")
        expected = logits(source, test.images)
        right = float((expected.argmax(axis=1) == test.labels).mean())
        print(f"float: top-1 {right:.1%} of {len(test.labels)} images\n")
        print_row(["", "top-1", "cosine", "× float"])
        for name, make in WAYS.items():
            target = out / f"{name.replace(' ', '_')}.onnx"
            make(source, target, training.images[:CALIBRATION])
            found = logits(target, test.images)
            ratio = speed_ratio(target, source, [{"image": test.images[:BATCH]}], "logits", threads)
            top = float((found.argmax(axis=1) == test.labels).mean())
            print_row([name, f"{top:.1%}", f"{cosines(expected, found).mean():.5f}", f"{ratio:.2f}"])
        print("\nMB that Python held at most while quantizing, by the number of samples")
        print_row(["", *map(str, COUNTS)])
        for name, make in WAYS.items():
            sizes = [peak(make, source, out / "m.onnx", training.images[:count]) for count in COUNTS]
            print_row([name, *(f"{size / 1e6:.1f}" for size in sizes)])


if __name__ == "__main__":
    main()
