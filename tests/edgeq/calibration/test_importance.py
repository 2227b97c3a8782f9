"""Importance matrices from the engine: against plain activations, against llama.cpp's, and what quantizing does."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import heldout
import naive
import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers.processors import TemplateProcessing

from edgeq import calibrate, tokenization
from edgeq.calibration.importance import ImportanceCollector, Sample, decoder_samples, encoder_samples
from edgeq.engine import model as engine
from edgeq.errors import FormatError, InputError
from edgeq.formats.gguf.imatrix import ImportanceMatrix
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.kernels_cpu.encode import encode
from edgeq.source import SourceModel

Doubles = NDArray[np.float64]
MakeGGUF = Callable[[Path, str], Path]


def naive_means(
    monkeypatch: pytest.MonkeyPatch, folder: Path, forward: Any, sequences: list[list[int]]
) -> dict[str, Doubles]:
    """Mean squares of what every linear layer of the plain forward reads, by Hugging Face name."""
    sums: dict[str, Doubles] = {}
    linear = naive._linear

    def recording(tensors: Mapping[str, Doubles], name: str, x: Doubles) -> Doubles:
        sums[name] = sums.get(name, np.zeros(x.shape[1])) + (x * x).sum(axis=0)
        return linear(tensors, name, x)

    monkeypatch.setattr(naive, "_linear", recording)
    config, tensors = naive.load(folder)
    for tokens in sequences:
        forward(config, tensors, tokens)
    return {name: total / sum(map(len, sequences)) for name, total in sums.items()}


def collected(folder: Path, sequences: list[list[int]], head: bool = False) -> ImportanceMatrix:
    collector = ImportanceCollector(head)
    model = engine.open_model(folder)
    for tokens in sequences:
        collector.read(model, tokens)
    return collector.matrix("text", 32)


def check(folder: Path, found: ImportanceMatrix, means: dict[str, Doubles]) -> None:
    specs = SourceModel.open(folder).specs
    sources = {name: specs[name].source.removesuffix(".weight") for name in found.entries}
    assert sorted(sources.values()) == sorted(means)
    for name, source in sources.items():
        np.testing.assert_allclose(found.importance(name), means[source], rtol=2e-5, err_msg=name)


def test_decoders_equal_plain_activations(
    monkeypatch: pytest.MonkeyPatch, decoder_folder: Path, code_tokens: list[int]
) -> None:
    sequences = [code_tokens[i : i + 24] for i in (0, 24, 48)]
    found = collected(decoder_folder, sequences)
    check(decoder_folder, found, naive_means(monkeypatch, decoder_folder, naive.llama_logits, sequences))
    assert {int(count) for entry in found.entries.values() for count in entry.counts} == {72}
    assert found.chunk_count == 2
    assert not found.coverage({}).invalid


def test_encoder_equals_plain_activations(monkeypatch: pytest.MonkeyPatch, minilm: Path) -> None:
    tokenizer = tokenization.from_directory(minilm)
    sequences = [tokenizer.encode(text).ids for text in heldout.sentences().calibration[:3]]
    found = collected(minilm, sequences)
    assert len(found.entries) == 36
    check(minilm, found, naive_means(monkeypatch, minilm, naive.bert_hidden, sequences))


def test_long_chunks_are_read_in_passes(tinylm: Path, code_tokens: list[int]) -> None:
    """More tokens than one pass holds: the cache carries them over, and the head reads one token a pass."""
    tokens = code_tokens[:600]
    model, whole = engine.open_model(tinylm), ImportanceCollector()
    model._forward(tokens, None, True, whole)
    found = collected(tinylm, [tokens])
    for name, sums in whole.sums.items():
        np.testing.assert_allclose(found.entries[name].sums, sums, rtol=1e-5)
        assert found.entries[name].counts == [600]


@pytest.mark.parametrize(("name", "head"), [("tinylm", "token_embd.weight"), ("untied", "output.weight")])
def test_head_only_when_asked_for(
    name: str, head: str, tinylm: Path, random_llama: Callable[[str], Path], code_tokens: list[int]
) -> None:
    folder = tinylm if name == "tinylm" else random_llama(name)
    assert head not in collected(folder, [code_tokens[:8]]).entries
    found = collected(folder, [code_tokens[:8], code_tokens[:5]], head=True)
    assert found.entries[head].counts == [13]


def test_gguf_equals_checkpoint(tinylm: Path, make_gguf: MakeGGUF, code_tokens: list[int]) -> None:
    path = make_gguf(tinylm, "F32")
    with GGUFFile.open(path) as file:
        collector = ImportanceCollector()
        collector.read(engine.from_gguf(file), code_tokens[:40])
    expected = collected(tinylm, [code_tokens[:40]])
    assert set(collector.sums) == set(expected.entries)
    for name, entry in expected.entries.items():
        np.testing.assert_allclose(collector.sums[name], entry.sums, rtol=1e-4)


def test_nothing_is_observed_without_an_observer(
    monkeypatch: pytest.MonkeyPatch, tinylm: Path, code_tokens: list[int]
) -> None:
    """And an observer changes nothing."""
    model = engine.open_model(tinylm)
    before = model.logits(code_tokens[:20])
    seen: list[str] = []
    model.observe(code_tokens[:20], lambda name, x, expert: seen.append(name), head=True)
    assert len(seen) == 7 * model.hp.n_layers + 1
    np.testing.assert_array_equal(model.logits(code_tokens[:20]), before)
    assert len(seen) == 7 * model.hp.n_layers + 1


def test_damaged_weights(tinylm: Path, code_tokens: list[int]) -> None:
    model = engine.open_model(tinylm)
    model.weights.vector("blk.2.attn_norm.weight")[0] = np.nan
    with pytest.raises(FormatError, match=r"blk.2.attn_q.weight reads NaN or infinity: weights are damaged"):
        ImportanceCollector().read(model, code_tokens[:8])


# Which tokens are read.


@pytest.fixture
def code_file(tmp_path: Path) -> Path:
    path = tmp_path / "code.txt"
    path.write_bytes(heldout.code()[:8000].encode())
    return path


def tokens_of(samples: Iterator[Sample]) -> list[list[int]]:
    return [sample.tokens for sample in samples]


def test_decoder_reads_whole_chunks(tinylm: Path, code_file: Path) -> None:
    tokenizer = tokenization.from_directory(tinylm)
    ids = tokenizer.encode(code_file.read_text("utf-8")).ids
    samples = list(decoder_samples(code_file, tokenizer, 64))
    assert [s.tokens for s in samples] == [ids[i : i + 64] for i in range(0, len(ids) - 63, 64)]
    assert [s.read for s in samples] == sorted(s.read for s in samples)
    assert samples[-1].read <= code_file.stat().st_size
    assert tokens_of(decoder_samples(code_file, tokenizer, 64, 150)) == [ids[:64], ids[64:128]]
    assert tokens_of(decoder_samples(code_file, tokenizer, 64, 10)) == [ids[:10]]
    assert tokens_of(decoder_samples(code_file, tokenizer, 10**6)) == [ids]


def test_decoder_begins_each_chunk_as_llama_cpp(tinylm: Path, code_file: Path) -> None:
    """Where the tokenizer adds a token at the beginning, it stands in the first place of every chunk."""
    tokenizer = tokenization.from_directory(tinylm)
    plain = tokenizer.encode(code_file.read_text("utf-8")).ids
    first = tokenizer.id_to_token(0)
    tokenizer.post_processor = TemplateProcessing(single=f"{first} $A", special_tokens=[(first, 0)])
    stream = [0, *plain]
    expected = [[0, *stream[i + 1 : i + 50]] for i in range(0, len(stream) - 49, 50)]
    assert tokens_of(decoder_samples(code_file, tokenizer, 50)) == expected


def test_decoder_streams(monkeypatch: pytest.MonkeyPatch, tinylm: Path, code_file: Path) -> None:
    """Pieces are cut where no token is: the same tokens as the whole text has."""
    tokenizer = tokenization.from_directory(tinylm)
    whole = tokens_of(decoder_samples(code_file, tokenizer, 16))
    monkeypatch.setattr("edgeq.calibration.text._PIECE_BYTES", 1000)
    assert tokens_of(decoder_samples(code_file, tokenizer, 16)) == whole


def test_encoder_reads_lines(minilm: Path, tmp_path: Path) -> None:
    tokenizer = tokenization.from_directory(minilm)
    path = tmp_path / "lines.txt"
    path.write_bytes(b"\xef\xbb\xbfOne line.\r\n\r\n  Another one here.  \nlong " + b"word " * 900)
    first, second, third = tokens_of(encoder_samples(path, tokenizer, 32))
    assert (len(first), len(third)) == (5, 32)
    assert second == tokenizer.encode("Another one here.").ids
    assert third[0] == first[0]
    assert third[-1] == first[-1]
    assert tokens_of(encoder_samples(path, tokenizer, 32, 20)) == [first, second]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b" \n\n", "is empty"),
        (b"", "is empty"),
        (b"ab\xff", "byte 2"),
        (b"ab\xe2\x82", "byte 2"),
        (b"\xef\xbb\xbf", "is empty"),
    ],
)
def test_texts_that_are_none(tinylm: Path, tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=problem):
        list(decoder_samples(path, tokenization.from_directory(tinylm), 8))


def test_not_utf8_in_a_later_piece(monkeypatch: pytest.MonkeyPatch, minilm: Path, tmp_path: Path) -> None:
    monkeypatch.setattr("edgeq.calibration.text._PIECE_BYTES", 7)
    path = tmp_path / "bad.txt"
    path.write_bytes("grüß dich, Welt\n".encode() * 3 + b"\xff")
    with pytest.raises(InputError, match=r"is not UTF-8 \(byte 54\)"):
        list(encoder_samples(path, tokenization.from_directory(minilm), 32))


# Against llama.cpp.


class _Tensor(ctypes.Structure):
    """struct ggml_tensor of ggml/include/ggml.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
    )


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def silent(level: int, message: bytes, data: int) -> None:
    """llama.cpp keeps it after the test, so it must live as long."""


def llama_cpp_sums(path: Path, chunks: list[list[int]]) -> dict[str, Doubles]:
    """Sums of squares as llama-imatrix takes them: from a callback on each matrix product of llama.cpp."""
    llama_cpp = pytest.importorskip("llama_cpp")
    sums: dict[str, Doubles] = {}

    @llama_cpp.ggml_backend_sched_eval_callback
    def callback(address: int, ask: bool, data: int) -> bool:
        weight, x = (_Tensor.from_address(s or address) for s in _Tensor.from_address(address).src[:2])
        if not weight.name.startswith(b"blk.") or not weight.name.endswith(b".weight") or x.ne[1] < 16:
            return not ask
        if not ask:
            flat = np.ctypeslib.as_array(
                ctypes.cast(x.data, ctypes.POINTER(ctypes.c_float)), (x.ne[1], x.ne[0])
            )
            name = weight.name.decode()
            sums[name] = sums.get(name, np.zeros(x.ne[0])) + np.square(flat, dtype=np.float64).sum(axis=0)
        return True

    llama_cpp.llama_log_set(silent, None)
    parameters = llama_cpp.llama_model_default_params()
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
    options = llama_cpp.llama_context_default_params()
    options.n_ctx = options.n_batch = options.n_ubatch = len(chunks[0])
    options.type_k = options.type_v = 0  # F32: a cache of F16 rounds keys and values, flash attention too
    options.flash_attn_type = 0
    options.n_threads = options.n_threads_batch = 1
    options.cb_eval = callback
    context = llama_cpp.llama_init_from_model(model, options)
    batch = llama_cpp.llama_batch_init(len(chunks[0]), 0, 1)
    for chunk in chunks:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        batch.n_tokens = len(chunk)
        for i, token in enumerate(chunk):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
            batch.seq_id[i][0] = 0
        assert llama_cpp.llama_decode(context, batch) == 0
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return sums


def test_equals_llama_cpp(tinylm: Path, make_gguf: MakeGGUF, code_tokens: list[int]) -> None:
    chunks = [code_tokens[:64], code_tokens[64:128]]
    theirs = llama_cpp_sums(make_gguf(tinylm, "F32"), chunks)
    ours = collected(tinylm, chunks)
    assert set(theirs) == set(ours.entries)
    for name, sums in theirs.items():
        np.testing.assert_allclose(ours.entries[name].sums[0], sums, rtol=5e-5, err_msg=name)


@pytest.mark.parametrize(("quant", "number"), [("Q4_K_M", 15), ("Q5_K_S", 16), ("Q6_K", 18), ("Q4_0", 2)])
def test_llama_cpp_quantizes_with_it_to_our_bytes(
    tinylm: Path, tmp_path: Path, make_gguf: MakeGGUF, code_file: Path, quant: str, number: int
) -> None:
    """llama_model_quantize, given our file's weights as llama-quantize computes them, makes what we encode."""
    llama_cpp = pytest.importorskip("llama_cpp")
    llama_cpp.llama_log_set(silent, None)
    source, out = make_gguf(tinylm, "F16"), tmp_path / "imatrix.gguf"
    calibrate.run(calibrate.Request(tinylm, code_file, out, chunk_size=64, max_tokens=256, head=True))
    matrix = ImportanceMatrix.read(out)
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread = number, 2
    entry = llama_cpp.llama_model_imatrix_data
    weights = {name: matrix.importance(name) for name in matrix.entries}
    pointers = [
        entry(name.encode(), values.ctypes.data_as(ctypes.POINTER(ctypes.c_float)), values.size)
        for name, values in weights.items()
    ]
    parameters.imatrix = (entry * (len(pointers) + 1))(*pointers, entry(None, None, 0))
    target = tmp_path / "theirs.gguf"
    assert llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), parameters) == 0
    differs_without = 0
    with GGUFFile.open(source) as floats, GGUFFile.open(target) as theirs:
        coded = [info for info in theirs.tensors.values() if info.type_name not in ("F32", "F16")]
        assert len(coded) == 43
        for info in coded:
            values = floats.decode(info.name)
            ours = encode(info.type_name, values, weights[info.name])
            np.testing.assert_array_equal(ours, theirs.rows(info.name), err_msg=info.name)
            differs_without += not np.array_equal(encode(info.type_name, values), ours)
    assert differs_without > 40


def test_importance_is_what_llama_quantize_computes(tinylm: Path, tmp_path: Path, code_file: Path) -> None:
    """llama-quantize divides the file's float32 sums by its float32 counts."""
    gguf = pytest.importorskip("gguf")
    out = tmp_path / "imatrix.gguf"
    made = calibrate.run(calibrate.Request(tinylm, code_file, out, chunk_size=60, max_tokens=100)).matrix
    tensors = {t.name: t.data.ravel() for t in gguf.GGUFReader(out).tensors}
    for name in made.entries:
        theirs = tensors[name + ".in_sum2"] / tensors[name + ".counts"]
        np.testing.assert_array_equal(made.importance(name), theirs)
        np.testing.assert_array_equal(ImportanceMatrix.read(out).importance(name), theirs)
