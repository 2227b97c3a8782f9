"""Methods on both kinds of grids, and through the commands: less error in what layers give, at the same size."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import heldout
import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from edgeq.calibration.grams import GramCollector, read_in_groups
from edgeq.calibration.samples import Calibration
from edgeq.cli import app
from edgeq.engine import model as engine
from edgeq.errors import EdgeqError, UsageError
from edgeq.formats.blocks import by_name
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.formats.onnx.blocked import Scheme
from edgeq.methods import METHODS, BlockGrid, IntegerGrid, Statistics
from edgeq.source import SourceModel

TINYLM = Path(heldout.__file__).parent / "assets" / "tinylm"
NAME = "blk.0.attn_q.weight"


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    """Five thousand tokens."""
    path = tmp_path_factory.mktemp("calibration") / "code.txt"
    path.write_text(heldout.code()[:16_000], encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def shallow(tmp_path_factory) -> Path:
    """TinyLM's first two layers: they still tell one token from another, and calibrate in a third of the time."""
    folder = tmp_path_factory.mktemp("shallow")
    for path in TINYLM.iterdir():
        if path.suffix == ".json":
            shutil.copyfile(path, folder / path.name)
    config = json.loads((TINYLM / "config.json").read_text()) | {"num_hidden_layers": 2}
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(TINYLM / "model.safetensors")
    above = tuple(f"model.layers.{i}." for i in range(2, 100))
    kept = {name: values for name, values in tensors.items() if not name.startswith(above)}
    save_file(kept, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def model() -> engine.Model:
    return engine.open_model(TINYLM)


@pytest.fixture(scope="module")
def gram(model: engine.Model, text: Path) -> Statistics:
    """Of the first layer's queries, damped."""
    collector = GramCollector(lambda name: name == NAME)
    model.observe(SourceModel.open(TINYLM).tokenizer().encode(text.read_text()).ids[:700], collector)
    return collector.statistics("TinyLM")[NAME]


def output_error(weights: np.ndarray, values: np.ndarray, statistics: Statistics) -> float:
    difference = (weights - values).astype(np.float64)
    return float(np.sum(difference @ statistics.damped() * difference))


@pytest.mark.parametrize("name", ["Q4_K", "Q2_K", "Q4_0"])
def test_feedback_is_better_than_weights_alone_and_descent_better_still(
    model: engine.Model, gram: Statistics, name: str
):
    weights, grid = model.weights.vector(NAME)[:64], BlockGrid(name)
    errors = {}
    for method in ("nearest", "importance", "clip", "gptq", "descent"):
        encoded = grid.pack(METHODS[method](weights, gram, grid))
        errors[method] = output_error(weights, by_name(name).decode(encoded, weights.shape[1]), gram)
    assert errors["clip"] < 0.95 * min(errors["nearest"], errors["importance"]), errors
    assert errors["descent"] < errors["gptq"] < 0.8 * errors["clip"], errors


@pytest.mark.parametrize("symmetric", [True, False])
def test_descent_on_integers_of_onnx(model: engine.Model, gram: Statistics, symmetric: bool):
    weights, grid = model.weights.vector(NAME)[:64], IntegerGrid(Scheme(4, 32, symmetric))
    found = {name: METHODS[name](weights, gram, grid) for name in ("nearest", "clip", "descent")}
    errors = {name: output_error(weights, p.values(grid.lattice), gram) for name, p in found.items()}
    assert errors["descent"] < 0.75 * errors["clip"] < 0.7 * errors["nearest"]
    integers = grid.integers(found["descent"])
    np.testing.assert_allclose(integers.values(), found["descent"].values(grid.lattice), rtol=1e-6, atol=1e-9)


def test_a_type_without_numbers_of_its_own_is_refused():
    with pytest.raises(EdgeqError, match="MXFP4: its codes cannot be chosen one by one"):
        BlockGrid("MXFP4")


def test_layers_come_in_order_and_read_what_was_replaced(model: engine.Model):
    samples = [[1, 2, 3, 4, 5, 6, 7, 8], [9, 8, 7, 6]]
    groups = []
    for (statistics, _), replace in read_in_groups(model, samples, lambda name: name.endswith(".weight")):
        groups.append(statistics)
        if len(groups) == 1:
            replace("blk.0.ffn_down.weight", np.zeros((256, 768), np.float32))
            replace("blk.0.attn_output.weight", np.zeros((256, 256), np.float32))
    assert len(groups) == model.hp.n_layers + 1
    first, last = groups[0], groups[-1]
    assert first["blk.0.attn_q.weight"] is first["blk.0.attn_k.weight"] is first["blk.0.attn_v.weight"]
    assert first["blk.0.ffn_up.weight"].tokens == 12
    assert set(last) == {"token_embd.weight"}
    # Nothing was added in the first layer, so the second reads the embeddings: layer 1's norm is all between them.
    rows = np.concatenate([model.weights.picked("token_embd.weight", np.array(s)) for s in samples])
    normed = rows / np.sqrt(np.square(rows).mean(axis=1, keepdims=True) + np.float32(model.hp.norm_eps))
    normed = normed * model.weights.vector("blk.1.attn_norm.weight")
    np.testing.assert_allclose(groups[1]["blk.1.attn_q.weight"].gram, normed.T @ normed, rtol=1e-3, atol=1e-3)


def test_samples_come_from_all_over_the_text_and_keep_their_distance(model: engine.Model, text: Path):
    tokenizer = SourceModel.open(TINYLM).tokenizer()
    warnings: list[str] = []
    all_of_it = Calibration(text).samples(model, tokenizer)
    later = Calibration(text, skip=1024, warn=warnings.append).samples(model, tokenizer)
    assert later == all_of_it[2:]
    assert not warnings
    assert Calibration(text, skip=10**6, warn=warnings.append).samples(model, tokenizer) == all_of_it
    assert len(warnings) == 1


@pytest.fixture(scope="module")
def quantized(shallow: Path, text: Path, tmp_path_factory) -> tuple[Path, Path]:
    """The model in Q2_K, at ggml's effort and calibrated."""
    folder = tmp_path_factory.mktemp("quantized")
    for name, options in (("ggml", ["--effort", "ggml"]), ("best", ["--calibration", str(text)])):
        done = CliRunner().invoke(
            app, ["quantize", str(shallow), "-o", str(folder / f"{name}.gguf"), "-q", "Q2_K_S", *options]
        )
        assert done.exit_code == 0, done.output
    return folder / "ggml.gguf", folder / "best.gguf"


def test_a_calibrated_file_has_the_same_tensors_and_half_the_divergence(
    quantized: tuple[Path, Path], shallow: Path
):
    tokens = SourceModel.open(TINYLM).tokenizer().encode(heldout.code()[60_000:63_000]).ids[:512]
    expected = engine.open_model(shallow).logits(tokens)
    divergences = []
    for path in quantized:
        with GGUFFile.open(path) as file:
            kinds = {name: info.type_name for name, info in file.tensors.items()}
            logits = engine.from_gguf(file).logits(tokens)
        divergences.append(kl(expected, logits))
    with GGUFFile.open(quantized[0]) as file:
        assert kinds == {name: info.type_name for name, info in file.tensors.items()}
    with GGUFFile.open(quantized[1]) as file:
        assert file.metadata["quantize.calibration.method"] == "descent"
    assert divergences[1] < 0.5 * divergences[0], divergences


def kl(expected: np.ndarray, logits: np.ndarray) -> float:
    p, q = (x - np.logaddexp.reduce(x, axis=-1, keepdims=True) for x in (expected, logits))
    return float((np.exp(p) * (p - q)).sum(axis=-1).mean())


def test_onnx_holds_the_chosen_integers(shallow: Path, text: Path, tmp_path: Path):
    options = ["--effort", "best", "--calibration", str(text), "--no-proof", "--dialect", "ort"]
    done = CliRunner().invoke(
        app, ["export", str(shallow), "--to", "onnx", "-q", "int4", "-o", str(tmp_path), *options]
    )
    assert done.exit_code == 0, done.output
    notes = json.loads((tmp_path / "edgeq.json").read_text())["exports"][0]["notes"]
    assert any("chosen on" in note and "descent" in note for note in notes), notes
    graph = onnx.load(tmp_path / "model_q4.onnx").graph
    sizes = {
        a.i
        for node in graph.node
        if node.op_type == "MatMulNBits"
        for a in node.attribute
        if a.name == "block_size"
    }
    assert sizes == {32}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--effort", "normal"], "--calibration goes with --effort best"),
        (["--imatrix", "some.gguf"], "give one of them"),
    ],
)
def test_options_that_do_not_go_together(text: Path, tmp_path: Path, options: list[str], message: str):
    arguments = ["quantize", str(TINYLM), "-o", str(tmp_path / "x.gguf"), "-q", "Q4_0"]
    done = CliRunner().invoke(app, [*arguments, "--calibration", str(text), *options])
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)
