"""Opening a bundle: nothing of it is loaded before its files have the hashes of its manifest."""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.apps.manifest import NAME, read_manifest, verify
from edgeq.deploy.failures import Failure, ModelFailure
from edgeq.errors import EdgeqError
from edgeq.file_hash import sha256
from edgeq.inspection.findings import Severity

# The packages of a manifest's ``runtime`` that are Python's; the others are for other languages.
_PYTHON = ("edgeq", "onnxruntime", "llama-cpp-python")


@dataclass(frozen=True)
class VerifiedBundle:
    """A folder whose files are those of its manifest. ``identity`` is the manifest's own hash."""

    folder: Path
    manifest: dict[str, Any]
    identity: str


def name_of(folder: Path) -> str:
    """What a bundle is called in answers, logs and the state: its folder and that one's, as ``v2/edgeq``."""
    return "/".join(folder.absolute().parts[-2:])


def identity_of(folder: Path) -> str:
    """The hash of the bundle's manifest, by which the state knows it; empty where there is none."""
    path = folder / NAME
    return sha256(path) if path.is_file() else ""


def open_bundle(folder: Path) -> VerifiedBundle:
    """Check sizes, hashes and least releases; raises ModelFailure (load)."""
    try:
        manifest = read_manifest(folder)
        broken = next((f for f in verify(folder, manifest) if f.severity is Severity.error), None)
    except (EdgeqError, OSError) as error:
        raise ModelFailure(Failure.load, str(error)) from None
    if broken is not None:
        raise ModelFailure(Failure.load, f"{broken.where} {broken.what}")
    for package, least in manifest["runtime"].items():
        if package in _PYTHON and not _is_there(package, str(least)):
            raise ModelFailure(Failure.load, f"needs {package} {least}")
    return VerifiedBundle(folder, manifest, identity_of(folder))


def _is_there(package: str, least: str) -> bool:
    try:
        found = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return package == "edgeq"  # run from a checkout
    return _numbers(found) >= _numbers(least)


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", release)[:3])
