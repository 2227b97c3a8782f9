"""One test per finding of ``--check``: a whole file with one thing wrong has that one finding."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import tiny_gguf

from edgeq.errors import EdgeqError
from edgeq.families import BY_ARCHITECTURE
from edgeq.formats.gguf.mix_table import FILE_TYPES
from edgeq.formats.gguf.types import Typed, ValueType
from edgeq.inspection.about import EPSILON_KEYS
from edgeq.inspection.check_layout import MAIN_TYPES
from edgeq.inspection.gguf_check import check_gguf
from edgeq.inspection.stream import PIECE_VALUES

MATRIX, NORM = "blk.1.ffn_down.weight", "blk.0.attn_norm.weight"


def _quiet(stage: str, done: int, total: int) -> None:
    assert done <= total


def _check(path: Path) -> list[tuple[str, str, str]]:
    findings = check_gguf(path, _quiet)
    assert all(finding.remedy or finding.severity == "note" for finding in findings)
    return [(finding.severity.value, finding.where, finding.what) for finding in findings]


@pytest.fixture
def found(tmp_path):
    """Change metadata (None removes a key) and tensors of the tiny llama; the findings."""

    def check(pairs=None, tensors=None, without=()):
        changed = {k: v for k, v in (tiny_gguf.metadata() | (pairs or {})).items() if v is not None}
        made = {k: v for k, v in (tiny_gguf.tensors() | (tensors or {})).items() if k not in without}
        return _check(tiny_gguf.write(tmp_path / "model.gguf", changed, made))

    return check


def _one(found, severity: str, where: str, *parts: str) -> None:
    assert [(s, w) for s, w, _ in found] == [(severity, where)], found
    for part in parts:
        assert part in found[0][2]


def test_nothing_is_wrong(found):
    assert found() == []


# The structure: the reader's one breach is the one finding.


@pytest.mark.parametrize(
    ("at", "raw", "what"),
    [
        (0, b"GGML", "starts with b'GGML'"),
        (4, struct.pack("<I", 4), "version 4"),
        (4, struct.pack(">I", 3), "byte-swapped"),
        (8, struct.pack("<q", 1 << 40), "tensors do not fit"),
        (16, struct.pack("<q", -1), "key-value pairs do not fit"),
    ],
)
def test_breach_of_the_format(tmp_path, at, raw, what):
    path = tiny_gguf.write(tmp_path / "model.gguf")
    content = bytearray(path.read_bytes())
    content[at : at + len(raw)] = raw
    path.write_bytes(content)
    _one(_check(path), "error", "file", what)


def test_truncated(tmp_path):
    path = tiny_gguf.write(tmp_path / "model.gguf")
    path.write_bytes(path.read_bytes()[:-200])
    _one(_check(path), "error", "file", "truncated")


def test_empty_file(tmp_path):
    (tmp_path / "model.gguf").touch()
    _one(_check(tmp_path / "model.gguf"), "error", "file", "empty")


def test_no_file_is_no_finding(tmp_path):
    with pytest.raises(EdgeqError, match="no such file"):
        _check(tmp_path / "model.gguf")


# The tensors.


@pytest.mark.parametrize(("value", "what"), [(np.nan, "1 NaN"), (-np.inf, "1 infinite")])
@pytest.mark.parametrize("type_name", ["F32", "F16", "BF16"])
def test_float_that_is_not_finite(found, type_name, value, what):
    values = np.ones((5, 7), np.float32)
    raw = tiny_gguf.blocks(type_name, values)
    half = np.array([value], np.float32)
    size = raw.shape[1] // 7
    encoded = half.astype(np.float16) if type_name == "F16" else half
    raw[3, 5 * size : 6 * size] = encoded.view(np.uint8)[-size:]
    expected = f"{what} among 35 {type_name} values; first in row 3, column 5"
    _one(found(tensors={"rope_freqs.weight": (type_name, raw)}), "error", "rope_freqs.weight", expected)


@pytest.mark.parametrize(
    ("type_name", "offset", "field"),
    [
        ("Q4_0", 0, "d"),
        ("Q5_1", 2, "m"),
        ("Q8_0", 0, "d"),
        ("Q4_K", 0, "d"),
        ("Q4_K", 2, "dmin"),
        ("Q6_K", 208, "d"),
    ],
)
@pytest.mark.parametrize(("half", "what"), [(0x7E00, "2 NaN"), (0x7C00, "2 infinite")])
def test_scale_that_is_not_finite(found, type_name, offset, field, half, what):
    raw = tiny_gguf.blocks(type_name, np.ones((3, 512), np.float32))
    per_block = raw.shape[1] // (2 if type_name.endswith("_K") else 16)
    for row in (1, 2):
        raw[row, per_block + offset : per_block + offset + 2] = np.array([half], "<u2").view(np.uint8)
    expected = (
        f"{what} among the {field} of {raw.size // per_block} {type_name} blocks; first in row 1, block 1"
    )
    _one(found(tensors={"rope_freqs.weight": (type_name, raw)}), "error", "rope_freqs.weight", expected)


def test_bad_scale_behind_the_first_piece(found):
    """Counts and places go on from piece to piece."""
    rows = 2 * PIECE_VALUES // 1024 + 3
    raw = tiny_gguf.blocks("F16", np.ones((rows, 1024), np.float32))
    for row in (rows - 1, rows - 300):
        raw[row, 10:12] = (0, 0x7C)
    _one(
        found(tensors={"rope_freqs.weight": ("F16", raw)}),
        "error",
        "rope_freqs.weight",
        f"2 infinite among {rows * 1024:,} F16 values; first in row {rows - 300}, column 5",
    )


@pytest.mark.parametrize("type_name", ["F32", "F16", "BF16", "Q8_0", "Q4_1"])
def test_all_zeros(found, type_name):
    zeros = np.zeros((4, 32), np.float32)
    _one(
        found(tensors={"rope_freqs.weight": (type_name, zeros)}),
        "warning",
        "rope_freqs.weight",
        "all of its 128 values are zero",
    )


def test_negative_zeros_are_zeros(found):
    zeros = np.full((4, 32), -0.0, np.float32)
    _one(
        found(tensors={"rope_freqs.weight": ("F32", zeros)}),
        "warning",
        "rope_freqs.weight",
        "128 values are zero",
    )


def test_one_value_at_the_end_is_not_all_zeros(found):
    values = np.zeros((PIECE_VALUES // 1024 + 1, 1024), np.float32)
    values[-1, -1] = 1
    assert found(tensors={"rope_freqs.weight": ("F32", values)}) == []


def test_type_that_edgeq_cannot_decode(found):
    raw = np.ones((2, 292), np.uint8)  # Q8_K is ggml's type for activations: there will be no codec
    (note,) = found(tensors={"rope_freqs.weight": ("Q8_K", raw)})
    assert note[:2] == ("note", "rope_freqs.weight")
    assert "cannot decode Q8_K (1 tensors)" in note[2]


def test_scales_of_a_type_that_edgeq_cannot_decode(found):
    raw = np.ones((2, 292), np.uint8)
    raw[1, :4] = np.array([np.nan], "<f4").view(np.uint8)
    severities = {(s, w) for s, w, _ in found(tensors={"rope_freqs.weight": ("Q8_K", raw)})}
    assert severities == {("error", "rope_freqs.weight"), ("note", "rope_freqs.weight")}


# The metadata and the tensors.


@pytest.mark.parametrize("count", [1, 3, 400])
def test_block_count(found, count):
    said = found({"llama.block_count": count})
    _one(said, "error", "llama.block_count", f"says {count}")
    assert ("blk.1" if count == 1 else "blk.2") in said[0][2]


@pytest.mark.parametrize(
    "key",
    [
        "context_length",
        "embedding_length",
        "block_count",
        "feed_forward_length",
        "attention.head_count",
        "attention.layer_norm_rms_epsilon",
    ],
)
def test_key_that_llama_cpp_needs(found, key):
    _one(found({f"llama.{key}": None}), "error", f"llama.{key}", "is missing")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("context_length", Typed(64, ValueType.UINT64)),
        ("embedding_length", Typed(32, ValueType.INT32)),
        ("attention.layer_norm_rms_epsilon", Typed(1e-5, ValueType.FLOAT64)),
        ("attention.head_count", Typed([2, 2], ValueType.UINT64)),
        ("context_length", [64, 64]),
    ],
)
def test_key_of_the_wrong_type(found, key, value):
    _one(found({f"llama.{key}": value}), "error", f"llama.{key}", "where llama.cpp reads")


def test_a_list_where_llama_cpp_takes_one(found):
    assert found({"llama.feed_forward_length": Typed([64, 64], ValueType.INT32)}) == []


def test_unknown_architecture_is_a_note(found):
    (note,) = found({"general.architecture": "new", "llama.vocab_size": None})
    assert note[:2] == ("note", "general.architecture")


def test_no_architecture(found):
    _one(found({"general.architecture": ""}), "error", "general.architecture", "is missing")


def test_no_embeddings(found):
    _one(found(without=("token_embd.weight",)), "error", "token_embd.weight", "is missing")


def test_width_of_the_embeddings(found):
    _one(found({"llama.embedding_length": 64}), "error", "token_embd.weight", "32 columns", "64")


@pytest.mark.parametrize("name", ["token_embd.weight", "output.weight"])
def test_rows_for_tokens(found, name):
    wrong = {name: ("F32", np.ones((14, 32), np.float32))}
    _one(found(tensors=wrong), "error", name, "14 rows for 12 tokens")


def test_vocab_size(found):
    _one(found({"llama.vocab_size": 13}), "warning", "llama.vocab_size", "13", "12")


def test_file_type(found):
    _one(found({"general.file_type": 2}), "warning", "general.file_type", "mostly Q4_0", "Q8_0")
    assert found({"general.file_type": 15}) == []  # no row divides by Q4_K's 256: all are fallbacks
    assert found({"general.file_type": 1024 + 7}) == []  # guessed by llama.cpp


def test_file_type_of_no_one_type_is_a_note(found):
    (note,) = found({"general.file_type": 38})
    assert note[:2] == ("note", "general.file_type")


def test_quantization_version(found):
    _one(found({"general.quantization_version": None}), "warning", "general.quantization_version")


@pytest.mark.parametrize("alignment", [1, 2, 4, 8, 16])
def test_alignment(found, alignment):
    """Small ones go well when the header happens to end at a multiple of 32."""
    ends = {}
    for length in range(32):
        findings = found({"general.alignment": alignment, "general.name": "n" * length})
        assert {where for _, where, _ in findings} <= {"general.alignment"}
        ends.setdefault(findings[0][0] if findings else "", []).append(length)
    assert ends.keys() == {"error", "warning" if alignment < 8 else ""}


def test_larger_alignment(found):
    assert found({"general.alignment": 64}) == []


def test_tensor_that_one_block_lacks(found):
    whole = {
        f"blk.2.{name[6:]}": content for name, content in tiny_gguf.tensors().items() if name[:6] == "blk.1."
    }
    found_ = found({"llama.block_count": 3}, whole, without=("blk.1.attn_k.weight",))
    _one(found_, "warning", "blk.1.attn_k.weight", "is missing")


def test_tensor_of_a_strange_name(found):
    _one(found(tensors={"mystery.weight": ("F32", np.ones((2, 2)))}), "warning", "mystery.weight", "unknown")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_metadata_not_finite(found, value):
    _one(found({"llama.rope.freq_base": value}), "error", "llama.rope.freq_base", str(value))
    scores = [0.0] * 11 + [value]
    _one(found({"tokenizer.ggml.scores": scores}), "error", "tokenizer.ggml.scores", "1 of its 12")


# The vocabulary.


@pytest.mark.parametrize("key", ["scores", "token_type"])
def test_lists_of_unequal_length(found, key):
    make = (lambda n: [0.5] * n) if key == "scores" else (lambda n: Typed([1] * n, ValueType.INT32))
    name = f"tokenizer.ggml.{key}"
    _one(found({name: make(11)}), "error", name, "11 items for 12 tokens")
    _one(found({name: make(13)}), "warning", name, "13 items for 12 tokens")
    _one(found({name: 3}), "error", name, "no list")


def test_token_id_out_of_range(found):
    key = "tokenizer.ggml.padding_token_id"
    _one(found({key: 12}), "error", key, "12 is not the number of one of the 12 tokens")
    assert found({key: Typed((1 << 32) - 1, ValueType.UINT32)}) == []  # there is no such token
    assert found({key: 11}) == []


def test_token_twice(found):
    tokens = tiny_gguf.metadata()["tokenizer.ggml.tokens"]
    _one(found({"tokenizer.ggml.tokens": [*tokens[:-1], "t0"]}), "error", "tokenizer.ggml.tokens", "'t0'")
    assert found({"tokenizer.ggml.tokens": [*tokens[:-2], "", ""]}) == []  # llama.cpp names the empty ones


def test_no_tokenizer(found):
    _one(found({"tokenizer.ggml.model": None}), "error", "tokenizer.ggml.model")


def test_no_tokens(found):
    without = {"tokenizer.ggml.tokens": None}
    _one(found(without), "error", "tokenizer.ggml.tokens")
    assert found(without | {"tokenizer.ggml.model": "none"}) == []


def test_byte_pairs(found):
    pairs = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.merges": ["t 0"], "tokenizer.ggml.pre": "gpt-2"}
    assert found(pairs) == []
    _one(found(pairs | {"tokenizer.ggml.merges": None}), "error", "tokenizer.ggml.merges")
    _one(found(pairs | {"tokenizer.ggml.pre": None}), "warning", "tokenizer.ggml.pre")


# Files that are no whole models.


def _split(tmp_path, **changed) -> list[Path]:
    """The tiny llama in two shards; ``changed`` replaces tensors."""
    made = list((tiny_gguf.tensors() | changed).items())
    half = len(made) // 2
    keys = {
        "split.count": Typed(2, ValueType.UINT16),
        "split.tensors.count": Typed(len(made), ValueType.INT32),
    }
    pairs = [tiny_gguf.metadata(), {}]
    return [
        tiny_gguf.write(
            tmp_path / f"m-0000{i + 1}-of-00002.gguf",
            pairs[i] | {"split.no": Typed(i, ValueType.UINT16)} | keys,
            dict(made[:half] if i == 0 else made[half:]),
        )
        for i in range(2)
    ]


def test_a_split_model_is_checked_as_a_whole(tmp_path):
    first, second = _split(tmp_path)
    assert _check(first) == _check(second) == []
    broken = np.full((2, 32), np.nan, np.float32).view(np.uint8)
    first, _ = _split(tmp_path, **{"blk.1.attn_q.weight": ("F32", broken)})  # the other one holds it
    assert ("error", "blk.1.attn_q.weight") in {(severity, where) for severity, where, _ in _check(first)}


def test_a_missing_shard(tmp_path):
    first, second = _split(tmp_path)
    second.unlink()
    with pytest.raises(EdgeqError, match="1 of its 2 shards are missing"):
        _check(first)


def test_something_else_than_a_model(tmp_path):
    pairs = {"general.type": "imatrix"}
    made = {"blk.0.attn_q.weight.counts": ("F32", np.ones((1, 1), np.float32))}
    _one(_check(tiny_gguf.write(tmp_path / "imatrix.gguf", pairs, made)), "note", "general.type")


def test_a_vocabulary_alone(tmp_path):
    pairs = {k: v for k, v in tiny_gguf.metadata().items() if not k.startswith("llama.") or "vocab" in k}
    _one(_check(tiny_gguf.write(tmp_path / "vocabulary.gguf", pairs, {})), "note", "file")


def test_errors_come_first(found):
    severities = [
        s for s, _, _ in found({"general.file_type": 38, "llama.vocab_size": 3, "llama.block_count": 1})
    ]
    assert severities == ["error", "warning", "note"]


# What edgeq itself writes, and the tables.


@pytest.mark.parametrize("quant", ["F32", "Q8_0", "Q4_K_M", "Q6_K"])
def test_own_files_are_sound(make_gguf, tinylm, quant):
    assert [f for f in _check(make_gguf(tinylm, quant)) if f[0] != "note"] == []


def test_main_types_agree_with_the_mixes():
    for kind in FILE_TYPES.values():
        assert MAIN_TYPES.get(kind.number, kind.base) == kind.base


def test_own_families_are_known():
    assert BY_ARCHITECTURE.keys() <= EPSILON_KEYS.keys()


def test_damaged_bytes_never_break_the_check(tmp_path):
    """Any bytes: findings or none, but no other exception, and no warning of NumPy's."""
    path = tiny_gguf.write(tmp_path / "model.gguf")
    content, random = path.read_bytes(), np.random.default_rng(3)
    header = content.find(b"output_norm.weight") + 60
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for i in range(400):
            damaged = bytearray(content)
            for at in random.integers(24, header if i % 2 else len(content), 3):
                damaged[at] = random.choice([0, 0x7C, 0x7F, 0xFF, damaged[at] ^ (1 << random.integers(8))])
            path.write_bytes(damaged)
            _check(path)
