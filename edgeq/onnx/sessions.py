"""The session options that go with a written file, beside it in ``session_config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgeq.errors import FormatError
from edgeq.formats.atomic import write_json
from edgeq.json_files import read_json

if TYPE_CHECKING:
    import onnxruntime as ort

NAME = "session_config.json"


def write_config(path: Path, entries: Mapping[str, str]) -> Path | None:
    """Note the session entries of the graph ``path``, keeping other graphs'; None where there is nothing to say."""
    target = path.with_name(NAME)
    known = _read(target)
    known.pop(path.name, None)
    if entries:
        known[path.name] = dict(entries)
    if not known:
        target.unlink(missing_ok=True)
        return None
    write_json(target, known, force=True)
    return target if entries else None


def read_config(path: Path) -> dict[str, str]:
    """The session entries of the graph ``path``, or none. Raises FormatError for a file that is not edgeq's."""
    return _read(path.with_name(NAME)).get(path.name, {})


def session(path: str | Path, threads: int = 0) -> ort.InferenceSession:
    """An ONNX Runtime session on the CPU with the options that edgeq wrote beside the file. Raises EdgeqError."""
    from edgeq.runtimes.onnxruntime import OnnxSession

    return OnnxSession(Path(path), threads, read_config(Path(path))).runtime


def _read(path: Path) -> dict[str, dict[str, str]]:
    if not path.exists():
        return {}
    found = read_json(path, dict)
    for entries in found.values():
        if not isinstance(entries, dict) or not all(isinstance(value, str) for value in entries.values()):
            raise FormatError(path, "is no session configuration of edgeq's", "move it away")
    return dict(found)
