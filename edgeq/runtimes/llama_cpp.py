"""llama.cpp, where the ``[llama]`` extra is installed, in a process of its own."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import EdgeqError, MissingDependencyError

Floats = NDArray[np.float32]


def available() -> bool:
    """Whether llama-cpp-python is installed."""
    return importlib.util.find_spec("llama_cpp") is not None


def version() -> str:
    """The installed version of llama-cpp-python."""
    return importlib.metadata.version("llama-cpp-python")


class LlamaCpp:
    """A GGUF file loaded in llama.cpp; a context manager. Raises EdgeqError when it does not load or dies."""

    def __init__(self, path: Path, n_ctx: int, threads: int, embedding: bool = False) -> None:
        if not available():
            raise MissingDependencyError(
                "llama.cpp is not installed; pip install 'edgeq[llama]' (compiles for minutes)"
            )
        self.path = path
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        mode = "embedding" if embedding else "logits"
        command = [
            sys.executable,
            "-m",
            "edgeq.runtimes.llama_worker",
            str(path),
            str(n_ctx),
            str(threads),
            mode,
        ]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, cwd=Path.cwd()
        )
        header, _ = self._receive()
        self.vocab, self.load_seconds = int(header["vocab"]), float(header["load_seconds"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def tokenize(self, text: str, *, add_special: bool = False, parse_special: bool = False) -> list[int]:
        """Token ids of a text by the file's own vocabulary."""
        header, _ = self._ask(
            verb="tokenize", text=text, add_special=add_special, parse_special=parse_special
        )
        return list(header["tokens"])

    def logits(self, tokens: Sequence[int], *, reset: bool = True) -> tuple[Floats, float]:
        """Logits ``[T, vocab]`` after each token, and the seconds that llama.cpp took."""
        header, array = self._ask(verb="logits", tokens=list(map(int, tokens)), reset=reset)
        return array, float(header["seconds"])

    def embed(self, texts: Sequence[str]) -> tuple[Floats, float]:
        """Unit-length embeddings ``[len(texts), C]`` of texts, tokenized by llama.cpp, and the seconds."""
        header, array = self._ask(verb="embed", texts=list(texts))
        return array, float(header["seconds"])

    def scores(self, texts: Sequence[str]) -> tuple[Floats, float]:
        """A classifier's logits ``[len(texts), labels]`` of texts, tokenized by llama.cpp, and the seconds."""
        header, array = self._ask(verb="scores", texts=list(texts))
        return array, float(header["seconds"])

    def peak_memory(self) -> int:
        """The most memory that llama.cpp's process held so far, in bytes."""
        return int(self._ask(verb="memory")[0]["peak"])

    def _ask(self, **request: Any) -> tuple[dict[str, Any], Floats]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None
        return self._receive()

    def _receive(self) -> tuple[dict[str, Any], Floats]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._died()
        header = json.loads(line)
        if "error" in header:
            raise EdgeqError(f"{self.path}: llama.cpp says: {header['error']}{self._last_words()}")
        data = self._process.stdout.read(header["nbytes"])
        return header, np.frombuffer(data, np.float32).reshape(header["shape"] or [0])

    def _died(self) -> EdgeqError:
        code = self._process.wait()
        return EdgeqError(f"{self.path}: llama.cpp ended with status {code}{self._last_words()}")

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f" ({lines[-1][:200]})" if lines else ""
