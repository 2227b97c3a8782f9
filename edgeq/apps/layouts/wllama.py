"""wllama (llama.cpp in the browser): files of at most 512 MB, downloaded side by side; none may exceed 2 GB.

Source: wllama's README, "Prepare your model" and "Split model"; one ArrayBuffer holds at most 2 GB, and WebAssembly's
32-bit memory 4 GB in all.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgeq.apps.gguf_lint import chat_findings, gguf_findings, speed_findings
from edgeq.apps.gguf_model import GGUFModel
from edgeq.apps.registry import GGUFLayout, layout
from edgeq.apps.write import split_below
from edgeq.inspection.findings import Finding, error, warning

SHARD_BYTES = 512_000_000
_MOST_FILE, _MOST_ALL = 2**31 - 1, 2**32


@layout
class Wllama(GGUFLayout):
    """``NAME-QUANT.gguf`` up to 512 MB, else ``NAME-QUANT-00001-of-0000N.gguf`` …, whose first is loaded."""

    name = "wllama"
    tested = {"@wllama/wllama": "3.8.1"}  # noqa: RUF012

    def pack(self, model: GGUFModel, folder: Path) -> str:
        return split_below(model, folder / model.file_name, SHARD_BYTES)

    def lint(self, folder: Path) -> Iterator[Finding]:
        paths = sorted(folder.glob("*.gguf"))
        yield from gguf_findings(folder, paths, _rule)
        for path in paths:
            size = path.stat().st_size
            if size > _MOST_FILE:
                yield error(path.name, f"has {size / 1e9:.1f} GB; a browser's buffer ends at 2.1", _SPLIT)
            elif size > SHARD_BYTES:
                yield warning(path.name, f"has {size / 1e6:,.0f} MB; wllama advises 512", _SPLIT)


_SPLIT = "edgeq pack MODEL.gguf --app wllama splits it; a tensor that is larger by itself wants fewer bits"


def _rule(where: str, model: GGUFModel) -> Iterator[Finding]:
    size = sum(path.stat().st_size for path in model.paths)
    if size >= _MOST_ALL:
        yield error(
            where, f"has {size / 1e9:.1f} GB in all; WebAssembly's memory ends at 4.3", "take a smaller model"
        )
    yield from chat_findings(where, model)
    yield from speed_findings(where, model)
