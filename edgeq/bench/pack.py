"""``edgeq bench --pack``: edgeq's code in a zip that Python runs on another device with numpy and numba alone."""

from __future__ import annotations

import hashlib
import importlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

from edgeq.formats.atomic import atomic_file

_PACKAGES = (
    "edgeq",
    "edgeq.formats",
    "edgeq.kernels_cpu",
    "edgeq.devices",
)  # each lies in a folder of its own
_SUFFIXES = (".py", ".toml")
_DATE = (1980, 1, 1, 0, 0, 0)  # of every entry, so that the same code makes the same bytes
# A zip's kernels cannot be kept compiled, so the code is laid out in the user's cache and started there.
_MAIN = '''"""Measures this device: python {name} --help"""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

if sys.version_info < (3, 11):
    sys.exit("edgeq: error: Python 3.11 or newer is needed")
try:
    import numba, numpy
except ImportError as error:
    sys.exit(f"edgeq: error: {{error.name}} is missing; pip install numpy numba")
from edgeq.user_cache import made_folder

folder = made_folder() / "bench-{digest}"
if not (folder / "complete").exists():
    with zipfile.ZipFile(Path(__file__).parent) as packed:
        packed.extractall(folder)
    (folder / "complete").touch()
paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
environment = os.environ | {{"PYTHONPATH": os.pathsep.join(paths)}}
command = [sys.executable, "-m", "edgeq.bench.device", *sys.argv[1:]]
raise SystemExit(subprocess.run(command, env=environment, check=False).returncode)
'''


def write_pack(path: Path, *, force: bool) -> int:
    """Write the zip; how many files it holds. Raises EdgeqError where it cannot be written."""
    files = sorted(_files())
    digest = hashlib.sha256()
    for name, content in files:
        digest.update(name.encode() + b"\0" + content)
    main = _MAIN.format(name=path.name, digest=digest.hexdigest()[:16])
    with (
        atomic_file(path, force=force) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name, content in [("__main__.py", main.encode()), *files]:
            entry = zipfile.ZipInfo(name, _DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(entry, content)
    return len(files) + 1


def _files() -> Iterator[tuple[str, bytes]]:
    """(name in the zip, content) of every source and data file, wherever the package is installed."""
    for package in _PACKAGES:
        module = importlib.import_module(package)
        assert module.__file__ is not None
        yield from _below(Path(module.__file__).parent, package.replace(".", "/"))


def _below(folder: Path, name: str) -> Iterator[tuple[str, bytes]]:
    for path in folder.iterdir():
        inner = f"{name}/{path.name}"
        if path.is_dir():
            # edgeq/formats and its like are links in a checkout, and packages of their own here.
            if not path.is_symlink() and inner.replace("/", ".") not in _PACKAGES:
                yield from _below(path, inner)
        elif path.suffix in _SUFFIXES:
            yield inner, path.read_bytes()
