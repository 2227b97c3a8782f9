"""The runner with ONNX: texts and bare graphs, beside GGUF in one chain, and how they fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import tiny_gguf
from onnx_graphs import Tiny

from edgeq.apps.manifest import NAME
from edgeq.apps.pack import pack
from edgeq.apps.registry import find
from edgeq.deploy import DeployError, Failure, Runner
from edgeq.export import Request, run
from edgeq.formats.onnx.save import save_model

_PETABYTE = 2**48  # of float32


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Bundles of a graph that gives the roots of ``x``, ``n`` of them where it has one number."""
    b = Tiny()
    x, n = b.x("count"), b.input("n", ir.DataType.INT64, [1])
    b.output(b.op("Expand", b.op("Sqrt", x), n), "y", ir.DataType.FLOAT, ["many"])
    folder = tmp_path_factory.mktemp("roots")
    save_model(b.model("test"), folder / "roots.onnx", force=True)
    return lambda name: pack(folder / "roots.onnx", find("onnxruntime"), folder / name).folder


def _ask(runner: Runner, x: float, n: int) -> Any:
    return runner.ask("a", inputs={"x": [x], "n": [n]})


def test_a_graph_without_texts(roots: Callable[[str], Path], tmp_path: Path) -> None:
    """Its answer; then what is no number, what no memory holds, and what is no request of its."""
    with Runner([roots("new")], tmp_path / "state.json") as runner:
        assert _ask(runner, 9.0, 2).value == {"y": [3.0, 3.0]}
        for x, n, kind in ((-1.0, 1, Failure.nan), (1.0, _PETABYTE, Failure.memory)):
            with pytest.raises(DeployError) as caught:
                _ask(runner, x, n)
            assert [kind for _, kind in caught.value.tried] == [kind]
        with pytest.raises(DeployError, match="takes such a request"):
            runner.ask("a", prompt="a text")


def test_what_is_damaged_is_not_loaded(roots: Callable[[str], Path], tmp_path: Path) -> None:
    bad, good = roots("bad"), roots("good")
    content = (bad / "model.onnx").read_bytes()
    (bad / "model.onnx").unlink()  # it is linked to the source
    (bad / "model.onnx").write_bytes(content.replace(b"Sqrt", b"Sinh"))
    with Runner([bad, good], tmp_path / "state.json", most_failures=1) as runner:
        answer = _ask(runner, 9.0, 1)
        assert (answer.value, answer.tried[0][1]) == ({"y": [3.0]}, Failure.load)
        assert _ask(runner, 9.0, 1).tried == []  # given up


def test_texts_by_onnx_and_by_gguf_in_one_chain(tmp_path: Path) -> None:
    """A GGUF file with damaged weights, its ONNX, and the GGUF that was right: each gives way to the next."""
    good = tiny_gguf.write(tmp_path / "good.gguf")
    norm = tiny_gguf.tensors()["output_norm.weight"][1]
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(good.read_bytes().replace(norm.tobytes(), np.full_like(norm, np.nan).tobytes()))
    graph = run(Request(good, "onnx", "float32", tmp_path / "graph", proof=False)).path
    first, last = (pack(path, find("edgeq"), tmp_path / path.stem).folder for path in (bad, good))
    middle = pack(graph, find("onnxruntime"), tmp_path / "onnx").folder
    with Runner([first, middle, last], tmp_path / "state.json", most_failures=1) as runner:
        answer = runner.ask("a", prompt="t1 t2", max_tokens=4)
        assert (answer.model, [kind for _, kind in answer.tried]) == ("onnx/onnxruntime", [Failure.nan])
        (middle / NAME).write_text("{}")
    with Runner([first, middle, last], tmp_path / "state.json", most_failures=1) as runner:
        again = runner.ask("a", prompt="t1 t2", max_tokens=4)
        assert (again.model, [kind for _, kind in again.tried]) == ("good/edgeq", [Failure.load])
        assert again.value == answer.value
