"""Models of families that edgeq does not know: optimum exports them to ONNX, in an interpreter that has it.

optimum-onnx pins transformers below 4.58, so it often wants an environment of its own; edgeq only calls it there
(``python -m optimum.exporters.onnx``), and quantizes the files as it does any other ONNX file.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeq.convert.onnx_file import canonical_quant, file_name
from edgeq.errors import InputError, MissingDependencyError
from edgeq.formats.atomic import check_output
from edgeq.json_files import read_json
from edgeq.outputs import output_folder

_MODULE = "optimum.exporters.onnx"
_CHECK = f"import importlib, onnxruntime; importlib.import_module('{_MODULE.rpartition('.')[0]}')"
_REQUIREMENT = "optimum-onnx[onnxruntime]>=0.1.0,<0.2"  # as pyproject's extra has it
# What a directory's ``architectures`` ends with, and optimum's name of the task; a hub id has its task on the hub.
_TASKS = {
    "ForCausalLM": "text-generation-with-past",
    "LMHeadModel": "text-generation-with-past",
    "ForConditionalGeneration": "text2text-generation-with-past",
    "ForMaskedLM": "fill-mask",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMultipleChoice": "multiple-choice",
    "ForImageClassification": "image-classification",
    "ForObjectDetection": "object-detection",
    "ForSemanticSegmentation": "semantic-segmentation",
    "ForDepthEstimation": "depth-estimation",
    "ForSpeechSeq2Seq": "automatic-speech-recognition-with-past",
    "ForCTC": "automatic-speech-recognition",
    "ForAudioClassification": "audio-classification",
}
_ANY_TASK = "feature-extraction"
_LAST_LINE = 300  # characters of what optimum says


@dataclass
class Request:
    """``python`` is the interpreter that has optimum, None this one; the rest as ``edgeq.onnx.Request`` has it."""

    model: Path
    quant: str
    out: Path
    python: Path | None = None
    calibration: Path | None = None
    block_size: int | None = None
    full_range: bool = False
    proof: bool = True
    force: bool = False
    threads: int = 0
    progress: Callable[[str, int, int], None] = field(default=lambda stage, done, total: None)
    warn: Callable[[str], None] = field(default=lambda message: None)


def run(request: Request) -> list[dict[str, Any]]:
    """Export, quantize every graph, lay tokenizer and configuration beside them: the records, none for float32.

    Each record's ``gates`` are the sentences of the gates that said no. Raises EdgeqError.
    """
    quant = canonical_quant(request.quant)
    task = task_of(request.model)
    python = interpreter(request.python)
    with (
        output_folder(request.out),
        tempfile.TemporaryDirectory(prefix=".edgeq-optimum-", dir=request.out) as folder,
    ):
        request.progress("exporting with optimum", 0, 1)
        exported = Path(folder) / "exported"
        _export(python, request.model, task, exported)
        request.progress("exporting with optimum", 1, 1)
        return _quantized(request, quant, exported)


def interpreter(python: Path | None) -> Path:
    """The interpreter, seen to have optimum; raises MissingDependencyError that says how to make one."""
    chosen = Path(sys.executable) if python is None else python
    try:
        done = subprocess.run([chosen, "-P", "-c", _CHECK], capture_output=True, check=False)
    except OSError as error:
        raise InputError(f"{chosen}: is no Python interpreter ({error.strerror})") from None
    if done.returncode:
        raise MissingDependencyError(
            f"{chosen} has no optimum with onnxruntime; python -m venv optimum-env, "
            f"optimum-env/bin/pip install '{_REQUIREMENT}' torch, then --exporter-python optimum-env/bin/python"
        )
    return chosen


def task_of(model: Path) -> str:
    """Optimum's name of what a model directory does, by its config.json. Raises EdgeqError for one without."""
    architectures = read_json(model / "config.json", dict).get("architectures") or [""]
    name = str(architectures[0]) if isinstance(architectures, list) else ""
    return next((task for ending, task in _TASKS.items() if name.endswith(ending)), _ANY_TASK)


def _export(python: Path, model: Path, task: str, folder: Path) -> None:
    """Run optimum; raises InputError with the last line of what it says."""
    command = [str(python), "-P", "-m", _MODULE, "--task", task, "--model", str(model), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode or not list(folder.glob("*.onnx")):
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        said = lines[-1][:_LAST_LINE] if lines else f"exit status {done.returncode}"
        raise InputError(f"{model}: optimum cannot export it as {task} ({said})")


def _quantized(request: Request, quant: str, exported: Path) -> list[dict[str, Any]]:
    graphs = sorted(exported.glob("*.onnx"))
    suffix = file_name(quant).removeprefix("model")
    targets = [request.out / f"{graph.stem}{suffix}" for graph in graphs]
    rest = [path for path in sorted(exported.iterdir()) if path.is_file() and ".onnx" not in path.name]
    for target in (*targets, *(request.out / path.name for path in rest)):
        check_output(target, force=request.force)
    if quant == "float32":
        rest += sorted(exported.glob("*.onnx*"))
        records = []
    else:
        records = [
            _quantize(request, quant, graph, target) for graph, target in zip(graphs, targets, strict=True)
        ]
    for path in rest:
        shutil.move(path, request.out / path.name)
    return records


def _quantize(request: Request, quant: str, graph: Path, target: Path) -> dict[str, Any]:
    from edgeq import onnx

    return onnx.quantize(
        onnx.Request(
            source=graph,
            out=target,
            quant=quant,
            calibration=request.calibration,
            block_size=request.block_size,
            full_range=request.full_range,
            proof=request.proof,
            force=request.force,
            threads=request.threads,
            progress=request.progress,
            warn=lambda note: request.warn(f"{target.name}: {note}"),
        )
    )
