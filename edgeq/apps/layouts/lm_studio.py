"""LM Studio: ``PUBLISHER/MODEL/FILE.gguf`` below its models folder; files that lie elsewhere are not listed.

Source: LM Studio's documentation, "Import models" (file structure); shards lie together in MODEL.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgeq.apps.gguf_lint import chat_findings, gguf_findings
from edgeq.apps.gguf_model import GGUFModel
from edgeq.apps.registry import GGUFLayout, layout
from edgeq.apps.write import placed_gguf
from edgeq.inspection.findings import Finding, error

_PUBLISHER = "edgeq"


@layout
class LMStudio(GGUFLayout):
    """``edgeq/NAME-GGUF/NAME-QUANT.gguf``; the folder's content is what goes into LM Studio's models folder."""

    name = "lm-studio"

    def pack(self, model: GGUFModel, folder: Path) -> str:
        home = folder / _PUBLISHER / f"{model.name}-GGUF"
        return f"{_PUBLISHER}/{home.name}/{placed_gguf(model, home / model.file_name)}"

    def lint(self, folder: Path) -> Iterator[Finding]:
        paths = sorted(folder.rglob("*.gguf"))
        yield from gguf_findings(folder, paths, chat_findings)
        for path in paths:
            where = path.relative_to(folder)
            if len(where.parts) != 3:
                what = "lies where LM Studio does not look"
                yield error(where.as_posix(), what, f"move it to PUBLISHER/MODEL/{path.name}")
