"""A checkpoint directory seen through its family: tensors by GGUF name, shapes checked against the config."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeq import families
from edgeq.errors import FormatError, InputError
from edgeq.families import Family, HyperParameters, TensorSpec
from edgeq.formats.checkpoint.quantized import Grid
from edgeq.formats.checkpoint.safetensors import Checkpoint
from edgeq.formats.checkpoint.weights import StoredWeights
from edgeq.hub import model_name

_TIED_HEAD = ("lm_head.weight", "output.weight")


@dataclass
class SourceModel:
    """An opened Hugging Face directory. ``specs`` holds the tensors that the checkpoint really has, in file order.

    Weights that others quantized (GPTQ, AWQ, bitsandbytes, FP8) are decoded as they are read.
    """

    path: Path
    checkpoint: StoredWeights
    family: Family
    hp: HyperParameters
    specs: dict[str, TensorSpec]
    unused: list[str]  # checkpoint tensors that the family has no place for
    _names: dict[str, str]  # GGUF name -> checkpoint name

    @classmethod
    def open(cls, path: str | Path) -> SourceModel:
        """Open and check a directory; raises EdgeqError naming the file, tensor or field that is wrong."""
        path = Path(path)
        checkpoint = StoredWeights(Checkpoint.open(path))
        family = families.for_config(checkpoint.config, str(path / "config.json"))
        try:
            hp = replace(family.from_config(checkpoint.config), pooling=_pooling(path))
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        specs: dict[str, TensorSpec] = {}
        names: dict[str, str] = {}
        available = set(checkpoint.names)
        for spec in family.tensors(hp):
            found = next(
                (p + spec.source for p in ("", *family.source_prefixes) if p + spec.source in available), None
            )
            if found is None:
                if spec.optional:
                    continue
                raise FormatError(
                    path, f"tensor {spec.source} is missing from the checkpoint", "download it again"
                )
            if checkpoint.shape(found) != spec.shape:
                raise FormatError(
                    checkpoint.path_of(found),
                    f"tensor {found} has shape {list(checkpoint.shape(found))}, config.json says {list(spec.shape)}",
                )
            specs[spec.name], names[spec.name] = spec, found
        tied = set(_TIED_HEAD) if hp.tied else set()
        unused = sorted(available - set(names.values()) - tied)
        return cls(path, checkpoint, family, hp, specs, unused, names)

    @property
    def name(self) -> str:
        """What to call the model: its folder's name, or its repository's."""
        return model_name(self.path)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.specs[name].shape

    def has(self, name: str) -> bool:
        return name in self.specs

    def dtype(self, name: str) -> np.dtype[Any]:
        return self.checkpoint.dtype(self._names[name])

    def rows(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        """Rows of a tensor as float32, in the checkpoint's own (Hugging Face) row order.

        Raises FormatError for NaN or infinity: nothing that edgeq makes of such a weight is of use.
        """
        values = self.checkpoint.rows(self._names[name], start, stop)
        self._check_finite(name, values)
        return values

    def layout(self, name: str) -> str | None:
        """How others quantized the tensor, in words; None where they did not."""
        return self.checkpoint.layout(self._names[name])

    def grid(self, name: str, start: int, stop: int) -> Grid | None:
        """Rows as the integers that others quantized them to, where they did so; in the checkpoint's row order."""
        return self.checkpoint.grid(self._names[name], start, stop)

    def array(self, name: str) -> NDArray[np.float32]:
        """A whole tensor as float32; raises as ``rows`` does."""
        values = self.checkpoint.array(self._names[name])
        self._check_finite(name, values)
        return values

    def _check_finite(self, name: str, values: NDArray[np.float32]) -> None:
        if not np.isfinite(values).all():
            stored = self._names[name]
            raise FormatError(
                self.checkpoint.path_of(stored), f"tensor {stored} holds NaN or infinity", "download it again"
            )

    def release(self, name: str) -> None:
        """Let the operating system drop the tensor's mapped pages."""
        self.checkpoint.release(self._names[name])

    def parameters(self) -> int:
        return sum(int(np.prod(spec.shape)) for spec in self.specs.values())


def _pooling(path: Path) -> Literal["none", "mean", "cls"]:
    """How a sentence-transformers directory pools (modules.json and the pooling module's config.json)."""
    if not (path / "modules.json").is_file():
        return "none"
    for module in read_json(path / "modules.json", list):
        if not isinstance(module, dict) or not str(module.get("type", "")).endswith(".Pooling"):
            continue
        try:
            folder = (path / str(module.get("path", ""))).resolve()
        except (OSError, ValueError, RuntimeError) as error:  # a NUL in it, a loop of links
            raise FormatError(path / "modules.json", f"module path cannot be used ({error})") from None
        if not folder.is_relative_to(path.resolve()):
            raise FormatError(path / "modules.json", f"module path {module.get('path')!r} leaves the folder")
        config = read_json(folder / "config.json", dict)
        if config.get("pooling_mode_mean_tokens"):
            return "mean"
        if config.get("pooling_mode_cls_token"):
            return "cls"
        raise FormatError(folder / "config.json", "only mean and CLS pooling can be exported")
    return "none"


def read_json(path: Path, kind: type) -> Any:
    """Parse a JSON file whose top level must be ``kind``; raises FormatError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FormatError(path, f"cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:  # JSON, UTF-8, numbers of too many digits; nesting
        raise FormatError(path, f"is not JSON ({error})") from None
    if not isinstance(value, kind):
        raise FormatError(path, f"must hold a JSON {'object' if kind is dict else 'array'}")
    return value
