"""Importance matrices: both forms of file byte for byte, against llama.cpp's own library, and damaged ones."""

from __future__ import annotations

import ctypes
import re
import struct
from pathlib import Path
from typing import Any

import ggml
import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeq.formats.errors import EdgeqError, FormatError, OutputExistsError
from edgeq.formats.gguf.imatrix import Activations, ImportanceMatrix, merge
from edgeq.formats.gguf.writer import GGUFWriter, TensorPlan, Typed, ValueType

Q, E = "blk.0.attn_q.weight", "blk.0.ffn_up_exps.weight"
KEYS = {
    "general.type": "imatrix",
    "imatrix.datasets": Typed(["a.txt"], ValueType.STRING),
    "imatrix.chunk_count": 2,
    "imatrix.chunk_size": 4,
}


def matrix() -> ImportanceMatrix:
    """One weight of 3 columns, and one of two experts with 2 columns, the second of which was never used."""
    return ImportanceMatrix(
        {
            E: Activations(np.array([[2.0, 3.0], [0.0, 0.0]]), np.array([4, 0])),
            Q: Activations(np.array([[1.0, 0.0, 8.0]], np.float32), np.array([8])),
        },
        ["a.txt", "grüß.txt"],
        chunk_count=2,
        chunk_size=4,
    )


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def test_golden_bytes(tmp_path: Path) -> None:
    matrix().write(tmp_path / "imatrix.gguf")
    header = b"GGUF" + struct.pack("<IQQ", 3, 4, 4)
    header += text("general.type") + struct.pack("<I", 8) + text("imatrix")
    header += text("imatrix.datasets") + struct.pack("<IIQ", 9, 8, 2) + text("a.txt") + text("grüß.txt")
    header += text("imatrix.chunk_count") + struct.pack("<II", 4, 2)
    header += text("imatrix.chunk_size") + struct.pack("<II", 4, 4)
    header += text(Q + ".in_sum2") + struct.pack("<IQIQ", 1, 3, 0, 0)
    header += text(Q + ".counts") + struct.pack("<IQIQ", 1, 1, 0, 32)
    header += text(E + ".in_sum2") + struct.pack("<IQQIQ", 2, 2, 2, 0, 64)
    header += text(E + ".counts") + struct.pack("<IQQIQ", 2, 1, 2, 0, 96)
    header += bytes(-len(header) % 32)
    data = [[1, 0, 8], [8], [2, 3, 0, 0], [4, 0]]
    assert (tmp_path / "imatrix.gguf").read_bytes() == header + b"".join(
        struct.pack(f"<{len(v)}f", *v).ljust(32, b"\0") for v in data
    )


class _InitParams(ctypes.Structure):
    _fields_ = (("size", ctypes.c_size_t), ("buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


def test_same_bytes_as_ggml(tmp_path: Path) -> None:
    """What llama-imatrix makes by its calls of ggml, made by the same calls here."""
    lib = ggml.library()
    if lib is None:
        pytest.skip("llama_cpp is not installed")
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    for name, arguments in {
        "ggml_init": [_InitParams],
        "ggml_new_tensor_2d": [pointer, ctypes.c_int, number, number],
        "ggml_set_name": [pointer, ctypes.c_char_p],
        "ggml_get_data": [pointer],
        "gguf_init_empty": [],
    }.items():
        getattr(lib, name).argtypes, getattr(lib, name).restype = arguments, pointer
    memory, file = lib.ggml_init(_InitParams(1 << 16, None, False)), pointer(lib.gguf_init_empty())
    lib.gguf_set_val_str(file, b"general.type", b"imatrix")
    datasets = (ctypes.c_char_p * 2)(b"a.txt", "grüß.txt".encode())
    lib.gguf_set_arr_str(file, b"imatrix.datasets", datasets, ctypes.c_size_t(2))
    lib.gguf_set_val_u32(file, b"imatrix.chunk_count", ctypes.c_uint32(2))
    lib.gguf_set_val_u32(file, b"imatrix.chunk_size", ctypes.c_uint32(4))
    ours = matrix()
    for name in sorted(ours.entries):
        entry = ours.entries[name]
        for part, values in ((".in_sum2", entry.sums), (".counts", entry.counts[:, None])):
            tensor = lib.ggml_new_tensor_2d(memory, 0, values.shape[1], values.shape[0])
            lib.ggml_set_name(tensor, (name + part).encode())
            raw = values.astype("<f4").tobytes()
            ctypes.memmove(lib.ggml_get_data(tensor), raw, len(raw))
            lib.gguf_add_tensor(file, pointer(tensor))
    lib.gguf_write_to_file(file, str(tmp_path / "theirs.gguf").encode(), ctypes.c_bool(False))
    lib.gguf_free(file)
    lib.ggml_free(pointer(memory))
    ours.write(tmp_path / "ours.gguf")
    assert (tmp_path / "ours.gguf").read_bytes() == (tmp_path / "theirs.gguf").read_bytes()


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "imatrix.gguf"
    matrix().write(path)
    found = ImportanceMatrix.read(path)
    assert (found.datasets, found.chunk_count, found.chunk_size) == (["a.txt", "grüß.txt"], 2, 4)
    assert found.origin == str(path)
    assert set(found.entries) == {Q, E}
    for name, entry in matrix().entries.items():
        np.testing.assert_array_equal(found.entries[name].sums, entry.sums)
        np.testing.assert_array_equal(found.entries[name].counts, entry.counts)
    found.write(tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == path.read_bytes()
    with pytest.raises(OutputExistsError):
        found.write(path)


def test_gguf_reads_it(tmp_path: Path) -> None:
    matrix().write(tmp_path / "imatrix.gguf")
    reader = gguf.GGUFReader(tmp_path / "imatrix.gguf")
    assert {t.name: t.data.ravel().tolist() for t in reader.tensors} == {
        Q + ".in_sum2": [1, 0, 8],
        Q + ".counts": [8],
        E + ".in_sum2": [2, 3, 0, 0],
        E + ".counts": [4, 0],
    }
    assert reader.fields["imatrix.datasets"].contents() == ["a.txt", "grüß.txt"]


def test_no_datasets(tmp_path: Path) -> None:
    ImportanceMatrix(matrix().entries).write(tmp_path / "imatrix.gguf")
    assert ImportanceMatrix.read(tmp_path / "imatrix.gguf").datasets == []


def test_importance() -> None:
    found = matrix()
    np.testing.assert_array_equal(found.importance(Q), np.float32([0.125, 0, 1]))
    np.testing.assert_array_equal(found.importance(E), np.float32([0.5, 0.75, 1, 1]))
    assert found.importance(Q).dtype == np.float32
    weights = found.importance_of(E, (2, 5, 2))
    assert weights is not None
    assert weights.tolist() == [[0.5, 0.75], [1, 1]]
    assert found.importance_of("other.weight", (5, 2)) is None
    with pytest.raises(
        EdgeqError, match=r"importance matrix: 'blk.0.attn_q.weight' has 3 values, the model has 4"
    ):
        found.importance_of(Q, (5, 4))
    with pytest.raises(EdgeqError, match="has nothing on 'x'"):
        found.importance("x")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0, 1e300])
def test_importance_refuses_what_is_no_weight(bad: float) -> None:
    found = ImportanceMatrix({Q: Activations(np.array([[1.0, bad]]), np.array([2]))}, origin="x.gguf")
    assert found.coverage({Q: (3, 2)}).invalid == {Q: 1}
    for act in (lambda: found.importance(Q), found.check_values, lambda: merge([matrix(), found])):
        with pytest.raises(EdgeqError, match=r"x.gguf: 'blk.0.attn_q.weight' has NaN, .* in 1 of 2 columns"):
            act()


def test_coverage() -> None:
    shapes = {Q: (7, 4), E: (2, 5, 2), "blk.0.attn_k.weight": (7, 3)}
    found = matrix().coverage(shapes)
    assert (found.tensors, found.missing, found.unknown) == (1, ["blk.0.attn_k.weight"], [])
    assert found.misfits == {Q: "3 values, the model has 4"}
    assert (found.unseen, found.unused, found.invalid) == ({Q: 1}, {E: 1}, {})
    assert matrix().coverage({Q: (7, 3)}).unknown == [E]


def test_merge() -> None:
    entries = {
        Q: Activations(np.array([[1.0, 2.0, 0.0]]), np.array([2])),
        "new": Activations(np.ones((1, 1)), np.array([1])),
    }
    other = ImportanceMatrix(entries, ["b.txt"], chunk_count=3, chunk_size=9)
    first = matrix()
    total = merge([first, other])
    np.testing.assert_array_equal(total.importance(Q), np.float32([0.2, 0.2, 0.8]))
    np.testing.assert_array_equal(total.importance(E), first.importance(E))
    assert set(total.entries) == {Q, E, "new"}
    assert (total.datasets, total.chunk_count, total.chunk_size) == (["a.txt", "grüß.txt", "b.txt"], 5, 4)
    assert first.datasets == ["a.txt", "grüß.txt"]  # untouched
    np.testing.assert_array_equal(first.importance(Q), matrix().importance(Q))


def test_merge_of_experts_counted_together() -> None:
    """The .dat form has one count for all experts."""
    other = ImportanceMatrix({E: Activations(np.array([[2.0, 1.0, 6.0, 8.0]]), np.array([4]))})
    for pair in ([matrix(), other], [other, matrix()]):
        np.testing.assert_array_equal(merge(pair).importance(E), np.float32([0.5, 0.5, 1.5, 2]))


@pytest.mark.parametrize("shape", [(1, 5), (3, 1), (4, 1)])
def test_merge_refuses_other_models(shape: tuple[int, int]) -> None:
    mine = ImportanceMatrix({E: Activations(np.ones((2, 2)), np.ones(2, np.int64))}, origin="a.gguf")
    other = ImportanceMatrix({E: Activations(np.ones(shape), np.ones(shape[0], np.int64))}, origin="b.gguf")
    with pytest.raises(EdgeqError, match=r"^b.gguf: .* in a.gguf 2 × 2; they belong to different models$"):
        merge([mine, other])


# The older form.


def dat_entry(name: bytes, chunks: int, values: list[float]) -> bytes:
    head = struct.pack("<i", len(name)) + name + struct.pack("<ii", chunks, len(values))
    return head + struct.pack(f"<{len(values)}f", *values)


DAT = (
    struct.pack("<i", 2)
    + dat_entry(Q.encode(), 4, [1, 0, 2])
    + dat_entry(b"b", 0, [7])
    + struct.pack("<ii", 4, 5)
    + b"a.txt"
)


def test_dat(tmp_path: Path) -> None:
    path = tmp_path / "imatrix.dat"
    path.write_bytes(DAT)
    found = ImportanceMatrix.read(path, chunk_size=10)
    assert (found.datasets, found.chunk_count, found.chunk_size) == (["a.txt"], 4, 10)
    np.testing.assert_array_equal(found.importance(Q), np.float32([0.25, 0, 0.5]))
    np.testing.assert_array_equal(found.importance("b"), np.float32([7]))  # as llama-quantize, without chunks
    assert found.entries[Q].counts.tolist() == [40]
    found.write(tmp_path / "new.gguf")
    np.testing.assert_array_equal(
        ImportanceMatrix.read(tmp_path / "new.gguf").importance(Q), found.importance(Q)
    )


@pytest.mark.parametrize(("end", "chunks"), [(-13, 4), (-9, 4)])
def test_dat_without_its_end(tmp_path: Path, end: int, chunks: int) -> None:
    (tmp_path / "old.dat").write_bytes(DAT[:end])
    found = ImportanceMatrix.read(tmp_path / "old.dat")
    assert (found.datasets, found.chunk_count) == ([], chunks)


LONG = b"n" * 64
REFUSED_DAT = {
    "empty": (b"", "file is empty"),
    "cut count": (b"\1\0", "ends inside the number of entries"),
    "no entries": (bytes(40), "the number of entries is 0, not 1 to"),
    "negative entries": (struct.pack("<i", -1) + bytes(40), "the number of entries is -1"),
    "entries in nothing": (
        struct.pack("<i", 9),
        "the number of entries is 9, not what the file has room for",
    ),
    "entries past the file": (struct.pack("<i", 9) + bytes(40), "the number of entries is 9, not 1 to 2"),
    "empty name": (struct.pack("<ii", 1, 0) + bytes(40), "the name's length in entry 0 is 0, not 1 to 63"),
    "long name": (struct.pack("<i", 1) + dat_entry(LONG, 1, [1]), "length in entry 0 is 64, not 1 to 63"),
    "negative name": (struct.pack("<ii", 1, -5) + bytes(40), "the name's length in entry 0 is -5"),
    "name past the file": (struct.pack("<ii", 1, 60) + bytes(20), "the name of entry 0: 60 bytes wanted"),
    "name not UTF-8": (struct.pack("<i", 1) + dat_entry(b"\xff", 1, [1]), "b'\\xff', is not UTF-8"),
    "duplicate": (struct.pack("<i", 2) + 2 * dat_entry(b"a", 1, [1]), "entry 'a' stands twice"),
    "negative chunks": (struct.pack("<i", 1) + dat_entry(b"a", -1, [1]), "number of chunks of 'a' is -1"),
    "no values": (struct.pack("<i", 1) + dat_entry(b"a", 1, []) + bytes(8), "number of values of 'a' is 0"),
    "values past the file": (
        struct.pack("<ii", 1, 1) + b"a" + struct.pack("<ii", 1, 1 << 30) + bytes(40),
        "the number of values of 'a' is 1073741824",
    ),
    "cut values": (struct.pack("<i", 1) + dat_entry(b"a", 1, [1, 2])[:-1], "ends inside the values of 'a'"),
    "cut chunk count": (DAT[:-10], "ends inside the number of chunks"),
    "negative chunk count": (DAT[:-13] + struct.pack("<ii", -1, 0), "the number of chunks is -1"),
    "dataset past the file": (DAT[:-1], "ends inside the dataset's name: 5 bytes wanted, 4 left"),
    "negative dataset": (DAT[:-9] + struct.pack("<i", -1), "the dataset's length is -1"),
    "more after the end": (DAT + b"x", "1 bytes follow its end"),
    "a text": (
        b"Once upon a time there was a model.\n" * 4,
        "is no importance matrix: the number of entries",
    ),
}


@pytest.mark.parametrize("name", REFUSED_DAT)
def test_refuses_dat(tmp_path: Path, name: str) -> None:
    content, problem = REFUSED_DAT[name]
    refuses(tmp_path / "bad.dat", content, problem)


def refuses(path: Path, content: bytes, problem: str) -> None:
    path.write_bytes(content)
    with pytest.raises(FormatError, match=re.escape(problem)) as caught:
        ImportanceMatrix.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


S, C = "w.in_sum2", "w.counts"
Tensors = dict[str, tuple[str, tuple[int, ...], Any]]
GOOD: Tensors = {S: ("F32", (2, 3), np.ones(6, "<f4")), C: ("F32", (2, 1), np.ones(2, "<f4"))}
REFUSED: dict[str, tuple[dict[str, Any], Tensors, str]] = {
    "a model": ({"general.type": "model"}, GOOD, "is no importance matrix: general.type is 'model'"),
    "no datasets": ({"imatrix.datasets": None}, GOOD, "'imatrix.datasets' must be an array of strings"),
    "datasets of another type": ({"imatrix.datasets": [1]}, GOOD, "'imatrix.datasets' must be an array"),
    "no chunk count": ({"imatrix.chunk_count": None}, GOOD, "'imatrix.chunk_count' must be a UINT32"),
    "chunk count of another type": ({"imatrix.chunk_count": -1}, GOOD, "'imatrix.chunk_count' must be a UINT32"),
    "chunk sizes": ({"imatrix.chunk_size": [1]}, GOOD, "'imatrix.chunk_size' must be a UINT32"),
    "no entries": ({}, {"w": ("F32", (4,), np.ones(4, "<f4"))}, "it has no tensor that ends in .in_sum2"),
    "no tensors": ({}, {}, "it has no tensor that ends in .in_sum2"),
    "no counts": ({}, {S: GOOD[S]}, "'w.in_sum2' stands without its counts"),
    "no sums": ({}, {C: GOOD[C]}, "'w.counts' stands without its sums"),
    "sums of another type": ({}, GOOD | {S: ("F16", (2, 3), np.ones(6, "<f2"))}, "'w.in_sum2' is F16, not F32"),
    "counts of another type": ({}, GOOD | {C: ("I32", (2,), np.ones(2, "<i4"))}, "'w.counts' is I32, not F32"),
    "sizes that do not divide": (
        {},
        GOOD | {C: ("F32", (4,), np.ones(4, "<f4"))},
        "'w' has 6 sums and 4 counts, which do not divide",
    ),
    "negative count": ({}, GOOD | {C: ("F32", (2,), np.array([1, -1], "<f4"))}, "'w.counts' holds what is no count"),
    "NaN count": ({}, GOOD | {C: ("F32", (1,), np.array([np.nan], "<f4"))}, "'w.counts' holds what is no count"),
    "huge count": ({}, GOOD | {C: ("F32", (1,), np.array([1e30], "<f4"))}, "'w.counts' holds what is no count"),
    "no name": ({}, {".in_sum2": GOOD[S], ".counts": GOOD[C]}, "'' has 6 sums"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_gguf(tmp_path: Path, name: str) -> None:
    changes, tensors, problem = REFUSED[name]
    keys = {key: value for key, value in (KEYS | changes).items() if value is not None}
    plans = [TensorPlan(key, kind, shape) for key, (kind, shape, _) in tensors.items()]
    with GGUFWriter(tmp_path / "made.gguf", None, keys, plans) as writer:
        for key, (_, _, values) in tensors.items():
            writer.write_rows(key, values.view(np.uint8))
    refuses(tmp_path / "bad.gguf", (tmp_path / "made.gguf").read_bytes(), problem)


def test_refuses_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(EdgeqError, match="no such file"):
        ImportanceMatrix.read(tmp_path / "absent.gguf")
    with pytest.raises(EdgeqError, match="cannot be read"):
        ImportanceMatrix.read(tmp_path)


def test_other_tensors_are_left_alone(tmp_path: Path) -> None:
    tensors = GOOD | {"w.in_mean": ("F32", (2,), np.ones(2, "<f4"))}
    plans = [TensorPlan(key, kind, shape) for key, (kind, shape, _) in tensors.items()]
    with GGUFWriter(tmp_path / "a.gguf", None, KEYS, plans) as writer:
        for key, (_, _, values) in tensors.items():
            writer.write_rows(key, values.view(np.uint8))
    assert list(ImportanceMatrix.read(tmp_path / "a.gguf").entries) == ["w"]


@settings(deadline=None, max_examples=200, suppress_health_check=list(HealthCheck), database=None)
@given(st.data())
def test_damaged_dat_files(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Any damage gives FormatError, or a matrix that can be asked."""
    content = bytearray(DAT)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "fuzz.dat"
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        found = ImportanceMatrix.read(path)
    except FormatError:
        return
    found.coverage({})
    for entry in found.entries.values():
        assert entry.importance().shape == entry.sums.shape
