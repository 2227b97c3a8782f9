"""A classifier's answers: how many are right, and whether a reference gives the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import EdgeqError, InputError
from edgeq.evaluation.metrics import label_summary
from edgeq.evaluation.statistics import share_error, share_interval

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from edgeq.evaluation.proof import EncoderRuntime

Floats = NDArray[np.float32]
Progress = Callable[[int, int], None]


class Example(NamedTuple):
    """A text and the number of its label; None where the data say none."""

    text: str
    label: int | None


def read_examples(path: Path, lines: Sequence[str], labels: Sequence[str]) -> list[Example]:
    """Lines of a JSONL file, ``{"text": ..., "label": ...}`` (a name or a number), or plain sentences.

    Raises InputError naming the line that is neither.
    """
    if not lines[0].startswith("{"):
        return [Example(line, None) for line in lines]
    return [_example(path, number, line, labels) for number, line in enumerate(lines, start=1)]


def _example(path: Path, number: int, line: str, labels: Sequence[str]) -> Example:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: line {number} is no JSON ({error})") from None
    text, label = (value.get("text"), value.get("label")) if isinstance(value, dict) else (None, None)
    if not isinstance(text, str):
        raise InputError(f'{path}: line {number} has no "text"; write {{"text": "...", "label": "..."}}')
    if label is None:
        return Example(text, None)
    names = [name.casefold() for name in labels]
    if isinstance(label, str) and label.casefold() in names:
        return Example(text, names.index(label.casefold()))
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < max(1, len(labels)):
        return Example(text, label)
    raise InputError(f"{path}: line {number} has the label {label!r}; the model's are {', '.join(labels)}")


def class_logits(
    runtime: EncoderRuntime,
    tokenizer: Tokenizer,
    longest: int,
    examples: Sequence[Example],
    progress: Progress = lambda done, total: None,
) -> list[Floats]:
    """Logits ``[1, labels]`` of every example; what a model cannot read of a long text is left out."""
    tokenizer.enable_truncation(longest)
    found = []
    for done, (text, _) in enumerate(examples, start=1):
        found.append(runtime.scores(text, tokenizer.encode(text).ids))
        progress(done, len(examples))
    if not all(np.isfinite(one).all() for one in found):
        raise EdgeqError(f"{runtime.name} gives no finite logits: the model's weights are damaged")
    return found


def accuracy(
    logits: Sequence[Floats], examples: Sequence[Example], name: str = "accuracy"
) -> dict[str, float]:
    """The share of labelled examples whose best label is theirs, its error and its 95 % interval (Wilson's).

    Nothing where no example has a label, or the model tells nothing apart.
    """
    labelled = [
        (int(row.argmax()), one.label)
        for row, one in zip(logits, examples, strict=True)
        if one.label is not None
    ]
    if not labelled or logits[0].shape[1] < 2:
        return {}
    right = sum(best == label for best, label in labelled)
    low, high = share_interval(right, len(labelled))
    share = right / len(labelled)
    return {
        name: share,
        f"{name}_standard_error": share_error(share, len(labelled)),
        f"{name}_low": low,
        f"{name}_high": high,
        "labelled": len(labelled),
    }


def compare_classes(
    reference: Sequence[Floats], candidate: Sequence[Floats], examples: Sequence[Example]
) -> dict[str, float]:
    """How alike the logits are (``metrics.label_summary``), with the error of the agreement, and both accuracies."""
    found = label_summary(reference, candidate)
    if "same_label" in found:
        found["same_label_standard_error"] = share_error(found["same_label"], len(examples))
    return found | accuracy(candidate, examples) | accuracy(reference, examples, "accuracy_float")
