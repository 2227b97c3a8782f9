"""``edgeq.load`` of ONNX files: they answer as the directory that they were made of."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeq
from edgeq.errors import EdgeqError, FormatError, InputError
from edgeq.onnx.sessions import write_config
from edgeq.source import COMPANIONS


def _beside(graph: Path, model: Path, target: Path) -> Path:
    """The graph as the Hub has it: in a folder called onnx, the small files of the model above."""
    (target / "onnx").mkdir(parents=True)
    for name in (*COMPANIONS, "modules.json", "1_Pooling/config.json"):
        if (model / name).is_file():
            (target / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(model / name, target / name)
    return Path(shutil.copyfile(graph, target / "onnx/model.onnx"))


def test_a_decoder(random_llama: Callable[[str], Path], make_onnx: Any, tmp_path: Path) -> None:
    folder = random_llama("untied")
    path = _beside(make_onnx(folder, "float32"), folder, tmp_path / "model")
    with edgeq.load(folder) as model, edgeq.load(path, threads=1) as graph:
        ids = graph.tokenizer.encode("def main(").ids
        np.testing.assert_allclose(graph.logits(ids), model.logits(ids), rtol=1e-3, atol=1e-3)
        assert graph.generate("def main(", 6) == model.generate("def main(", 6)
        with pytest.raises(InputError, match="embeds nothing"):
            graph.embed(["a"])
        with pytest.raises(InputError, match="no classifier"):
            graph.classify(["a"])
    (tmp_path / "model/tokenizer.json").unlink()
    with pytest.raises(FormatError, match="tokenizer"):
        edgeq.load(path)


def test_an_encoder(encoder_folder: Callable[[str], Path], make_onnx: Any, tmp_path: Path) -> None:
    folder = encoder_folder("bert")
    path = _beside(make_onnx(folder, "float32"), folder, tmp_path / "model")
    texts = ["a text", "and " * 3000]
    with edgeq.load(folder) as model, edgeq.load(path) as graph:
        ours, theirs = graph.embed(texts), model.embed(texts)
        cosines = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
        assert cosines.min() > 0.9999
        assert graph.embed([]).shape == (0, ours.shape[1])
        with pytest.raises(InputError, match="no decoder"):
            graph.generate("a")


def test_a_classifier(encoder_folder: Callable[[str], Path], make_onnx: Any, tmp_path: Path) -> None:
    folder = encoder_folder("bert-sequence")
    path = _beside(make_onnx(folder, "float32"), folder, tmp_path / "model")
    texts = ["a text", ("one", "and another")]
    with edgeq.load(folder) as model, edgeq.load(path) as graph:
        for ours, theirs in zip(graph.classify(texts), model.classify(texts), strict=True):
            assert ours == pytest.approx(theirs, abs=1e-4)


def test_session_options_are_heeded(
    encoder_folder: Callable[[str], Path], make_onnx: Any, tmp_path: Path
) -> None:
    folder = encoder_folder("bert")
    path = _beside(make_onnx(folder, "float32"), folder, tmp_path / "model")
    write_config(path, {"session.dynamic_block_base": "no number"})
    with pytest.raises(EdgeqError, match="cannot load"):
        edgeq.load(path)
