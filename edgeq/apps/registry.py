"""The layouts by name; a new one is a file in ``layouts/`` with a class marked ``@layout``."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, TypeVar

from edgeq.apps.gguf_model import GGUFModel
from edgeq.apps.onnx_model import ONNXModel
from edgeq.errors import UsageError
from edgeq.inspection.findings import Finding

# Words of ``edgeq plan --app``, which newcomers try here.
_PLATFORMS = ("ios", "android", "browser", "desktop", "server")


class _Layout(ABC):
    """What a consumer's layout says of itself.

    Attributes:
        name: as ``--app`` takes it.
        tested: the consumer's releases in which edgeq's tests load such a bundle, by package; empty where none can run.
    """

    name: ClassVar[str]
    tested: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def lint(self, folder: Path) -> Iterator[Finding]:
        """What of a folder would not load or not be found; ``where`` is a path in the folder."""


class GGUFLayout(_Layout):
    """A layout of GGUF files."""

    format: ClassVar[str] = "gguf"

    @abstractmethod
    def pack(self, model: GGUFModel, folder: Path) -> str:
        """Write the layout into an empty folder; returns the path in it of the file to load. Raises EdgeqError."""

    def runtime(self, model: GGUFModel) -> dict[str, str]:
        """The least release of each package that is known to load it."""
        return dict(self.tested)


class ONNXLayout(_Layout):
    """A layout of ONNX graphs."""

    format: ClassVar[str] = "onnx"

    @abstractmethod
    def pack(self, model: ONNXModel, folder: Path) -> str:
        """Write the layout into an empty folder; returns the path in it of the file to load. Raises EdgeqError."""

    @abstractmethod
    def runtime(self, model: ONNXModel) -> dict[str, str]:
        """The least release of each package that has the graph's operators."""


Layout = GGUFLayout | ONNXLayout
LAYOUTS: dict[str, Layout] = {}
_Kind = TypeVar("_Kind", bound=Layout)


def layout(kind: type[_Kind]) -> type[_Kind]:
    """Register a layout under its name."""
    LAYOUTS[kind.name] = kind()
    return kind


def layouts() -> dict[str, Layout]:
    """All layouts by name, in the order of their names."""
    from edgeq.apps import layouts as folder

    for module in pkgutil.iter_modules(folder.__path__):
        importlib.import_module(f"{folder.__name__}.{module.name}")
    return dict(sorted(LAYOUTS.items()))


def find(name: str) -> Layout:
    """The layout of that name, any case; raises UsageError that lists them."""
    known = layouts()
    key = name.strip().lower()
    if key in known:
        return known[key]
    if key in _PLATFORMS:
        raise UsageError(
            f"--app {name}: is a kind of program, which `edgeq plan` takes; here it is the library that loads the "
            f"model: {', '.join(known)}"
        )
    raise UsageError(f"--app {name}: no such library; there are {', '.join(known)}")
