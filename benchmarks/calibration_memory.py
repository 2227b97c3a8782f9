"""Memory while a llama of about a billion parameters is calibrated, above the file that it is mapped from.

    python benchmarks/calibration_memory.py [--layers 16] [--tokens 512,2048] [--quant Q4_K_M] [--to gguf]

``edgeq export --effort best --calibration TEXT`` (Gram matrices, GPTQ and descent) and ``edgeq calibrate`` (an
importance matrix), each a process of its own on a synthetic checkpoint (random bfloat16) in a temporary folder. Twenty
times a second ``/proc/PID/status`` says how much is anonymous and how much is mapped from files (RssAnon, RssFile of
proc(5)), so this runs on Linux. The bar: at most 2 GB anonymous. A layer's matrices are the largest part, and only one
layer's are there at a time: with other tokens or layers nothing but the hidden states grows, to 256 MB at most.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from export_memory import TOKENIZER, write_checkpoint

_BAR_BYTES = 2e9
_INTERVAL = 0.05  # seconds between two looks
_CHARACTERS = 6  # of the text for each token that is wanted; what is too much is cut off by the token


def resident(pid: int) -> tuple[int, int]:
    """(anonymous bytes, bytes mapped from files) of a process; zeros where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    found = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith("Rss")}
    return found.get("RssAnon", 0) + found.get("RssShmem", 0), found.get("RssFile", 0)


def peaks(command: list[str]) -> tuple[int, int, float]:
    """Run it: the peaks of the two, and seconds; raises where it fails."""
    started, anonymous, mapped = time.perf_counter(), 0, 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            now = resident(process.pid)
            anonymous, mapped = max(anonymous, now[0]), max(mapped, now[1])
            time.sleep(_INTERVAL)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return anonymous, mapped, time.perf_counter() - started


def texts(folder: Path, counts: list[int]) -> Iterator[tuple[int, Path]]:
    """A text of about so many tokens, for each count."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(TOKENIZER / "tokenizer.json"))
    source = "\n".join(
        path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("*.py"))
    )
    ids = tokenizer.encode(source * (1 + _CHARACTERS * max(counts) // len(source))).ids
    for count in counts:
        path = folder / f"{count}.txt"
        path.write_text(tokenizer.decode(ids[:count]), encoding="utf-8")
        yield count, path


def commands(model: Path, text: Path, out: Path, options: argparse.Namespace) -> dict[str, list[str]]:
    """What is measured."""
    edgeq = [sys.executable, "-m", "edgeq"]
    export = [
        "export",
        str(model),
        "--to",
        options.to,
        "--quant",
        options.quant,
        "-o",
        str(out),
        "--no-proof",
    ]
    calibrate = ["calibrate", str(model), "--data", str(text), "-o", str(out / "imatrix.gguf")]
    return {
        "export": [*edgeq, *export, "--effort", "best", "--calibration", str(text)],
        "calibrate": [*edgeq, *calibrate],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--tokens", default="512,2048", help="of the calibration text")
    parser.add_argument("--to", default="gguf", choices=("gguf", "onnx"))
    parser.add_argument("--quant", default="Q4_K_M")
    parser.add_argument("--only", choices=("export", "calibrate"))
    options = parser.parse_args()
    worst = 0
    with tempfile.TemporaryDirectory(prefix="edgeq-bench-") as temporary:
        folder, out = Path(temporary) / "synthetic", Path(temporary) / "out"
        folder.mkdir()
        parameters, _ = write_checkpoint(folder, options.layers)
        print(f"{parameters / 1e9:.2f} billion parameters to {options.quant}", flush=True)
        for count, text in texts(Path(temporary), [int(n) for n in options.tokens.split(",")]):
            for name, command in commands(folder, text, out, options).items():
                if options.only not in (None, name):
                    continue
                shutil.rmtree(out, ignore_errors=True)
                out.mkdir()
                anonymous, mapped, seconds = peaks(command)
                worst = max(worst, anonymous)
                print(f"{name:<10}{count:>7,} tokens{anonymous / 1e6:>8,.0f} MB, {mapped / 1e6:,.0f} MB mapped, "
                      f"{seconds:.0f} s", flush=True)  # fmt: skip
    sys.exit(worst > _BAR_BYTES)


if __name__ == "__main__":
    main()
