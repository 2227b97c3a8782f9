"""llama.rn (React Native; PocketPal is built on it): one GGUF file, never shards.

Source: llama.rn's README, ``initLlama({model})``, which takes the path of one file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgeq.apps.gguf_lint import SHARD, chat_findings, gguf_findings, speed_findings
from edgeq.apps.gguf_model import GGUFModel
from edgeq.apps.registry import GGUFLayout, layout
from edgeq.apps.write import whole_gguf
from edgeq.inspection.findings import Finding, error


@layout
class LlamaRN(GGUFLayout):
    """``NAME-QUANT.gguf``, whole even where the source is in shards."""

    name = "llama.rn"

    def pack(self, model: GGUFModel, folder: Path) -> str:
        whole_gguf(model, folder / model.file_name)
        return model.file_name

    def lint(self, folder: Path) -> Iterator[Finding]:
        paths = sorted(folder.glob("*.gguf"))
        yield from gguf_findings(folder, paths, _rule)
        for path in paths:
            if SHARD.search(path.name):
                yield error(
                    path.name,
                    "is a shard; llama.rn loads one whole file",
                    f"edgeq pack {path.name} --app llama.rn",
                )


def _rule(where: str, model: GGUFModel) -> Iterator[Finding]:
    yield from chat_findings(where, model)
    yield from speed_findings(where, model)
