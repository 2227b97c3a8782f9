"""``edgeq calibrate``: what it prints and writes, merging, and what a user gets wrong."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from edgeq.formats.gguf.imatrix import Activations, ImportanceMatrix

NAME = "blk.0.attn_q.weight"


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "code.txt"
    path.write_text("def add(a, b):\n    return a + b\n\n\nfor i in range(10):\n    print(add(i, i))\n" * 30)
    return path


@pytest.fixture(scope="module")
def made(edgeq, tinylm, code, tmp_path_factory):
    """A matrix of TinyLM, and the command's JSON."""
    out = tmp_path_factory.mktemp("made") / "imatrix.gguf"
    done = edgeq("calibrate", tinylm, "--data", code, "-o", out, "--chunk-size", 32, "--json")
    assert (done.code, done.err) == (0, "")
    return out, json.loads(done.out)


def test_json(made, code):
    out, record = made
    matrix = ImportanceMatrix.read(out)
    assert record["file"] == str(out)
    assert record["datasets"] == matrix.datasets == [str(code)]
    assert (record["chunk_size"], matrix.chunk_size) == (32, 32)
    assert record["tokens"] == 32 * record["chunks"] == 32 * matrix.chunk_count
    assert {entry.counts[0] for entry in matrix.entries.values()} == {record["tokens"]}
    assert record["columns"] == sum(len(matrix.importance(name)) for name in matrix.entries)
    coverage = record["coverage"]
    assert coverage.pop("tensors") == len(matrix.entries) == 42
    assert not any(coverage.values())


def test_printed(edgeq, tinylm, code, tmp_path):
    out = tmp_path / "imatrix.gguf"
    done = edgeq("calibrate", tinylm, "-d", code, "-o", out, "--max-tokens", 100)
    assert (done.code, done.err) == (0, "")
    assert "weights  42 of 42\n" in done.out
    assert "tokens   100 read\n" in done.out
    assert f"texts    {code}\n" in done.out
    assert done.out.endswith(f"written  {out}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["imatrix.gguf"]


def test_gguf_model_and_process_output(edgeq, floats, code, tmp_path, made):
    out = tmp_path / "imatrix.gguf"
    done = edgeq(
        "calibrate", floats.gguf, "-d", code, "-o", out, "--chunk-size", 32, "--process-output", "--json"
    )
    assert done.code == 0, done.err
    assert json.loads(done.out)["coverage"]["tensors"] == 43
    found, expected = ImportanceMatrix.read(out), ImportanceMatrix.read(made[0])
    assert "token_embd.weight" in found.entries
    np.testing.assert_allclose(found.importance(NAME), expected.importance(NAME), rtol=1e-4)


def test_encoder(edgeq, minilm, tmp_path):
    text = tmp_path / "lines.txt"
    text.write_text("The first sentence.\n\nA second one, a little longer.\n")
    done = edgeq("calibrate", minilm, "-d", text, "-o", tmp_path / "imatrix.gguf", "--json")
    assert (done.code, done.err) == (0, "")
    record = json.loads(done.out)
    assert (record["coverage"]["tensors"], record["coverage"]["missing"], record["chunks"]) == (36, [], 1)
    assert 10 < record["tokens"] < 20


def test_merge(edgeq, tinylm, code, made, tmp_path):
    """The same text twice changes no mean, and merging alone needs no text."""
    first, both, alone = made[0], tmp_path / "both.gguf", tmp_path / "alone.gguf"
    done = edgeq("calibrate", tinylm, "-d", code, "--chunk-size", 32, "--merge", first, "-o", both, "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["datasets"] == [str(code)] * 2
    assert record["chunks"] == 2 * made[1]["chunks"]
    done = edgeq("calibrate", tinylm, "--merge", first, "--merge", both, "-o", alone)
    assert done.code == 0, done.err
    assert "0 read, 2 merged files" in done.out
    one, two, three = (ImportanceMatrix.read(path) for path in (first, both, alone))
    for name, entry in one.entries.items():
        np.testing.assert_allclose(two.importance(name), one.importance(name), rtol=1e-6)
        np.testing.assert_allclose(three.entries[name].sums, 3 * entry.sums, rtol=1e-6)
        assert three.entries[name].counts == 3 * entry.counts


def test_merge_reads_dat(edgeq, tinylm, tmp_path):
    values = struct.pack("<256f", *range(256))
    (tmp_path / "old.dat").write_bytes(
        struct.pack("<ii", 1, len(NAME)) + NAME.encode() + struct.pack("<ii", 2, 256) + values
    )
    out = tmp_path / "new.gguf"
    done = edgeq("calibrate", tinylm, "--merge", tmp_path / "old.dat", "-o", out)
    assert done.code == 0
    assert "edgeq: 41 weights have no entry and will be quantized without: blk.0.attn_k.weight, " in done.err
    assert "weights  1 of 42\n" in done.out
    assert "256, 1 of them always 0" in done.out
    np.testing.assert_array_equal(ImportanceMatrix.read(out).importance(NAME), np.arange(256) / np.float32(2))


def test_output_is_not_replaced_without_force(edgeq, tinylm, code, tmp_path):
    out = tmp_path / "imatrix.gguf"
    out.write_bytes(b"mine")
    arguments = ("calibrate", tinylm, "-d", code, "-o", out, "--max-tokens", 16)
    done = edgeq(*arguments)
    assert (done.code, done.err) == (1, f"edgeq: error: {out}: exists already; pass --force to replace it\n")
    assert out.read_bytes() == b"mine"
    assert edgeq(*arguments, "--force").code == 0
    assert "blk.0.attn_q.weight" in ImportanceMatrix.read(out).entries


def _matrix(path, name, values):
    ImportanceMatrix({name: Activations(np.array([values]), np.array([1]))}, ["t"]).write(path)
    return path


def test_mistakes_are_one_line(edgeq, tinylm, code, tmp_path):
    empty, latin, model = tmp_path / "empty.txt", tmp_path / "latin.txt", tmp_path / "model.gguf"
    empty.write_bytes(b"\n")
    latin.write_bytes(b"gr\xfc\xdf")
    model.write_bytes(b"GGUF")
    other = _matrix(tmp_path / "other.gguf", NAME, [1.0, 2.0])
    alien = _matrix(tmp_path / "alien.gguf", "blk.0.alien.weight", [1.0])
    nan = _matrix(tmp_path / "nan.gguf", NAME, [np.nan] * 256)
    out = tmp_path / "out.gguf"
    cases = [
        ((tinylm, "-o", out), 2, "give --data FILE"),
        ((tinylm, "-d", code, "-o", out, "--chunk-size", 10**6), 2, "--chunk-size 1000000: "),
        ((tinylm, "-d", tmp_path / "absent.txt", "-o", out), 1, "absent.txt: cannot be read"),
        ((tinylm, "-d", tmp_path, "-o", out), 1, "cannot be read"),
        ((tinylm, "-d", empty, "-o", out), 1, "empty.txt: is empty"),
        ((tinylm, "-d", latin, "-o", out), 1, "latin.txt: is not UTF-8 (byte 2)"),
        ((tmp_path / "absent", "-d", code, "-o", out), 1, "absent: no such file or directory"),
        ((tmp_path, "-d", code, "-o", out), 1, "has neither model.safetensors nor"),
        ((model, "-d", code, "-o", out), 1, "model.gguf: "),
        ((other, "-d", code, "-o", out), 1, "other.gguf: general.architecture None is not supported"),
        ((tinylm, "-d", code, "-o", tmp_path / "absent/out.gguf"), 1, "the folder does not exist"),
        ((tinylm, "-d", code, "-o", code, "--force"), 1, "code.txt: is the file being read; choose another"),
        ((tinylm, "-d", code, "-o", tmp_path), 1, "is a folder; name a file in it"),
        ((tinylm, "--merge", tmp_path / "absent.gguf", "-o", out), 1, "absent.gguf: no such file"),
        ((tinylm, "--merge", code, "-o", out), 1, "code.txt: is no importance matrix: the number of entries"),
        ((tinylm, "--merge", other, "-o", out), 1, f"'{NAME}' has 2 values, the model has 256; it does not"),
        ((tinylm, "--merge", alien, "-o", out), 1, "alien.gguf: has no tensor of"),
        (
            (tinylm, "--merge", nan, "-o", out),
            1,
            f"nan.gguf: '{NAME}' has NaN, infinity or less than 0 in 256",
        ),
    ]
    before = sorted(tmp_path.iterdir())
    for arguments, status, problem in cases:
        done = edgeq("calibrate", *arguments)
        assert (done.code, done.out) == (status, ""), (arguments, done)
        assert done.err.startswith("edgeq: error: "), done.err
        assert problem in done.err, done.err
        assert done.err.count("\n") == 1, done.err
        assert sorted(tmp_path.iterdir()) == before
