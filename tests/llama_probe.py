"""What llama.cpp makes of a GGUF file, and everything it warns of: in a process of its own, since its log is global.

``python llama_probe.py WHAT MODEL N_CTX OUT.npy`` reads token ids as JSON on standard input and prints the warnings.
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
from typing import Any

import numpy as np
from numpy.typing import NDArray

_REPORTED = (3, 4)  # GGML_LOG_LEVEL_WARN, GGML_LOG_LEVEL_ERROR


def probe(path: Path, n_ctx: int, tokens: Sequence[int]) -> tuple[NDArray[np.float32], list[str]]:
    """Logits ``[T, vocab]`` after each token, and the lines that llama.cpp logs as warnings or errors."""
    return _asked("logits", path, n_ctx, tokens)


def probe_encoder(
    path: Path, n_ctx: int, texts: Sequence[Sequence[int]]
) -> tuple[NDArray[np.float32], list[str]]:
    """What an encoder makes of texts, and the warnings.

    One row for each token where the file says no pooling; for each text otherwise, as long as an embedding or, of a
    classifier, as it has labels.
    """
    return _asked("embeddings", path, n_ctx, list(map(list, texts)))


def _asked(what: str, path: Path, n_ctx: int, tokens: Sequence[Any]) -> tuple[NDArray[np.float32], list[str]]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "logits.npy"
        done = subprocess.run(
            [sys.executable, __file__, what, str(path), str(n_ctx), str(out)],
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
    what, path, n_ctx, out = sys.argv[1:]
    atexit.register(lambda: print(json.dumps(lines)))
    encodes = what == "embeddings"
    llama = llama_cpp.Llama(
        path,
        n_ctx=int(n_ctx),
        n_batch=int(n_ctx),
        n_ubatch=int(n_ctx),
        n_threads=1,
        logits_all=not encodes,
        embedding=encodes,
        swa_full=False,
        verbose=False,
    )
    tokens = json.load(sys.stdin)
    if encodes:
        np.save(out, np.concatenate([_embedded(llama_cpp, llama, text) for text in tokens]))
        return
    llama.eval(tokens)
    np.save(out, llama.scores[: len(tokens)])


def _embedded(llama_cpp: Any, llama: Any, tokens: list[int]) -> NDArray[np.float32]:
    llama._batch.reset()
    llama._batch.add_sequence(tokens, 0, True)
    llama._ctx.decode(llama._batch)
    pooling = llama.pooling_type()
    width = llama.n_embd()
    if pooling == llama_cpp.LLAMA_POOLING_TYPE_NONE:
        values = llama_cpp.llama_get_embeddings(llama._ctx.ctx)[: width * len(tokens)]
        return np.asarray(values, np.float32).reshape(len(tokens), width)
    if pooling == llama_cpp.LLAMA_POOLING_TYPE_RANK:
        width = llama_cpp.llama_model_n_cls_out(llama._model.model)
    values = llama_cpp.llama_get_embeddings_seq(llama._ctx.ctx, 0)[:width]
    return np.asarray(values, np.float32)[None]


if __name__ == "__main__":
    main()
