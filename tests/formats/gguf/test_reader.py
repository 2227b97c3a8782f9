"""The GGUF reader: what it reads, and one test per malformation that it must refuse."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import time
from pathlib import Path

import gguf
import numpy as np
import pytest

from edgeq.formats.blocks import all_types, by_name
from edgeq.formats.errors import EdgeqError, FormatError
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.formats.gguf.types import TENSOR_TYPES, TENSOR_TYPES_BY_NAME, Typed, ValueType

U32, F32, BOOL, STRING, ARRAY = 4, 6, 7, 8, 9
Q4_0, Q4_K = 2, 12


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def pair(key: str | bytes, kind: int, payload: bytes) -> bytes:
    return text(key) + struct.pack("<i", kind) + payload


def array(key: str, kind: int, count: int, payload: bytes) -> bytes:
    return pair(key, ARRAY, struct.pack("<iQ", kind, count) + payload)


def tensor(name: str | bytes, dims: list[int], kind: int = 0, offset: int = 0) -> bytes:
    """An entry; dims in ggml's order, columns first."""
    return text(name) + struct.pack(f"<I{len(dims)}qiQ", len(dims), *dims, kind, offset)


def build(
    pairs: list[bytes] = [],  # noqa: B006
    tensors: list[bytes] = [],  # noqa: B006
    data: bytes = b"",
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    n_tensors: int | None = None,
    n_pairs: int | None = None,
    alignment: int = 32,
) -> bytes:
    counts = (len(tensors) if n_tensors is None else n_tensors, len(pairs) if n_pairs is None else n_pairs)
    head = magic + struct.pack("<Iqq", version, *counts) + b"".join(pairs) + b"".join(tensors)
    return head + bytes(-len(head) % alignment) + data if tensors else head


def u32(key: str, value: int) -> bytes:
    return pair(key, U32, struct.pack("<I", value))


BIG = 1 << 62
ONE = tensor("a", [4])
REFUSED = {
    "empty file": (b"", "file is empty"),
    "bad magic": (build(magic=b"GGML"), "starts with b'GGML', not b'GGUF'"),
    "version 0": (build(version=0), "version 0"),
    "version 1": (build(version=1), "version 1"),
    "version 4": (build(version=4), "version 4; versions 2 and 3 are read"),
    "byte-swapped version": (build(version=0x03000000), "byte-swapped"),
    "cut in the preamble": (build()[:15], "ends inside the number of tensors"),
    "negative tensor count": (build(n_tensors=-1), "-1 tensors do not fit"),
    "tensor count past the file": (build(n_tensors=1 << 40), "tensors do not fit in the 8 bytes"),
    "negative pair count": (build(n_pairs=-1), "-1 key-value pairs"),
    "pair count past the file": (build(n_pairs=1 << 61), "key-value pairs do not fit in the 0 bytes"),
    "empty key": (build([u32("", 1)]), "key 0 is empty"),
    "duplicate key": (build([u32("k", 1), u32("k", 2)]), "key 'k' stands twice"),
    "key not UTF-8": (build([pair(b"k\xff", U32, bytes(4))]), "key 0: b'k\\xff' is not UTF-8"),
    "key past the file": (build([struct.pack("<Q", 1 << 20) + bytes(30)]), "the file ends inside key 0"),
    "bad value type": (build([pair("k", 13, bytes(8))]), "key 'k': type 13 is not a GGUF value type"),
    "negative value type": (build([pair("k", -1, bytes(8))]), "key 'k': type -1"),
    "bad array type": (build([array("k", 99, 1, bytes(8))]), "the elements of key 'k': type 99"),
    "nested array": (build([array("k", ARRAY, 1, bytes(32))]), "key 'k': arrays of arrays"),
    "array over the limit": (build([array("k", U32, (1 << 30) + 1, bytes(8))]), "key 'k': an array of 10737"),
    "array past the file": (build([array("k", U32, 3, bytes(8))]), "inside key 'k': 12 bytes wanted, 8 left"),
    "strings past the file": (build([array("k", STRING, 9, bytes(8))]), "inside key 'k': 72 bytes wanted"),
    "string in array past the file": (
        build([array("k", STRING, 2, text("ab") + struct.pack("<Q", 1))]),
        "key 'k': string 1 runs past the end",
    ),
    "string over the limit": (
        build([pair("k", STRING, struct.pack("<Q", (1 << 30) + 1))]),
        "key 'k': a string of 1073741825 bytes is over the limit",
    ),
    "string past the file": (
        build([pair("k", STRING, struct.pack("<Q", 9) + b"12345678")]),
        "inside key 'k': 9 bytes wanted, 8 left",
    ),
    "value past the file": (build([pair("key", 10, bytes(7))]), "inside key 'key': 8 bytes wanted, 7 left"),
    "alignment not a power of two": (build([u32("general.alignment", 24)]), "24 is not a power of two"),
    "alignment 0": (build([u32("general.alignment", 0)]), "0 is not a power of two"),
    "alignment not UINT32": (
        build([pair("general.alignment", 5, struct.pack("<i", 32))]),
        "'general.alignment' must be a UINT32",
    ),
    "name of 64 bytes": (build([], [tensor("n" * 64, [4])], bytes(32)), "a name of 64 bytes is over 63"),
    "name not UTF-8": (build([], [tensor(b"\xc3", [4])], bytes(32)), "the name of tensor 0: b'\\xc3' is not"),
    "duplicate tensor": (
        build([], [ONE, tensor("a", [4], offset=32)], bytes(64)),
        "tensor 'a' stands twice",
    ),
    "five dimensions": (build([], [tensor("a", [1] * 5)], bytes(32)), "tensor 'a': 5 dimensions"),
    "negative dimension": (build([], [tensor("a", [4, -1])], bytes(32)), "[4, -1] has a negative dimension"),
    "element overflow": (build([], [tensor("a", [BIG, 4])], bytes(32)), "tensor 'a': shape"),
    "element overflow hidden by 0": (build([], [tensor("a", [BIG, BIG, 0])], bytes(32)), "overflows"),
    "byte overflow": (build([], [tensor("a", [BIG])], bytes(32)), f"shape [{BIG}] overflows"),
    "type out of range": (build([], [tensor("a", [4], 43)], bytes(32)), "tensor 'a': type 43 is not a ggml"),
    "negative type": (build([], [tensor("a", [4], -1)], bytes(32)), "tensor 'a': type -1"),
    "removed type": (build([], [tensor("a", [32], 4)], bytes(32)), "tensor 'a': type 4 is not"),
    "row not whole blocks": (
        build([], [tensor("a", [33], Q4_0)], bytes(64)),
        "tensor 'a': 33 columns are not whole Q4_0 blocks of 32",
    ),
    "first offset not 0": (
        build([], [tensor("a", [4], offset=32)], bytes(64)),
        "'a': offset 32 is not 0, where it must lie",
    ),
    "offset not the padded sum": (
        build([], [ONE, tensor("b", [4], offset=16)], bytes(64)),
        "tensor 'b': offset 16 is not 32",
    ),
    "truncated entry": (build([], [ONE])[:50], "the file ends inside tensor 'a': 8 bytes wanted, 1 left"),
    "truncated data": (build([], [ONE], bytes(15)), "tensor 'a': the file is truncated, 1 bytes are missing"),
    "truncated before the data": (
        build([u32("general.alignment", 1 << 20)], [ONE], bytes(16)),
        "tensor 'a': the file is truncated",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(tmp_path: Path, name: str) -> None:
    content, problem = REFUSED[name]
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=re.escape(problem)) as caught:
        GGUFFile.open(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.fixture
def opened(tmp_path: Path) -> GGUFFile:
    """Two tensors, one of them Q4_0 of 3-D shape, and a key of every type."""
    pairs = [
        pair(f"n.{kind.name}", kind, struct.pack(f"<{letter}", value))
        for kind, letter, value in (
            (ValueType.UINT8, "B", 255),
            (ValueType.INT8, "b", -128),
            (ValueType.UINT16, "H", 65535),
            (ValueType.INT16, "h", -2),
            (ValueType.UINT32, "I", 2**32 - 1),
            (ValueType.INT32, "i", -3),
            (ValueType.FLOAT32, "f", 0.5),
            (ValueType.BOOL, "B", 2),  # anything but 0 is true, as in llama.cpp
            (ValueType.UINT64, "Q", 2**64 - 1),
            (ValueType.INT64, "q", -(2**63)),
            (ValueType.FLOAT64, "d", 0.1),
        )
    ]
    pairs += [
        pair("s", STRING, text("grüß")),
        array("tokens", STRING, 3, text("a") + text("") + text(b"\xe2\x96")),
        array("f", F32, 2, struct.pack("<2f", 1, 2)),
        array("b", BOOL, 2, b"\0\1"),
        array("none", U32, 0, b""),
    ]
    values = np.arange(12, dtype="<f4")
    blocks = by_name("Q4_0").encode(np.linspace(-1, 1, 192, dtype=np.float32).reshape(6, 32))
    tensors = [tensor("a", [4, 3]), tensor("q", [32, 2, 3], Q4_0, 64)]
    path = tmp_path / "good.gguf"
    path.write_bytes(build(pairs, tensors, values.tobytes() + bytes(16) + blocks.tobytes()))
    return GGUFFile.open(path)


def test_metadata(opened: GGUFFile) -> None:
    assert (opened.version, opened.alignment) == (3, 32)
    assert opened.metadata == {
        "n.UINT8": 255,
        "n.INT8": -128,
        "n.UINT16": 65535,
        "n.INT16": -2,
        "n.UINT32": 2**32 - 1,
        "n.INT32": -3,
        "n.FLOAT32": 0.5,
        "n.BOOL": True,
        "n.UINT64": 2**64 - 1,
        "n.INT64": -(2**63),
        "n.FLOAT64": 0.1,
        "s": "grüß",
        "tokens": ["a", "", "\udce2\udc96"],
        "f": [1.0, 2.0],
        "b": [False, True],
        "none": [],
    }
    assert opened.metadata_types["tokens"] is ValueType.STRING
    assert opened.typed_metadata()["none"] == Typed([], ValueType.UINT32)


def test_tensors(opened: GGUFFile) -> None:
    a, q = opened.info("a"), opened.info("q")
    assert (a.type_name, a.shape, a.nbytes, a.n_rows) == ("F32", (3, 4), 48, 3)
    assert (q.type_name, q.type_id, q.shape, q.nbytes) == ("Q4_0", 2, (3, 2, 32), 108)
    assert q.offset == a.offset + 64
    rows = opened.rows("q")
    assert rows.shape == (6, 18)
    assert not rows.flags.writeable
    assert not rows.flags.owndata
    np.testing.assert_array_equal(opened.decode("a"), np.arange(12, dtype=np.float32).reshape(3, 4))
    assert opened.decode("q").shape == (3, 2, 32)
    assert np.abs(opened.decode("q").ravel() - np.linspace(-1, 1, 192)).max() < 0.07


def test_release_and_close(opened: GGUFFile) -> None:
    rows = opened.rows("a")
    before = rows.copy()
    opened.release("a", 1, 2)
    opened.release("a")
    np.testing.assert_array_equal(rows, before)
    opened.close()
    np.testing.assert_array_equal(rows, before)  # a kept view outlives the file object
    with pytest.raises(EdgeqError, match="was closed"):
        opened.rows("a")
    opened.release("a")
    opened.close()


def test_dimensions_of_zero_and_none(tmp_path: Path) -> None:
    path = tmp_path / "zero.gguf"
    entries = [tensor("none", [4, 0, 2]), tensor("wide", [0, 1 << 59]), tensor("scalar", [])]
    path.write_bytes(build([], entries, struct.pack("<f", 7)))
    with GGUFFile.open(path) as file:
        assert file.rows("none").shape == (0, 16)
        assert file.decode("none").shape == (2, 0, 4)
        assert file.rows("wide").shape == (1 << 59, 0)
        assert file.decode("wide").size == 0
        assert file.rows("scalar").shape == (1, 4)
        assert file.decode("scalar") == np.float32(7)


def test_type_without_codec_is_listed_but_not_decoded(tmp_path: Path) -> None:
    path = tmp_path / "one_bit.gguf"
    path.write_bytes(build([], [tensor("x", [256, 2], 41)], bytes(72)))
    with GGUFFile.open(path) as file:
        assert (file.info("x").type_name, file.info("x").nbytes) == ("Q1_0", 72)
        assert file.rows("x").shape == (2, 36)
        with pytest.raises(EdgeqError, match=r"one_bit.gguf: tensor 'x' is Q1_0, which edgeq cannot decode"):
            file.decode("x")


def test_files_that_cannot_be_opened(tmp_path: Path, opened: GGUFFile) -> None:
    with pytest.raises(EdgeqError, match="no such file"):
        GGUFFile.open(tmp_path / "absent.gguf")
    with pytest.raises(EdgeqError, match="is a folder"):
        GGUFFile.open(tmp_path)
    with pytest.raises(EdgeqError, match=r"good.gguf: has no tensor 'zz'"):
        opened.rows("zz")


def test_version_2_and_no_tensors(tmp_path: Path) -> None:
    path = tmp_path / "v2.gguf"
    path.write_bytes(build([u32("k", 5)], version=2))
    with GGUFFile.open(path) as file:
        assert (file.version, file.metadata, file.tensors) == (2, {"k": 5}, {})


def test_large_vocabulary_parses_fast(tmp_path: Path) -> None:
    tokens = [f"token{i}" for i in range(150_000)]
    path = tmp_path / "vocabulary.gguf"
    path.write_bytes(build([array("tokens", STRING, len(tokens), b"".join(map(text, tokens)))]))
    start = time.process_time()
    with GGUFFile.open(path) as file:
        assert file.metadata["tokens"] == tokens
    assert time.process_time() - start < 1


def test_hostile_count_allocates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "hostile.gguf"
    path.write_bytes(build([array("k", STRING, 1 << 30, bytes(1 << 16))]))
    start = time.process_time()
    with pytest.raises(FormatError):
        GGUFFile.open(path)
    assert time.process_time() - start < 0.1


def test_types_are_those_of_gguf_and_of_our_blocks() -> None:
    assert {t.name: t.value for t in ValueType} == {t.name: t.value for t in gguf.GGUFValueType}
    for kind in gguf.GGMLQuantizationType:
        ours = TENSOR_TYPES[kind.value]
        # gguf says 40 bytes for Q8_1; ggml's block_q8_1 is two float16 and 32 int8.
        size = 36 if kind.name == "Q8_1" else gguf.GGML_QUANT_SIZES[kind][1]
        assert (ours.name, ours.block_values, ours.block_bytes) == (
            kind.name,
            gguf.GGML_QUANT_SIZES[kind][0],
            size,
        )
    for block in all_types():
        ours = TENSOR_TYPES_BY_NAME[block.name]
        assert (ours.id, ours.block_values, ours.block_bytes) == (
            block.ggml_id,
            block.block_values,
            block.block_bytes,
        )


def test_import_leaves_gguf_alone() -> None:
    code = "import sys, edgeq.formats.gguf.reader; sys.exit('gguf' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
