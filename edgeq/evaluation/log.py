"""A reference's answers kept for reuse: of every scored row its likeliest tokens, in a safetensors file.

Tensors, N scored rows in W windows of ``context`` tokens, k kept of each row: ``tokens`` int32 ``[W, context]``, what
was read; ``ids`` int32 ``[N, k]``, the likeliest first; ``log_p`` float32 ``[N, k]``; ``rest`` float32 ``[N]``, the
probability of all other tokens; ``following`` float32 ``[N]``, log p of the token that came.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from edgeq.errors import FormatError, InputError
from edgeq.evaluation.token_scores import TOP, TokenScores, log_sums, shared_top, top_tokens
from edgeq.evaluation.windows import Window, Windows
from edgeq.formats.atomic import atomic_file
from edgeq.formats.checkpoint.safetensors_file import SafetensorsFile

Floats = NDArray[np.float32]

FORMAT = "edgeq log of answers"
SUFFIX = ".safetensors"
DEFAULT_TOP = 128
_LEAST = np.float32(1e-12)  # of a rest, so that it has a logarithm


class LogWriter:
    """Takes a model's answers window by window; ``watch`` of ``evaluate_decoder``."""

    def __init__(self, windows: Windows, top: int = DEFAULT_TOP) -> None:
        self._windows, self._top = windows, top
        self._parts: list[tuple[NDArray[np.int32], Floats, Floats, Floats]] = []
        self._tokens: list[list[int]] = []

    def watch(self, window: Window, logits: Floats) -> None:
        """Keep what is needed of a window's scored rows ``[n, vocab]``."""
        top = min(self._top, logits.shape[1])
        total = log_sums(logits)
        following = logits[np.arange(len(logits)), window.following] - total
        chosen = np.argpartition(logits, -top, axis=1)[:, -top:]
        values = np.take_along_axis(logits, chosen, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        ids = np.take_along_axis(chosen, order, axis=1).astype(np.int32)
        log_p = np.take_along_axis(values, order, axis=1) - total[:, None]
        rest = np.maximum(1 - np.exp(log_p).sum(axis=1), 0)
        floats = (log_p.astype(np.float32), rest.astype(np.float32), following.astype(np.float32))
        self._parts.append((ids, *floats))
        self._tokens.append(window.tokens)

    def write(self, path: Path, model: str, force: bool) -> None:
        """Write what was kept; raises EdgeqError as ``atomic_file`` does."""
        ids, log_p, rest, following = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        tensors = {
            "tokens": np.asarray(self._tokens, np.int32),
            "ids": ids,
            "log_p": log_p,
            "rest": rest,
            "following": following,
        }
        about = {"format": FORMAT, "model": model, "scored": self._windows.scored}
        with atomic_file(path, force=force) as file:
            file.write(save(tensors, metadata=about))


class LogReference:
    """A log as what candidates are compared with: ``evaluation.decoders.Comparison``.

    Tokens that were not kept count as one: what the candidate does among them is not seen, so that KL is a lower bound
    (``is_bound``) unless the log has the whole vocabulary.
    """

    is_bound = False

    def __init__(self, path: Path, windows: Windows) -> None:
        """Raises FormatError for a file that is no log, InputError for one of other tokens."""
        self._file = SafetensorsFile(path)
        self._path, self._done = path, 0
        if self._file.metadata.get("format") != FORMAT:
            raise FormatError(path, "is no log of answers", "write one with edgeq eval --save-log")
        self.name = f"log of {self._file.metadata.get('model', 'a model')}"
        tokens = self._read("tokens", np.int32, 2)
        expected = np.asarray([window.tokens for window in windows], np.int32)
        if self._file.metadata.get("scored") != windows.scored or not np.array_equal(tokens, expected):
            raise InputError(
                f"{path}: is of another text, --context, --scored or --max-tokens (it has {len(tokens)} windows of "
                f"{tokens.shape[1]} tokens); give the same again"
            )
        self._ids, self._log_p = self._read("ids", np.int32, 2), self._read("log_p", np.float32, 2)
        self._rest, self._following = (
            self._read("rest", np.float32, 1),
            self._read("following", np.float32, 1),
        )
        rows = len(windows) * (windows.context - 1 - windows.first)
        if {len(one) for one in (self._ids, self._log_p, self._rest, self._following)} != {rows}:
            raise FormatError(path, f"must have {rows} rows of answers", "write it again")
        if self._ids.shape != self._log_p.shape or self._ids.min(initial=0) < 0:
            raise FormatError(path, "has answers that do not fit each other", "write it again")

    def _read(self, name: str, dtype: type, axes: int) -> NDArray[Any]:
        found = self._file.tensors.get(name)
        if found is None or found.dtype != np.dtype(dtype) or len(found.shape) != axes:
            raise FormatError(
                self._path, f"tensor {name} is missing, or is no {np.dtype(dtype)} of {axes} axes"
            )
        return self._file.read(found, 0, prod(found.shape)).reshape(found.shape)

    def compare(self, window: Window, logits: Floats) -> TokenScores:
        """As ``Comparison``; windows must come in their order."""
        rows = slice(self._done, self._done + len(logits))
        self._done += len(logits)
        ids, log_p = self._ids[rows].astype(np.int64), self._log_p[rows].astype(np.float64)
        if ids.max(initial=0) >= logits.shape[1]:
            raise InputError(
                f"{self._path}: has tokens outside of the model's vocabulary of {logits.shape[1]}"
            )
        self.is_bound = self.is_bound or ids.shape[1] < logits.shape[1]
        total = log_sums(logits)
        nll = total - logits[np.arange(len(logits)), window.following]
        log_q = np.take_along_axis(logits, ids, axis=1) - total[:, None]
        rest_p = np.maximum(self._rest[rows], _LEAST).astype(np.float64)
        rest_q = np.maximum(1 - np.exp(log_q).sum(axis=1), _LEAST)
        kl = (np.exp(log_p) * (log_p - log_q)).sum(axis=1) + rest_p * np.log(rest_p / rest_q)
        top = top_tokens(logits)
        shared = shared_top(ids[:, :TOP], top)
        return TokenScores(
            nll.astype(np.float32),
            -self._following[rows],
            kl.astype(np.float32),
            ids[:, 0] == top[:, 0],
            shared,
        )

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def is_log(path: Path) -> bool:
    """Whether a reference is a log, by its name."""
    return path.suffix == SUFFIX and path.is_file()
