"""What a graph's first nodes say of its inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from foreign_graphs import branches, loaded, node
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import normal

from edgeq.calibration.inputs import Input, inputs_of

KERNEL = {"k": normal(1, 4, 3, 3, 3)}


def first(
    nodes: list[onnx.NodeProto], shape: list[int | str], constants: dict[str, Any], kind: int = 1
) -> Input:
    """The graph's input ``x`` as it is seen."""
    x, y = (helper.make_tensor_value_info(*one) for one in (("x", kind, shape), ("y", 0, None)))
    weights = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    return inputs_of(loaded(helper.make_model(helper.make_graph(nodes, "g", [x], [y], weights))))[0]


def picture(*before: onnx.NodeProto, **constants: Any) -> Input:
    return first([*before, node("Conv", ["h", "k"], ["y"])], ["n", 3, 8, 8], KERNEL | constants)


def test_roles_of_floats() -> None:
    assert picture(node("Identity", ["x"], ["h"])).role == "picture"
    assert picture(node("Div", ["x", "d"], ["h"]), d=np.float32(255)).role == "pixels"
    assert picture(node("Mul", ["x", "d"], ["h"]), d=np.float32(1 / 255)).role == "pixels"
    assert picture(node("Sub", ["x", "d"], ["h"]), d=normal(1, 3, 1, 1) + np.float32(120)).role == "pixels"
    assert picture(node("Sub", ["x", "d"], ["h"]), d=np.float32(0.5)).role == "picture"
    assert picture(node("Relu", ["x"], ["h"])).role == "numbers"
    roles = {entry.name: entry.role for entry in inputs_of(loaded(branches()))}
    assert roles == {"x": "sound", "sr": "numbers", "h0": "state", "c0": "state"}


@pytest.mark.parametrize(
    ("made", "rows", "choices"),
    [
        ([node("Gather", ["t", "x"], ["y"])], 9, ()),
        ([node("Gather", ["t", "x"], ["a"], axis=1), node("Gather", ["t", "x"], ["y"])], 4, ()),
        ([node("Gather", ["x", "i"], ["y"])], 0, ()),
        ([node("OneHot", ["x", "depth", "off_on"], ["y"])], 6, ()),
        ([node("Equal", ["x", "depth"], ["y"])], 0, (6,)),
        ([node("Cast", ["x"], ["a"], to=1), node("Greater", ["a", "half"], ["b"]),
          node("Less", ["a", "two"], ["y"])], 0, (2,)),
    ],
)  # fmt: skip
def test_tables_and_choices_of_integers(
    made: list[onnx.NodeProto], rows: int, choices: tuple[int, ...]
) -> None:
    constants = {
        "t": normal(1, 9, 4), "i": np.array(0), "depth": np.array(6), "off_on": np.array([0, 1]),
        "half": np.float32(0.5), "two": np.float32(2),
    }  # fmt: skip
    used = {name: constants[name] for one in made for name in one.input if name in constants}
    entry = first(made, ["n"], used, TensorProto.INT64)
    assert (entry.rows, entry.choices) == (rows, choices)
