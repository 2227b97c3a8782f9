"""ONNX Runtime's own file format (.ort), which its mobile builds read, and the operators that such a build needs.

The graph is written as the runtime holds it after its optimizations for any CPU. Beside it lies the list of operators
and types that ``build.py --include_ops_by_config`` takes for a build that has nothing else. Upstream:
``onnxruntime.tools.convert_onnx_models_to_ort`` (the session's entries) and
``onnxruntime.tools.ort_format_model`` (the list).
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

import onnxruntime as ort

from edgeq.errors import EdgeqError, OutputExistsError

# What these write suits one CPU alone.
_FOR_ONE_CPU = ("NchwcTransformer",)
# Weights that are dequantized when a file is loaded would be written as floats.
_FOLDING = ("ConstantFolding",)
_GROWN = 1.25


def ort_paths(path: Path) -> tuple[Path, Path]:
    """Where the .ort file and the list of operators of the graph ``path`` are written."""
    return path.with_suffix(".ort"), path.with_suffix(".required_operators.config")


def write_ort(path: Path, entries: Mapping[str, str], *, force: bool) -> list[Path]:
    """Write the graph ``path`` in ONNX Runtime's format, with the list of its operators; returns both files.

    ``entries`` are those of the session that goes with the graph. Raises OutputExistsError, and EdgeqError where the
    runtime cannot write the file.
    """
    targets = ort_paths(path)
    for target in targets:
        if target.exists() and not force:
            raise OutputExistsError(target)
    with tempfile.TemporaryDirectory(prefix=".edgeq-ort-", dir=path.parent) as folder:
        made = tuple(Path(folder) / target.name for target in targets)
        convert(path, made[0], entries)
        if made[0].stat().st_size > _GROWN * _size(path):
            convert(path, made[0], entries, (*_FOR_ONE_CPU, *_FOLDING))
        _list_operators(made[0], made[1])
        for source, target in zip(made, targets, strict=True):
            source.replace(target)
    return list(targets)


def _size(path: Path) -> int:
    """Bytes of a graph with its external data."""
    data = path.with_name(f"{path.name}_data")
    return path.stat().st_size + (data.stat().st_size if data.exists() else 0)


def convert(
    source: Path, target: Path, entries: Mapping[str, str], without: Collection[str] = _FOR_ONE_CPU
) -> None:
    """Write one file in ORT format, without the optimizations ``without``; raises EdgeqError."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(target)
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    options.add_session_config_entry("session.save_model_format", "ORT")
    try:
        ort.InferenceSession(
            str(source), options, providers=["CPUExecutionProvider"], disabled_optimizers=list(without)
        )
    except Exception as error:  # the runtime raises its own unrelated types
        what = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise EdgeqError(f"{source}: ONNX Runtime cannot write it as .ort ({what})") from None


def _list_operators(model: Path, target: Path) -> None:
    """The list in ONNX Runtime's form, without the name of the folder where the file was made."""
    from onnxruntime.tools.ort_format_model import create_config_from_models  # takes a while to import

    logging.getLogger("ort_format_model.utils").setLevel(logging.ERROR)
    create_config_from_models([model], target, enable_type_reduction=True)
    target.write_text(target.read_text("utf-8").replace(f"{model.parent}/", ""), "utf-8")


def operators_of(path: Path) -> dict[str, list[str]]:
    """What ``required_operators`` says of a graph once it is written as .ort. Raises EdgeqError."""
    with tempfile.TemporaryDirectory(prefix="edgeq-ort-") as folder:
        made, config = Path(folder) / "model.ort", Path(folder) / "model.config"
        convert(path, made, {})
        _list_operators(made, config)
        return required_operators(config)


def required_operators(config: Path) -> dict[str, list[str]]:
    """Operators by "domain;opset", as the list names them. Raises EdgeqError for a file that is none."""
    try:
        lines = config.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        what = getattr(error, "strerror", None) or "is no text"
        raise EdgeqError(f"{config}: cannot be read as a list of operators ({what})") from None
    found: dict[str, list[str]] = {}
    for line in lines:
        if not line.startswith("#") and line.count(";") >= 2:
            domain, opset, names = line.split(";", 2)
            found[f"{domain};{opset}"] = _names(names)
    return found


def _names(text: str) -> list[str]:
    """``Add{"inputs": {...}},Conv`` without what stands in braces."""
    names, depth, name = [], 0, ""
    for character in f"{text},":
        depth += (character == "{") - (character == "}")
        if character == "," and not depth:
            names.append(name)
            name = ""
        elif not depth and character != "}":
            name += character
    return [one.strip() for one in names if one.strip()]
