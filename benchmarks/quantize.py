"""``edgeq quantize`` against llama.cpp's ``llama_model_quantize``: whole processes on the same F16 file, in turn.

    python benchmarks/quantize.py [--layers 16] [--threads 2] [--quants Q4_K_M,IQ4_XS] [--efforts ggml,normal]

The file is a synthetic llama (16 layers: 1.04 billion parameters) made in a temporary folder.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from export_memory import write_checkpoint

from edgeq.formats.gguf.mixes import file_type

QUANTS = "Q4_K_M,Q6_K,IQ4_XS,Q3_K_M,Q2_K,Q8_0,Q4_0"
PEER = """
import sys, llama_cpp
p = llama_cpp.llama_model_quantize_default_params()
p.ftype, p.nthread = int(sys.argv[3]), int(sys.argv[4])
sys.exit(llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), p))
"""


def timed(command: list[str]) -> float:
    """Seconds of a process that must succeed, with its modules' bytecode kept as that of installed ones is."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    nothing = subprocess.DEVNULL
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=nothing, stderr=nothing, env=environment)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quants", default=QUANTS)
    parser.add_argument("--efforts", default="ggml,normal")
    options = parser.parse_args()
    peer = importlib.util.find_spec("llama_cpp") is not None
    edgeq = [sys.executable, "-m", "edgeq", "quantize"]
    with tempfile.TemporaryDirectory(prefix="edgeq-bench-") as temporary:
        folder = Path(temporary)
        (folder / "synthetic").mkdir()
        parameters, _ = write_checkpoint(folder / "synthetic", options.layers)
        source, ours, theirs = (folder / f"{name}.gguf" for name in ("source", "ours", "theirs"))
        timed([*edgeq, str(folder / "synthetic"), "-o", str(source), "-q", "F16"])
        print(
            f"{parameters / 1e9:.2f} billion parameters, F16, {options.threads} threads; seconds (ratio), the "
            "faster of two runs of edgeq, so that kernels are compiled"
        )
        efforts = options.efforts.split(",")
        print(f"{'':<8}{'llama.cpp':>10}" + "".join(f"{effort:>16}" for effort in efforts) + "  same size")
        for quant in options.quants.split(","):
            number = str(file_type(quant).number)
            code = [sys.executable, "-c", PEER, str(source), str(theirs), number, str(options.threads)]
            seconds = timed(code) if peer else None
            line = f"{quant:<8}" + (f"{seconds:>10.1f}" if seconds else f"{'absent':>10}")
            for effort in efforts:
                command = [*edgeq, str(source), "-o", str(ours), "-q", quant, "--effort", effort]
                own = min(timed([*command, "-t", str(options.threads), "--force"]) for _ in range(2))
                line += f"{own:>8.1f}" + (f" ({seconds / own:4.1f})" if seconds else " " * 7)
            same = peer and abs(ours.stat().st_size - theirs.stat().st_size) < 4096
            print(f"{line}  {same if peer else '-'}", flush=True)


if __name__ == "__main__":
    main()
