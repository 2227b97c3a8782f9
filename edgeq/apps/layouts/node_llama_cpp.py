"""node-llama-cpp (Node, Electron): the quant in the file's name; of shards the first is the one to load.

Source: node-llama-cpp 3, ``parseModelFileName`` and ``resolveSplitGgufParts``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgeq.apps.gguf_lint import chat_findings, gguf_findings
from edgeq.apps.gguf_model import GGUFModel
from edgeq.apps.registry import GGUFLayout, layout
from edgeq.apps.write import placed_gguf
from edgeq.inspection.findings import Finding, warning


@layout
class NodeLlamaCpp(GGUFLayout):
    """``NAME-QUANT.gguf``, or the source's shards under that name."""

    name = "node-llama-cpp"
    tested = {"node-llama-cpp": "3.22.1"}  # noqa: RUF012

    def pack(self, model: GGUFModel, folder: Path) -> str:
        return placed_gguf(model, folder / model.file_name)

    def lint(self, folder: Path) -> Iterator[Finding]:
        yield from gguf_findings(folder, sorted(folder.glob("*.gguf")), _rule)


def _rule(where: str, model: GGUFModel) -> Iterator[Finding]:
    if model.quant not in Path(where).name.upper():
        yield warning(where, f"does not name its quant {model.quant}", f"call it {model.file_name}")
    yield from chat_findings(where, model)
