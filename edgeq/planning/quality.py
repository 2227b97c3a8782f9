"""What a format costs in quality: as measured on this very model, else what is typical."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.devices.fields import read_toml
from edgeq.errors import FormatError

PATH = Path(__file__).with_name("typical_quality.toml")


@dataclass(frozen=True)
class Loss:
    """Mean KL divergence (decoders) or 1 − cosine (encoders) to float; ``source`` in words."""

    value: float
    measured: bool
    source: str


@functools.cache
def typical(kind: str) -> dict[tuple[str, str], Loss]:
    """(gguf or onnx, quant) → the loss that is typical of decoders or encoders."""
    top, found = read_toml(PATH), {}
    sources = {name: f"typical: {source.what} ({source.date})" for name, source in top.sources().items()}
    for target, by_source in top.table(kind).tables():
        for name, table in by_source.tables():
            if name not in sources:
                raise table.error("", "is no source")
            for quant in table:
                found[target, quant] = Loss(table.number(quant, 0, 100), False, sources[name])
    return found


def measured(records: list[Mapping[str, Any]]) -> dict[tuple[str, str], Loss]:
    """(gguf or onnx, quant) → the loss in the proofs of some exports (edgeq.json)."""
    found = {}
    for record in records:
        proof = record.get("proof")
        if not isinstance(proof, dict):
            continue
        value = proof.get("kl_mean")
        if value is None and isinstance(proof.get("cosine_mean"), int | float):
            value = 1 - proof["cosine_mean"]
        if isinstance(value, int | float):
            source = f"measured on {proof.get('text', 'a text')}"
            found[str(record.get("format")), str(record.get("quant"))] = Loss(float(value), True, source)
    return found


def exports_of(path: Path) -> list[Mapping[str, Any]]:
    """The exports in an edgeq.json; none where it is not there. Raises FormatError for another file."""
    from edgeq.planning.from_config import read_object

    if not path.is_file():
        return []
    exports = read_object(path).get("exports")
    if not isinstance(exports, list) or not all(isinstance(record, dict) for record in exports):
        raise FormatError(path, "is not edgeq's record", "give the edgeq.json that `edgeq export` wrote")
    return exports
