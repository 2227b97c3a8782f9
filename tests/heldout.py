"""Text that TinyLM never saw, and English sentences, read from the running Python's own standard library.

Nothing of it is committed: the files' licence is Python's, and every version has its own.
"""

from __future__ import annotations

import ast
import functools
import random
import re
import sysconfig
from pathlib import Path
from typing import NamedTuple

_STDLIB = Path(sysconfig.get_path("stdlib"))
_HELD_MODULES = Path(__file__).parent / "assets/tinylm/held_modules.txt"
_SHORTEST, _LONGEST = 40, 300  # characters of a sentence
_SENTENCE = re.compile(r"[A-Z][^\n]*[.!?]")  # one line, from a capital to a full stop
_SEED = 20


class Split(NamedTuple):
    """Two halves without a sentence in common: one to calibrate on, one to measure on."""

    calibration: list[str]
    test: list[str]


@functools.cache
def code() -> str:
    """The standard-library modules that TinyLM was not trained on, one after the other."""
    paths = [_STDLIB / name for name in _HELD_MODULES.read_text(encoding="utf-8").split()]
    text = "\n".join(path.read_text(encoding="utf-8") for path in paths if path.is_file())
    assert len(text) > 200_000, f"{_STDLIB} has hardly any of the held-out modules"
    return text


@functools.cache
def sentences() -> Split:
    """First lines of the docstrings of the standard library's top-level modules, shuffled with a fixed seed."""
    found: dict[str, None] = {}
    for path in sorted(_STDLIB.glob("*.py")):
        found |= dict.fromkeys(_first_lines(path))
    shuffled = sorted(found)
    random.Random(_SEED).shuffle(shuffled)
    assert len(shuffled) > 800, f"{_STDLIB} has hardly any docstrings"
    middle = len(shuffled) // 2
    return Split(shuffled[:middle], shuffled[middle:])


def _first_lines(path: Path) -> list[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return []
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    docstrings = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, documented)]
    lines = [text.strip().splitlines()[0] for text in docstrings if text and text.strip()]
    return [line for line in lines if _SHORTEST <= len(line) <= _LONGEST and _SENTENCE.fullmatch(line)]
