"""``PATTERN=TYPE``: what the user wants single layers of an ONNX file to be.

A type of rounded weights may say what shares a scale there: ``int8:tensor``, ``dynamic:channel``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgeq.errors import UsageError
from edgeq.formats.onnx.convolution import find_convolutions
from edgeq.formats.onnx.int8 import Granularity
from edgeq.formats.onnx.linear import find_linears
from edgeq.formats.onnx.placement import only_moves

_GRANULARITIES: dict[str, Granularity] = {"tensor": "tensor", "channel": "channel"}
FLOAT, INT8, INT16, DYNAMIC = "float", "int8", "int16", "dynamic"


@dataclass(frozen=True)
class NodeType:
    """One ``--node-type``; the first that matches a layer decides."""

    text: str
    pattern: re.Pattern[str]
    type_name: str
    granularity: Granularity | None = None  # None: that of the whole graph


@dataclass(frozen=True)
class Layer:
    """A node with constant weights: its name, what it reads, and all names that a pattern may match."""

    name: str
    activation: ir.Value
    convolution: bool
    transposed: bool
    names: tuple[str, ...]


def parse_node_types(texts: Iterable[str], allowed: Collection[str], quant: str) -> list[NodeType]:
    """Raises UsageError for what is no ``PATTERN=TYPE``, or has a type that the quant does not know."""
    return [_parsed(text, allowed, quant) for text in texts]


def _parsed(text: str, allowed: Collection[str], quant: str) -> NodeType:
    pattern, equals, type_name = text.rpartition("=")
    if not equals or not pattern:
        raise UsageError(f"--node-type {text}: must be PATTERN=TYPE, such as ffn_down=int16")
    kind, colon, granularity = type_name.lower().partition(":")
    if kind not in allowed:
        raise UsageError(f"--node-type {text}: for {quant} there are {', '.join(sorted(allowed))}")
    if colon and (granularity not in _GRANULARITIES or kind == FLOAT):
        raise UsageError(
            f"--node-type {text}: behind a type of rounded weights there may be :tensor or :channel"
        )
    try:
        return NodeType(text, re.compile(pattern), kind, _GRANULARITIES.get(granularity))
    except re.error as error:
        raise UsageError(f"--node-type {text}: is no regular expression ({error})") from None


def shown(kind: str, granularity: Granularity | None) -> str:
    """A type as the user writes it."""
    return kind if granularity is None else f"{kind}:{granularity}"


def find_layers(model: ir.Model) -> list[Layer]:
    """The convolutions and linear layers of a graph."""
    found = []
    for convolution in find_convolutions(model):
        node = convolution.node
        assert node.inputs[0] is not None
        x, weight = node.inputs[0], convolution.weight
        names = (str(node.name), str(x.name), str(weight.name))
        found.append(Layer(str(node.name), x, True, convolution.transposed, names))
    for linear in find_linears(model):
        names = (linear.name, str(linear.activation.name), str(linear.weight.name))
        found.append(Layer(linear.name, linear.activation, False, False, names))
    return found


def types_of(layers: Sequence[Layer], wanted: Sequence[NodeType]) -> dict[str, NodeType]:
    """What is wanted, by the name of each layer that a pattern matches.

    Raises UsageError for a pattern that decides about nothing.
    """
    found: dict[str, NodeType] = {}
    for one in wanted:
        matched = [layer for layer in layers if any(map(one.pattern.search, layer.names))]
        if not matched:
            raise UsageError(
                f"--node-type {one.text}: matches no convolution or linear layer with constant weights"
            )
        for layer in matched:
            _check(one, layer)
        new = [layer.name for layer in matched if layer.name not in found]
        if not new:
            raise UsageError(f"--node-type {one.text}: an earlier pattern decides about all that it matches")
        found |= dict.fromkeys(new, one)
    return found


def _check(one: NodeType, layer: Layer) -> None:
    """Raise UsageError for a type that a layer cannot have."""
    if one.type_name == DYNAMIC and layer.convolution:
        raise UsageError(
            f"--node-type {one.text}: {layer.name} is a convolution, and only linear layers can be dynamic"
        )
    if one.type_name != FLOAT and layer.transposed:
        raise UsageError(
            f"--node-type {one.text}: {layer.name} is a ConvTranspose, of which ONNX Runtime has only a float kernel"
        )


def wide_values(layers: Sequence[Layer], types: Mapping[str, str]) -> set[str]:
    """The names of the activations that int16 layers read, and of what only moves on the way there."""
    found = set()
    for layer in layers:
        if types.get(layer.name) != INT16:
            continue
        value: ir.Value | None = layer.activation
        while value is not None:
            found.add(str(value.name))
            producer = value.producer()
            value = producer.inputs[0] if producer is not None and only_moves(producer) else None
    return found
