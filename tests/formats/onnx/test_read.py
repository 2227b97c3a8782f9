"""Reading any ONNX file: what is broken is refused in one line, what is only untidy is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import normal

from edgeq.formats.errors import FormatError
from edgeq.formats.onnx.read import read_model, tensors

W = normal(1, 16, 8)


def graph(nodes: list[onnx.NodeProto], *initializers: onnx.TensorProto, opset: int = 17) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    made = helper.make_graph(nodes, "g", [x], [y], list(initializers))
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def product() -> onnx.ModelProto:
    return graph([helper.make_node("MatMul", ["x", "w"], ["y"])], numpy_helper.from_array(W, "w"))


def external(folder: Path) -> Path:
    path = folder / "m.onnx"
    onnx.save(product(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    return path


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_is_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    external(tmp_path)
    monkeypatch.chdir(tmp_path)
    model = read_model(Path("m.onnx"))
    weight = model.graph.initializers["w"].const_value
    assert isinstance(weight, ir.ExternalTensor)
    np.testing.assert_array_equal(weight.numpy(), W)


def test_nodes_out_of_order_are_sorted(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["h"], ["y"]), helper.make_node("Neg", ["x"], ["h"])]
    assert [node.op_type for node in read_model(saved(graph(nodes), tmp_path)).graph] == ["Neg", "Relu"]


def test_every_constant_is_seen(tmp_path: Path) -> None:
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(W))], "i",
        [], [helper.make_tensor_value_info("c", TensorProto.FLOAT, None)],
    )  # fmt: skip
    flag = numpy_helper.from_array(np.array(True), "flag")
    model = graph([helper.make_node("If", ["flag"], ["y"], then_branch=inner, else_branch=inner)], flag)
    assert sorted(name for name, _ in tensors(read_model(saved(model, tmp_path)))) == ["c", "c", "flag"]


def truncated(folder: Path) -> Path:
    path = saved(product(), folder)
    path.write_bytes(path.read_bytes()[:-20])
    return path


def empty(folder: Path) -> Path:
    path = folder / "m.onnx"
    path.write_bytes(b"")
    return path


def text(folder: Path) -> Path:
    path = folder / "m.onnx"
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    return path


def cycle(folder: Path) -> Path:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"]),
             helper.make_node("Neg", ["b"], ["y"])]  # fmt: skip
    return saved(graph(nodes), folder)


def undefined(folder: Path) -> Path:
    return saved(graph([helper.make_node("Add", ["x", "nowhere"], ["y"], name="sum")]), folder)


def old_opset(folder: Path) -> Path:
    return saved(graph([helper.make_node("Relu", ["x"], ["y"])], opset=9), folder)


def short_tensor(folder: Path) -> Path:
    model = product()
    model.graph.initializer[0].dims[0] = 2**40
    return saved(model, folder)


def negative_shape(folder: Path) -> Path:
    model = product()
    model.graph.initializer[0].dims[:] = [-16, -8]
    return saved(model, folder)


def missing_data(folder: Path) -> Path:
    path = external(folder)
    (folder / "w.bin").unlink()
    return path


def short_data(folder: Path) -> Path:
    path = external(folder)
    (folder / "w.bin").write_bytes(b"\0" * 100)
    return path


def relocated(location: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = external(folder)
        model = onnx.load(path, load_external_data=False)
        (entry,) = [e for e in model.graph.initializer[0].external_data if e.key == "location"]
        entry.value = location
        path.write_bytes(model.SerializeToString())
        return path

    return make


def wrong_length(folder: Path) -> Path:
    path = external(folder)
    model = onnx.load(path, load_external_data=False)
    (entry,) = [e for e in model.graph.initializer[0].external_data if e.key == "length"]
    entry.value = "4"
    path.write_bytes(model.SerializeToString())
    return path


def of_nodes(*nodes: onnx.NodeProto) -> Callable[[Path], Path]:
    """A graph of these, with a product's weight."""

    def make(folder: Path) -> Path:
        return saved(graph(list(nodes), numpy_helper.from_array(W, "w")), folder)

    return make


def sparse(folder: Path) -> Path:
    model = graph([helper.make_node("MatMul", ["x", "s"], ["y"])])
    values, places = numpy_helper.from_array(W[0, :2], "s"), numpy_helper.from_array(np.array([3, 7]), "at")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [16, 8]))
    return saved(model, folder)


def calling(inputs: list[str], opset: int) -> Callable[[Path], Path]:
    """A graph of opset 17 that calls a function of one input."""

    def make(folder: Path) -> Path:
        body, opsets = [helper.make_node("Relu", ["a"], ["b"])], [helper.make_opsetid("", opset)]
        model = graph([helper.make_node("F", inputs, ["y"], domain="own")])
        model.functions.append(helper.make_function("own", "F", ["a"], ["b"], body, opsets))
        model.opset_import.append(helper.make_opsetid("own", 1))
        return saved(model, folder)

    return make


def no_type(folder: Path) -> Path:
    model = product()
    model.graph.initializer[0].data_type = 0
    return saved(model, folder)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (
            of_nodes(helper.make_node("Gemm", ["x"], ["y"], name="g")),
            "node g .Gemm. has 1 inputs, ONNX wants 2 or",
        ),
        (of_nodes(helper.make_node("Relu", ["x", "w"], ["y"])), "node y .Relu. has 2 inputs, ONNX wants 1"),
        (of_nodes(helper.make_node("MatMul", ["x", ""], ["y"])), "node y .MatMul. lacks its input B"),
        (of_nodes(helper.make_node("Relu", ["x"], [])), "has 0 outputs, ONNX wants 1"),
        (of_nodes(helper.make_node("Cast", ["x"], ["y"])), "node y .Cast. lacks its attribute to"),
        (
            of_nodes(helper.make_node("Relu", ["x"], ["y"], axis=1)),
            "attribute axis, which ONNX does not know",
        ),
        (of_nodes(helper.make_node("Softmax", ["x"], ["y"], axis="1")), "has axis as STRING, ONNX wants INT"),
        (of_nodes(helper.make_node("Relu", ["x"], ["z"])), "gives y, which nothing makes"),
        (of_nodes(helper.make_node("Constant", [], ["y"])), "node y .Constant. has 0 values, ONNX wants 1"),
        (sparse, "has a sparse weight, s, which edgeq does not read; store it as a plain initializer"),
        (calling(["x", "x"], 17), "node y .F. has 2 inputs, its function 1"),
        (calling(["x"], 18), "has ONNX opset 17, its function F 18"),
        (no_type, "tensor w is of no type"),
        (truncated, "is not a readable ONNX file"),
        (empty, "without a graph"),
        (text, "is not a readable ONNX file|without a graph"),
        (cycle, "has a graph with a cycle"),
        (undefined, "node sum reads nowhere, which nothing makes"),
        (old_opset, "has ONNX opset 9; export it again with one from 11 to 26"),
        (short_tensor, "tensor w has 512 values or bytes, its shape wants 35184372088832"),
        (negative_shape, r"tensor w has the shape \[-16, -8\]"),
        (missing_data, "tensor w lies in w.bin, which is missing"),
        (short_data, "tensor w ends after the end of w.bin"),
        (wrong_length, "tensor w has 4 bytes, not the 512 of its shape"),
        (relocated("../../etc/passwd"), "tensor w lies outside of the file's folder, at ../../etc/passwd"),
        (relocated("/etc/passwd"), "tensor w lies outside of the file's folder, at /etc/passwd"),
    ],
)
def test_broken_files(make: Callable[[Path], Path], problem: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=problem) as caught:
        read_model(make(tmp_path))
    assert len(str(caught.value).splitlines()) == 1


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder, secret = tmp_path / "model", tmp_path / "secret"
    folder.mkdir()
    path = external(folder)
    (folder / "w.bin").rename(secret)
    (folder / "w.bin").symlink_to(secret)
    with pytest.raises(FormatError, match="outside of the file's folder"):
        read_model(path)
