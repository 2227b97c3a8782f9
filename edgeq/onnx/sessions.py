"""The session options that go with a written file, beside it in ``session_config.json``."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeq.errors import FallbackWarning, FormatError
from edgeq.formats.atomic import write_json
from edgeq.json_files import read_json

if TYPE_CHECKING:
    import onnxruntime as ort

    from edgeq.runtimes.onnxruntime import OnnxSession

NAME = "session_config.json"
PROVIDER = "edgeq.provider"  # our own entry: the execution provider that the graph was made for
_RECORD = "session.record_ep_graph_assignment_info"  # makes the runtime keep which provider got which node


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


def session(path: str | Path, threads: int = 0, providers: Sequence[str] = ()) -> ort.InferenceSession:
    """An ONNX Runtime session with the options that edgeq wrote beside the file. Raises EdgeqError.

    ``providers`` are execution providers by ONNX Runtime's names, the best first; without any it is the one that the
    file was made for (``edgeq export --target``), else the CPU's. What of the graph runs on the CPU all the same is
    told by a ``FallbackWarning``: all of it where a provider is not installed or has no device, single nodes where it
    has no kernel for them.
    """
    return open_session(Path(path), threads, providers).runtime


def open_session(path: Path, threads: int = 0, providers: Sequence[str] = ()) -> OnnxSession:
    """The same as what edgeq feeds; ``providers`` of the CPU alone keeps it there whatever the file was made for."""
    from edgeq.runtimes.onnxruntime import CPU, OnnxSession

    config = read_config(path)
    made_for = config.pop(PROVIDER, CPU)
    wanted = [name for name in providers or (made_for,) if name != CPU]
    if wanted:
        config[_RECORD] = "1"
    opened = OnnxSession(path, threads, config, wanted)
    for line in _fallbacks(opened.runtime, wanted):
        warnings.warn(f"{path}: {line}", FallbackWarning, stacklevel=3)
    return opened


def _fallbacks(opened: ort.InferenceSession, wanted: Sequence[str]) -> Iterator[str]:
    from edgeq.runtimes.onnxruntime import CPU

    used = opened.get_providers()
    missing = [name for name in wanted if name not in used]
    if missing:
        rest = ", ".join(name for name in used if name != CPU) or "the CPU"
        yield f"{', '.join(missing)} is not there; it runs on {rest}"
    if missing == list(wanted) or not hasattr(opened, "get_provider_graph_assignment_info"):  # before 1.24
        return
    nodes = [
        node.op_type
        for part in opened.get_provider_graph_assignment_info()
        if part.ep_name == CPU
        for node in part.get_nodes()
    ]
    if nodes:
        kinds = ", ".join(sorted(set(nodes)))
        yield f"{len(nodes)} nodes run on the CPU, with copies to and fro: {kinds}"


def _read(path: Path) -> dict[str, dict[str, str]]:
    if not path.exists():
        return {}
    found = read_json(path, dict)
    for entries in found.values():
        if not isinstance(entries, dict) or not all(isinstance(value, str) for value in entries.values()):
            raise FormatError(path, "is no session configuration of edgeq's", "move it away")
    return dict(found)
