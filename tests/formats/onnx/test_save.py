"""Saving: all or nothing, large weights in a file of their own, the same bytes every time."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx_graphs import Tiny, normal, run_bytes

from edgeq.formats.errors import EdgeqError, OutputExistsError
from edgeq.formats.onnx import save, stream
from edgeq.formats.onnx.int8 import SAFE_RANGE, ActivationRange
from edgeq.formats.onnx.passes.dynamic_int8 import dynamic_int8
from edgeq.formats.onnx.passes.embedding_int8 import embedding_int8
from edgeq.formats.onnx.passes.smooth import smooth
from edgeq.formats.onnx.passes.static_int8 import static_int8
from edgeq.formats.onnx.save import save_model


def small_model(load: Any = lambda: normal(1, 64, 32)) -> ir.Model:
    b = Tiny()
    y = b.op("MatMul", b.x("n", 64), b.weight("w", np.float32, (64, 32), load))
    return b.done(y, shapes=[["n", 32]])


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def expect_right(path: Path) -> None:
    x = normal(2, 3, 64)
    np.testing.assert_allclose(run_bytes(path, x=x)[0], x @ normal(1, 64, 32), rtol=1e-4, atol=1e-5)


def test_one_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "m.onnx"
    assert save_model(small_model(), path, force=False) == [path]
    assert listing(path.parent) == ["m.onnx"]
    onnx.checker.check_model(str(path), full_check=True)
    expect_right(path)


def test_external_data_from_the_threshold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.onnx"
    monkeypatch.setattr(save, "EXTERNAL_FROM", 64 * 32 * 4 + 1)
    assert save_model(small_model(), path, force=False) == [path]
    monkeypatch.setattr(save, "EXTERNAL_FROM", 64 * 32 * 4)
    model = small_model()
    assert save_model(model, path, force=True) == [tmp_path / "m.onnx_data", path]
    assert listing(tmp_path) == ["m.onnx", "m.onnx_data"]
    assert (tmp_path / "m.onnx_data").stat().st_size == 64 * 32 * 4
    assert path.stat().st_size < 1000
    onnx.checker.check_model(str(path), full_check=True)
    expect_right(path)
    assert save_model(model, tmp_path / "again.onnx", force=False)  # the model is as it was
    expect_right(tmp_path / "again.onnx")


def test_existing_files_need_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match=r"m\.onnx: exists already; pass --force"):
        save_model(small_model(), path, force=False)
    assert path.read_bytes() == b"mine"
    save_model(small_model(), path, force=True)
    expect_right(path)
    path.unlink()
    (tmp_path / "m.onnx_data").write_bytes(b"mine")
    monkeypatch.setattr(save, "EXTERNAL_FROM", 1)
    with pytest.raises(OutputExistsError, match=r"m\.onnx_data: exists already"):
        save_model(small_model(), path, force=False)
    assert listing(tmp_path) == ["m.onnx_data"]


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("failure", [KeyboardInterrupt, EdgeqError, ValueError, MemoryError])
def test_a_failing_weight_leaves_things_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: type[BaseException], external: bool
) -> None:
    if external:
        monkeypatch.setattr(save, "EXTERNAL_FROM", 1)

    def load() -> NDArray[np.float32]:
        raise failure("no weight")

    (tmp_path / "old.onnx").write_bytes(b"old")
    for name in ("new.onnx", "old.onnx"):
        with pytest.raises(failure, match="no weight"):
            save_model(small_model(load), tmp_path / name, force=True)
    assert listing(tmp_path) == ["old.onnx"]
    assert (tmp_path / "old.onnx").read_bytes() == b"old"


@pytest.mark.parametrize("external", [None, "data"])
def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, external: str | None) -> None:
    """The library wrote half of the file when the system refused."""

    def half(file: IO[bytes], value: ir.Value) -> NoReturn:
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(stream, "_write_data", half)
    if external:
        monkeypatch.setattr(save, "EXTERNAL_FROM", 1)
    with pytest.raises(EdgeqError, match=r"m\.onnx: cannot be written \(No space left") as caught:
        save_model(small_model(), tmp_path / "m.onnx", force=False)
    assert "\n" not in str(caught.value)
    assert listing(tmp_path) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EdgeqError, match="cannot be written"):
        save_model(small_model(), tmp_path / "file" / "m.onnx", force=False)


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").mkdir()
    with pytest.raises(EdgeqError, match=r"m\.onnx: cannot be written"):
        save_model(small_model(), tmp_path / "m.onnx", force=True)
    assert listing(tmp_path) == ["m.onnx"]


def quantized(passes: str) -> ir.Model:
    """A model on which every pass has something to do."""
    b = Tiny()
    ids, table = b.ids(), b.const("table", normal(1, 32, 8))
    h = b.norm(b.op("Gather", table, ids), b.const("g", normal(2, 8)), b.const("beta", normal(3, 8)))
    y = b.op("MatMul", h, b.const("w", normal(4, 8, 8)))
    head = b.op("MatMul", b.op("Relu", y), b.op("Transpose", table, perm=[1, 0]))
    model = b.done(head, h, shapes=[["batch", "tokens", 32], ["batch", "tokens", 8]])
    if "smooth" in passes:
        assert smooth(model, {"y1": np.arange(1, 9, dtype=np.float32)})
    if "dynamic" in passes:
        dynamic_int8(model, SAFE_RANGE)
    if "static" in passes:
        activations = [str(node.inputs[0].name) for node in model.graph if node.op_type == "MatMul"]  # type: ignore[union-attr]
        assert static_int8(model, SAFE_RANGE, dict.fromkeys(activations, ActivationRange(-3, 3))) == 2
    embedding_int8(model, min_rows=8)
    return model


@pytest.mark.parametrize("passes", ["smooth dynamic", "smooth static"])
@pytest.mark.parametrize("external", [False, True])
def test_the_same_bytes_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passes: str, external: bool
) -> None:
    if external:
        monkeypatch.setattr(save, "EXTERNAL_FROM", 1)
    sums = []
    for turn in ("a", "b"):
        model = quantized(passes)
        for copy in ("1", "2"):  # saving changes nothing either
            path = tmp_path / turn / copy / "m.onnx"
            written = save_model(model, path, force=False)
            sums.append([hashlib.sha256(file.read_bytes()).hexdigest() for file in written])
    assert sums.count(sums[0]) == 4
    assert len(sums[0]) == 1 + external
