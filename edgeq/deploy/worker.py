"""A model in a process of its own: what it does to its process it does to nobody else.

Requests and answers are JSON lines on the child's standard input and output. Run as
``python -m edgeq.deploy.worker MODULE:FUNCTION FOLDER``.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from edgeq.deploy.failures import Failure, ModelFailure

_KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)  # as the system ends what takes too much memory
_DETAIL = 200  # characters


class Worker:
    """The parent's side. Raises ModelFailure; after one of timeout, memory or crash the process has ended."""

    def __init__(self, opener: str, folder: Path, seconds: float) -> None:
        command = [sys.executable, "-m", "edgeq.deploy.worker", opener, str(folder)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._process.stdout is not None
        self._lines: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=_read, args=(self._process.stdout, self._lines), daemon=True).start()
        try:
            self._receive(seconds)
        except ModelFailure as failure:
            self.close()
            kind = Failure.load if failure.kind in (Failure.error, Failure.crash) else failure.kind
            raise ModelFailure(kind, failure.detail) from None

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, request: Mapping[str, Any], seconds: float) -> Any:
        """The model's answer; after ``seconds`` without one the process is ended."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._ended() from None
        return self._receive(seconds)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                _close(stream)

    def _receive(self, seconds: float) -> Any:
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            self.close()
            raise ModelFailure(Failure.timeout, f"no answer in {seconds:g} s") from None
        if not line.endswith(b"\n"):
            raise self._ended()
        answer = json.loads(line)
        if "failure" in answer:
            raise ModelFailure(Failure(answer["failure"]), answer["detail"])
        return answer["value"]

    def _ended(self) -> ModelFailure:
        code = self._process.wait()
        self.close()
        if code in _KILLED:
            return ModelFailure(Failure.memory, "the system ended the process")
        return ModelFailure(Failure.crash, f"the process ended with {code}")


def _read(stream: IO[bytes], lines: queue.Queue[bytes]) -> None:
    """Lines as they come; an empty one when there are no more."""
    try:
        for line in stream:
            lines.put(line)
    except (OSError, ValueError):  # closed by ``close``
        pass
    lines.put(b"")


def _close(stream: IO[bytes]) -> None:
    with contextlib.suppress(OSError):  # what was buffered for a process that has ended
        stream.close()


def main() -> None:
    """The child's side."""
    opener, folder = sys.argv[1:]
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no answer
    module, _, function = opener.partition(":")

    def reply(what: Mapping[str, Any]) -> None:
        out.write(json.dumps(what).encode() + b"\n")
        out.flush()

    try:
        model = getattr(importlib.import_module(module), function)(folder)
    except BaseException as error:
        reply(_failure(error))
        return
    reply({"value": None})
    for line in sys.stdin.buffer:
        try:
            reply({"value": model.answer(json.loads(line))})
        except BaseException as error:
            reply(_failure(error))


def _failure(error: BaseException) -> dict[str, str]:
    """An exception in a line. A message may quote the request, so only its type is told while answering."""
    if isinstance(error, ModelFailure):
        return {"failure": error.kind.value, "detail": error.detail[:_DETAIL]}
    if isinstance(error, MemoryError):
        return {"failure": Failure.memory.value, "detail": "out of memory"}
    return {"failure": Failure.error.value, "detail": type(error).__name__}


if __name__ == "__main__":
    main()
