"""A written GGUF model as the layouts see it."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from edgeq.chat import ChatTemplate, of_gguf
from edgeq.formats.gguf.mix_table import FILE_TYPES
from edgeq.formats.gguf.reader import GGUFFile

_MOST_NAME = 80  # characters


@dataclass(frozen=True)
class GGUFModel:
    """An open file, or the view of all shards.

    ``name`` fits into file names; ``quant`` is llama.cpp's name of the mix; ``planned_context`` is what `--target`
    chose, 0 where nothing was planned.
    """

    file: GGUFFile
    name: str
    quant: str
    planned_context: int = 0

    @property
    def paths(self) -> list[Path]:
        """The file, or its shards in order."""
        return self.file.paths

    @property
    def file_name(self) -> str:
        """``NAME-QUANT.gguf``: the quant where node-llama-cpp, LM Studio and the hub look for it."""
        return f"{self.name}-{self.quant}.gguf"

    @property
    def architecture(self) -> str:
        return str(self.file.metadata.get("general.architecture", ""))

    @property
    def context(self) -> int:
        """Tokens that the model was made for; 0 where the file does not say."""
        value = self.file.metadata.get(f"{self.architecture}.context_length")
        return value if isinstance(value, int) else 0

    @property
    def is_encoder(self) -> bool:
        """It embeds or classifies; also a decoder whose file says how its vectors are pooled."""
        metadata, prefix = self.file.metadata, self.architecture
        return metadata.get(f"{prefix}.attention.causal") is False or bool(
            metadata.get(f"{prefix}.pooling_type")
        )

    def chat(self) -> ChatTemplate | None:
        """The chat template; None where there is none. Raises FormatError."""
        return of_gguf(self.file.path, self.file.metadata)


def gguf_model(file: GGUFFile, name: str | None = None, planned_context: int = 0) -> GGUFModel:
    """``name``, or what the file is called inside or outside, less the quant that its name ends in."""
    quant = quant_of(file)
    stem = re.sub(r"-\d{5}-of-\d{5}$", "", file.path.stem)
    stem = re.sub(rf"[-.]?{re.escape(quant)}$", "", stem, flags=re.IGNORECASE)
    called = file.metadata.get("general.name")
    generic = stem.lower() in ("", "model", "ggml-model")
    found = called if generic and isinstance(called, str) else stem
    return GGUFModel(file, file_safe(name or found), quant, planned_context)


def quant_of(file: GGUFFile) -> str:
    """The mix by ``general.file_type``, else the type that most of the tensors' bytes have."""
    number = file.metadata.get("general.file_type")
    for kind in FILE_TYPES.values():
        if kind.number == number:
            return kind.name
    sizes: dict[str, int] = {}
    for info in file.tensors.values():
        sizes[info.type_name] = sizes.get(info.type_name, 0) + info.nbytes
    return max(sizes, key=sizes.__getitem__, default="F32")


def file_safe(name: str) -> str:
    """A name of letters, digits, dots, dashes and underscores, that every file system and address takes."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-._")[:_MOST_NAME] or "model"
