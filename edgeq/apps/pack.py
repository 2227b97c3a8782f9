"""``edgeq pack`` and ``edgeq export --app``: a written model becomes the folder that an app's library loads."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.apps.gguf_model import gguf_model
from edgeq.apps.lint import lint
from edgeq.apps.manifest import NAME, write_manifest
from edgeq.apps.onnx_model import described, onnx_model
from edgeq.apps.registry import GGUFLayout, Layout, ONNXLayout
from edgeq.errors import EdgeqError, InputError, OutputExistsError, UsageError
from edgeq.file_hash import sha256
from edgeq.formats.atomic import sync_folder
from edgeq.formats.gguf.split import open_gguf
from edgeq.inspection.findings import Finding, Severity
from edgeq.onnx.sessions import read_config
from edgeq.planning.quality import exports_of
from edgeq.report.files import JSON_NAME

_FORMATS = {".gguf": "gguf", ".onnx": "onnx"}


@dataclass(frozen=True)
class Bundle:
    """A packed folder, its manifest, and what its lint says."""

    folder: Path
    manifest: dict[str, Any]
    findings: list[Finding]

    def errors(self) -> list[str]:
        """What makes the library refuse it, a line each."""
        return self._lines(Severity.error)

    def warnings(self) -> list[str]:
        """What is probably not meant, a line each."""
        return self._lines(Severity.warning)

    def _lines(self, severity: Severity) -> list[str]:
        return [f"{f.where}: {f.what}" for f in self.findings if f.severity is severity]

    def record(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        findings = [{"severity": f.severity.value, "where": f.where, "what": f.what} for f in self.findings]
        return {"folder": str(self.folder), **self.manifest, "findings": findings}


def form_of(model: Path) -> str:
    """gguf or onnx; raises InputError for a file that is not there or is neither."""
    if model.is_dir():
        raise InputError(
            f"{model}: is a folder; pack takes a .gguf or .onnx file, `edgeq export {model} --to gguf|onnx --app APP` "
            "makes one of a checkpoint and packs it"
        )
    if not model.is_file():
        raise InputError(f"{model}: no such file")
    form = _FORMATS.get(model.suffix.lower())
    if form is None:
        raise InputError(f"{model}: is neither a .gguf nor an .onnx file; make one with edgeq export")
    return form


def recorded(model: Path) -> Mapping[str, Any] | None:
    """The model's entry in the edgeq.json beside it, if it is of these very bytes. Raises FormatError."""
    for record in exports_of(model.with_name(JSON_NAME)):
        hashes = record.get("sha256")
        if record.get("file") == model.name and isinstance(hashes, dict):
            return record if hashes.get(model.name) == sha256(model) else None
    return None


def check_format(layout: Layout, form: str) -> None:
    """Raise UsageError for a layout of the other format."""
    if layout.format != form:
        remedy = f"edgeq export MODEL --to {layout.format} --app {layout.name} makes it of a checkpoint"
        remedy += " or a GGUF file" if layout.format == "onnx" else ""
        raise UsageError(f"--app {layout.name} loads {layout.format.upper()}, not {form.upper()}; {remedy}")


def check_target(folder: Path, force: bool) -> None:
    """Raise now what ``pack`` would raise at its end: only a bundle of ours is replaced, and only with ``force``."""
    if not folder.exists():
        return
    if not folder.is_dir() or (any(folder.iterdir()) and not (folder / NAME).is_file()):
        raise EdgeqError(
            f"{folder}: is there and is no bundle; move it away or choose another folder with -o"
        )
    if not force and any(folder.iterdir()):
        raise OutputExistsError(folder)


def pack(
    model: Path, layout: Layout, out: Path, *, name: str | None = None, record: Mapping[str, Any] | None = None,
    force: bool = False,
) -> Bundle:  # fmt: skip
    """Make ``out/APP`` of a GGUF file (or a model's first shard) or an ONNX file; all of it appears, or nothing.

    Args:
        model: the file. What lies beside it (tokenizer, config.json, external data, session_config.json) goes along.
        name: what to call the model in file names; without it what the file says.
        record: its entry in edgeq.json, for the manifest's proof and gates.
        force: replace a bundle that is there.

    Raises EdgeqError.
    """
    form = form_of(model)
    check_format(layout, form)
    target = out / layout.name
    check_target(target, force)
    with _staged(target) as folder:
        if isinstance(layout, GGUFLayout):
            facts = _pack_gguf(model, layout, folder, name, _planned_context(record))
        else:
            facts = _pack_onnx(model, layout, folder, name)
        known = {key: record.get(key) if record else None for key in ("proof", "gates")}
        known["target"] = _how_to_run(record)
        manifest = write_manifest(folder, {"app": layout.name, "format": form, **facts, **known})
        findings = lint(folder, layout)
    return Bundle(target, manifest, findings)


def _planned_context(record: Mapping[str, Any] | None) -> int:
    """The context that `--target` chose."""
    target = record.get("target") if record else None
    context = target.get("context") if isinstance(target, dict) else None
    return context if isinstance(context, int) and context > 0 else 0


def _how_to_run(record: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What `--target` chose for the runtime, without what it expected of it."""
    target = record.get("target") if record else None
    if not isinstance(target, dict):
        return None
    return {key: value for key, value in target.items() if key not in ("reason", "predicted", "measured")}


def _pack_gguf(
    path: Path, layout: GGUFLayout, folder: Path, name: str | None, context: int
) -> dict[str, Any]:
    with open_gguf(path) as file:
        model = gguf_model(file, name, context)
        main = layout.pack(model, folder)
        return {
            "model": {"name": model.name, "architecture": model.architecture},
            "quant": model.quant,
            "main": main,
            "runtime": layout.runtime(model),
            "tested": dict(layout.tested),
        }


def _pack_onnx(path: Path, layout: ONNXLayout, folder: Path, name: str | None) -> dict[str, Any]:
    model = onnx_model(path, name)
    main = layout.pack(model, folder)
    graph = model.graph.graph
    data = sorted(file for file in (folder / main).parent.glob("*.onnx_data*"))
    return {
        "model": {"name": model.name, "architecture": "onnx"},
        "quant": model.precision,
        "main": main,
        "runtime": layout.runtime(model),
        "tested": dict(layout.tested),
        "inputs": described(graph.inputs),
        "outputs": described(graph.outputs),
        "external_data": [{"path": one.name, "data": one.relative_to(folder).as_posix()} for one in data],
        "session": read_config(path),
    }


@contextmanager
def _staged(target: Path) -> Iterator[Path]:
    """A hidden folder that becomes ``target``, in place of a bundle that is there, when the block ends."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as failure:
        raise EdgeqError(
            f"{target}: cannot be written ({failure.strerror}); choose another with -o"
        ) from None
    old = folder.with_name(f"{folder.name}-old")
    try:
        yield folder
        folder.chmod(0o755)
        if target.exists():
            target.rename(old)
        folder.rename(target)
        sync_folder(target.parent)
    except OSError as failure:
        if old.exists() and not target.exists():
            old.rename(target)
        raise EdgeqError(
            f"{target}: cannot be written ({failure.strerror}); free space or choose another"
        ) from None
    finally:
        for leftover in (folder, old):
            with contextlib.suppress(OSError):
                shutil.rmtree(leftover)
