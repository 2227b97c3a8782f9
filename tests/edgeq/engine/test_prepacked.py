"""Packed weights kept in a file: the same as packed now, mapped, and never trusted where they do not fit."""

import os
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
import tiny_gguf

from edgeq import user_cache
from edgeq.devices.detect import instruction_set
from edgeq.engine import prepacked
from edgeq.engine.prepacked import packed_weights
from edgeq.errors import EdgeqError
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.kernels_cpu import products
from edgeq.kernels_cpu.isa import PORTABLE

ISA = instruction_set()
ORDER = np.arange(32).reshape(16, 2).T.ravel()
WANTED = {"blk.0.attn_q.weight": ORDER, "blk.0.ffn_down.weight": None, "blk.1.ffn_up.weight": None}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEQ_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_gguf.write(tmp_path / "model.gguf")


def opened(model: Path, isa=ISA, wanted=WANTED):
    with GGUFFile.open(model) as file:
        return packed_weights(file, wanted, isa, cache=True)


def same(a: dict, b: dict) -> bool:
    facts = all(a[name][1:] == b[name][1:] for name in b)
    return a.keys() == b.keys() and facts and all(np.array_equal(a[n].data, b[n].data) for n in b)


def packings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The types of tensors that are packed from now on."""
    seen: list[str] = []
    pack = products.pack

    def counted(name, *rest):
        seen.append(name)
        return pack(name, *rest)

    monkeypatch.setattr(products, "pack", counted)
    return seen


def test_without_a_cache_nothing_is_written(model: Path, folder: Path):
    with GGUFFile.open(model) as file:
        packed = packed_weights(file, WANTED, ISA)
        rows = file.rows("blk.0.attn_q.weight")
        assert np.array_equal(
            packed["blk.0.attn_q.weight"].data, products.pack("Q8_0", rows[ORDER], 32, ISA).data
        )
        assert prepacked.mapped_weights(file, WANTED, ISA) is None
    assert not folder.exists()


def test_a_second_start_maps_the_same(model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    with GGUFFile.open(model) as file:
        wanted = packed_weights(file, WANTED, ISA)
    seen = packings(monkeypatch)
    assert same(opened(model), wanted)
    assert len(seen) == len(WANTED)
    again = opened(model)
    assert len(seen) == len(WANTED)  # nothing more
    assert same(again, wanted)
    (path,) = folder.iterdir()
    assert path.name.startswith("model-")
    with GGUFFile.open(model) as file:  # what is there is taken, asked for or not
        assert same(packed_weights(file, WANTED, ISA), wanted)
        assert prepacked.mapped_weights(file, {"blk.0.ffn_up.weight": None}, ISA) is None
    assert len(seen) == len(WANTED)
    for packed in again.values():
        assert packed.data.ctypes.data % 64 == 0
        assert not packed.data.flags.writeable
    x = np.random.default_rng(0).standard_normal((2, 32)).astype(np.float32)
    name = "blk.1.ffn_up.weight"
    assert np.array_equal(products.product(x, again[name]), products.product(x, wanted[name]))


def test_stacked_matrices(tmp_path: Path, folder: Path):
    values = np.random.default_rng(0).standard_normal((3, 20, 32)).astype(np.float32)
    model = tiny_gguf.write(tmp_path / "experts.gguf", made={"experts": ("Q8_0", values)})
    for packed in (opened(model, wanted={"experts": None}), opened(model, wanted={"experts": None})):
        assert (packed["experts"].n, packed["experts"].stacked) == (20, 3)
        alone = products.pack("Q8_0", tiny_gguf.blocks("Q8_0", values[1]), 32, ISA)
        assert np.array_equal(packed["experts"].matrix(1).data, alone.data)


def test_what_is_asked_for_decides(model: Path, folder: Path):
    """Another instruction set, another order and other tensors each have a file of their own."""
    opened(model)
    opened(model, isa=PORTABLE)
    opened(model, wanted={**WANTED, "blk.0.attn_q.weight": ORDER[::-1]})
    opened(model, wanted={"blk.0.ffn_down.weight": None})
    assert len(list(folder.iterdir())) == 4


def test_a_changed_model_is_packed_anew(model: Path, folder: Path):
    old = opened(model)
    times = model.stat().st_atime_ns, model.stat().st_mtime_ns
    tiny_gguf.write(model, made=tiny_gguf.tensors(seed=1))
    os.utime(model, ns=times)  # the same size and time, as a copy that keeps them would have
    new = opened(model)
    assert not same(new, old)
    with GGUFFile.open(model) as file:
        assert same(new, packed_weights(file, WANTED, ISA))


def damage(content: bytes, what: str) -> bytes:
    (length,) = struct.unpack_from("<Q", content)
    header = content[8 : 8 + length]
    match what:
        case "cut":
            return content[:-64]
        case "empty":
            return b""
        case "longer":
            return content + bytes(64)
        case "no safetensors":
            return b"x" * len(content)
        case "another key":
            at = content.index(b'"key": "') + 8
            return content[:at] + b"?" + content[at + 1 :]
        case "another name":
            return content[:8] + header.replace(b"attn_q", b"attn_k") + content[8 + length :]
        case "not aligned":
            return struct.pack("<Q", length + 1) + header + b" " + content[8 + length :]
    raise AssertionError(what)


@pytest.mark.parametrize(
    "what", ["cut", "empty", "longer", "no safetensors", "another key", "another name", "not aligned"]
)
def test_a_file_that_does_not_fit_is_written_anew(model: Path, folder: Path, what: str):
    wanted = opened(model)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    expected = {name: packed.data.copy() for name, packed in wanted.items()}
    del wanted
    path.unlink()
    path.write_bytes(damage(whole, what))
    again = opened(model)
    assert all(np.array_equal(again[name].data, data) for name, data in expected.items())
    assert path.read_bytes() == whole


def test_several_starts_at_once(model: Path, folder: Path):
    results: list[dict] = []
    starts = [threading.Thread(target=lambda: results.append(opened(model))) for _ in range(4)]
    for start in starts:
        start.start()
    for start in starts:
        start.join()
    assert len(results) == 4
    assert all(same(result, results[0]) for result in results)
    assert len(list(folder.iterdir())) == 1


def test_old_files_make_room(tmp_path: Path):
    for i, size in enumerate((100, 200, 300)):
        path = tmp_path / f"{i}.packed.safetensors"
        path.write_bytes(bytes(size))
        os.utime(path, (i, i))
    (tmp_path / "other.txt").write_bytes(bytes(1000))
    user_cache.prune(".packed.safetensors", tmp_path / "0.packed.safetensors", limit=450)
    assert sorted(path.name[0] for path in tmp_path.iterdir()) == ["0", "2", "o"]


def test_where_the_folder_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("EDGEQ_CACHE", raising=False)
    monkeypatch.setattr(user_cache.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache.folder() == tmp_path / "edgeq"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert user_cache.folder() == tmp_path / "home" / ".cache" / "edgeq"


def test_errors_name_what_to_do(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGEQ_CACHE", str(tmp_path / "file" / "folder"))
    with pytest.raises(EdgeqError, match="name another folder in EDGEQ_CACHE"):
        opened(model)
    with GGUFFile.open(model) as file:
        with pytest.raises(EdgeqError, match="has no tensor"):
            packed_weights(file, {"nothing": None}, ISA)
        with pytest.raises(EdgeqError, match="is no matrix"):
            packed_weights(file, {"output_norm.weight": None}, ISA)


def test_the_key_holds_the_version(model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    opened(model)
    monkeypatch.setattr(prepacked, "VERSION", 0)
    opened(model)
    assert len(list(folder.iterdir())) == 2
