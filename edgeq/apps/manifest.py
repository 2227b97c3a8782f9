"""manifest.json: what a bundle is, what lies in it and with which hash, how good it is, what it needs to run.

Every bundle has one, whatever app it is for:

* ``edgeq``, ``app``, ``model`` (name, architecture), ``format``, ``quant``: what it is;
* ``main``: the path in the bundle of the file to load;
* ``files``: path → ``bytes`` and ``sha256``, of everything but the manifest itself;
* ``runtime``: the least release of each package that is known to load it; ``tested``: those our tests load it in;
* ``inputs``, ``outputs``, ``external_data``, ``session``: of ONNX graphs;
* ``proof``: what was measured against the float model, null where nothing was; ``gates``: what the quality gates
  said no to, an empty list where all said yes, null where none were asked; ``target``: how the device that was named
  by ``--target`` runs it (context, cache type, threads, layers on the GPU), null where none was.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from edgeq import __version__
from edgeq.errors import FormatError
from edgeq.file_hash import sha256
from edgeq.formats.atomic import write_json
from edgeq.inspection.findings import Finding, error, note
from edgeq.json_files import read_json

NAME = "manifest.json"
_AGAIN = "copy the bundle again, or pack it again"
_LONGEST_PATH = 255  # characters
_HASH = re.compile(r"[0-9a-f]{64}")
_KINDS: dict[str, type | tuple[type, ...]] = {
    "edgeq": str,
    "app": str,
    "main": str,
    "files": dict,
    "runtime": dict,
}


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Hash the folder's files and write the manifest; returns it. ``facts`` are all its fields but two."""
    files = {
        path: {"bytes": (folder / path).stat().st_size, "sha256": sha256(folder / path)}
        for path in _within(folder)
    }
    manifest = {"edgeq": __version__, **facts, "files": files}
    write_json(folder / NAME, manifest, force=True)
    return manifest


def note_gates(folder: Path, said: Sequence[str]) -> None:
    """Write what the gates said no to into a bundle's manifest, where they were asked after it was packed."""
    write_json(folder / NAME, read_manifest(folder) | {"gates": list(said)}, force=True)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The folder's manifest, its fields of the right kinds, its paths within the folder. Raises FormatError."""
    path = folder / NAME
    found: dict[str, Any] = read_json(path, dict)
    for key, kind in _KINDS.items():
        if not isinstance(found.get(key), kind):
            raise FormatError(path, f"is no bundle's manifest: {key} is missing or of another kind", _AGAIN)
    for name, entry in found["files"].items():
        if not _is_inside(name):
            raise FormatError(path, f"names {name!r}, which is not a path in the bundle", _AGAIN)
        size, digest = (
            (entry.get(key) for key in ("bytes", "sha256")) if isinstance(entry, dict) else (None, None)
        )
        if not isinstance(size, int) or not isinstance(digest, str) or not _HASH.fullmatch(digest):
            raise FormatError(path, f"says of {name} no size and hash", _AGAIN)
    if found["main"] not in found["files"]:
        raise FormatError(
            path, f"names {found['main']!r} as the file to load, which is not among its files", _AGAIN
        )
    return found


def verify(folder: Path, manifest: Mapping[str, Any]) -> Iterator[Finding]:
    """Where the folder's files are not those that the manifest names; sizes first, since they cost nothing."""
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            yield error(name, "is missing", _AGAIN)
        elif path.stat().st_size != entry["bytes"]:
            yield error(
                name, f"has {path.stat().st_size:,} bytes, the manifest says {entry['bytes']:,}", _AGAIN
            )
        elif sha256(path) != entry["sha256"]:
            yield error(name, "has another SHA-256 than the manifest says", _AGAIN)
    for name in _within(folder):
        if name not in manifest["files"]:
            yield note(name, "is not in the manifest")


def manifest_findings(folder: Path, app: str) -> Iterator[Finding]:
    """What is wrong with a folder's manifest, or with its files by it; a folder without one is only told of."""
    if not (folder / NAME).exists():
        yield note(NAME, "is missing, so no hash was checked", f"edgeq pack MODEL --app {app} writes one")
        return
    try:
        found = read_manifest(folder)
    except FormatError as breach:
        yield error(NAME, breach.problem, breach.remedy)
        return
    if found["app"] != app:
        yield note(NAME, f"says that the bundle is for {found['app']}")
    yield from verify(folder, found)


def _within(folder: Path) -> list[str]:
    """The files of a bundle, by their paths in it, without the manifest and hidden files."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in paths if path != Path(NAME) and not path.name.startswith("."))


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return (
        bool(name)
        and name.isprintable()
        and len(name) <= _LONGEST_PATH
        and not path.is_absolute()
        and ".." not in path.parts
        and "\\" not in name
        and ":" not in name
    )
