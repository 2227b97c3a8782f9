"""The engines that run models, as ``--engine`` names them: what each opens, and which one a path gets.

How an engine opens a model depends on what for, and stands under its name beside that: to generate
(``edgeq.engine.decoders``), to evaluate (``edgeq.evaluation.opening``), to be timed (``edgeq.bench.engines``).
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgeq import __version__
from edgeq.errors import InputError, UsageError
from edgeq.runtimes import llama_cpp

FileKind = Literal["directory", "gguf", "onnx"]
EngineName = Literal["embedded", "llama.cpp", "onnxruntime"]
Wanted = EngineName | Literal["auto"]

ONNX_SUFFIXES = (".onnx", ".ort")  # of graphs as ONNX writes them, and in ONNX Runtime's own form


@dataclass(frozen=True)
class Engine:
    """What an engine opens, the version that is installed, and whether it is; ``compiles``: at the first use."""

    opens: tuple[FileKind, ...]
    version: Callable[[], str]
    installed: Callable[[], bool] = lambda: True
    compiles: bool = False


ENGINES: dict[EngineName, Engine] = {  # of those that open a file, auto is the first
    "embedded": Engine(("directory", "gguf"), lambda: __version__, compiles=True),
    "llama.cpp": Engine(("gguf",), llama_cpp.version, llama_cpp.available),
    "onnxruntime": Engine(("onnx",), lambda: importlib.metadata.version("onnxruntime")),
}


def file_kind(path: Path) -> FileKind:
    """What a path holds, by its name; raises InputError where there is nothing."""
    if not path.exists():
        raise InputError(f"{path}: no such file or directory")
    return "directory" if path.is_dir() else "onnx" if path.suffix.lower() in ONNX_SUFFIXES else "gguf"


def engine_for(path: Path, wanted: Wanted = "auto") -> EngineName:
    """The engine that opens a path; raises UsageError where the wanted one does not."""
    allowed = _engines_of(path)
    if wanted == "auto":
        return allowed[0]
    if wanted not in allowed:
        raise UsageError(f"--engine {wanted} does not run {path}; take {' or '.join(allowed)}")
    return wanted


def like(engine: EngineName, path: Path) -> Wanted:
    """An engine for a path that is compared with what ``engine`` runs: the same where it opens this one, too."""
    return engine if engine in _engines_of(path) else "auto"


def gguf_prover() -> EngineName:
    """What a GGUF file's answers are judged in: llama.cpp, which such files are for, where it is installed."""
    return "llama.cpp" if ENGINES["llama.cpp"].installed() else "embedded"


def check_cache_type(engine: EngineName, cache_type: str | None) -> None:
    """Raise UsageError for a ``--kv-type`` that the engine does not take."""
    if cache_type is not None and engine != "embedded":
        raise UsageError(f"--kv-type is for the embedded engine, not for {engine}")


def _engines_of(path: Path) -> list[EngineName]:
    kind = file_kind(path)
    return [name for name, engine in ENGINES.items() if kind in engine.opens]
