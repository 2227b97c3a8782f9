"""llama.cpp's logits of a GGUF file, and everything it warns of: in a process of its own, since its log is global.

``python llama_probe.py MODEL N_CTX OUT.npy`` reads token ids as JSON on standard input and prints the warnings.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_REPORTED = (3, 4)  # GGML_LOG_LEVEL_WARN, GGML_LOG_LEVEL_ERROR


def probe(path: Path, n_ctx: int, tokens: Sequence[int]) -> tuple[NDArray[np.float32], list[str]]:
    """Logits ``[T, vocab]`` after each token, and the lines that llama.cpp logs as warnings or errors."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "logits.npy"
        done = subprocess.run(
            [sys.executable, __file__, str(path), str(n_ctx), str(out)],
            input=json.dumps(list(tokens)),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return np.load(out), json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    import llama_cpp

    lines: list[str] = []

    @llama_cpp.llama_log_callback
    def log(level: int, text: bytes, data: ctypes.c_void_p) -> None:
        if level in _REPORTED:
            lines.append(text.decode(errors="replace").strip())

    # The whole cache for layers with a window, which the package asks for, is warned of.
    llama_cpp.llama_log_set(log, ctypes.c_void_p())
    path, n_ctx, out = sys.argv[1:]
    atexit.register(lambda: print(json.dumps(lines)))
    llama = llama_cpp.Llama(
        path,
        n_ctx=int(n_ctx),
        n_batch=int(n_ctx),
        n_threads=1,
        logits_all=True,
        swa_full=False,
        verbose=False,
    )
    tokens = json.load(sys.stdin)
    llama.eval(tokens)
    np.save(out, llama.scores[: len(tokens)])


if __name__ == "__main__":
    main()
