"""MiniLM in int8: cosine to float and speed, edgeq's beside ONNX Runtime's own quantizer on the same graph and text.

    python benchmarks/onnx_int8.py [--threads 2]

Calibrated on 128 sentences of the standard library's docstrings, measured on 64 others. Speed is the median of seven
paired runs: over these sentences one by one, as long as they are, and in one batch of 128 tokens each.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from minilm import minilm_folder
from numpy.typing import NDArray
from onnxruntime import quantization as theirs

from edgeq.devices.cpu import saturates_int8
from edgeq.evaluation.metrics import cosines
from edgeq.export import Request, run
from edgeq.runtimes.onnxruntime import Feeds, OnnxSession, encoder_feeds
from edgeq.tokenization import from_directory

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import heldout

CALIBRATION, TEST, TOKENS, ROUNDS = 128, 64, 128, 7
OUTPUT = "sentence_embedding"


class Reader(theirs.CalibrationDataReader):
    """Feeds for ONNX Runtime's calibrator."""

    def __init__(self, feeds: Sequence[Feeds]) -> None:
        self._feeds: Iterator[Feeds] = iter(feeds)

    def get_next(self) -> Feeds | None:
        return next(self._feeds, None)


def ort_dynamic(source: Path, target: Path, feeds: Sequence[Feeds]) -> None:
    theirs.quantize_dynamic(source, target)


def ort_static(source: Path, target: Path, feeds: Sequence[Feeds]) -> None:
    theirs.quantize_static(source, target, Reader(feeds), per_channel=True)


def ort_static_matmul(source: Path, target: Path, feeds: Sequence[Feeds]) -> None:
    options = {"MatMulConstBOnly": True}
    theirs.quantize_static(
        source,
        target,
        Reader(feeds),
        per_channel=True,
        op_types_to_quantize=["MatMul"],
        extra_options=options,
    )


# The comparison: a name, and what makes the file from the float graph. edgeq's own come from `edgeq export`.
PEERS: dict[str, Callable[[Path, Path, Sequence[Feeds]], None]] = {
    "ORT quantize_dynamic": ort_dynamic,
    "ORT quantize_static": ort_static,
    "ORT quantize_static, MatMul": ort_static_matmul,
}
OURS = ("int8-dynamic", "int8")


def embed(session: OnnxSession, sentences: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """Embeddings one sentence at a time."""
    return np.concatenate([session.run(encoder_feeds([ids]), [OUTPUT])[0] for ids in sentences])


def speed(candidate: OnnxSession, reference: OnnxSession, feeds: Sequence[Feeds]) -> float:
    """Median of the reference's seconds over the candidate's, run in turn over all feeds."""
    ratios = []
    for round_ in range(ROUNDS + 1):
        seconds = []
        for session in (reference, candidate):
            started = time.perf_counter()
            for one in feeds:
                session.run(one, [OUTPUT])
            seconds.append(time.perf_counter() - started)
        if round_:
            ratios.append(seconds[0] / seconds[1])
    return statistics.median(ratios)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    threads = parser.parse_args().threads
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    ort.set_default_logger_severity(3)
    source = minilm_folder()
    tokenizer = from_directory(source)
    split = heldout.sentences()
    calibration = [tokenizer.encode(s).ids for s in split.calibration[:CALIBRATION]]
    test = [tokenizer.encode(s).ids for s in split.test[:TEST]]
    ways = [
        [encoder_feeds([ids]) for ids in test],
        [encoder_feeds([(ids * TOKENS)[:TOKENS] for ids in test])],
    ]
    vnni = "no VNNI" if saturates_int8() else "VNNI, or no need of it"
    print(f"this CPU: {vnni}; {threads} threads; {TEST} sentences never calibrated on\n")
    with tempfile.TemporaryDirectory(prefix="edgeq-bench-") as temporary:
        out = Path(temporary)
        (out / "text.txt").write_text("\n".join(split.calibration[:CALIBRATION]), encoding="utf-8")
        paths = {}
        for quant in ("float32", *OURS):
            request = Request(source, "onnx", quant, out, calibration=out / "text.txt", proof=False)
            paths[f"edgeq {quant}"] = run(request).path
        float_path = paths.pop("edgeq float32")
        for name, make in PEERS.items():
            paths[name] = out / f"peer{len(paths)}.onnx"
            make(float_path, paths[name], [encoder_feeds([ids]) for ids in calibration])
        reference = OnnxSession(float_path, threads)
        expected = embed(reference, test)
        print(f"{'':<30}{'cosine mean':>12}{'least':>8}{'× float: one by one':>21}{'batch':>7}{'MB':>8}")
        for name, path in paths.items():
            session = OnnxSession(path, threads)
            close = cosines(expected, embed(session, test))
            alone, together = (speed(session, reference, feeds) for feeds in ways)
            size = path.stat().st_size / 1e6
            print(
                f"{name:<30}{close.mean():>12.4f}{close.min():>8.4f}{alone:>21.2f}{together:>7.2f}{size:>8.1f}"
            )


if __name__ == "__main__":
    main()
