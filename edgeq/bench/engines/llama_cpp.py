"""llama.cpp as it runs by default: batches of 512, logits of the last token only, all layers on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeq.bench.engines import Kind, engine
from edgeq.errors import EdgeqError, MissingDependencyError
from edgeq.runtimes import llama_cpp as runtime

_BATCH = 512
_STEP = 256  # positions by which llama.cpp rounds its cache up


class _LlamaCpp:
    def __init__(self, path: Path, threads: int, room: int) -> None:
        import llama_cpp

        from edgeq.formats.gguf.split import open_gguf

        with open_gguf(path) as file:
            architecture = file.metadata.get("general.architecture")
            causal = file.metadata.get(f"{architecture}.attention.causal", True) is not False
            pooled = f"{architecture}.pooling_type" in file.metadata
            first = file.path  # of shards llama.cpp wants the first
        self.kind: Kind = "decoder" if causal and not pooled else "encoder"
        context = -(-room // _STEP) * _STEP
        batch = context if self.kind == "encoder" else _BATCH  # an encoder reads a text at once
        try:
            self._llama = llama_cpp.Llama(
                model_path=str(first),
                n_ctx=context,
                n_batch=batch,
                n_ubatch=batch,
                n_threads=threads,
                n_threads_batch=threads,
                n_gpu_layers=0,
                embedding=self.kind == "encoder",
                verbose=False,
            )
        except Exception as error:  # it raises ValueError, and others, for files it does not load
            raise EdgeqError(f"{path}: llama.cpp says: {error}") from None
        self.vocab = self._llama.n_vocab()

    def read(self, tokens: Sequence[int]) -> None:
        llama = self._llama
        llama._ctx.kv_cache_clear()  # type: ignore[no-untyped-call]
        if self.kind == "decoder":
            llama.reset()  # type: ignore[no-untyped-call]
            llama.eval(list(tokens))
            return
        llama._batch.reset()  # type: ignore[no-untyped-call]
        llama._batch.add_sequence(list(tokens), 0, True)
        llama._ctx.decode(llama._batch)

    def step(self, token: int) -> None:
        self._llama.eval([token])


@engine("llama.cpp")
def open_model(path: Path, threads: int, room: int) -> _LlamaCpp:
    """In this process: the one that measures is a child already."""
    if not runtime.available():
        raise MissingDependencyError(
            "llama.cpp is not installed; pip install 'edgeq[llama]' (compiles for minutes)"
        )
    return _LlamaCpp(path, threads, room)
