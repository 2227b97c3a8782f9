"""Checkpoint folders: what is read, and one test per thing that can be wrong with one."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from edgeq.formats.checkpoint.safetensors import Checkpoint
from edgeq.formats.checkpoint.safetensors_file import DTYPES, SafetensorsFile
from edgeq.formats.errors import EdgeqError, FormatError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def pack(header: object, data: bytes = b"", size: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if size is None else size) + raw + data


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def folder_with(folder: Path, **files: bytes | str) -> Path:
    """A folder with a config and the given files; ``__`` in a name stands for a dot."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    for name, content in files.items():
        raw = content.encode() if isinstance(content, str) else content
        (folder / name.replace("__", ".")).write_bytes(raw)
    return folder


@pytest.fixture
def values() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "f32": rng.standard_normal((5, 3)).astype(np.float32),
        "f16": rng.standard_normal((4, 2, 3)).astype(np.float16),
        "bias": rng.standard_normal(7).astype(np.float16),
        "scalar": np.array(3, np.float32),
        "none": np.zeros((0, 4), np.float32),
    }


def test_single_file(tmp_path: Path, values: dict[str, np.ndarray]) -> None:
    folder = folder_with(tmp_path / "m")
    save_file(values, folder / SINGLE)
    with Checkpoint.open(folder) as checkpoint:
        assert checkpoint.config == {"model_type": "llama"}
        assert sorted(checkpoint.names) == sorted(values)
        assert "f32" in checkpoint
        assert "zz" not in checkpoint
        for name, value in values.items():
            assert checkpoint.shape(name) == value.shape
            assert checkpoint.dtype(name) == value.dtype
            assert checkpoint.nbytes(name) == value.nbytes
            assert checkpoint.path_of(name) == folder / SINGLE
            got = checkpoint.array(name)
            assert got.dtype == np.float32
            np.testing.assert_array_equal(got, value.astype(np.float32))
        assert checkpoint.n_rows("f16") == 8
        np.testing.assert_array_equal(checkpoint.rows("f32", 1, 4), values["f32"][1:4])
        np.testing.assert_array_equal(
            checkpoint.rows("f16", 3, 5), values["f16"].reshape(8, 3)[3:5].astype(np.float32)
        )
        assert checkpoint.rows("bias", 0, 1).shape == (1, 7)
        assert checkpoint.stored_rows("bias", 0, 1).dtype == np.float16
        assert checkpoint.rows("f32", 2, 2).shape == (0, 3)
        rows = checkpoint.rows("f32", 0, 5)
        rows[:] = 0  # a copy: the file is not touched
        checkpoint.release("f32")
        np.testing.assert_array_equal(checkpoint.array("f32"), values["f32"])


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(tmp_path: Path, dtype: str) -> None:
    """All bytes once, read unaligned, against ml_dtypes' and NumPy's own conversion."""
    kind = DTYPES[dtype]
    raw = bytes([0, 1] * 128) if dtype == "BOOL" else bytes(range(256))
    count = len(raw) // kind.itemsize
    header = {"pad": entry("U8", [1], [0, 1]), "x": entry(dtype, [2, count // 2], [1, 257])}
    folder = folder_with(tmp_path / "m", model__safetensors=pack(header, b"\0" + raw))
    with Checkpoint.open(folder) as checkpoint, np.errstate(all="ignore"):
        assert checkpoint.dtype("x") == kind
        expected = np.frombuffer(raw, kind).reshape(2, -1)
        assert checkpoint.stored_rows("x", 0, 2).tobytes() == raw
        np.testing.assert_array_equal(checkpoint.array("x"), expected.astype(np.float32))


def test_bfloat16_is_exact(tmp_path: Path) -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    header = {"x": entry("BF16", [256, 256], [0, 1 << 17])}
    folder = folder_with(tmp_path / "m", model__safetensors=pack(header, bits.tobytes()))
    with Checkpoint.open(folder) as checkpoint:
        assert checkpoint.dtype("x") == ml_dtypes.bfloat16
        expected = (bits.astype(np.uint32) << 16).view(np.float32).reshape(256, 256)
        np.testing.assert_array_equal(checkpoint.array("x"), expected)


def sharded(folder: Path, values: dict[str, np.ndarray]) -> dict[str, Any]:
    """Two shards and their index, which is returned."""
    folder_with(folder)
    weight_map = {}
    for i, name in enumerate(values):
        weight_map[name] = f"model-0000{i % 2 + 1}-of-00002.safetensors"
    for shard in set(weight_map.values()):
        save_file({n: v for n, v in values.items() if weight_map[n] == shard}, folder / shard)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index))
    return index


def test_shards(tmp_path: Path, values: dict[str, np.ndarray]) -> None:
    folder = tmp_path / "m"
    sharded(folder, values)
    with Checkpoint.open(folder) as checkpoint:
        assert checkpoint.names == list(values)
        assert checkpoint.path_of("f16").name == "model-00002-of-00002.safetensors"
        for name, value in values.items():
            np.testing.assert_array_equal(checkpoint.array(name), value.astype(np.float32))


def remove_shard(folder: Path, index: dict[str, Any]) -> None:
    (folder / "model-00002-of-00002.safetensors").unlink()


def cut_shard(folder: Path, index: dict[str, Any]) -> None:
    path = folder / "model-00001-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-3])


def name_what_is_not_there(folder: Path, index: dict[str, Any]) -> None:
    index["weight_map"]["zz"] = "model-00001-of-00002.safetensors"
    (folder / INDEX).write_text(json.dumps(index))


def point_elsewhere(target: object) -> Callable[[Path, dict[str, Any]], None]:
    def change(folder: Path, index: dict[str, Any]) -> None:
        index["weight_map"]["f32"] = target
        (folder / INDEX).write_text(json.dumps(index))

    return change


def replace_index(content: str) -> Callable[[Path, dict[str, Any]], None]:
    def change(folder: Path, index: dict[str, Any]) -> None:
        (folder / INDEX).write_text(content)

    return change


BROKEN_SHARDS = {
    "missing shard": (remove_shard, "model-00002-of-00002.safetensors is missing; download it again"),
    "truncated shard": (
        cut_shard,
        "model-00001-of-00002.safetensors: tensor 'bias': the file is truncated, 3",
    ),
    "tensor not in its shard": (name_what_is_not_there, "tensor 'zz' is not in model-00001-of-00002"),
    "parent folder": (point_elsewhere("../x.safetensors"), "'../x.safetensors' is not the name of a file"),
    "absolute path": (point_elsewhere("/x.safetensors"), "'/x.safetensors' is not the name of a file"),
    "Windows path": (point_elsewhere("..\\x.safetensors"), "is not the name of a file in this folder"),
    "drive": (point_elsewhere("C:x.safetensors"), "is not the name of a file in this folder"),
    "other kind of file": (point_elsewhere("config.json"), "is not the name of a file in this folder"),
    "number": (point_elsewhere(1), "1 is not the name of a file in this folder"),
    "index not JSON": (replace_index("{"), f"{INDEX}: is not JSON"),
    "index a list": (replace_index("[]"), f"{INDEX}: is not a JSON object"),
    "no weight_map": (replace_index("{}"), "weight_map is not an object"),
    "empty weight_map": (replace_index('{"weight_map": {}}'), "weight_map is not an object"),
}


@pytest.mark.parametrize("name", BROKEN_SHARDS)
def test_broken_shards(tmp_path: Path, values: dict[str, np.ndarray], name: str) -> None:
    change, problem = BROKEN_SHARDS[name]
    folder = tmp_path / "m"
    change(folder, sharded(folder, values))
    with pytest.raises(FormatError, match=re.escape(problem)) as caught:
        Checkpoint.open(folder)
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)


EIGHT = bytes(8)
TWICE = b'{"x": {"dtype":"F32","shape":[2],"data_offsets":[0,8]}, "x": {}}'
BAD_HEADERS = {
    "too short": (b"1234567", "7 bytes are too few for a header"),
    "header length past the file": (
        pack({}, size=999),
        "header length 999, but the file has 2 bytes after it",
    ),
    "header length over the cap": (pack({}, size=1 << 40), "over the limit of 100000000 bytes"),
    "not JSON": (pack(b"{x"), "header is not JSON"),
    "not UTF-8": (pack(b'{"\xff": 1}'), "header is not JSON"),
    "nesting bomb": (pack(b'{"x":' * 200_000), "header is not JSON"),
    "number of 5000 digits": (pack(b'{"x": ' + b"9" * 5000 + b"}"), "header is not JSON"),
    "list": (pack([]), "header is not a JSON object"),
    "duplicate tensor": (pack(TWICE, EIGHT), "header: key 'x' stands twice"),
    "bad metadata": (pack({"__metadata__": {"a": 1}}), "__metadata__ is not an object of strings"),
    "entry a number": (pack({"x": 1}), "tensor 'x': must have exactly dtype, shape and data_offsets"),
    "field missing": (pack({"x": {"dtype": "F32", "shape": [2]}}, EIGHT), "tensor 'x': must have exactly"),
    "field too many": (pack({"x": {**entry(), "z": 1}}, EIGHT), "tensor 'x': must have exactly"),
    "unknown dtype": (pack({"x": entry("Q4")}, EIGHT), "tensor 'x': dtype 'Q4' is not one of BOOL, "),
    "dtype a list": (pack({"x": entry([])}, EIGHT), "tensor 'x': dtype [] is not one of"),
    "shape a number": (pack({"x": entry(shape=2)}, EIGHT), "tensor 'x': shape 2 is not a list of sizes"),
    "negative size": (pack({"x": entry(shape=[-2])}, EIGHT), "shape [-2] is not a list of sizes"),
    "size a bool": (pack({"x": entry(shape=[True])}, EIGHT), "shape [True] is not a list of sizes"),
    "size a float": (pack({"x": entry(shape=[2.0])}, EIGHT), "shape [2.0] is not a list of sizes"),
    "overflow": (pack({"x": entry(shape=[1 << 62] * 4)}, EIGHT), "data_offsets [0, 8] hold 8 bytes, F32"),
    "one offset": (pack({"x": entry(offsets=[0])}, EIGHT), "data_offsets [0] is not a begin and an end"),
    "offsets reversed": (pack({"x": entry(offsets=[8, 0])}, EIGHT), "[8, 0] is not a begin and an end"),
    "offset negative": (pack({"x": entry(offsets=[-8, 0])}, EIGHT), "[-8, 0] is not a begin and an end"),
    "size mismatch": (pack({"x": entry(shape=[3])}, EIGHT), "[0, 8] hold 8 bytes, F32 [3] has 12"),
    "truncated": (pack({"x": entry()}, bytes(5)), "tensor 'x': the file is truncated, 3 bytes are missing"),
    "overlap": (pack({"x": entry(), "y": entry(offsets=[4, 12])}, bytes(12)), "'y': data_offsets overlap"),
    "same place": (pack({"x": entry(), "y": entry()}, EIGHT), "data_offsets overlap"),
    "hole": (pack({"x": entry(offsets=[4, 12])}, bytes(12)), "tensor 'x': data_offsets leave a hole of 4"),
    "bytes left over": (pack({"x": entry()}, bytes(9)), "1 bytes after the last tensor belong to none"),
    "empty": (b"", "the file is empty"),
}


@pytest.mark.parametrize("name", BAD_HEADERS)
def test_bad_headers(tmp_path: Path, name: str) -> None:
    content, problem = BAD_HEADERS[name]
    folder = folder_with(tmp_path / "m", model__safetensors=content)
    with pytest.raises(FormatError, match=re.escape(problem)) as caught:
        Checkpoint.open(folder)
    assert str(caught.value).startswith(f"{folder / SINGLE}: ")
    assert "\n" not in str(caught.value)


def test_folders_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(EdgeqError, match="is not a folder with a model"):
        Checkpoint.open(tmp_path / "absent")
    pickle = folder_with(tmp_path / "p", pytorch_model__bin=b"x")
    with pytest.raises(FormatError, match=r"only pickle files, which are not read.*; convert to safetensors"):
        Checkpoint.open(pickle)
    with pytest.raises(EdgeqError, match=rf"; pass its folder, {re.escape(str(pickle))}"):
        Checkpoint.open(pickle / "pytorch_model.bin")
    with pytest.raises(FormatError, match=r"has neither model.safetensors nor model.safetensors.index"):
        Checkpoint.open(folder_with(tmp_path / "n"))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "has no config.json"),
        ("{", "config.json: is not JSON"),
        ("[]", "config.json: is not a JSON obj"),
    ],
)
def test_bad_config(tmp_path: Path, content: str | None, problem: str) -> None:
    folder = folder_with(tmp_path / "m", model__safetensors=pack({"x": entry()}, EIGHT))
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_text(content)
    with pytest.raises(FormatError, match=re.escape(problem)):
        Checkpoint.open(folder)


def test_questions_that_have_no_answer(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "m", model__safetensors=pack({"x": entry()}, EIGHT))
    with Checkpoint.open(folder) as checkpoint:
        with pytest.raises(EdgeqError, match="has no tensor 'zz'"):
            checkpoint.shape("zz")
        for start, stop in ((0, 2), (-1, 1), (1, 0)):
            with pytest.raises(EdgeqError, match=r"tensor 'x' has 1 rows"):
                checkpoint.rows("x", start, stop)
    with pytest.raises(EdgeqError, match="was closed"):
        checkpoint.array("x")


def test_release_keeps_the_resident_size_down(tmp_path: Path) -> None:
    """64 MB stream through with less than a quarter of them resident at any time."""
    if not hasattr(__import__("mmap"), "MADV_DONTNEED"):
        pytest.skip("no madvise here")
    rows, columns = 1024, 1024
    size = rows * columns * 4
    names = [f"t{i}" for i in range(16)]
    header = {n: entry("F32", [rows, columns], [i * size, (i + 1) * size]) for i, n in enumerate(names)}
    folder = folder_with(tmp_path / "m", model__safetensors=pack(header, bytes(size * 16)))
    process = psutil.Process()
    with Checkpoint.open(folder) as checkpoint:
        before, peak = process.memory_info().rss, 0
        for name in names:
            for start in range(0, rows, 128):
                checkpoint.rows(name, start, start + 128)
            peak = max(peak, process.memory_info().rss - before)
            checkpoint.release(name)
    assert peak < 4 * size


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4), st.integers(0, 400))
def test_damaged_files(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]], cut: int
) -> None:
    header = {"x": entry(), "y": entry("F16", [2, 3], [8, 20]), "__metadata__": {"format": "pt"}}
    content = bytearray(pack(header, bytes(20)))
    for position, value in flips:
        content[position % len(content)] = value
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(content[: len(content) - cut % len(content)] if cut < 60 else content)
    try:
        file = SafetensorsFile(path)
    except FormatError:
        return
    for t in file.tensors.values():
        count = t.nbytes // t.dtype.itemsize
        assert file.read(t, 0, count).size == count
    file.close()
