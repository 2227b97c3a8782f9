"""The float ONNX graphs in ONNX Runtime against the embedded engine; their names, and what they store."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import heldout
import numpy as np
import onnx

from edgeq import tokenization
from edgeq.engine import model as engine
from edgeq.evaluation.runtimes import OnnxRuntime
from edgeq.runtimes.onnxruntime import OnnxSession, encoder_feeds
from edgeq.source import SourceModel

MOST_LOGIT_DIFFERENCE = 1e-3
PROMPT, STEPS = 12, 20

MakeOnnx = Callable[..., Path]


def test_decoder_token_by_token(decoder_folder: Path, make_onnx: MakeOnnx, code_tokens: list[int]) -> None:
    tokens = code_tokens[: PROMPT + STEPS]
    expected = engine.open_model(decoder_folder).logits(tokens)
    runtime = OnnxRuntime(make_onnx(decoder_folder, "float32"), "none", threads=1)
    rows = [*runtime.window(tokens[:PROMPT]), *(runtime.step(token) for token in tokens[PROMPT:])]
    assert np.abs(np.stack(rows) - expected).max() <= MOST_LOGIT_DIFFERENCE


def test_decoder_from_an_empty_cache(
    decoder_folder: Path, make_onnx: MakeOnnx, code_tokens: list[int]
) -> None:
    """The very first token alone: one query, one key."""
    runtime = OnnxRuntime(make_onnx(decoder_folder, "float32"), "none", threads=1)
    rows = [runtime.window(code_tokens[:1])[0], runtime.step(code_tokens[1])]
    expected = engine.open_model(decoder_folder).logits(code_tokens[:2])
    assert np.abs(np.stack(rows) - expected).max() <= MOST_LOGIT_DIFFERENCE


def test_decoder_batch_with_left_padding(
    decoder_folder: Path, make_onnx: MakeOnnx, code_tokens: list[int]
) -> None:
    session = OnnxSession(make_onnx(decoder_folder, "float32"), threads=1)
    sequences = [code_tokens[:9], code_tokens[100:105]]
    ids, mask = np.zeros((2, 9), np.int64), np.zeros((2, 9), np.int64)
    for row, sequence in enumerate(sequences):
        ids[row, -len(sequence) :], mask[row, -len(sequence) :] = sequence, 1
    positions = np.maximum(mask.cumsum(axis=1) - 1, 0)  # as transformers counts them
    past = {name: value.repeat(2, axis=0) for name, value in session.empty_past().items()}
    feeds = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    first, *present = session.run(feeds | past, session.outputs)

    mask = np.pad(mask, ((0, 0), (0, 1)), constant_values=1)
    feeds = {"input_ids": np.array([[7], [8]]), "attention_mask": mask, "position_ids": positions[:, -1:] + 1}
    second, *_ = session.run(feeds | session.past_of(present), session.outputs)

    model = engine.open_model(decoder_folder)
    for row, sequence in enumerate(sequences):
        expected = model.logits([*sequence, 7 + row])
        ours = np.concatenate([first[row, -len(sequence) :], second[row]])
        assert np.isfinite(first[row]).all()
        assert np.abs(ours - expected).max() <= MOST_LOGIT_DIFFERENCE


def test_encoder_batch_with_right_padding(minilm: Path, make_onnx: MakeOnnx) -> None:
    session, model = OnnxSession(make_onnx(minilm, "float32"), threads=1), engine.open_model(minilm)
    tokenizer = tokenization.from_directory(minilm)
    sequences = [tokenizer.encode(text).ids for text in ("Short.", *heldout.sentences().test[:2])]
    hidden, pooled = session.run(encoder_feeds(sequences), ["last_hidden_state", "sentence_embedding"])
    for row, sequence in enumerate(sequences):
        expected = model.hidden(sequence)
        assert np.abs(hidden[row, : len(sequence)] - expected).max() <= MOST_LOGIT_DIFFERENCE
        unit = pooled[row] / np.linalg.norm(pooled[row])
        assert np.abs(unit - model.embed(sequence)).max() <= MOST_LOGIT_DIFFERENCE


def test_decoder_names_are_those_of_optimum(decoder_folder: Path, make_onnx: MakeOnnx) -> None:
    model = onnx.load(make_onnx(decoder_folder, "float32"))
    hp = SourceModel.open(decoder_folder).hp
    parts = [f"{layer}.{part}" for layer in range(hp.n_layers) for part in ("key", "value")]
    assert [value.name for value in model.graph.input] == [
        "input_ids",
        "attention_mask",
        "position_ids",
        *(f"past_key_values.{part}" for part in parts),
    ]
    assert [value.name for value in model.graph.output] == ["logits", *(f"present.{part}" for part in parts)]


def test_encoder_names_are_those_of_optimum(minilm: Path, make_onnx: MakeOnnx) -> None:
    model = onnx.load(make_onnx(minilm, "float32"))
    names = [value.name for value in model.graph.input]
    assert names == ["input_ids", "attention_mask", "token_type_ids"]
    assert [value.name for value in model.graph.output] == ["last_hidden_state", "sentence_embedding"]


def test_checker_accepts_the_decoder(decoder_folder: Path, make_onnx: MakeOnnx) -> None:
    onnx.checker.check_model(onnx.load(make_onnx(decoder_folder, "float32")), full_check=True)


def test_checker_accepts_the_encoder(minilm: Path, make_onnx: MakeOnnx) -> None:
    onnx.checker.check_model(onnx.load(make_onnx(minilm, "float32")), full_check=True)


def test_every_weight_is_stored_once(decoder_folder: Path, make_onnx: MakeOnnx) -> None:
    """A tied embedding too: what the graph has beyond the checkpoint's parameters is a few small constants."""
    model = onnx.load(make_onnx(decoder_folder, "float32"))
    stored = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    assert 0 <= stored - 4 * SourceModel.open(decoder_folder).parameters() < 2000


def test_the_float_export_needs_no_numba(random_llama: Callable[[str], Path], tmp_path: Path) -> None:
    script = f"""if True:
        import sys
        from pathlib import Path
        sys.modules["numba"] = None  # importing it raises ImportError
        from edgeq.calibration.text import Text
        from edgeq.convert import onnx_file
        from edgeq.convert.onnx_quants import QuantOptions
        from edgeq.source import SourceModel
        source = SourceModel.open({str(random_llama("bias"))!r})
        options = QuantOptions(Text("t", "def main(): return 1"), Path({str(tmp_path)!r}))
        onnx_file.write(source, "float32", Path({str(tmp_path)!r}) / "float32.onnx", options)
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["float32.onnx"]
