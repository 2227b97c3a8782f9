"""``edgeq bench codecs``: both sides, and what it says where the peer is absent."""

from __future__ import annotations

import json

import pytest

from edgeq.runtimes import ggml

SMALL = ("--rows", 4, "--columns", 512, "--repeats", 1)


def figures(done) -> list[dict[str, object]]:
    assert done.code == 0, done.err
    return json.loads(done.out)["figures"]


@pytest.mark.skipif(ggml.library() is None, reason="llama_cpp is not installed")
def test_ggml_effort_has_ggmls_bytes(edgeq):
    encode, decode = figures(edgeq("bench", "codecs", "--types", "q4_k", "--importance", *SMALL, "--json"))
    assert (encode["type_name"], encode["operation"], encode["peer"]) == ("Q4_K", "encode", "ggml")
    assert encode["same_bytes"] is True
    assert encode["error"] == 1
    assert encode["ratio"] == pytest.approx(encode["rate"] / encode["peer_rate"])
    assert (decode["operation"], decode["error"], decode["same_bytes"]) == ("decode", None, None)
    assert decode["ratio"] > 0


def test_an_absent_peer_is_skipped_and_said_to_be(edgeq, monkeypatch):
    monkeypatch.setattr(ggml, "library", lambda: None)
    done = edgeq("bench", "codecs", "--types", "Q8_0,IQ3_S", *SMALL, "--json")
    found = figures(done)
    assert "not installed" in done.err
    assert [(f["type_name"], f["operation"]) for f in found] == [
        ("Q8_0", "encode"),
        ("Q8_0", "decode"),
        ("IQ3_S", "decode"),  # edgeq does not encode it
    ]
    assert found[0]["peer_rate"] is found[0]["ratio"] is found[0]["error"] is None
    assert found[0]["rate"] > 0


def test_table(edgeq):
    done = edgeq("bench", "codecs", "--types", "Q8_0", *SMALL)
    lines = done.out.splitlines()
    assert lines[1].split()[:4] == ["type", "operation", "edgeq", "peer"]
    assert [line.split()[:2] for line in lines[2:]] == [["Q8_0", "encode"], ["Q8_0", "decode"]]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [(("--types", "Q9"), 2, "--types Q9: no such block type"), (("--columns", 100), 1, "not a whole number")],
)
def test_bad_options(edgeq, options, code, said):
    done = edgeq("bench", "codecs", *options)
    assert done.code == code
    assert said in done.err
    assert done.err.count("\n") == 1


@pytest.mark.skipif(ggml.library() is None, reason="llama_cpp is not installed")
def test_kernels(edgeq):
    options = ("--types", "q8_0,int4x32", "--rows", "1,8", "--seconds", 0.1, "--threads", 1, "--json")
    found = figures(edgeq("bench", "kernels", *options))
    assert [(f["type_name"], f["rows"]) for f in found] == [
        ("Q8_0", 1),
        ("Q8_0", 8),
        ("int4x32", 1),
        ("int4x32", 8),
    ]
    for f in found:
        assert f["unit"] == ("GB/s" if f["rows"] == 1 else "GOPS")
        assert min(f["ours"], f["limit"], f["peer"], f["of_limit"], f["of_peer"]) > 0


@pytest.mark.parametrize("options", [("--types", "F16"), ("--rows", "0"), ("--rows", "1,x")])
def test_bad_options_of_kernels(edgeq, options):
    done = edgeq("bench", "kernels", *options)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert options[0] in done.err
