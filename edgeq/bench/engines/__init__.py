"""What ``edgeq bench`` times: one file for each engine, found by importing this folder."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol

from edgeq.runtimes.engines import EngineName

Kind = Literal["decoder", "encoder", "graph"]


class Subject(Protocol):
    """A loaded model. A ``graph`` is an ONNX file whose inputs are no tokens: it runs on numbers that are made up."""

    kind: Kind
    vocab: int  # tokens are below it; 0 for a graph

    def read(self, tokens: Sequence[int]) -> None:
        """Begin a text with these tokens (a decoder), read it whole (an encoder), or run once (a graph)."""

    def step(self, token: int) -> None:
        """A decoder's next token."""


class Opener(Protocol):
    """How a model is opened: ``room`` is how many tokens a text may get. Raises EdgeqError."""

    def __call__(self, path: Path, threads: int, room: int) -> Subject: ...


OPENERS: dict[EngineName, Opener] = {}


def engine(name: EngineName) -> Callable[[Opener], Opener]:
    """Register what opens a model in an engine of ``edgeq.runtimes.engines``."""

    def add(opener: Opener) -> Opener:
        OPENERS[name] = opener
        return opener

    return add


def load_all() -> None:
    """Import every engine's file; none of them imports its runtime before a model is opened."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
