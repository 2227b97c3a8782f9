"""edgeq itself: ``edgeq.load`` and ``edgeq.deploy`` on a server, a desktop, a Raspberry Pi."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgeq import __version__
from edgeq.apps.gguf_lint import gguf_findings
from edgeq.apps.gguf_model import GGUFModel
from edgeq.apps.registry import GGUFLayout, layout
from edgeq.apps.write import placed_gguf
from edgeq.errors import EdgeqError
from edgeq.gguf_family import read_gguf
from edgeq.inspection.findings import Finding, error


@layout
class Edgeq(GGUFLayout):
    """``NAME-QUANT.gguf``, or the source's shards under that name."""

    name = "edgeq"
    tested = {"edgeq": __version__}  # noqa: RUF012

    def pack(self, model: GGUFModel, folder: Path) -> str:
        return placed_gguf(model, folder / model.file_name)

    def lint(self, folder: Path) -> Iterator[Finding]:
        yield from gguf_findings(folder, sorted(folder.glob("*.gguf")), _rule)


def _rule(where: str, model: GGUFModel) -> Iterator[Finding]:
    """The engine must know the family."""
    try:
        read_gguf(model.file)
    except EdgeqError as refusal:
        what = str(refusal).removeprefix(f"{model.file.path}: ")
        yield error(where, what, "run it in llama.cpp, or take a model of a family that edgeq has")
