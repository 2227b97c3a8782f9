"""A process that measures models one after the other (``edgeq.bench.child``), seen from the one that asks."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from types import TracebackType
from typing import Self

from edgeq.bench.child import Job, Measurement
from edgeq.errors import EdgeqError


class Worker:
    """A context manager. One for each engine keeps their threads apart, and what is imported for the next job."""

    def __init__(self) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edgeq.bench.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            errors="replace",
        )

    def measure(self, job: Job) -> Measurement:
        """Take the turns there; raises EdgeqError with what went wrong, after which the worker may be gone."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(asdict(job)) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:  # it is gone
            line = ""
        if not line:
            words = self._last_words()
            raise EdgeqError(
                f"{job.path}: {job.engine} ended with status {process.wait()}"
                + (f" ({words[-1][:200]})" if words else "")
            )
        answer = json.loads(line)
        if "error" in answer:
            raise EdgeqError(answer["error"])
        return Measurement(**answer)

    def _last_words(self) -> list[str]:
        self._process.wait()
        self._said.seek(0)
        return self._said.read().decode(errors="replace").strip().splitlines()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._process.kill()
        self._process.communicate()
        self._said.close()


def rounds(seconds: float, least: int = 1, most: int = 1_000_000) -> Iterator[int]:
    """Numbers of rounds from 0: so many at least, then while the next one is likely to end within ``seconds``."""
    started = time.perf_counter()
    for done in range(most):
        if done >= least and (time.perf_counter() - started) * (done + 1) / done > seconds:
            return
        yield done


def in_child(job: Job) -> Measurement:
    """Measure in a process of its own, so that its peak of memory is the model's; raises EdgeqError."""
    with Worker() as worker:
        return worker.measure(job)
