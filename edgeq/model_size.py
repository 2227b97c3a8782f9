"""The bytes of a model on disk."""

from __future__ import annotations

from pathlib import Path

from edgeq.runtimes.engines import file_kind


def model_bytes(path: Path) -> int:
    """Of a directory's weights, of a graph with its external data, of all shards of a GGUF file. Raises EdgeqError."""
    return sum(file.stat().st_size for file in _files(path))


def _files(path: Path) -> set[Path]:
    kind = file_kind(path)
    if kind == "directory":
        return set(path.glob("*.safetensors"))
    if kind == "gguf":
        from edgeq.formats.gguf.split import open_gguf

        with open_gguf(path) as file:
            return set(file.paths)
    if path.suffix.lower() != ".onnx":
        return {path}  # ONNX Runtime's own form has its weights inside
    from edgeq.formats.onnx.read import external_files, parse_model

    return {path, *(path.parent / name for name in external_files(parse_model(path)))}
