"""Models in several GGUF files: written, read, and loaded by llama.cpp."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from test_mixes import quantize, silent, write_model

from edgeq.formats.errors import EdgeqError, FormatError, OutputExistsError
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.formats.gguf.split import SplitGGUFFile, open_gguf, shard_path
from edgeq.formats.gguf.split_writer import SplitGGUFWriter, parse_size, plan_shards, split_gguf
from edgeq.formats.gguf.writer import GGUFWriter, TensorPlan, Typed, ValueType

PLANS = [TensorPlan(name, "F32", (4, 8)) for name in "abcde"]  # 128 bytes each
VALUES = {plan.name: np.full((4, 8), i, np.float32) for i, plan in enumerate(PLANS)}
KEYS: dict[str, Any] = {"llama.block_count": 2, "tokens": ["x", "y"], "wide": Typed(3, ValueType.UINT64)}


def write(path: Path, max_bytes: int, **options: Any) -> list[Path]:
    with SplitGGUFWriter(path, "llama", KEYS, PLANS, max_bytes, **options) as writer:
        for name, values in VALUES.items():
            for row in values:
                writer.write_rows(name, row.view(np.uint8))
    return writer.paths


def shard(path: Path, number: int, count: int, names: str, n_tensors: int = 2, **keys: Any) -> None:
    """A shard as it stands in a folder, with any numbers."""
    split = {"split.no": number, "split.count": count, "split.tensors.count": n_tensors} | keys
    plans = [TensorPlan(name, "F32", (4, 8)) for name in names]
    with GGUFWriter(path, "llama", {k: v for k, v in split.items() if v is not None}, plans) as writer:
        for name in names:
            writer.write_rows(name, VALUES[name].view(np.uint8))


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_shards_of_a_largest_size(tmp_path: Path):
    paths = write(tmp_path / "m.gguf", 300)
    assert [p.name for p in paths] == [f"m-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    assert names(tmp_path) == [p.name for p in paths]
    first, second, third = (GGUFFile.open(p) for p in paths)
    assert [list(f.tensors) for f in (first, second, third)] == [["a", "b"], ["c", "d"], ["e"]]
    assert first.metadata["tokens"] == ["x", "y"]
    assert "tokens" not in second.metadata
    for i, file in enumerate((first, second, third)):
        numbers = [file.metadata[f"split.{key}"] for key in ("no", "count", "tensors.count")]
        assert numbers == [i, 3, 5]
        types = [file.metadata_types[f"split.{key}"].name for key in ("no", "count", "tensors.count")]
        assert types == ["UINT16", "UINT16", "INT32"]


@pytest.mark.parametrize("opened", [1, 2, 3])
def test_all_shards_are_one_file(tmp_path: Path, opened: int):
    write(tmp_path / "m.gguf", 256)
    write(tmp_path / "whole.gguf", 10**6)
    with (
        open_gguf(tmp_path / f"m-0000{opened}-of-00003.gguf") as split,
        open_gguf(tmp_path / "whole.gguf") as whole,
    ):
        assert isinstance(split, SplitGGUFFile)
        assert split.path.name == "m-00001-of-00003.gguf"
        assert split.typed_metadata() == whole.typed_metadata()
        assert list(split.tensors) == list(whole.tensors) == list("abcde")
        for name, values in VALUES.items():
            assert np.array_equal(split.decode(name), values)
            assert np.array_equal(split.rows(name), whole.rows(name))
            assert split.info(name).shape == (4, 8)
            split.release(name)
        with pytest.raises(EdgeqError, match="has no tensor 'z'"):
            split.rows("z")
    with pytest.raises(EdgeqError, match="was closed"):
        split.rows("e")


def test_what_fits_is_one_ordinary_file(tmp_path: Path):
    assert write(tmp_path / "m.gguf", 5 * 128) == [tmp_path / "m.gguf"]
    with open_gguf(tmp_path / "m.gguf") as file:
        assert not isinstance(file, SplitGGUFFile)
        assert not any(key.startswith("split.") for key in file.metadata)


def test_splitting_and_joining_give_the_file_back(tmp_path: Path):
    write_model(tmp_path / "whole.gguf", "tied")
    with open_gguf(tmp_path / "whole.gguf") as whole:
        paths = split_gguf(whole, tmp_path / "part.gguf", 20_000)
    assert len(paths) > 3
    with open_gguf(paths[0]) as split:
        assert split_gguf(split, tmp_path / "again.gguf", 10**9) == [tmp_path / "again.gguf"]
    assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()


def test_llama_cpp_reads_our_shards(tmp_path: Path):
    """It quantizes the split model to the same file as the whole one."""
    llama_cpp = pytest.importorskip("llama_cpp")
    llama_cpp.llama_log_set(silent, None)
    write_model(tmp_path / "whole.gguf", "dense")
    with open_gguf(tmp_path / "whole.gguf") as whole:
        paths = split_gguf(whole, tmp_path / "part.gguf", 30_000)
    assert len(paths) > 2
    quantize(llama_cpp, tmp_path / "whole.gguf", tmp_path / "a.gguf", "Q4_K_M")
    quantize(llama_cpp, paths[0], tmp_path / "b.gguf", "Q4_K_M")
    with open_gguf(tmp_path / "a.gguf") as a, open_gguf(tmp_path / "b.gguf") as b:
        assert set(a.tensors) == set(b.tensors)
        assert all(np.array_equal(a.rows(name), b.rows(name)) for name in a.tensors)


def test_llama_cpp_runs_our_shards(tmp_path: Path):
    pytest.importorskip("llama_cpp")
    from edgeq.convert import gguf_file
    from edgeq.convert.checkpoint_rows import CheckpointRows
    from edgeq.runtimes.llama_cpp import LlamaCpp
    from edgeq.source import SourceModel

    source = CheckpointRows(SourceModel.open(Path(__file__).parents[2] / "assets" / "tinylm"))
    planned = gguf_file.plan(source, "Q4_0")
    gguf_file.write(source, planned, tmp_path / "tiny.gguf", gguf_file.WriteOptions())
    with open_gguf(tmp_path / "tiny.gguf") as whole:
        paths = split_gguf(whole, tmp_path / "part.gguf", 500_000)
    assert len(paths) > 2
    tokens = list(range(20, 40))
    with LlamaCpp(tmp_path / "tiny.gguf", 64, 1) as one, LlamaCpp(paths[0], 64, 1) as many:
        assert np.array_equal(one.logits(tokens)[0], many.logits(tokens)[0])


def test_shards_of_ggufs_own_writer_are_read(tmp_path: Path):
    theirs = gguf.GGUFWriter(tmp_path / "x.gguf", "llama", split_max_tensors=2)
    theirs.add_uint32("llama.block_count", 2)
    for name, values in VALUES.items():
        theirs.add_tensor(name, values)
    theirs.write_header_to_file()
    theirs.write_kv_data_to_file()
    theirs.write_tensors_to_file()
    theirs.close()
    with open_gguf(tmp_path / "x-00002-of-00003.gguf") as file:
        assert file.metadata["llama.block_count"] == 2
        assert all(np.array_equal(file.decode(name), values) for name, values in VALUES.items())


def test_plans_of_shards():
    assert [len(s) for s in plan_shards(PLANS, 128)] == [1, 1, 1, 1, 1]
    assert [len(s) for s in plan_shards(PLANS, 1)] == [
        1,
        1,
        1,
        1,
        1,
    ]  # larger ones have a shard to themselves
    assert [len(s) for s in plan_shards(PLANS, 511)] == [3, 2]
    assert plan_shards([], 1) == [[]]
    with pytest.raises(EdgeqError, match="'a' is planned twice"):
        plan_shards([*PLANS, PLANS[0]], 128)
    with pytest.raises(EdgeqError, match="66000 shards are more than 65535"):
        plan_shards([TensorPlan(str(i), "F32", (1,)) for i in range(66_000)], 1)


def test_sizes():
    assert [parse_size(t) for t in ("7", "2K", "500m", "2G")] == [7, 2_000, 500_000_000, 2_000_000_000]
    assert [parse_size(t) for t in ("3.2GB", "1.5 M", "12b")] == [3_200_000_000, 1_500_000, 12]
    for text in ("", "G", "1.5.2G", "0M", "-1M", "2GBB", "1e9", "0.1"):
        with pytest.raises(EdgeqError, match="a size must be a number with K, M or G"):
            parse_size(text)


def test_paths():
    assert shard_path(Path("a/b.Q4_K"), 0, 12) == Path("a/b.Q4_K-00001-of-00012.gguf")


def test_progress_counts_the_whole_model(tmp_path: Path):
    seen: list[tuple[str, int, int]] = []
    write(tmp_path / "m.gguf", 128, progress=lambda *call: seen.append(call))
    assert seen[0] == ("a", 32, 640)
    assert seen[-1] == ("e", 640, 640)


def test_a_custom_alignment_holds_in_every_shard(tmp_path: Path):
    keys = {"general.alignment": 64}
    with SplitGGUFWriter(tmp_path / "m.gguf", "llama", keys, PLANS, 128) as writer:
        for name, values in VALUES.items():
            writer.write_rows(name, values.view(np.uint8))
    for path in writer.paths:
        with GGUFFile.open(path) as file:
            assert file.alignment == 64
            assert all(t.offset % 64 == 0 for t in file.tensors.values())


def write_some(folder: Path, wanted: str, then: Callable[[], object]) -> None:
    with SplitGGUFWriter(folder / "m.gguf", "llama", KEYS, PLANS, 128) as writer:
        for name in wanted:
            writer.write_rows(name, VALUES[name].view(np.uint8))
        then()


def test_all_shards_appear_or_none(tmp_path: Path):
    with pytest.raises(EdgeqError, match="'d' got 0 of its 128 bytes"):
        write_some(tmp_path, "abce", lambda: None)
    assert names(tmp_path) == []
    with pytest.raises(ZeroDivisionError):
        write_some(tmp_path, "abcde", lambda: 1 / 0)
    assert names(tmp_path) == []


def test_a_shard_that_cannot_appear_takes_the_others_away(tmp_path: Path):
    with pytest.raises(EdgeqError, match=r"m-00002-of-00005\.gguf"):
        write_some(tmp_path, "abcde", (tmp_path / "m-00002-of-00005.gguf").mkdir)
    assert names(tmp_path) == ["m-00002-of-00005.gguf"]


def test_shards_that_are_there_are_refused_at_once(tmp_path: Path):
    write(tmp_path / "m.gguf", 128)
    (tmp_path / "m-00001-of-00005.gguf").unlink()
    before = names(tmp_path)
    with pytest.raises(OutputExistsError), SplitGGUFWriter(tmp_path / "m.gguf", "llama", KEYS, PLANS, 128):
        pytest.fail("the block must not run")
    assert names(tmp_path) == before
    assert len(write(tmp_path / "m.gguf", 128, force=True)) == 5


def test_tensors_out_of_turn_and_unplanned(tmp_path: Path):
    with SplitGGUFWriter(tmp_path / "m.gguf", "llama", KEYS, PLANS, 256) as writer:
        assert writer.planned_bytes("e") == 128
        with pytest.raises(EdgeqError, match="'b' out of turn; 'a' comes next"):
            writer.write_rows("b", VALUES["b"].view(np.uint8))
        with pytest.raises(EdgeqError, match="'z' is not planned"):
            writer.write_rows("z", b"")
        for name, values in VALUES.items():
            writer.write_rows(name, values.view(np.uint8))
    assert sum(path.stat().st_size for path in writer.paths) == writer.file_bytes


BROKEN: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "number": ({}, {"number": 2}, r"m-00002-of-00002.gguf: split.no is 2, and by its name 1; rename"),
    "count": ({}, {"count": 3}, r"m-00002-of-00002.gguf: split.count is 3, and by its name 2"),
    "no number": ({}, {"split.no": None}, "key 'split.no' must be a number, not None"),
    "text": ({}, {"split.no": "1"}, "key 'split.no' must be a number, not '1'"),
    "negative": ({"split.tensors.count": -1}, {}, "key 'split.tensors.count' must be a number, not -1"),
    "true": ({"split.count": True}, {}, "key 'split.count' must be a number, not True"),
    "total": ({"n_tensors": 3}, {}, "split.tensors.count is 3, and the 2 shards hold 2 tensors"),
    "twice": ({}, {"names": "a"}, "tensor 'a' is in m-00001-of-00002.gguf too"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_shards(tmp_path: Path, case: str):
    first, second, problem = BROKEN[case]
    shard(tmp_path / "m-00001-of-00002.gguf", **({"number": 0, "count": 2, "names": "a"} | first))
    shard(tmp_path / "m-00002-of-00002.gguf", **({"number": 1, "count": 2, "names": "b"} | second))
    with pytest.raises(FormatError, match=problem):
        open_gguf(tmp_path / "m-00001-of-00002.gguf")


def test_shards_that_are_missing(tmp_path: Path):
    paths = write(tmp_path / "m.gguf", 128)
    for path in paths[1:3]:
        path.unlink()
    with pytest.raises(EdgeqError, match=r"2 of its 5 shards are missing, the first is m-00002-of-00005"):
        open_gguf(paths[4])


@pytest.mark.parametrize("name", ["model.gguf", "m-00003-of-00002.gguf", "m-00000-of-00002.gguf"])
def test_shards_with_other_names(tmp_path: Path, name: str):
    shard(tmp_path / name, 0, 2, "a")
    with pytest.raises(FormatError, match="is a shard of a split model, but not named so"):
        open_gguf(tmp_path / name)


def test_a_model_of_one_shard(tmp_path: Path):
    shard(tmp_path / "m-00001-of-00001.gguf", 0, 1, "ab")
    with open_gguf(tmp_path / "m-00001-of-00001.gguf") as file:
        assert list(file.tensors) == ["a", "b"]
