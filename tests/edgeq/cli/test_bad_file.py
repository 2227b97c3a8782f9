"""Damaged GGUF and ONNX files: one line, nothing left behind."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from bad_input import is_one_line

from edgeq.formats.gguf.writer import GGUFWriter


def _cuts(content: bytes) -> list[bytes]:
    dice = random.Random(0)
    places = [0, 1, 3, 4, 7, 8, 16, 23, 24, 25, 100, 5000, len(content) // 2, len(content) - 1]
    places += [dice.randrange(len(content)) for _ in range(10)]
    return [content[:place] for place in places]


def test_gguf_cut_anywhere(refused, exported, tmp_path):
    file = tmp_path / "cut.gguf"
    for content in _cuts(exported.gguf.read_bytes()):
        file.write_bytes(content)
        refused("inspect", file, names=file, below=5)
        refused("run", file, "-p", "hi", names=file, below=5)


def test_gguf_of_random_bytes(refused, tmp_path):
    file = tmp_path / "random.gguf"
    dice = random.Random(1)
    for start in (b"", b"GGUF", b"GGUF\x03\0\0\0", b"GGUF\x03\0\0\0" + bytes(8), b"\0" * 300):
        file.write_bytes(start + dice.randbytes(3000))
        refused("inspect", file, names=file, below=5)
        refused("run", file, "-p", "hi", names=file, below=5)


def _damaged_metadata(path: Path, source: Path, **changes: Any) -> None:
    """A GGUF file with the metadata of another and no tensors."""
    from edgeq.formats.gguf.reader import GGUFFile

    with GGUFFile.open(source) as file:
        metadata = {k: v for k, v in file.metadata.items() if k != "general.architecture"}
    metadata |= {key.replace("__", "."): value for key, value in changes.items()}
    metadata = {key: value for key, value in metadata.items() if value is not None}
    with GGUFWriter(path, "llama", metadata, []):
        pass


@pytest.mark.parametrize(
    "changes",
    [{}, {"llama__block_count": 2**40}, {"llama__block_count": float("inf")}, {"llama__block_count": "6"},
     {"llama__attention__head_count": 10**6}, {"llama__embedding_length": 2**60}, {"llama__embedding_length": None}],
    ids=str,
)  # fmt: skip
def test_gguf_metadata_that_cannot_be(refused, exported, tmp_path, changes):
    file = tmp_path / "bad.gguf"
    _damaged_metadata(file, exported.gguf, **changes)
    refused("run", file, "-p", "hi", names=file, below=5)


def test_onnx_cut_anywhere(refused, edgeq, exported, tmp_path):
    for companion in ("tokenizer.json", "config.json"):
        (tmp_path / companion).write_bytes((exported.folder / companion).read_bytes())
    file = tmp_path / "cut.onnx"
    for content in _cuts(exported.onnx.read_bytes())[::2]:
        file.write_bytes(content)
        refused("run", file, "-p", "hi", names=file)
        done = edgeq(
            "inspect", file
        )  # a cut between two of protobuf's fields is a shorter file, not a broken one
        if done.code:
            is_one_line(done.err)
            assert str(file) in done.err


def test_onnx_of_random_bytes(refused, exported, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes((exported.folder / "tokenizer.json").read_bytes())
    file = tmp_path / "random.onnx"
    for seed in range(5):
        file.write_bytes(random.Random(seed).randbytes(2000))
        refused("inspect", file, names=file)
        refused("run", file, "-p", "hi", names=file)


def test_onnx_without_its_tokenizer(refused, exported, tmp_path):
    file = tmp_path / "model.onnx"
    file.symlink_to(exported.onnx)
    refused("run", file, "-p", "hi", names=tmp_path / "tokenizer.json")


def test_neither_gguf_nor_onnx(refused, tinylm, tmp_path):
    refused("inspect", tinylm / "README.md", names=tinylm / "README.md")
    refused("inspect", tmp_path / "absent.gguf", names=tmp_path / "absent.gguf")
    refused("run", tmp_path / "absent.gguf", "-p", "hi", names=tmp_path / "absent.gguf")
    refused("run", tinylm / "README.md", "-p", "hi", names=tinylm / "README.md")
    refused("inspect", tmp_path, names=tmp_path)
    refused(
        "export", exported_file := tinylm / "config.json", "--to", "gguf", "-q", "F16", names=exported_file
    )
