"""The runner: canary, chain of fallbacks, shadow, and what is remembered of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edgeq.deploy.bundles import identity_of, name_of, open_bundle
from edgeq.deploy.canary import Canary
from edgeq.deploy.checks import finite, repeats
from edgeq.deploy.failures import DeployError, Failure, ModelFailure
from edgeq.deploy.shadow import Seen, Shadow, ShadowRuns
from edgeq.deploy.state import State
from edgeq.deploy.worker import Worker
from edgeq.errors import UsageError

OPENER = "edgeq.deploy.models:open_bundle"
# After these a model's process is ended, so that the next one has its memory.
_FATAL = (Failure.load, Failure.memory, Failure.timeout, Failure.crash)


@dataclass(frozen=True)
class Answer:
    """``value`` is the model's; ``tried`` are those before it, with their failures."""

    value: Any
    model: str
    seconds: float
    tried: list[tuple[str, Failure]] = field(default_factory=list)


class Runner:
    """Answers requests with the first bundle that can; a context manager, for one request at a time.

    Args:
        chain: bundles, the one to use first, then its fallbacks. The last is never given up.
        state: a JSON file of what is remembered from run to run; it is made where there is none.
        canary: a bundle that answers some keys first, the chain standing behind it.
        shadow: a bundle that answers unseen.
        seconds, load_seconds: after which a request, or loading, counts as failed.
        most_failures: in a row, after which a model is given up: its requests go to the one that answered last.
        opener: ``module:function`` that makes a Model of a bundle's folder, in the worker's process.

    Raises UsageError for a chain without bundles.
    """

    def __init__(
        self,
        chain: Sequence[str | Path],
        state: str | Path,
        *,
        canary: Canary | None = None,
        shadow: Shadow | None = None,
        seconds: float = 60.0,
        load_seconds: float = 300.0,
        most_failures: int = 3,
        opener: str = OPENER,
    ) -> None:
        if not chain:
            raise UsageError("a chain wants one bundle at least")
        if most_failures < 1 or seconds <= 0 or load_seconds <= 0:
            raise UsageError("most_failures, seconds and load_seconds must be positive")
        self._chain = [_Deployed(Path(one), opener) for one in chain]
        self._canary = canary and _Deployed(Path(canary.bundle), opener)
        self._wants = canary
        self._seconds, self._load_seconds, self._most = seconds, load_seconds, most_failures
        self._lock = threading.Lock()
        self.state = State.read(Path(state))
        if self.state.loading:  # the process ended while that one was being loaded
            self.state.failed(self.state.loading, self._most)
            self.state.loading = ""
        self._shadow, self._runs = shadow, None
        if shadow is not None:
            unseen = _Deployed(Path(shadow.bundle), opener)
            self._runs = ShadowRuns(
                shadow, unseen.name, lambda request: self._answered(unseen, request, False)
            )
            self._unseen = unseen

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Log the shadow's runs that wait, and end all processes."""
        if self._runs is not None:
            self._runs.close()
            self._unseen.end()
        for one in (*self._chain, *([self._canary] if self._canary else [])):
            one.end()

    def flush(self) -> None:
        """Wait for the shadow's runs."""
        if self._runs is not None:
            self._runs.flush()

    def ask(self, key: str, **request: Any) -> Answer:
        """The answer of the first model that gives one: of the canary, where it takes the key, then of the chain.

        ``key`` is what stays the same for a user or device. The request is the model's: ``prompt`` or ``messages`` with
        ``max_tokens``, ``temperature`` …, or ``texts``. Raises DeployError where no model answers, and EdgeqError
        where the state cannot be written.
        """
        with self._lock:
            return self._ask(key, request)

    def _ask(self, key: str, request: Mapping[str, Any]) -> Answer:
        tried: list[tuple[str, Failure]] = []
        for model in self._order(key):
            started = time.monotonic()
            try:
                value = self._answered(model, request, True)
            except ModelFailure as failure:
                tried.append((model.name, failure.kind))
                if failure.kind is not Failure.error:  # a refused request says nothing of the model
                    self.state.failed(model.identity, self._most)
                continue
            seconds = time.monotonic() - started
            if model is not self._canary:
                self.state.succeeded(model.identity)
            elif self.state.failures.pop(model.identity, 0):
                self.state.write()
            if self._runs is not None and self._shadow is not None and self._shadow.takes(key):
                self._runs.add(Seen(request, model.name, value, seconds))
            return Answer(value, model.name, seconds, tried)
        raise DeployError(tried)

    def _order(self, key: str) -> list[_Deployed]:
        """Who is asked: the canary for its keys, the chain without those given up, the one that answered last first."""
        given_up = self.state.given_up
        chain = [one for one in self._chain if one.identity not in given_up or one is self._chain[-1]]
        if self._chain[0] not in chain:  # the first was given up
            chain.sort(key=lambda one: one.identity != self.state.last_good)
        canary = self._canary
        if canary and self._wants and self._wants.takes(key) and canary.identity not in given_up:
            return [canary, *chain]
        return chain

    def _answered(self, model: _Deployed, request: Mapping[str, Any], counts: bool) -> Any:
        """One model's answer, looked at; raises ModelFailure."""
        try:
            if not model.is_open:
                if counts:
                    self.state.loading = model.identity
                    self.state.write()
                try:
                    model.open(self._load_seconds)
                finally:
                    if counts:
                        self.state.loading = ""
                        self.state.write()
            value = model.ask(request, self._seconds)
        except ModelFailure as failure:
            if failure.kind in _FATAL:
                model.end()
            raise
        if not finite(value):
            raise ModelFailure(Failure.nan)
        if isinstance(value, str) and repeats(value):
            raise ModelFailure(Failure.repetition)
        return value


class _Deployed:
    """A bundle and, once it was asked, its process."""

    def __init__(self, folder: Path, opener: str) -> None:
        self.folder, self.name = folder, name_of(folder)
        self.identity = identity_of(folder) or self.name
        self._opener = opener
        self._worker: Worker | None = None

    @property
    def is_open(self) -> bool:
        return self._worker is not None and self._worker.alive

    def open(self, seconds: float) -> None:
        """Check the hashes and start the process."""
        self.end()
        open_bundle(self.folder)
        self._worker = Worker(self._opener, self.folder, seconds)

    def ask(self, request: Mapping[str, Any], seconds: float) -> Any:
        assert self._worker is not None
        return self._worker.ask(request, seconds)

    def end(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None
