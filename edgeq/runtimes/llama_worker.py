"""A child process that holds llama.cpp: its aborts and its chatter stay there, its memory goes when it ends.

Requests are JSON lines on standard input; answers are a JSON line on standard output, followed by ``nbytes`` bytes
of float32 where the answer has an array. Run as ``python -m edgeq.runtimes.llama_worker MODEL``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, BinaryIO

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from edgeq.peak_memory import peak_memory


class Worker:
    """One loaded model with one context."""

    def __init__(self, path: str, n_ctx: int, threads: int, embedding: bool) -> None:
        started = time.perf_counter()
        self.llama = llama_cpp.Llama(
            model_path=path,
            n_ctx=n_ctx,
            n_batch=n_ctx,
            n_ubatch=n_ctx,
            n_threads=threads,
            n_threads_batch=threads,
            n_gpu_layers=0,
            logits_all=not embedding,
            embedding=embedding,
            verbose=False,
        )
        self.load_seconds = time.perf_counter() - started

    def info(self, request: dict[str, Any]) -> tuple[dict[str, Any], NDArray[np.float32] | None]:
        return {"vocab": self.llama.n_vocab(), "load_seconds": self.load_seconds}, None

    def memory(self, request: dict[str, Any]) -> tuple[dict[str, Any], NDArray[np.float32] | None]:
        return {"peak": peak_memory()}, None

    def tokenize(self, request: dict[str, Any]) -> tuple[dict[str, Any], NDArray[np.float32] | None]:
        text = request["text"].encode()
        tokens = self.llama.tokenize(text, add_bos=request["add_special"], special=request["parse_special"])
        return {"tokens": tokens}, None

    def logits(self, request: dict[str, Any]) -> tuple[dict[str, Any], NDArray[np.float32] | None]:
        """Logits after every token of a fresh sequence, or of one continued with ``reset`` false."""
        tokens = request["tokens"]
        if request["reset"]:
            self.llama.reset()  # type: ignore[no-untyped-call]
            self.llama._ctx.kv_cache_clear()  # type: ignore[no-untyped-call]
        started = time.perf_counter()
        before = self.llama.n_tokens
        self.llama.eval(tokens)
        seconds = time.perf_counter() - started
        return {"seconds": seconds}, self.llama.scores[before : before + len(tokens)]

    def embed(self, request: dict[str, Any]) -> tuple[dict[str, Any], NDArray[np.float32] | None]:
        """Unit-length vectors of texts; the mean of the tokens' where the file says no pooling."""
        started = time.perf_counter()
        found = [np.atleast_2d(np.asarray(one, np.float32)) for one in self.llama.embed(request["texts"])]
        vectors = np.stack([one.mean(axis=0) for one in found])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return {"seconds": time.perf_counter() - started}, vectors

    def scores(self, request: dict[str, Any]) -> tuple[dict[str, Any], NDArray[np.float32] | None]:
        """Logits of texts, one by one: the package's own ``embed`` reads as many values as an embedding has."""
        started = time.perf_counter()
        rows = [self._score(text) for text in request["texts"]]
        return {"seconds": time.perf_counter() - started}, np.asarray(rows, np.float32)

    def _score(self, text: str) -> list[float]:
        llama = self.llama
        tokens = llama.tokenize(text.encode())[: llama.n_batch]
        llama._batch.reset()  # type: ignore[no-untyped-call]
        llama._batch.add_sequence(tokens, 0, True)
        llama._ctx.kv_cache_clear()  # type: ignore[no-untyped-call]
        llama._ctx.decode(llama._batch)
        values = llama_cpp.llama_get_embeddings_seq(llama._ctx.ctx, 0)
        return list(values[: llama_cpp.llama_model_n_cls_out(llama._model.model)])


def main() -> None:
    """Serve requests until standard input ends."""
    path, n_ctx, threads, embedding = (
        sys.argv[1],
        int(sys.argv[2]),
        int(sys.argv[3]),
        sys.argv[4] == "embedding",
    )
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the library prints goes to standard error
    try:
        worker = Worker(path, n_ctx, threads, embedding)
    except Exception as error:  # llama_cpp raises ValueError, and others, for files it does not load
        _answer(answers, {"error": str(error)}, None)
        return
    verbs: dict[str, Callable[[dict[str, Any]], tuple[dict[str, Any], NDArray[np.float32] | None]]] = {
        "info": worker.info,
        "memory": worker.memory,
        "tokenize": worker.tokenize,
        "logits": worker.logits,
        "embed": worker.embed,
        "scores": worker.scores,
    }
    _answer(answers, *worker.info({}))
    for line in sys.stdin:
        request = json.loads(line)
        try:
            _answer(answers, *verbs[request["verb"]](request))
        except Exception as error:
            _answer(answers, {"error": str(error)}, None)


def _answer(out: BinaryIO, header: dict[str, Any], array: NDArray[np.float32] | None) -> None:
    data = b"" if array is None else np.ascontiguousarray(array, np.float32).tobytes()
    shape = [] if array is None else list(array.shape)
    out.write(json.dumps(header | {"nbytes": len(data), "shape": shape}).encode() + b"\n" + data)
    out.flush()


if __name__ == "__main__":
    main()
