"""What a GGUF file is, in the words of its family: hyper-parameters, and tensors that were checked."""

from __future__ import annotations

from pathlib import Path

from edgeq import families
from edgeq.errors import FormatError, InputError
from edgeq.families import Family, HyperParameters, MetadataReader, TensorSpec
from edgeq.families.rope import FREQS, LONG, SHORT
from edgeq.formats.gguf.reader import GGUFFile

ROPE_TENSORS = (FREQS, LONG, SHORT)  # tensors that are hyper-parameters


def read_gguf(file: GGUFFile) -> tuple[Family, HyperParameters, dict[str, TensorSpec]]:
    """What a GGUF file says it is, and its tensors by name, checked; raises EdgeqError."""
    family = families.for_architecture(file.metadata.get("general.architecture"), str(file.path))
    shapes = {name: info.shape for name, info in file.tensors.items()}
    vectors = {
        name: tuple(map(float, file.decode(name).reshape(-1))) for name in ROPE_TENSORS if name in shapes
    }
    try:
        hp = family.from_metadata(MetadataReader(family.architecture, file.metadata, shapes, vectors))
    except InputError as error:
        raise FormatError(file.path, str(error)) from None
    return family, hp, {spec.name: spec for spec in _present(family, hp, shapes, file.path)}


def _present(
    family: Family, hp: HyperParameters, shapes: dict[str, tuple[int, ...]], path: Path
) -> list[TensorSpec]:
    """The family's tensors that the file has, their shapes checked."""
    present = []
    for spec in family.tensors(hp):
        if spec.name not in shapes:
            if spec.optional:
                continue
            raise FormatError(path, f"tensor {spec.name} is missing")
        if shapes[spec.name] != spec.shape:
            raise FormatError(
                path,
                f"tensor {spec.name} has shape {list(shapes[spec.name])}, the metadata says {list(spec.shape)}",
            )
        present.append(spec)
    return present
