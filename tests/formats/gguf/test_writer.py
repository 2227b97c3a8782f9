"""The GGUF writer: golden bytes, round trips, and the accounting of chunks."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from edgeq.formats.errors import EdgeqError, OutputExistsError
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.formats.gguf.serialize import default_type
from edgeq.formats.gguf.writer import GGUFWriter, TensorPlan, Typed, ValueType

ONE_F32 = [TensorPlan("w", "F32", (2, 3))]
DATA = np.arange(6, dtype="<f4").tobytes()


def write(path: Path, metadata: Any, plans: list[TensorPlan] = ONE_F32, **options: bool) -> Path:
    """Write the plans with bytes that count up."""
    with GGUFWriter(path, "llama", metadata, plans, **options) as writer:
        for plan in plans:
            writer.write_rows(plan.name, np.arange(writer.planned_bytes(plan.name)).astype(np.uint8))
    return path


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_golden_bytes(tmp_path: Path) -> None:
    path = tmp_path / "golden.gguf"
    plans = [TensorPlan("w", "F32", (2, 3)), TensorPlan("q", "q8_0", (1, 32))]
    with GGUFWriter(path, "a", {"k": [1, -2], "s": "é"}, plans) as writer:
        writer.write_rows("w", DATA)
        writer.write_rows("q", bytes(range(34)))
    header = (
        b"GGUF" b"\3\0\0\0" b"\2\0\0\0\0\0\0\0" b"\3\0\0\0\0\0\0\0"
        b"\x14\0\0\0\0\0\0\0general.architecture" b"\x08\0\0\0" b"\1\0\0\0\0\0\0\0a"
        b"\1\0\0\0\0\0\0\0k" b"\x09\0\0\0" b"\5\0\0\0" b"\2\0\0\0\0\0\0\0" b"\1\0\0\0\xfe\xff\xff\xff"
        b"\1\0\0\0\0\0\0\0s" b"\x08\0\0\0" b"\2\0\0\0\0\0\0\0\xc3\xa9"
        b"\1\0\0\0\0\0\0\0w" b"\2\0\0\0" b"\3\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0" b"\0\0\0\0" b"\0\0\0\0\0\0\0\0"
        b"\1\0\0\0\0\0\0\0q" b"\2\0\0\0" b"\x20\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0"
        b"\x08\0\0\0" b"\x20\0\0\0\0\0\0\0"
    )  # fmt: skip
    header += bytes(-len(header) % 32)
    assert path.read_bytes() == header + DATA + bytes(8) + bytes(range(34)) + bytes(30)
    assert names(tmp_path) == ["golden.gguf"]


def test_same_bytes_as_gguf(tmp_path: Path) -> None:
    """gguf.GGUFWriter, given the same keys and tensors, makes the same file."""
    values, blocks = (
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.arange(36, dtype=np.uint8).reshape(2, 18),
    )
    theirs = gguf.GGUFWriter(tmp_path / "theirs.gguf", "llama")
    theirs.add_uint32("a", 5)
    theirs.add_float32("b", 0.5)
    theirs.add_bool("c", True)
    theirs.add_array("d", ["x", "yz"])
    theirs.add_uint64("e", 6)
    theirs.add_tensor("w", values)
    theirs.add_tensor("q", blocks, raw_dtype=gguf.GGMLQuantizationType.Q4_0)
    theirs.write_header_to_file()
    theirs.write_kv_data_to_file()
    theirs.write_tensors_to_file()
    theirs.close()
    metadata = {"a": 5, "b": 0.5, "c": True, "d": ["x", "yz"], "e": Typed(6, ValueType.UINT64)}
    plans = [TensorPlan("w", "F32", (2, 3)), TensorPlan("q", "Q4_0", (2, 32))]
    with GGUFWriter(tmp_path / "ours.gguf", "llama", metadata, plans) as writer:
        writer.write_rows("w", values.tobytes())
        writer.write_rows("q", blocks)
    assert (tmp_path / "ours.gguf").read_bytes() == (tmp_path / "theirs.gguf").read_bytes()


def test_read_by_gguf(tmp_path: Path) -> None:
    plans = [
        TensorPlan("w", "F32", (2, 3)),
        TensorPlan("q", "Q6_K", (4, 5, 256)),
        TensorPlan("v", "F16", (7,)),
    ]
    path = write(tmp_path / "m.gguf", {"llama.block_count": 2, "tokens": ["a", "ü"], "eps": 1e-5}, plans)
    reader = gguf.GGUFReader(path)
    assert [(t.name, t.tensor_type.name, t.shape.tolist()) for t in reader.tensors] == [
        ("w", "F32", [3, 2]),
        ("q", "Q6_K", [256, 5, 4]),
        ("v", "F16", [7]),
    ]
    assert reader.get_field("tokens").contents() == ["a", "ü"]
    assert reader.get_field("llama.block_count").contents() == 2
    np.testing.assert_array_equal(reader.tensors[1].data.ravel(), np.arange(4200).astype(np.uint8))


def test_round_trip_is_lossless(tmp_path: Path) -> None:
    """What the reader returns, written again, is the same: widths, odd strings, alignment, types."""
    metadata = {
        **{f"i.{kind.name}": Typed(3, kind) for kind in ValueType if "INT" in kind.name},
        "f64": Typed(0.1, ValueType.FLOAT64),
        "broken": "\udce2\udc96",
        "empty": Typed([], ValueType.FLOAT32),
        "flags": [True, False],
        "i8": Typed([-1, 2], ValueType.INT8),
        "general.alignment": 64,
    }
    plans = [
        TensorPlan("x", "IQ2_XXS", (3, 256)),
        TensorPlan("y", "I64", (5,)),
        TensorPlan("z", "BF16", (1, 2)),
    ]
    first = write(tmp_path / "first.gguf", metadata, plans)
    second = tmp_path / "second.gguf"
    with GGUFFile.open(first) as file:
        assert file.alignment == 64
        assert file.metadata["broken"] == "\udce2\udc96"
        again = [TensorPlan(t.name, t.type_name, t.shape) for t in file.tensors.values()]
        with GGUFWriter(second, "llama", file.typed_metadata(), again) as writer:
            for name in file.tensors:
                writer.write_rows(name, file.rows(name))
    assert second.read_bytes() == first.read_bytes()


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (1, ValueType.UINT32),
        (2**32, ValueType.UINT64),
        (-1, ValueType.INT32),
        (-(2**40), ValueType.INT64),
        (True, ValueType.BOOL),
        (0.5, ValueType.FLOAT32),
        ("s", ValueType.STRING),
        ([1, 2**40], ValueType.UINT64),
        ([1, -1], ValueType.INT32),
        ([-1, 2**31], ValueType.INT64),
        ([1, 0.5], ValueType.FLOAT32),
        ([], ValueType.STRING),
    ],
)
def test_default_types(value: object, kind: ValueType) -> None:
    assert default_type("k", value) is kind


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ([1, "a"], "[1, 'a'] is not of one type"),
        ([True, 1], "is not of one type"),
        (None, "None is not of one type"),
        ({}, "is not of one type"),
        (2**64, "does not fit in 64 bits"),
        (1e39, "is not FLOAT32"),
        (Typed(256, ValueType.UINT8), "[256] is not UINT8"),
        (Typed("a", ValueType.UINT32), "['a'] is not UINT32"),
        (Typed(1, ValueType.BOOL), "[1] is not BOOL"),
        (Typed(1, ValueType.STRING), "[1] is not STRING"),
        (Typed([[1]], ValueType.ARRAY), "is not ARRAY"),
        ("\ud800", "is not STRING"),
    ],
)
def test_refuses_values(tmp_path: Path, value: object, problem: str) -> None:
    with pytest.raises(EdgeqError, match=r"metadata key 'k': ") as caught:
        GGUFWriter(tmp_path / "m.gguf", "llama", {"k": value}, ONE_F32)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("plans", "problem"),
    [
        ([TensorPlan("w", "Q9_9", (1, 32))], "'Q9_9' is not a ggml type"),
        ([TensorPlan("w", "Q4_K", (1, 128))], "128 columns are not whole Q4_K blocks of 256"),
        (ONE_F32 * 2, "'w' is planned twice"),
        ([TensorPlan("n" * 64, "F32", (1,))], "a name must have 1 to 63 bytes"),
        ([TensorPlan("", "F32", (1,))], "a name must have 1 to 63 bytes"),
        ([TensorPlan("w", "F32", (1,) * 5)], "shape [1, 1, 1, 1, 1] is not 1 to 4 positive sizes"),
        ([TensorPlan("w", "F32", ())], "shape [] is not"),
        ([TensorPlan("w", "F32", (2, 0))], "shape [2, 0] is not"),
    ],
)
def test_refuses_plans(tmp_path: Path, plans: list[TensorPlan], problem: str) -> None:
    with pytest.raises(EdgeqError) as caught:
        GGUFWriter(tmp_path / "m.gguf", "llama", {}, plans)
    assert problem in str(caught.value)
    assert names(tmp_path) == []


@pytest.mark.parametrize("value", [0, 24, 1 << 21, True, Typed(32, ValueType.UINT64)])
def test_refuses_alignment(tmp_path: Path, value: object) -> None:
    with pytest.raises(EdgeqError, match=r"'general.alignment'"):
        GGUFWriter(tmp_path / "m.gguf", "llama", {"general.alignment": value}, ONE_F32)


def test_refuses_architectures_that_differ(tmp_path: Path) -> None:
    with pytest.raises(EdgeqError, match=r"says 'bert', not 'llama'"):
        GGUFWriter(tmp_path / "m.gguf", "llama", {"general.architecture": "bert"}, ONE_F32)
    with pytest.raises(EdgeqError, match="a metadata key is empty"):
        GGUFWriter(tmp_path / "m.gguf", "llama", {"": 1}, ONE_F32)


def test_chunks_of_any_size(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    plans = [*ONE_F32, TensorPlan("v", "F32", (2,))]
    with GGUFWriter(
        tmp_path / "m.gguf", "llama", {}, plans, progress=lambda *step: seen.append(step)
    ) as writer:
        writer.write_rows("w", DATA[:5])
        writer.write_rows("w", b"")
        writer.write_rows("w", np.frombuffer(DATA, np.uint8)[5:].reshape(19, 1))
        writer.write_rows("v", memoryview(struct.pack("<2f", 1, 2)))
    assert seen == [("w", 5, 32), ("w", 5, 32), ("w", 24, 32), ("v", 32, 32)]
    with GGUFFile.open(tmp_path / "m.gguf") as file:
        assert file.rows("w").tobytes() == DATA
        assert file.decode("v").tolist() == [1, 2]
        assert writer.file_bytes == (tmp_path / "m.gguf").stat().st_size


def too_little(writer: GGUFWriter) -> None:
    writer.write_rows("w", DATA[:20])


def too_much(writer: GGUFWriter) -> None:
    writer.write_rows("w", DATA[:20])
    writer.write_rows("w", DATA[:5])


def out_of_turn(writer: GGUFWriter) -> None:
    writer.write_rows("v", DATA)


def after_the_last(writer: GGUFWriter) -> None:
    writer.write_rows("w", DATA)
    writer.write_rows("v", bytes(4))
    writer.write_rows("x", b"")


def wrong_dtype(writer: GGUFWriter) -> None:
    writer.write_rows("w", np.zeros(6, np.float32))  # type: ignore[arg-type]


def missing(writer: GGUFWriter) -> None:
    writer.write_rows("w", DATA)


@pytest.mark.parametrize(
    ("mistake", "problem"),
    [
        (too_little, "tensor 'w' got 20 of its 24 bytes before the end"),
        (too_much, "tensor 'w' got 25 bytes; F32 [2, 3] has 24"),
        (out_of_turn, "tensor 'v' out of turn; 'w' comes next"),
        (after_the_last, "tensor 'x' after the last of the plan"),
        (wrong_dtype, "a chunk must be bytes or uint8, not float32"),
        (missing, "tensor 'v' got 0 of its 4 bytes"),
    ],
)
def test_wrong_accounts_leave_no_file(tmp_path: Path, mistake: object, problem: str) -> None:
    writer = GGUFWriter(tmp_path / "m.gguf", "llama", {}, [*ONE_F32, TensorPlan("v", "F32", (1,))])
    with pytest.raises(EdgeqError) as caught, writer:
        mistake(writer)  # type: ignore[operator]
    assert problem in str(caught.value)
    assert names(tmp_path) == []


def interrupted(writer: GGUFWriter) -> None:
    writer.write_rows("w", DATA[:4])
    raise KeyboardInterrupt


def test_existing_file(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"old")
    with pytest.raises(OutputExistsError), GGUFWriter(path, "llama", {}, ONE_F32):
        pytest.fail("the block must not run")
    with pytest.raises(KeyboardInterrupt), GGUFWriter(path, "llama", {}, ONE_F32, force=True) as writer:
        interrupted(writer)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["m.gguf"]
    write(path, {}, force=True)
    assert path.read_bytes()[:4] == b"GGUF"


def test_write_outside_the_block(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "m.gguf", "llama", {}, ONE_F32)
    with pytest.raises(EdgeqError, match="outside the with block"):
        writer.write_rows("w", DATA)


def test_a_file_that_is_no_model_has_no_architecture(tmp_path: Path) -> None:
    with GGUFWriter(tmp_path / "none.gguf", None, {"k": 1}, []):
        pass
    with GGUFFile.open(tmp_path / "none.gguf") as file:
        assert file.metadata == {"k": 1}
