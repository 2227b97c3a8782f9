"""``edgeq inspect`` with ``--sha256``, ``--diff`` and ``--check``: what is printed, and how it ends."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import tiny_gguf

from edgeq.formats.gguf.reader import GGUFFile

NAME = "blk.0.attn_q.weight"


@pytest.fixture
def good(tmp_path):
    return tiny_gguf.write(tmp_path / "good.gguf")


@pytest.fixture
def bad(tmp_path):
    """One error, one warning."""
    values = np.ones((2, 32), np.float32)
    values[1, 3] = np.nan
    made = tiny_gguf.tensors() | {"blk.0.\x1b.weight": ("F32", values.view(np.uint8))}
    return tiny_gguf.write(tmp_path / "bad.gguf", tiny_gguf.metadata() | {"general.file_type": 1}, made)


def test_sha256(edgeq, exported):
    done = edgeq("inspect", exported.gguf, "--sha256", "--json")
    assert (done.code, done.err) == (0, "")
    found = {t["name"]: t["sha256"] for t in json.loads(done.out)["tensors"]}
    with GGUFFile.open(exported.gguf) as file:
        assert found == {name: hashlib.sha256(file.rows(name).tobytes()).hexdigest() for name in file.tensors}
    table = edgeq("inspect", exported.gguf, "--sha256").out
    assert all(sha in table for sha in found.values())


def test_shards_stand_for_their_model(edgeq, exported, tmp_path):
    """Hashes and differences of a split model are those of the file it was made from."""
    out = tmp_path / "split.gguf"
    done = edgeq(
        "quantize", exported.gguf, "-o", out, "-q", "Q4_K_M", "--allow-requantize", "--effort", "ggml"
    )
    assert done.code == 0, done.err
    split = ("quantize", exported.gguf, "-o", tmp_path / "s.gguf", "-q", "Q4_K_M", "--allow-requantize")
    done = edgeq(*split, "--effort", "ggml", "--split-max-size", "2M", "--json")
    shards = json.loads(done.out)["files"]
    assert len(shards) > 1
    hashes = [
        {t["name"]: t["sha256"] for t in json.loads(edgeq("inspect", p, "--sha256", "--json").out)["tensors"]}
        for p in (out, *shards)
    ]
    assert all(found == hashes[0] for found in hashes)
    found = json.loads(edgeq("inspect", out, "--diff", shards[-1], "--json").out)
    assert found["same_content"]


def test_no_hashes_unasked(edgeq, good):
    assert "sha256" not in edgeq("inspect", good, "--json").out


def test_check_of_a_good_file(edgeq, good):
    done = edgeq("inspect", good, "--check")
    assert (done.code, done.err) == (0, "")
    assert "nothing wrong was found" in done.out
    done = edgeq("inspect", good, "--check", "--json")
    assert (done.code, json.loads(done.out)) == (
        0,
        {"file": str(good), "ok": True, "errors": 0, "warnings": 0, "findings": []},
    )


def test_check_of_a_bad_file(edgeq, bad):
    done = edgeq("inspect", bad, "--check")
    assert (done.code, done.err) == (1, "")
    lines = done.out.splitlines()
    assert lines[0] == "error  blk.0.\\x1b.weight"  # nothing of a file reaches the terminal raw
    assert "1 NaN among 64 F32 values; first in row 1, column 3" in lines[1]
    assert lines[2].strip().startswith("→ ")
    assert lines[-1].endswith("1 errors, 1 warnings")


def test_check_as_json(edgeq, bad):
    done = edgeq("inspect", bad, "--check", "--json")
    assert (done.code, done.err) == (1, "")
    found = json.loads(done.out)
    assert (found["ok"], found["errors"], found["warnings"]) == (False, 1, 1)
    assert [(f["severity"], f["where"]) for f in found["findings"]] == [
        ("error", "blk.0.\x1b.weight"),
        ("warning", "general.file_type"),
    ]
    assert all(f["what"] and f["remedy"] for f in found["findings"])


def test_warnings_alone_end_well(edgeq, tmp_path):
    path = tiny_gguf.write(tmp_path / "m.gguf", tiny_gguf.metadata() | {"general.file_type": 1})
    assert edgeq("inspect", path, "--check").code == 0


def test_check_of_a_broken_file(edgeq, good):
    good.write_bytes(good.read_bytes()[:-300])
    done = edgeq("inspect", good, "--check")
    assert (done.code, done.err) == (1, "")
    assert "truncated" in done.out
    assert "→ download or convert it again" in done.out


def test_diff(edgeq, good, tmp_path):
    made = tiny_gguf.tensors()
    made[NAME] = ("Q4_0", made[NAME][1])
    made["new.weight"] = ("F32", np.ones((2, 3), np.float32))
    del made["output_norm.weight"]
    other = tiny_gguf.write(tmp_path / "other.gguf", tiny_gguf.metadata() | {"general.name": "other"}, made)
    done = edgeq("inspect", good, "--diff", other)
    assert (done.code, done.err) == (0, "")
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    assert "added general.name other" in lines
    assert "added new.weight F32 2 × 3" in lines
    assert "removed output_norm.weight F32 32" in lines
    assert any(line.startswith(f"{NAME} Q8_0 Q4_0 ") for line in lines)
    count = len(made) - 2
    assert lines[-1] == (
        f"content 1 metadata keys differ, 1 tensors added, 1 removed, 0 reshaped, 1 with other bytes, {count} identical"
    )
    found = json.loads(edgeq("inspect", good, "--diff", other, "--json").out)
    assert found["tensors"]["common"][0]["name"] == NAME
    assert 0 < found["tensors"]["common"][0]["relative_rmse"] < 0.2
    assert not found["same_content"]


def test_diff_of_the_same(edgeq, good):
    done = edgeq("inspect", good, "--diff", good)
    assert (done.code, done.err) == (0, "")
    assert "the same: metadata and the bytes of every tensor" in done.out


def test_diff_of_real_files(edgeq, exported, floats):
    done = edgeq("inspect", floats.gguf, "--diff", exported.gguf, "--json")
    assert (done.code, done.err) == (0, "")
    errors = {t["b_type"]: t["relative_rmse"] for t in json.loads(done.out)["tensors"]["common"]}
    assert 0 < errors["Q6_K"] < 0.03 < errors["Q4_K"] < 0.1


@pytest.mark.parametrize("option", ["--sha256", "--check", "--diff"])
@pytest.mark.parametrize("kind", ["onnx", "directory"])
def test_options_that_do_not_apply(edgeq, exported, tinylm, good, option, kind):
    path = exported.onnx if kind == "onnx" else tinylm
    done = edgeq("inspect", path, option, *([good] if option == "--diff" else []))
    assert (done.code, done.out) == (2, "")
    assert f"{option} is for GGUF files only" in done.err
    assert str(path) in done.err


def test_diff_with_something_else(edgeq, good, tinylm):
    done = edgeq("inspect", good, "--diff", tinylm)
    assert (done.code, done.out) == (2, "")
    assert f"{tinylm}: is a directory; --diff is for GGUF files only" in done.err


def test_one_at_a_time(edgeq, good):
    done = edgeq("inspect", good, "--check", "--sha256")
    assert (done.code, done.out) == (2, "")
    assert "--sha256 and --check do not go together" in done.err


@pytest.mark.parametrize("option", ["--sha256", "--check", "--diff"])
def test_missing_file(edgeq, good, tmp_path, option):
    missing = tmp_path / "none.gguf"
    arguments = (good, option, missing) if option == "--diff" else (missing, option)
    done = edgeq("inspect", *arguments)
    assert (done.code, done.out) == (1, "")
    assert f"{missing}: no such file" in done.err
