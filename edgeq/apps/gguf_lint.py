"""What the lints of GGUF layouts share: opening what lies in a folder, and what every llama.cpp refuses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from edgeq.apps.gguf_model import GGUFModel, gguf_model
from edgeq.errors import EdgeqError, FormatError
from edgeq.formats.gguf.split import open_gguf
from edgeq.inspection.findings import Finding, error, note, warning

SHARD = re.compile(r"-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")
Rule = Callable[[str, GGUFModel], Iterator[Finding]]
_SLOW = ("IQ1", "IQ2", "IQ3")  # decoded by table: the slowest types on phones and in browsers


def gguf_findings(folder: Path, paths: Sequence[Path], rule: Rule) -> Iterator[Finding]:
    """``rule`` for each model among the files, a split one once; what cannot be opened is an error."""
    models = [path for path in paths if not (shard := SHARD.search(path.name)) or shard["number"] == "00001"]
    if not models:
        yield error(".", "holds no GGUF model", "edgeq pack MODEL.gguf makes a folder that does")
    for path in models:
        where = path.relative_to(folder).as_posix()
        try:
            file = open_gguf(path)
        except FormatError as breach:
            yield error(where, breach.problem, breach.remedy or "copy or convert it again")
        except EdgeqError as breach:
            yield error(where, str(breach).removeprefix(f"{path}: "), "copy or pack it again")
        else:
            with file:
                yield from rule(where, gguf_model(file))
    yield from _stray_shards(folder, paths, models)


def _stray_shards(folder: Path, paths: Sequence[Path], models: Sequence[Path]) -> Iterator[Finding]:
    firsts = {SHARD.sub("", str(path)) for path in models}
    for path in paths:
        if path not in models and SHARD.sub("", str(path)) not in firsts:
            yield error(
                path.relative_to(folder).as_posix(),
                "is a shard whose first one is missing",
                "copy all of them",
            )


def chat_findings(where: str, model: GGUFModel) -> Iterator[Finding]:
    """A chat template that is broken or missing, in a model that generates."""
    if model.is_encoder:
        return
    try:
        template = model.chat()
        if template is not None:
            template.render([{"role": "user", "content": "a"}])
    except FormatError as breach:
        yield warning(where, breach.problem, "mend the template, or give the app one of its own")
        return
    if template is None:
        yield note(where, "has no chat template: completion works, a chat needs a template of the app's own")


def speed_findings(where: str, model: GGUFModel) -> Iterator[Finding]:
    """Types that are slow where there is no fast processor."""
    if model.quant.startswith(_SLOW):
        yield warning(
            where, f"is {model.quant}, which phones and browsers decode slowly", "take Q4_0, Q4_K_M or Q2_K"
        )
