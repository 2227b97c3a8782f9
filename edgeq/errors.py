"""The errors of floor 3; the root of the tree is ``edgeq.formats.errors.EdgeqError``."""

from __future__ import annotations

from edgeq.formats.errors import EdgeqError, FormatError, OutputExistsError


class InputError(EdgeqError):
    """What the user gave cannot be used: a model, a text, a name. Exit code 1."""


class MissingDependencyError(EdgeqError):
    """A library or a network that this command needs is not there. Exit code 1."""


class NotFiniteError(FormatError):
    """A model whose answers are no numbers: its weights are damaged. Exit code 1."""


class OutOfMemoryError(EdgeqError, MemoryError):
    """A runtime found less memory than a model takes. Exit code 1."""


class FallbackWarning(UserWarning):
    """A session runs on the CPU what was to run elsewhere."""


class UsageError(EdgeqError):
    """The options contradict each other. Exit code 2."""

    exit_code = 2


class GateError(EdgeqError):
    """A quality gate said no. Exit code 3."""

    exit_code = 3


__all__ = [
    "EdgeqError",
    "FallbackWarning",
    "FormatError",
    "GateError",
    "InputError",
    "MissingDependencyError",
    "NotFiniteError",
    "OutOfMemoryError",
    "OutputExistsError",
    "UsageError",
]
