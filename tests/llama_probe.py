"""What llama.cpp makes of a GGUF file, and everything it warns of: in a process of its own, since its log is global.

``python llama_probe.py WHAT N_CTX OUT.npz`` reads models and token ids as JSON on standard input, prints the warnings.
"""

from __future__ import annotations

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
    (answer,) = _asked("logits", n_ctx, [(path, [tokens])])
    return answer


def probe_encoders(
    n_ctx: int, jobs: Sequence[tuple[Path, Sequence[Sequence[int]]]]
) -> list[tuple[NDArray[np.float32], list[str]]]:
    """What each encoder makes of its texts, and its warnings.

    One row for each token where the file says no pooling; for each text otherwise, as long as an embedding or, of a
    classifier, as it has labels.
    """
    return _asked("embeddings", n_ctx, jobs)


def _asked(
    what: str, n_ctx: int, jobs: Sequence[tuple[Path, Sequence[Sequence[int]]]]
) -> list[tuple[NDArray[np.float32], list[str]]]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "answers.npz"
        done = subprocess.run(
            [sys.executable, __file__, what, str(n_ctx), str(out)],
            input=json.dumps([(str(path), [list(text) for text in texts]) for path, texts in jobs]),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        answers = np.load(out)
        warnings = json.loads(done.stdout.splitlines()[-1])
        return [(answers[f"arr_{i}"], lines) for i, lines in enumerate(warnings)]


def main() -> None:
    import llama_cpp

    lines: list[str] = []

    @llama_cpp.llama_log_callback
    def log(level: int, text: bytes, data: ctypes.c_void_p) -> None:
        if level in _REPORTED:
            lines.append(text.decode(errors="replace").strip())

    llama_cpp.llama_log_set(log, ctypes.c_void_p())
    what, n_ctx, out = sys.argv[1:]
    answers, warnings = [], []
    for path, texts in json.load(sys.stdin):
        lines.clear()
        llama = _opened(llama_cpp, path, int(n_ctx), what == "embeddings")
        if what == "embeddings":
            answers.append(np.concatenate([_embedded(llama_cpp, llama, text) for text in texts]))
        else:
            llama.eval(texts[0])
            answers.append(llama.scores[: len(texts[0])].copy())
        llama.close()
        warnings.append(lines.copy())
    np.savez(out, *answers)
    print(json.dumps(warnings))


def _opened(llama_cpp: Any, path: str, n_ctx: int, encodes: bool) -> Any:
    return llama_cpp.Llama(
        path,
        n_ctx=n_ctx,
        n_batch=n_ctx,
        n_ubatch=n_ctx if encodes else 512,
        n_threads=1,
        logits_all=not encodes,
        embedding=encodes,
        swa_full=False,  # the whole cache for layers with a window, which the package asks for, is warned of
        verbose=False,
    )


def _embedded(llama_cpp: Any, llama: Any, tokens: list[int]) -> NDArray[np.float32]:
    llama._ctx.kv_cache_clear()
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
