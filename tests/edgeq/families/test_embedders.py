"""sentence-transformers directories with a decoder, or with dense layers after the pooling, against golden vectors.

The golden vectors are PyTorch's, by ``make oracle``: what sentence-transformers' modules make of the hidden states.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_probe
import numpy as np
import pytest
from numpy.typing import NDArray
from oracle import embedders, models, tokenizer

import edgeq
from edgeq.calibration.text import Text
from edgeq.convert.checkpoint_rows import CheckpointRows
from edgeq.engine import model as engine
from edgeq.errors import EdgeqError, FormatError, InputError
from edgeq.evaluation.metrics import cosines
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.inspection.gguf_check import check_gguf
from edgeq.runtimes.onnxruntime import OnnxSession, encoder_feeds
from edgeq.source import SourceModel

MOST_DIFFERENCE = 1e-3  # of the range of the golden values
# llama.cpp's graphs of these have no layers after the pooling.
ONLY_ONNX = ("mistral-embedder", "bert-embedder")
IN_GGUF = [name for name in embedders.MODELS if name not in ONLY_ONNX]

Folder = Callable[[str], Path]


@pytest.fixture(scope="module")
def embedder_folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The directory of one of ``oracle.embedders``, written once."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            embedders.write_checkpoint(made[name], name, models.stored_shapes()[name])
            tokenizer.write(made[name], models.VOCAB)
        return made[name]

    return make


@pytest.fixture
def damaged(embedder_folder: Folder, tmp_path: Path) -> Path:
    """A copy of the BERT with two dense layers."""
    return Path(shutil.copytree(embedder_folder("bert-embedder"), tmp_path / "model"))


@pytest.mark.parametrize("name", embedders.MODELS)
def test_engine(name: str, embedder_folder: Folder) -> None:
    model = engine.open_model(embedder_folder(name))
    _agree("engine", name, [model.embed(text) for text in embedders.texts(name)])
    with pytest.raises(InputError, match="is an encoder; it embeds text and generates none"):
        model.logits([5, 6])


@pytest.mark.parametrize("name", embedders.MODELS)
def test_onnx(name: str, embedder_folder: Folder, make_onnx: Any) -> None:
    """One by one and in a batch, padded on either side."""
    session = OnnxSession(make_onnx(embedder_folder(name), "float32"), threads=1)
    assert list(session.inputs)[:2] == ["input_ids", "attention_mask"]
    assert session.outputs == ["last_hidden_state", "sentence_embedding"]
    texts, output = embedders.texts(name), ["sentence_embedding"]
    _agree("ONNX", name, [session.run(encoder_feeds([text]), output)[0][0] for text in texts])
    right = encoder_feeds(texts)
    _agree("ONNX, padded behind", name, session.run(right, output)[0])
    if name != "bert-embedder":  # whose positions count from the left edge
        left = {key: np.zeros_like(value) for key, value in right.items()}
        for row, text in enumerate(texts):
            left["input_ids"][row, -len(text) :] = text
            left["attention_mask"][row, -len(text) :] = 1
        _agree("ONNX, padded before", name, session.run(left, output)[0])


@pytest.mark.parametrize("name", IN_GGUF)
def test_gguf(name: str, embedder_folder: Folder, make_gguf: Any) -> None:
    path = make_gguf(embedder_folder(name), "F16")
    assert check_gguf(path, lambda stage, done, total: None) == []
    texts = embedders.texts(name)
    with GGUFFile.open(path) as file:
        _agree("GGUF", name, [engine.from_gguf(file).embed(text) for text in texts])
    pytest.importorskip("llama_cpp")
    ((vectors, warnings),) = llama_probe.probe_encoders(256, [(path, texts)])
    assert warnings == []
    least = cosines(models.golden_logits(name), vectors).min()
    print(f"llama.cpp, {name}: least cosine {least:.7f}")
    assert least >= 0.9999


def test_a_decoder_as_llama_cpp_reads_it(embedder_folder: Folder) -> None:
    keys = CheckpointRows(SourceModel.open(embedder_folder("qwen3-embedder"))).metadata()
    assert keys["qwen3.pooling_type"] == 3  # LLAMA_POOLING_TYPE_LAST
    assert "output.weight" not in SourceModel.open(embedder_folder("qwen3-embedder")).specs


@pytest.mark.parametrize("name", ONLY_ONNX)
def test_a_dense_that_gguf_has_not(name: str, embedder_folder: Folder) -> None:
    rows = CheckpointRows(SourceModel.open(embedder_folder(name)))
    with pytest.raises(InputError, match="2_Dense is a Dense, which llama"):
        rows.metadata()


def test_a_dense_that_gemmas_graph_has_not(embedder_folder: Folder, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(embedder_folder("gemma3-embedder"), tmp_path / "model"))
    _edit(folder / "3_Dense/config.json", activation_function="torch.nn.modules.activation.Tanh")
    rows = CheckpointRows(SourceModel.open(folder))
    with pytest.raises(InputError, match="gemma-embedding graph has two Dense after the pooling"):
        rows.metadata()


def test_prompts(embedder_folder: Folder, tmp_path: Path) -> None:
    """As sentence-transformers' ``encode`` takes them: by name, else the default."""
    folder = Path(shutil.copytree(embedder_folder("qwen3-embedder"), tmp_path / "model"))
    with edgeq.load(folder) as model:
        plain, asked = model.embed(["a rat", "find: a rat"])
        with pytest.raises(InputError, match=r"has no prompt 'query'; it has none"):
            model.embed(["a rat"], prompt="query")
        prompts = folder / "config_sentence_transformers.json"
        prompts.write_text(json.dumps({"prompts": {"query": "find: ", "document": ""}}))
        assert np.array_equal(model.embed(["a rat"]), [plain])
        assert np.array_equal(model.embed(["a rat"], prompt="query"), [asked])
        _edit(prompts, default_prompt_name="query")
        assert np.array_equal(model.embed(["a rat"]), [asked])
        assert np.array_equal(model.embed(["a rat"], prompt="document"), [plain])
        _edit(prompts, prompts=["find: "])
        with pytest.raises(FormatError, match="prompts must give each name"):
            model.embed(["a rat"])


def test_a_long_text_is_read_in_pieces(embedder_folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    model, name = engine.open_model(embedder_folder("mistral-embedder")), "mistral-embedder"
    monkeypatch.setattr(engine, "_CHUNK", 50)
    _agree("engine in pieces", name, [model.embed(text) for text in embedders.texts(name)])


@pytest.mark.parametrize(("name", "quant"), [("qwen3-embedder", "int8-dynamic"), ("bert-embedder", "int4")])
def test_quantized(name: str, quant: str, embedder_folder: Folder, make_onnx: Any) -> None:
    """Calibration reads sentences, and the layers after the pooling are quantized with the others."""
    text = Text("rhyme", "the cat sat on the mat\nand the rat ran to the hat\n" * 10)
    session = OnnxSession(make_onnx(embedder_folder(name), quant, text), threads=1)
    vectors = session.run(encoder_feeds(embedders.texts(name)), ["sentence_embedding"])[0]
    assert 0.8 <= cosines(models.golden_logits(name), vectors).min() < 1


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("2_Dense/config.json", {"in_features": 63}, "in_features 63 must be 64, the width of what it reads"),
        ("2_Dense/config.json", {"in_features": True}, "in_features must be a positive integer, not True"),
        ("2_Dense/config.json", {"out_features": 47}, "out_features|in_features 48 must be 47"),
        ("3_Dense/config.json", {"out_features": 2**40}, "out_features must be a positive integer"),
        ("3_Dense/config.json", {"bias": 1}, "bias must be true or false, not 1"),
        ("3_Dense/config.json", {"activation_function": "my.Own"}, "activation_function 'my.Own' is not one"),
        ("3_Dense/config.json", {"module_input_name": "token_embeddings"}, "module_input_name must be sentence"),
        ("3_Dense/config.json", {"use_residual": True}, "use_residual is set"),
        ("2_Dense/config.json", None, "cannot be read"),
        ("2_Dense/model.safetensors", None, "2_Dense: has neither model.safetensors nor"),
    ],
)  # fmt: skip
def test_a_bad_dense(file: str, change: dict[str, Any] | None, said: str, damaged: Path) -> None:
    if change is None:
        (damaged / file).unlink()
    else:
        _edit(damaged / file, **change)
    with pytest.raises(EdgeqError, match=said) as caught:
        SourceModel.open(damaged)
    assert "_Dense" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_dense_of_other_weights(damaged: Path) -> None:
    """Its config says one width, its file another; a file of PyTorch's is not read."""
    _edit(damaged / "3_Dense/config.json", out_features=31)
    with pytest.raises(
        FormatError, match=r"3_Dense/model.safetensors: tensor 3_Dense/linear.weight has shape"
    ):
        SourceModel.open(damaged)
    (damaged / "3_Dense/model.safetensors").rename(damaged / "3_Dense/pytorch_model.bin")
    with pytest.raises(FormatError, match="3_Dense: has only pickle files"):
        SourceModel.open(damaged)


@pytest.mark.parametrize(
    ("order", "said"), [((0, 2, 1), "before the pooling"), ((0, 1, 4, 2), "after a Normalize")]
)
def test_a_dense_elsewhere(order: tuple[int, ...], said: str, damaged: Path) -> None:
    listed = json.loads((damaged / "modules.json").read_text())
    (damaged / "modules.json").write_text(json.dumps([listed[i] for i in order]))
    with pytest.raises(FormatError, match=f"modules.json: module . is a Dense {said}"):
        SourceModel.open(damaged)


def _edit(file: Path, **change: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | change))


def _agree(what: str, name: str, vectors: list[NDArray[np.float32]] | NDArray[np.float32]) -> None:
    golden = models.golden_logits(name)
    difference = np.abs(np.stack(list(vectors)) - golden).max() / np.ptp(golden)
    print(f"{what}, {name}: {difference:.1e}")
    assert difference <= MOST_DIFFERENCE
