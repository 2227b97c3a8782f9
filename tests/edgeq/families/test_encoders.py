"""Every encoder family against transformers: the engine, the ONNX graph, the GGUF file in the engine and in llama.cpp.

Last hidden states of 128 tokens, and classifiers' logits. ``make oracle`` makes the golden values. The figures behind
each bar: ``pytest -rP``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import llama_probe
import numpy as np
import pytest
from numpy.typing import NDArray
from oracle import encoders, models

from edgeq.calibration.text import Text
from edgeq.convert import gguf_file
from edgeq.convert.gguf_sources import GGUFRows
from edgeq.engine import model as engine
from edgeq.engine.model import Model
from edgeq.errors import InputError
from edgeq.evaluation.metrics import cosines
from edgeq.families import HyperParameters
from edgeq.families.base import BY_MODEL_TYPE
from edgeq.formats.effort import Effort
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.inspection.gguf_check import check_gguf
from edgeq.runtimes.onnxruntime import OnnxSession, encoder_feeds
from edgeq.source import SourceModel

MOST_DIFFERENCE = 1e-3  # of the range of the golden values
LEAST_COSINE = 0.999
# The ranges of static int8 come from other tokens than those that are read.
MOST_INT8_DIFFERENCE, MOST_DYNAMIC_DIFFERENCE = 0.4, 0.1
# llama.cpp's graphs have no classifier of tokens, and DistilBERT's has another activation than theirs.
ONLY_ONNX = ("-tokens", "distilbert-sequence")
IN_GGUF = [name for name in encoders.MODELS if not name.endswith(ONLY_ONNX)]
# It knows the ends of texts by their names, and "[SEP]" is none of them; of WordPiece it asks no end. A file of its own
# converter is warned of in these words, too, and without the key it takes token 11.
WARNED = {
    "modernbert": ["load: special_eos_id is not in special_eog_ids - the tokenizer config may be incorrect"]
}

Folder = Callable[[str], Path]
MakeGGUF = Callable[[Path, str], Path]
MakeOnnx = Callable[..., Path]


def test_every_encoder_family_is_here() -> None:
    kinds = {family for family in BY_MODEL_TYPE.values() if family.kind == "encoder"}
    assert {BY_MODEL_TYPE[config["model_type"]] for config in encoders.MODELS.values()} == kinds


@pytest.mark.parametrize("name", encoders.MODELS)
def test_engine(name: str, encoder_folder: Folder) -> None:
    source = SourceModel.open(encoder_folder(name))
    assert [tensor for tensor in source.unused if "pooler" not in tensor] == []
    for keep in (True, False):
        _agree("engine", name, _answers(engine.from_source(source, keep), name))


@pytest.mark.parametrize("name", encoders.MODELS)
def test_onnx(name: str, encoder_folder: Folder, make_onnx: MakeOnnx) -> None:
    session = OnnxSession(make_onnx(encoder_folder(name), "float32"), threads=1)
    _agree("ONNX", name, np.concatenate([_run(session, [text])[0] for text in encoders.texts(name)]))


@pytest.mark.parametrize("name", encoders.MODELS)
def test_onnx_batch_with_right_padding(name: str, encoder_folder: Folder, make_onnx: MakeOnnx) -> None:
    session = OnnxSession(make_onnx(encoder_folder(name), "float32"), threads=1)
    tokens = encoders.tokens(name)
    texts = [tokens[:70], tokens[70:75], tokens[75:]]
    for text, together in zip(texts, _run(session, texts), strict=True):
        alone = _run(session, [text])[0]
        assert np.abs(together[: len(alone)] - alone).max() <= MOST_DIFFERENCE * np.ptp(
            models.golden_logits(name)
        )


def test_the_inputs_are_those_of_optimum(encoder_folder: Folder, make_onnx: MakeOnnx) -> None:
    both = ["input_ids", "attention_mask"]
    for name in encoders.MODELS:
        session = OnnxSession(make_onnx(encoder_folder(name), "float32"), threads=1)
        segments = ["token_type_ids"] if name.startswith(("bert", "nomic")) else []
        assert list(session.inputs) == both + segments
        assert session.outputs == (["logits"] if "-" in name.removeprefix("xlm-") else ["last_hidden_state"])


@pytest.mark.parametrize("name", IN_GGUF)
def test_gguf_in_the_engine(name: str, encoder_folder: Folder, make_gguf: MakeGGUF) -> None:
    """What the metadata say, and how the tensors lie, read back."""
    with GGUFFile.open(make_gguf(encoder_folder(name), "F32")) as file:
        model = engine.from_gguf(file)
        _agree("GGUF", name, _answers(model, name))
        assert model.hp.labels == SourceModel.open(encoder_folder(name)).hp.labels


@pytest.fixture(scope="module")
def in_llama_cpp(
    encoder_folder: Folder, make_gguf: MakeGGUF
) -> dict[str, tuple[NDArray[np.float32], list[str]]]:
    """What llama.cpp makes of each model in F16, and its warnings: one process for all."""
    pytest.importorskip("llama_cpp")
    jobs = [(make_gguf(encoder_folder(name), "F16"), encoders.texts(name)) for name in IN_GGUF]
    return dict(zip(IN_GGUF, llama_probe.probe_encoders(256, jobs), strict=True))


@pytest.mark.parametrize("name", IN_GGUF)
def test_gguf_in_llama_cpp(name: str, in_llama_cpp: dict[str, tuple[NDArray[np.float32], list[str]]]) -> None:
    answers, warnings = in_llama_cpp[name]
    assert warnings == WARNED.get(name.partition("-")[0], [])
    golden = models.golden_logits(name)
    if name.endswith("-sequence"):
        assert answers.shape == golden.shape
        difference = np.abs(answers - golden).max() / np.ptp(golden)
        print(f"llama.cpp, {name}: {difference:.1e}")
        assert difference <= 2 * MOST_DIFFERENCE  # F16, and its own GELU
    else:
        least = cosines(golden, answers).min()
        print(f"llama.cpp, {name}: least cosine {least:.6f}")
        assert least >= LEAST_COSINE


@pytest.mark.parametrize("name", IN_GGUF)
def test_the_check_finds_nothing(name: str, encoder_folder: Folder, make_gguf: MakeGGUF) -> None:
    assert check_gguf(make_gguf(encoder_folder(name), "F16"), lambda stage, done, total: None) == []


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def _silent(level: int, message: bytes, data: int) -> None:
    pass


@pytest.mark.parametrize("name", ["nomic_bert", "modernbert-sequence", "xlm-roberta-sequence"])
def test_quantized_bytes_are_llama_cpps(
    name: str, encoder_folder: Folder, make_gguf: MakeGGUF, tmp_path: Path
) -> None:
    """The classifier's matrices are quantized too; narrow ones fall back."""
    llama_cpp = pytest.importorskip("llama_cpp")
    llama_cpp.llama_log_set(_silent, None)
    source, theirs = make_gguf(encoder_folder(name), "F16"), tmp_path / "theirs.gguf"
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread = 15, 1  # LLAMA_FTYPE_MOSTLY_Q4_K_M
    assert llama_cpp.llama_model_quantize(str(source).encode(), str(theirs).encode(), parameters) == 0
    with GGUFFile.open(source) as file:
        rows, options = GGUFRows(file), gguf_file.WriteOptions(effort=Effort.ggml)
        gguf_file.write(rows, gguf_file.plan(rows, "Q4_K_M"), tmp_path / "ours.gguf", options)
    with GGUFFile.open(tmp_path / "ours.gguf") as ours, GGUFFile.open(theirs) as others:
        for tensor in others.tensors.values():
            assert (tensor.name, ours.info(tensor.name).type_name) == (tensor.name, tensor.type_name)
            assert np.array_equal(ours.rows(tensor.name), others.rows(tensor.name)), tensor.name


@pytest.mark.parametrize(
    ("name", "quant"),
    [("modernbert", "int8"), ("nomic_bert", "int8-dynamic"), ("xlm-roberta-sequence", "int8-dynamic")],
)
def test_int8(name: str, quant: str, encoder_folder: Folder, make_onnx: MakeOnnx) -> None:
    """Every linear layer, the classifier's among them, is found and answers much like the float model."""
    text = Text("rhyme", "the cat sat on the mat\nand the rat ran to the hat\n" * 10)
    path = make_onnx(encoder_folder(name), quant, text)
    session, golden = OnnxSession(path, threads=1), models.golden_logits(name)
    answers = np.concatenate([_run(session, [one])[0] for one in encoders.texts(name)])
    spread = np.sqrt(np.square(answers - golden).mean()) / golden.std()
    print(name, quant, spread)
    assert 0 < spread <= (MOST_INT8_DIFFERENCE if quant == "int8" else MOST_DYNAMIC_DIFFERENCE)


def test_a_classifier_says_labels(encoder_folder: Folder) -> None:
    model = engine.open_model(encoder_folder("bert-sequence"))
    tokens = encoders.tokens("bert-sequence")
    (scores,) = model.classify(tokens)
    logits = models.golden_logits("bert-sequence")[0].astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum()
    assert list(scores) == ["bad", "so so", "good"]
    assert list(scores.values()) == pytest.approx(expected.tolist(), abs=1e-4)
    assert model.hidden(tokens).shape == (len(tokens), 64)  # what the classifier reads
    by_token = engine.open_model(encoder_folder("bert-tokens")).classify(tokens)
    assert len(by_token) == len(tokens)
    assert sum(by_token[5].values()) == pytest.approx(1)
    (one,) = engine.open_model(encoder_folder("xlm-roberta-sequence")).classify(
        encoders.tokens("xlm-roberta")
    )
    golden = float(models.golden_logits("xlm-roberta-sequence")[0, 0])
    assert one == {"relevance": pytest.approx(1 / (1 + np.exp(-golden)), abs=1e-4)}
    plain = engine.open_model(encoder_folder("bert"))
    with pytest.raises(InputError, match="has no classifier"):
        plain.classify(tokens)
    regression = engine.open_model(encoder_folder("bert-sequence"))
    regression.hp = replace(regression.hp, label_scores="none")
    assert list(regression.classify(tokens)[0].values()) == pytest.approx(logits.tolist(), abs=1e-3)


def test_a_pair_of_texts(encoder_folder: Folder, make_onnx: MakeOnnx) -> None:
    """The second one's tokens are of another segment, in the graph as in the engine."""
    folder, tokens = encoder_folder("bert-sequence"), encoders.tokens("bert-sequence")[:40]
    segments = [0] * 25 + [1] * 15
    model = engine.open_model(folder)
    pair = model.class_logits(tokens, segments)
    feeds = encoder_feeds([tokens]) | {"token_type_ids": np.array([segments])}
    (logits,) = OnnxSession(make_onnx(folder, "float32"), threads=1).run(feeds, ["logits"])
    assert np.abs(pair - logits).max() <= 1e-4
    assert np.abs(pair - model.class_logits(tokens)).max() > 0.01
    for wrong in ([0] * 39, [2] * 40):
        with pytest.raises(InputError, match="0 to 1 of each of 40 tokens"):
            model.classify(tokens, wrong)
    (note,) = model.family.gguf_notes(model.hp)
    assert "every token as of the first segment" in note
    assert BY_MODEL_TYPE["roberta"].gguf_notes(_hp("xlm-roberta-sequence", encoder_folder)) == []


def test_more_tokens_than_positions(encoder_folder: Folder) -> None:
    """Of RoBERTa's 258 rows two are never used."""
    model = engine.open_model(encoder_folder("roberta"))
    assert model.hidden([5] * 256).shape == (256, 64)
    with pytest.raises(InputError, match="257 tokens are more than its 256 positions"):
        model.hidden([5] * 257)


def _hp(name: str, encoder_folder: Folder) -> HyperParameters:
    return SourceModel.open(encoder_folder(name)).hp


def _answers(model: Model, name: str) -> NDArray[np.float32]:
    """Hidden states or logits of the model's texts, one after the other."""
    answer = model.hidden if model.hp.head == "none" else model.class_logits
    return np.concatenate([answer(text) for text in encoders.texts(name)])


def _run(session: OnnxSession, texts: list[list[int]]) -> list[NDArray[np.float32]]:
    """The graph's only output for each text of a batch: ``[T or 1, C or labels]``."""
    (output,) = session.run(encoder_feeds(texts), session.outputs)
    return [row.reshape(-1, output.shape[-1]) for row in output]


def _agree(what: str, name: str, answers: NDArray[np.float32]) -> None:
    golden = models.golden_logits(name)
    difference = np.abs(answers - golden).max() / np.ptp(golden)
    print(f"{what}, {name}: {difference:.1e}")
    assert difference <= MOST_DIFFERENCE
