"""SHA-256 of every tensor's bytes: the same as llama.cpp's ``gguf-hash --sha256`` prints for each."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edgeq.formats.gguf.split import open_gguf
from edgeq.inspection.stream import Progress, pieces


def tensor_hashes(path: Path, progress: Progress) -> dict[str, str]:
    """Tensor name → SHA-256 of its bytes in hexadecimal, in the file's order; raises EdgeqError."""
    hashes: dict[str, str] = {}
    with open_gguf(path) as file:
        total = sum(tensor.nbytes for tensor in file.tensors.values())
        done = 0
        for tensor in file.tensors.values():
            sha = hashlib.sha256()
            for piece in pieces(file, tensor):
                sha.update(piece.data)
                done += piece.nbytes
                progress("hash", done, total)
            hashes[tensor.name] = sha.hexdigest()
    return hashes
