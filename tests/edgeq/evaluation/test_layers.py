"""The per-layer view on a random llama of two layers."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.calibration.text import Text
from edgeq.errors import InputError, UsageError
from edgeq.evaluation.layers import look_at_layers, snr
from edgeq.formats.gguf.split import open_gguf
from edgeq.gguf_source import GGUFSource
from edgeq.report.by_layer import place_of
from edgeq.report.evaluation import layer_columns, layer_rows
from edgeq.report.layer_plot import layer_view
from edgeq.source import SourceModel

LINES = Text("lines", "\n".join(f"the house number {i} is old" for i in range(8)))
TEXT = Text("text", "import os\nfor name in os.listdir('.'):\n    print(name, len(name))\n" * 12)


@pytest.fixture(scope="module")
def layers(random_llama, make_gguf):
    folder = random_llama("untied")
    path = make_gguf(folder, "Q4_0")
    done: list[tuple[int, int]] = []
    found = look_at_layers(path, folder, TEXT, 32, lambda stage, i, n: done.append((i, n)))
    assert done == [(i, len(found)) for i in range(len(found))]
    return found, SourceModel.open(folder), GGUFSource(open_gguf(path))


def test_every_quantized_matrix_is_there(layers) -> None:
    found, base, _ = layers
    linears = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    expected = {f"blk.{i}.{name}.weight" for i in range(base.hp.n_layers) for name in linears}
    assert {one["name"] for one in found} == expected | {"token_embd.weight", "output.weight"}


def test_ratios_are_their_formulas(layers) -> None:
    found, base, own = layers
    for one in found:
        expected, values = base.array(one["name"]), own.array(one["name"])
        noise = np.square(values - expected, dtype=np.float64).sum()
        ratio = 10 * np.log10(np.square(expected, dtype=np.float64).sum() / noise)
        assert one["weight_snr"] == pytest.approx(ratio, rel=1e-6)
        assert 10 < one["weight_snr"] < 60
        assert one["kl_mean"] > 0


def test_outputs_lose_what_came_before_too(layers) -> None:
    """The first layer's inputs are nearly right, so its own error is most of it; the last layer's are not."""
    found, _, _ = layers
    by_name = {one["name"]: one for one in found}
    assert "output_snr" not in by_name["token_embd.weight"]  # no product: the head has its own matrix
    for name, one in by_name.items():
        if name != "token_embd.weight":
            assert one["output_snr"] <= one["own_snr"] + 1
    last = by_name["output.weight"]
    assert last["output_snr"] < last["own_snr"] - 1


def test_a_picture_of_every_layer(layers) -> None:
    svg = layer_view(layers[0])
    assert svg.startswith("<svg")
    assert "attn_output" in svg
    assert "token_embd" in svg


@pytest.mark.parametrize(
    ("name", "key", "best"), [("bert", "cosine_mean", 1), ("xlm-roberta-sequence", "kl_mean", 0)]
)
def test_encoders_too(encoder_folder, make_gguf, name: str, key: str, best: float) -> None:
    """An encoder's answers are its vectors, a classifier's its labels; the whole model loses more than one tensor."""
    folder = encoder_folder(name)
    found = look_at_layers(make_gguf(folder, "Q8_0"), folder, LINES, None, lambda stage, i, n: None)
    assert {one["name"].rpartition(".")[0] for one in found} >= {
        "blk.0.attn_q",
        "blk.1.ffn_down",
        "token_embd",
    }
    for one in found:
        assert 0 < abs(one[key] - best) < 0.01
        assert ("output_snr" in one) == ("token" not in one["name"])
    rows = layer_rows({"layers": found})
    assert [float(row[5]) for row in rows] == sorted((float(row[5]) for row in rows), reverse=True)
    assert layer_columns({"layers": found})[5] == ("1 - cosine alone" if best else "KL alone")
    assert "attn_q" in layer_view(found)


def test_what_cannot_be_compared(layers, random_llama, make_gguf, tmp_path) -> None:
    with pytest.raises(InputError, match="has no match in the reference"):
        look_at_layers(make_gguf(random_llama("untied"), "Q4_0"), random_llama("wide-heads"), TEXT, 32, print)
    graph = tmp_path / "model.onnx"
    graph.write_bytes(b"")
    with pytest.raises(UsageError, match="--layers compares a graph with a graph"):
        look_at_layers(graph, random_llama("untied"), TEXT, 32, print)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("blk.3.attn_q.weight", (3, "attn_q")),
        ("/encoder/layer.0/attention/self/query/MatMul", (0, "attention.self.query")),
        ("model.layers.11.mlp.down_proj.weight", (11, "mlp.down_proj")),
        ("token_embd.weight", None),
        ("onnx::MatMul_123", None),
    ],
)
def test_names_say_the_place(name: str, place: tuple[int, str] | None) -> None:
    assert place_of(name) == place


def test_decibels() -> None:
    assert snr(100, 1) == pytest.approx(20)
    assert snr(1, 0) == np.inf
    assert snr(0, 1) == -np.inf
