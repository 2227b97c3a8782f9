"""Opening a model for evaluation: what it is, its tokens, and a runtime that answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import psutil

from edgeq import tokenization
from edgeq.engine import model as exact
from edgeq.engine.decoders import open_embedded
from edgeq.engine.float_operands import float_model
from edgeq.engine.steps import NotRecordableError
from edgeq.errors import InputError, UsageError
from edgeq.evaluation.loss import Kind, kind_of
from edgeq.evaluation.proof import LONGEST, DecoderRuntime, EncoderRuntime
from edgeq.evaluation.runtimes import EmbeddedRuntime, FastRuntime, LlamaCppRuntime, OnnxRuntime
from edgeq.families import Family, HyperParameters
from edgeq.json_files import read_json
from edgeq.kernels_cpu.cached import CacheType
from edgeq.model_size import model_bytes
from edgeq.runtimes import llama_cpp
from edgeq.runtimes.engines import (
    EngineName,
    FileKind,
    Wanted,
    check_cache_type,
    engine_for,
    file_kind,
    gguf_prover,
)
from edgeq.sentence_transformers import read_modules
from edgeq.source import SourceModel

if TYPE_CHECKING:
    from tokenizers import Tokenizer


_UNKNOWN_LENGTH = 512  # tokens, of an ONNX file without a config.json
_SHARE_OF_MEMORY = 0.7  # that a checkpoint's weights may take


@dataclass(frozen=True)
class How:
    """How models are opened. ``context`` is the most tokens of one text, ``cache_type`` None for float16."""

    engine: Wanted = "auto"
    threads: int = 1
    context: int = 512
    cache_type: CacheType | None = None


@dataclass
class Evaluated:
    """An opened model. ``longest`` is how many tokens it can read, ``labels`` what a classifier tells apart."""

    path: Path
    kind: Kind
    engine: EngineName
    runtime: DecoderRuntime | EncoderRuntime
    tokenizer: Tokenizer
    longest: int
    labels: tuple[str, ...]
    nbytes: int

    @property
    def decoder(self) -> DecoderRuntime:
        """The runtime of a decoder."""
        assert self.kind == "decoder"
        return cast("DecoderRuntime", self.runtime)

    @property
    def encoder(self) -> EncoderRuntime:
        """The runtime of an encoder or a classifier."""
        assert self.kind != "decoder"
        return cast("EncoderRuntime", self.runtime)


def open_evaluated(path: Path, how: How, stack: ExitStack) -> Evaluated:
    """Open a GGUF file, an ONNX file or a model directory; the stack closes it. Raises EdgeqError."""
    engine = engine_for(path, how.engine)
    check_cache_type(engine, how.cache_type)
    openers: dict[FileKind, Callable[[Path, EngineName, How, ExitStack], Evaluated]] = {
        "directory": _directory,
        "gguf": _gguf,
        "onnx": _onnx,
    }
    return openers[file_kind(path)](path, engine, how, stack)


def _directory(path: Path, engine: EngineName, how: How, stack: ExitStack) -> Evaluated:
    if how.cache_type is not None:
        raise UsageError(f"{path}: a directory's keys and values stay float32; leave --kv-type out")
    started = time.perf_counter()
    source = SourceModel.open(path)
    runtime = _of_source(source, started)
    return _evaluated(path, engine, runtime, source.tokenizer(), source.family, source.hp)


def _of_source(source: SourceModel, started: float) -> DecoderRuntime | EncoderRuntime:
    """In floats with recorded programs; exact where these cannot, or where the weights do not fit in memory."""
    fits = 2 * source.parameters() < _SHARE_OF_MEMORY * psutil.virtual_memory().available
    if source.family.generates(source.hp) and fits:
        try:
            return FastRuntime(float_model(source), time.perf_counter() - started, "floats")
        except NotRecordableError:
            pass
    return EmbeddedRuntime(exact.from_source(source), time.perf_counter() - started)


def _gguf(path: Path, engine: EngineName, how: How, stack: ExitStack) -> Evaluated:
    started = time.perf_counter()
    embedded = open_embedded(path, stack, how.cache_type)
    model, file = embedded.model, embedded.file
    assert file is not None
    encoder = not model.family.generates(model.hp)
    runtime: DecoderRuntime | EncoderRuntime
    if how.engine == "auto" and not encoder and how.cache_type is None:
        engine = gguf_prover()
    if engine == "llama.cpp":
        # of shards llama.cpp takes the first; its cache holds what is generated after a text, too
        context = min(model.hp.context, LONGEST) if encoder else how.context
        llama = llama_cpp.LlamaCpp(file.path, context, how.threads, embedding=encoder)
        runtime = LlamaCppRuntime(stack.enter_context(llama))
    elif not encoder and embedded.fast is not None:
        own = embedded.fast
        runtime = FastRuntime(own, time.perf_counter() - started, "8-bit activations")
    else:
        runtime = EmbeddedRuntime(model, time.perf_counter() - started)
    return _evaluated(path, engine, runtime, embedded.tokenizer, model.family, model.hp)


def _evaluated(
    path: Path,
    engine: EngineName,
    runtime: DecoderRuntime | EncoderRuntime,
    tokenizer: Tokenizer,
    family: Family,
    hp: HyperParameters,
) -> Evaluated:
    kind = kind_of(family, hp)
    if kind == "classifier" and hp.head == "tokens":
        raise InputError(f"{path}: classifies tokens; edgeq eval knows classifiers of texts")
    longest = hp.context if kind == "decoder" else min(hp.context, LONGEST)
    return Evaluated(path, kind, engine, runtime, tokenizer, longest, tuple(hp.labels), model_bytes(path))


def _onnx(path: Path, engine: EngineName, how: How, stack: ExitStack) -> Evaluated:
    from edgeq.engine.graphs import config_beside, home_of

    folder = home_of(path)
    hp = config_beside(folder)
    modules = read_modules(folder)
    pooling = modules.pooling if modules else hp.pooling if hp else "mean"
    runtime = OnnxRuntime(path, pooling, how.threads)
    tokenizer = tokenization.from_directory(folder)
    longest = hp.context if hp else _UNKNOWN_LENGTH
    kind = _onnx_kind(path, runtime, hp)
    labels = tuple(hp.labels) if hp else _labels(folder, runtime) if kind == "classifier" else ()
    if kind == "decoder" and not hp:
        longest = max(longest, how.context)
    return Evaluated(path, kind, engine, runtime, tokenizer, longest, labels, model_bytes(path))


def _onnx_kind(path: Path, runtime: OnnxRuntime, hp: HyperParameters | None) -> Kind:
    session = runtime.session
    if any(name.startswith("past_key_values.") for name in session.inputs):
        return "decoder"
    if "sentence_embedding" in session.outputs or "last_hidden_state" in session.outputs:
        return "encoder"
    if "logits" in session.outputs and (hp.head == "sequence" if hp else len(_logits_shape(runtime)) == 2):
        return "classifier"
    raise InputError(
        f"{path}: is neither a decoder with a cache, nor an encoder, nor a classifier with logits of texts"
    )


def _logits_shape(runtime: OnnxRuntime) -> list[int | str | None]:
    found = {output.name: output.shape for output in runtime.session.runtime.get_outputs()}
    return list(found["logits"])


def _labels(folder: Path, runtime: OnnxRuntime) -> tuple[str, ...]:
    """Of a classifier of no known family: those of its config.json, else numbers."""
    config = read_json(folder / "config.json", dict) if (folder / "config.json").is_file() else {}
    named, count = config.get("id2label"), _logits_shape(runtime)[1]
    if isinstance(named, dict) and named and all(str(i) in named for i in range(len(named))):
        return tuple(str(named[str(i)]) for i in range(len(named)))
    return tuple(f"LABEL_{i}" for i in range(count)) if isinstance(count, int) else ()
