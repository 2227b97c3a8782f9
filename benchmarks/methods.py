"""What methods gain over llama.cpp's quantization with an importance matrix, at the same bytes; and what GPTQ costs.

    python benchmarks/methods.py [--parts mixes,pure,domains,onnx,time] [--english FILE] [--tokens 20480] [--json OUT]

TinyLM, calibrated on one text (the standard library's modules that it may know, and English), measured on modules
that it never saw and on other English. ``--english`` is any long English text, the first half for calibration, the
second for measuring; without it, the standard library's docstrings serve. KL is that to the float model in the
embedded engine with float activations, ± the standard error of the mean over windows; llama.cpp's files are those
that ``edgeq quantize --effort ggml --imatrix`` writes, byte for byte the same. ``time`` is GPTQ of one matrix beside
a plain NumPy and SciPy implementation (processor seconds of all threads).
"""

from __future__ import annotations

import argparse
import json
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgeq import calibrate, quantize
from edgeq.devices.cpu import usable_cores
from edgeq.engine import model as engine
from edgeq.engine.replaced import DecodedMatrix, with_replaced
from edgeq.engine.weights import hugging_face_rows
from edgeq.evaluation.kl_statistics import KlStatistics
from edgeq.formats.effort import Effort
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.kernels_cpu import threads
from edgeq.methods import METHODS, BlockGrid, Statistics
from edgeq.source import SourceModel

# Behind edgeq, whose tests have a folder of its name.
sys.path.append(str(Path(__file__).parents[1] / "tests"))
import heldout

TINYLM = Path(heldout.__file__).parent / "assets" / "tinylm"
WINDOW = 256  # what TinyLM was trained on
MIXES = ("Q4_K_M", "Q3_K_M", "Q2_K", "IQ4_XS")
PURE = {"Q4_K_S": "Q4_K", "Q3_K_S": "Q3_K", "Q2_K": "Q2_K"}  # the mix whose number the file gets
Texts = dict[str, str]


def texts(english: Path | None, size: int) -> tuple[Texts, Texts]:
    """To calibrate on, of so many characters each, and to measure on; nothing is in both."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    held = set((TINYLM / "held_modules.txt").read_text().split())
    known = [
        p
        for d in ("", "asyncio", "email", "http", "json", "unittest")
        for p in sorted((stdlib / d).glob("*.py"))
    ]
    known = [p for p in known if str(p.relative_to(stdlib)) not in held]
    np.random.default_rng(5).shuffle(known)  # type: ignore[arg-type]
    code = "\n".join(p.read_text(encoding="utf-8")[:12_000] for p in known)[:size]
    if english is None:
        halves = ["\n".join(lines) for lines in heldout.sentences()]
    else:
        content = english.read_text(encoding="utf-8")
        halves = [content[: len(content) // 2][:size], content[len(content) // 2 :]]
    step = 6000
    both = "\n".join(t[i : i + step] for i in range(0, size, step) for t in (code, halves[0]))
    return {"both": both, "code": code, "english": halves[0]}, {"code": heldout.code(), "english": halves[1]}


class Measure:
    """KL of files to the float model on windows from all over the texts."""

    def __init__(self, held: Texts, tokens: int) -> None:
        source = SourceModel.open(TINYLM)
        self.model = engine.from_source(source)
        self.windows: dict[str, list[list[int]]] = {}
        for name, text in held.items():
            ids = source.tokenizer().encode(text).ids
            count = min(tokens // len(held) // WINDOW, len(ids) // WINDOW)
            step = len(ids) // count
            self.windows[name] = [ids[i * step : i * step + WINDOW] for i in range(count)]

    def kl(self, paths: dict[str, Path]) -> dict[str, dict[str, Any]]:
        """By file and text: mean, error, and ``ratio`` to the first file, with its error over the same windows."""
        models = {label: self.loaded(path) for label, path in paths.items()}
        found: dict[str, dict[str, Any]] = {
            label: {"bytes": path.stat().st_size} for label, path in paths.items()
        }
        for text, windows in self.windows.items():
            statistics = {label: KlStatistics() for label in models}
            for tokens in windows:
                expected = self.model.logits(tokens)[:-1]
                for label, model in models.items():
                    statistics[label].add(expected, model.logits(tokens)[:-1], tokens[1:])
            for label, own in statistics.items():
                found[label][text] = compared(own, next(iter(statistics.values())))
        return found

    def loaded(self, path: Path) -> engine.Model:
        """A GGUF file's weights, decoded, in the float model."""
        replaced = {}
        with GGUFFile.open(path) as file:
            for spec in self.model.family.tensors(self.model.hp):
                if len(spec.shape) == 2:
                    values = file.decode(spec.name).reshape(spec.shape)
                    heads = spec.rope_heads
                    order = hugging_face_rows(len(values), heads) if heads else slice(None)
                    replaced[spec.name] = DecodedMatrix(values[order])
        return with_replaced(self.model, replaced)


def compared(own: KlStatistics, first: KlStatistics) -> dict[str, float]:
    summary = own.summary()
    windows, base = np.array([s.scores().kl.reshape(-1, WINDOW - 1).mean(axis=1) for s in (own, first)])
    ratio = windows.mean() / base.mean()
    error = np.std(windows - ratio * base) / np.sqrt(len(base)) / base.mean()
    return {
        "tokens": summary["tokens"],
        "kl": summary["kl_mean"],
        "kl_error": summary["kl_window_error"],
        "top1": summary["top1_agreement"],
        "ratio": float(ratio),
        "ratio_error": float(error),
    }


def show(name: str, found: dict[str, dict[str, Any]]) -> None:
    for label, own in found.items():
        cells = [
            f"{text} {own[text]['kl']:.5f} ± {own[text]['kl_error']:.5f} ({own[text]['ratio']:.3f} ± "
            f"{own[text]['ratio_error']:.3f})"
            for text in own
            if text != "bytes"
        ]
        print(f"{name:<16}{label:<12}{own['bytes']:>10,}  " + "  ".join(cells), flush=True)


def files(
    folder: Path, quant: str, text: Path, imatrix: Path, types: tuple[str, ...] = ()
) -> dict[str, Path]:
    """llama.cpp's file and ours."""
    paths = {label: folder / f"{label}-{text.stem}-{quant}.gguf" for label in ("llama.cpp", "edgeq")}
    common = {"source": TINYLM, "quant": quant, "tensor_types": types, "force": True}
    quantize.run(quantize.Request(out=paths["llama.cpp"], imatrix=imatrix, effort=Effort.ggml, **common))
    quantize.run(quantize.Request(out=paths["edgeq"], calibration=text, effort=Effort.best, **common))
    return paths


def gguf_parts(chosen: list[str], options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Any]]:
    calibration, held = texts(options.english, options.characters)
    measure = Measure(held, options.tokens)
    prepared: dict[str, tuple[Path, Path]] = {}

    def given(name: str) -> tuple[Path, Path]:
        if name not in prepared:
            text, matrix = folder / f"{name}.txt", folder / f"{name}.gguf"
            text.write_text(calibration[name], encoding="utf-8")
            calibrate.run(calibrate.Request(TINYLM, text, matrix, max_tokens=32768))
            prepared[name] = text, matrix
        return prepared[name]

    jobs: list[tuple[str, str, str, tuple[str, ...]]] = []
    if "mixes" in chosen:
        jobs += [(quant, quant, "both", ()) for quant in options.quants.split(",")]
    if "pure" in chosen:
        jobs += [(f"pure {t}", q, "both", ("token_embd=F32", f"blk={t}")) for q, t in PURE.items()]
    if "domains" in chosen:
        jobs += [(f"{q} by {text}", q, text, ()) for q in ("Q4_K_M", "Q2_K") for text in ("code", "english")]
    for name, quant, text, types in jobs:
        found = measure.kl(files(folder, quant, *given(text), types))
        show(name, found)
        yield name, found


def plain_gptq(weights: np.ndarray, gram: np.ndarray, grid: BlockGrid) -> np.ndarray:
    """Codes by GPTQ as its paper and its authors' program have it, in NumPy and SciPy, by LAPACK what LAPACK has.

    The upper factor of the inverse by potrf, potri and potrf; lazy batches of 128 columns, each copied so that a
    column's values stand side by side. The grid's levels are consecutive.
    """
    statistics = Statistics(gram.copy(), 1)
    parts, levels, h = grid.start(weights, statistics.importance()), grid.lattice.levels, statistics.damped()
    order = np.argsort(-np.diag(h), kind="stable")
    upper = inverse_factor(h[np.ix_(order, order)])
    scale, offset = (np.repeat(part, grid.lattice.sub_values, axis=1) for part in parts.grid())
    left, codes = weights[:, order], np.empty(weights.shape, np.uint8)
    for begin in range(0, len(order), 128):
        end = min(begin + 128, len(order))
        own = order[begin:end]
        columns, scales, offsets = (
            np.ascontiguousarray(a.T) for a in (left[:, begin:end], scale[:, own], offset[:, own])
        )
        errors = np.empty_like(columns)
        inverses = 1 / np.where(scales == 0, np.float32(1), scales)
        for i in range(end - begin):
            code = np.clip(np.rint((columns[i] - offsets[i]) * inverses[i] - levels[0]), 0, len(levels) - 1)
            codes[:, own[i]] = code
            errors[i] = (columns[i] - scales[i] * (code + levels[0]) - offsets[i]) / upper[
                begin + i, begin + i
            ]
            columns[i + 1 :] -= upper[begin + i, begin + i + 1 : end, None] * errors[i]
        left[:, end:] -= errors.T @ upper[begin:end, end:]
    return codes


def inverse_factor(matrix: np.ndarray) -> np.ndarray:
    """The upper U of UᵀU = matrix⁻¹; the matrix is overwritten."""
    from scipy.linalg import lapack

    factor, failed = lapack.spotrf(matrix.T, lower=1, clean=0, overwrite_a=1)
    inverse, singular = lapack.spotri(factor, lower=1, overwrite_c=1)
    inverse[:] = np.tril(inverse) + np.tril(inverse, -1).T
    upper, not_positive = lapack.spotrf(inverse, lower=0, clean=0, overwrite_a=1)
    assert failed == singular == not_positive == 0
    return np.ascontiguousarray(upper)


def timed(rows: int, columns: int) -> dict[str, float]:
    """Processor seconds of GPTQ in Q4_K, ours and the plain one, less those of the encoder that gives the scales."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((rows, columns), np.float32) * np.float32(0.02)
    mix = rng.standard_normal((columns, 64), np.float32)
    gram, grid = mix @ mix.T + np.float32(8) * np.eye(columns, dtype=np.float32), BlockGrid("Q4_K")
    few, least = weights[:8, :512].copy(), gram[:512, :512].copy()
    METHODS["descent"](few, Statistics(least, 1), grid)  # compiles

    def seconds(work: Callable[[], object]) -> float:
        started = time.process_time()
        work()
        return time.process_time() - started

    start = seconds(lambda: grid.start(weights, np.diag(gram).copy()))
    own = {
        name: seconds(lambda name=name: METHODS[name](weights, Statistics(gram.copy(), 1), grid)) - start  # type: ignore[misc]
        for name in ("gptq", "descent")
    }
    plain = seconds(lambda: plain_gptq(weights, gram, grid)) - start
    found = {"rows": rows, "columns": columns, "encoder": start, **own, "plain gptq": plain}
    print(
        f"GPTQ of {rows} × {columns} in Q4_K: {own['gptq']:.2f} s of processor time, plain SciPy {plain:.2f} s "
        f"({own['gptq'] / plain:.2f}); with descent {own['descent']:.2f} s; the encoder's {start:.2f} s not counted",
        flush=True,
    )
    return found


def onnx_files(options: argparse.Namespace, folder: Path, text: Path) -> Iterator[tuple[str, Path]]:
    """What ONNX Runtime's quantizer makes of the float graph by default, byte for byte; then ours by method."""
    from edgeq import export, onnx

    def exported(quant: str, label: str, method: str | None) -> Path:
        request = export.Request(TINYLM, "onnx", quant, folder / label, text, method=method, dialect="ort")
        request.proof, request.accuracy_level, request.symmetric = False, 1, not options.asymmetric
        return export.run(request).path

    nearest = onnx.Request(exported("float32", "float", None), folder / "nearest", "int4", nearest=True)
    nearest.proof, nearest.accuracy_level, nearest.asymmetric = False, 1, options.asymmetric
    yield "nearest", Path(onnx.quantize(nearest)["files"][0])
    yield "search", exported("int4", "search", None)
    for method in ("clip", "awq", "gptq", "descent"):
        yield method, exported("int4", method, method)


def onnx_part(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """KL in ONNX Runtime of MatMulNBits with blocks of 32, by method."""
    from edgeq.runtimes.onnxruntime import OnnxSession, decoder_feeds, empty_past

    calibration, held = texts(options.english, options.characters)
    text = folder / "onnx.txt"
    text.write_text(calibration["both"], encoding="utf-8")
    measure = Measure(held, options.tokens)
    sessions = {label: OnnxSession(path) for label, path in onnx_files(options, folder, text)}
    hp = measure.model.hp
    past = empty_past(hp.n_layers, hp.n_kv_heads, hp.head_dim)
    found: dict[str, Any] = {label: {"bytes": 0} for label in sessions}
    for name, windows in measure.windows.items():
        statistics = {label: KlStatistics() for label in sessions}
        for tokens in windows:
            expected = measure.model.logits(tokens)[:-1]
            for label, session in sessions.items():
                (logits,) = session.run(decoder_feeds(tokens, past), ["logits"])
                statistics[label].add(expected, logits[0, :-1], tokens[1:])
        for label, own in statistics.items():
            found[label][name] = compared(own, statistics["nearest"])
    show("MatMulNBits", found)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default="mixes,pure,domains,onnx,time")
    parser.add_argument("--quants", default=",".join(MIXES), help="of the mixes")
    parser.add_argument("--english", type=Path)
    parser.add_argument("--asymmetric", action="store_true", help="ONNX blocks with zero points")
    parser.add_argument("--tokens", type=int, default=20_480, help="to measure on, of both texts together")
    parser.add_argument(
        "--characters",
        type=int,
        default=150_000,
        help="of code, and of English, to calibrate on (32,768 tokens of it)",
    )
    parser.add_argument("--shape", default="2048x8192", help="of the matrix that is timed")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    options = parser.parse_args()
    chosen = options.parts.split(",")
    threads.set_threads(usable_cores())
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="edgeq-methods-") as temporary:
        folder = Path(temporary)
        if {"mixes", "pure", "domains"} & set(chosen):
            results |= dict(gguf_parts(chosen, options, folder))
        if "onnx" in chosen:
            results["onnx"] = onnx_part(options, folder)
    if "time" in chosen:
        rows, columns = map(int, options.shape.split("x"))
        results["time"] = timed(rows, columns)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
