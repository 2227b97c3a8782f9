"""The written file opened in its runtime: compared with the float model, and timed beside it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeq.calibration.text import Text
from edgeq.devices.cpu import usable_cores
from edgeq.export.request import Request
from edgeq.source import ModelSource

if TYPE_CHECKING:
    from edgeq.runtimes.onnxruntime import Feeds

_SPEED_BATCH = 16


def prove_file(request: Request, source: ModelSource, text: Text, path: Path, quant: str) -> dict[str, Any]:
    """What ``edgeq.evaluation.proof`` says of the file, as it goes into edgeq.json. Raises EdgeqError."""
    from edgeq.evaluation import runtimes
    from edgeq.evaluation.proof import WINDOW, Reference, prove

    reference = Reference(source, text)

    def progress(done: int, total: int) -> None:
        request.progress("comparing with the float model", done, total)

    if request.to == "gguf":
        embeds = not source.family.generates(source.hp)
        context = reference.longest if embeds else 2 * WINDOW
        with runtimes.gguf_runtime(path, context, request.threads or usable_cores(), embeds) as runtime:
            return prove(reference, runtime, progress)
    proof = prove(reference, runtimes.OnnxRuntime(path, source.hp.pooling, request.threads), progress)
    if quant != "float32":
        proof["speed_against_float"] = _speed_against_float(request, source, text, path, quant)
        if proof["speed_against_float"] < 1:
            request.warn(
                f"{path.name} is slower than float here ({proof['speed_against_float']:.2f} times its speed)"
            )
    return proof


def _speed_against_float(request: Request, source: ModelSource, text: Text, path: Path, quant: str) -> float:
    """The quantized graph against the float one, which is built for this and thrown away."""
    from edgeq.convert import onnx_graph
    from edgeq.evaluation.speed import speed_ratio
    from edgeq.formats.onnx.save import save_model

    feeds, output = _timed_on(source, text, quant)
    request.progress("timing against float", 0, 1)
    with tempfile.TemporaryDirectory(prefix=".edgeq-float-", dir=request.out) as folder:
        float_path = Path(folder) / "model.onnx"
        save_model(onnx_graph.build(source, request.dialect), float_path, force=False)
        ratio = speed_ratio(path, float_path, feeds, output, request.threads or usable_cores())
    request.progress("timing against float", 1, 1)
    return ratio


def _timed_on(source: ModelSource, text: Text, quant: str) -> tuple[list[Feeds], str]:
    """What both graphs are fed, and the output that is asked for.

    Encoders read sentences, decoders a window of tokens; with only the weights quantized they generate, which is what
    that is for.
    """
    from edgeq.convert.onnx_quants import WEIGHT_ONLY, calibration_samples
    from edgeq.runtimes.onnxruntime import encoder_feeds

    if not source.family.generates(source.hp):
        tokenizer = source.tokenizer()
        tokenizer.enable_truncation(source.hp.context)
        lines = text.lines()[:_SPEED_BATCH]
        feeds = encoder_feeds([tokenizer.encode(line).ids for line in lines])
        return [feeds], "last_hidden_state" if source.hp.head == "none" else "logits"
    window = next(calibration_samples(source, text))
    return [_one_token(window)] * _SPEED_BATCH if quant in WEIGHT_ONLY else [window], "logits"


def _one_token(window: Feeds) -> Feeds:
    """The last token of a window, after the others."""
    before = window["input_ids"].shape[1] - 1
    last: Feeds = {name: window[name][:, -1:] for name in ("input_ids", "position_ids")}
    past = {name: cache for name, cache in window.items() if name.startswith("past_key_values.")}
    caches: Feeds = {
        name: np.zeros((*cache.shape[:2], before, cache.shape[3]), np.float32) for name, cache in past.items()
    }
    return last | caches | {"attention_mask": window["attention_mask"]}
