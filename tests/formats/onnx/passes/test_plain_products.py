"""Gemm and Einsum as plain products: the answer stays, and they are linear layers then."""

from __future__ import annotations

from typing import Any

import pytest
from foreign_graphs import answers, loaded, node, proto
from onnx_graphs import counts, error, normal

from edgeq.formats.onnx.linear import find_linears
from edgeq.formats.onnx.passes.plain_products import plain_products


@pytest.mark.parametrize(
    ("trans_a", "alpha", "beta", "bias", "rewritten"),
    [
        (0, 1.0, 1.0, "c", False),
        (0, 0.5, 2.0, "c", True),
        (1, 1.0, 1.0, "c", True),
        (1, 0.5, 3.0, "", True),
        (0, 0.5, 2.0, "x2", False),  # no constant
    ],
)
def test_gemm(trans_a: int, alpha: float, beta: float, bias: str, rewritten: bool) -> None:
    shape: list[int | str] = [16, "n"] if trans_a else ["n", 16]
    constants = {"w": normal(1, 8, 16), "c": normal(2, 8)}
    one = node(
        "Gemm", ["x", "w", *([bias] if bias else [])], ["y"], transA=trans_a, transB=1, alpha=alpha, beta=beta
    )
    inputs: dict[str, Any] = {"x": shape} | ({"x2": ["n", 8]} if bias == "x2" else {})
    source = proto([one], inputs, {"y": 2}, constants)
    feeds = {"x": normal(3, *((16, 5) if trans_a else (5, 16)))}
    feeds |= {"x2": normal(4, 5, 8)} if bias == "x2" else {}
    model = loaded(source)
    assert plain_products(model) == rewritten
    assert error(answers(model, **feeds), answers(source, **feeds)) <= 1e-5
    assert len(list(find_linears(model))) == (bias != "x2")


@pytest.mark.parametrize(
    ("equation", "shape", "weight", "rewritten"),
    [
        ("bth,ho->bto", (2, 3, 16), (16, 8), True),
        ("b t h, o h -> b t o", (2, 3, 16), (8, 16), True),
        ("...h,ho->...o", (2, 3, 16), (16, 8), True),
        ("bht,ho->bot", (2, 16, 3), (16, 8), False),
        ("bth,ho->bot", (2, 3, 16), (16, 8), False),
        ("bth,hh->bth", (2, 3, 16), (16, 16), False),
        ("bth,to->bho", (2, 3, 16), (3, 8), False),
    ],
)
def test_einsum(equation: str, shape: tuple[int, ...], weight: tuple[int, ...], rewritten: bool) -> None:
    one = node("Einsum", ["x", "w"], ["y"], equation=equation)
    source = proto([one], {"x": shape}, {"y": 3}, {"w": normal(1, *weight)})
    model, x = loaded(source), normal(2, *shape)
    assert plain_products(model) == rewritten
    assert counts(model)["Einsum"] == (not rewritten)
    assert error(answers(model, x=x), answers(source, x=x)) <= 1e-5
