"""``--ort``: the file for mobile builds loads, answers as the graph does, and its operators are listed."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort
import pytest
from foreign_graphs import saved, small_cnn
from onnx_graphs import error, normal

from edgeq.errors import OutputExistsError
from edgeq.onnx import Request, quantize, session
from edgeq.runtimes.ort_format import required_operators, write_ort

DATA = [{"x": normal(i, 2, 3, 12, 12)} for i in range(8)]


@pytest.mark.parametrize("quant", ["int8", "int8-dynamic", "float16", "float8"])
def test_the_file_answers_as_the_graph(quant: str, tmp_path: Path) -> None:
    source = saved(small_cnn(), tmp_path / "cnn.onnx")
    record = quantize(Request(source, tmp_path / "out", quant, DATA, ort=True, allow_slower=True))
    mobile = record["ort"]
    target, config = (tmp_path / "out" / name for name in mobile["files"])
    assert {str(target), str(config)} <= set(record["files"])
    assert target.suffix == ".ort"
    assert mobile["closeness"] >= 0.9999
    assert mobile["bytes"] == target.stat().st_size
    graph, answers = session(record["files"][0]), ort.InferenceSession(target)
    assert error(answers.run(None, DATA[0]), graph.run(None, DATA[0])) <= 1e-5
    assert target.stat().st_size <= 1.25 * Path(record["files"][0]).stat().st_size + 20_000
    names = {name for found in mobile["operators"].values() for name in found}
    assert {"Conv", "QLinearConv", "FusedConv"} & names
    assert str(tmp_path) not in config.read_text("utf-8")


def test_the_list_of_operators(tmp_path: Path) -> None:
    config = tmp_path / "a.config"
    config.write_text(
        '# of a\nai.onnx;13;Add{"inputs": {"0": ["float", "int64_t"]}},Conv\ncom.microsoft;1;Gelu\n'
    )
    assert required_operators(config) == {"ai.onnx;13": ["Add", "Conv"], "com.microsoft;1": ["Gelu"]}


def test_nothing_is_replaced_without_force(tmp_path: Path) -> None:
    source = saved(small_cnn(), tmp_path / "cnn.onnx")
    write_ort(source, {}, force=False)
    with pytest.raises(OutputExistsError):
        write_ort(source, {}, force=False)
    assert len(write_ort(source, {}, force=True)) == 2
