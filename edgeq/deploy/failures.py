"""How a deployed model can fail."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from edgeq.errors import EdgeqError


class Failure(StrEnum):
    """Why a model gave no answer, or none that may be used."""

    load = "load"  # the bundle is damaged, or the model does not open
    memory = "memory"  # out of memory, or killed by the system
    timeout = "timeout"
    crash = "crash"  # its process ended by itself
    nan = "nan"  # numbers that are none
    repetition = "repetition"
    error = "error"  # it refused the request: another model may take it


class DeployError(EdgeqError):
    """No model of the chain answered; ``tried`` has each one's name and failure. Exit code 1."""

    def __init__(self, tried: Sequence[tuple[str, Failure]]) -> None:
        said = ", ".join(f"{name}: {failure.value}" for name, failure in tried)
        refused = all(failure is Failure.error for _, failure in tried)
        remedy = (
            "none of them takes such a request: docs/deploy.md says what it holds"
            if refused
            else "add a fallback that is known to work"
        )
        super().__init__(f"no model answered ({said}); {remedy}")
        self.tried = list(tried)


class ModelFailure(Exception):
    """One model's failure, on its way to the chain. ``detail`` is for a person, and holds nothing of the request."""

    def __init__(self, kind: Failure, detail: str = "") -> None:
        super().__init__(f"{kind.value}: {detail}" if detail else kind.value)
        self.kind, self.detail = kind, detail
