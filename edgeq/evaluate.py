"""``edgeq eval``: a model's answers on a text, beside a reference's, and what they cost."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeq.calibration.text import Text, read_text
from edgeq.chat import Message, needed
from edgeq.devices.cpu import usable_cores
from edgeq.engine.decoders import open_decoder
from edgeq.engine.generate import Timing, generate, stream_text
from edgeq.engine.sampling import Sampler
from edgeq.errors import InputError, UsageError
from edgeq.evaluation import cost
from edgeq.evaluation.classifiers import accuracy, class_logits, compare_classes, read_examples
from edgeq.evaluation.decoders import Beside, Comparison, evaluate_decoder
from edgeq.evaluation.encoders import compare_vectors, embeddings
from edgeq.evaluation.log import DEFAULT_TOP, LogReference, LogWriter, is_log
from edgeq.evaluation.opening import Evaluated, How, open_evaluated
from edgeq.evaluation.slices import slices
from edgeq.evaluation.structured import check_answers, read_prompts
from edgeq.evaluation.windows import DEFAULT_CONTEXT, Scored, Windows, windows_of
from edgeq.formats.atomic import check_output
from edgeq.kernels_cpu.cached import CacheType
from edgeq.kernels_cpu.threads import set_threads
from edgeq.outputs import refuse_source
from edgeq.runtimes.engines import EngineName, Wanted, like
from edgeq.versions import versions

Progress = Callable[[str, int, int], None]
_GENERATED = 80  # tokens for which llama.cpp's cache has room after a window
_PROMPT_ROOM = 4096  # tokens of a prompt and its answer, of the structured-output check


@dataclass
class Request:
    """What the user asked for. Without ``data`` the built-in text; ``context`` None is 512 tokens at most.

    ``reference`` is a model of the same tokens, or a log that ``save_log`` wrote; ``prompts`` a file of
    ``evaluation.structured``. With ``layers``, every tensor is looked at alone (``evaluation.layers``).
    """

    model: Path
    data: Path | None = None
    reference: Path | None = None
    engine: Wanted = "auto"
    context: int | None = None
    scored: Scored = "half"
    max_tokens: int | None = None
    cache_type: CacheType | None = None
    save_log: Path | None = None
    log_top: int = DEFAULT_TOP
    prompts: Path | None = None
    answer_tokens: int = 256
    layers: bool = False
    speed: bool = True
    threads: int = 0
    force: bool = False
    progress: Progress = lambda stage, done, total: None


def run(request: Request) -> dict[str, Any]:
    """Measure, and give the record in JSON's types; raises EdgeqError.

    Its keys: ``answers``, the statistics of ``KlStatistics`` (a decoder), ``compare_vectors`` (an encoder) or
    ``compare_classes`` (a classifier); ``slices``; ``cost`` (``evaluation.cost``); ``structured``; ``layers``; and what
    was measured with what.
    """
    threads = request.threads or usable_cores()
    set_threads(threads)
    text = read_text(request.data)
    if request.save_log is not None:
        check_output(request.save_log, force=request.force)
        refuse_source(request.save_log, request.model, request.reference, request.data, request.prompts)
    how = How(request.engine, threads, (request.context or DEFAULT_CONTEXT) + _GENERATED, request.cache_type)
    with ExitStack() as stack:
        opened = open_evaluated(request.model, how, stack)
        measured = _MEASURES[opened.kind](request, text, opened, how, stack)
        if request.layers:
            measured["layers"] = _layers(request, text, opened)
    record: dict[str, Any] = {
        "file": request.model.name or str(request.model),
        "model": str(request.model),
        "kind": opened.kind,
        "bytes": opened.nbytes,
        "engine": opened.engine,
        "runtime": opened.runtime.name,
        "threads": threads,
        "kv_type": request.cache_type,
        "data": text.name,
        "builtin_text": text.builtin,
        **measured,
    }
    if request.prompts is not None:
        record["structured"] = _structured(request, opened.engine, threads)
    return record | {"versions": versions()}


def _of_decoder(
    request: Request, text: Text, opened: Evaluated, how: How, stack: ExitStack
) -> dict[str, Any]:
    windows = windows_of(
        text.content,
        text.name,
        opened.tokenizer,
        opened.longest,
        request.context,
        request.scored,
        request.max_tokens,
    )
    found: dict[str, Any] = {"context": windows.context, "scored": windows.scored}
    if request.speed:
        room = max(2, min(windows.context, opened.longest - _GENERATED))
        found["cost"] = cost.measure_decoder(opened, next(iter(windows)).tokens[:room])
    reference = _decoder_reference(request, windows, opened, how, stack)
    log = LogWriter(windows, request.log_top) if request.save_log else None
    answers = evaluate_decoder(
        opened.decoder,
        windows,
        reference,
        lambda done, total: request.progress("reading", done, total),
        *([log.watch] if log else []),
    )
    if log and request.save_log:
        log.write(request.save_log, request.model.name, request.force)
        found["log"] = str(request.save_log)
    found |= {"reference": reference.name if reference else None, "answers": answers.summary()}
    if answers.statistics:
        read = [token for window in windows for token in window.tokens]
        found["slices"] = slices(answers.statistics, read)
        found["kl_is_lower_bound"] = isinstance(reference, LogReference) and reference.is_bound
    return found


def _decoder_reference(
    request: Request, windows: Windows, opened: Evaluated, how: How, stack: ExitStack
) -> Comparison | None:
    if request.reference is None:
        return None
    if is_log(request.reference):
        log = LogReference(request.reference, windows)
        stack.callback(log.close)
        return log
    reference = _open_reference(request.reference, opened, how, stack)
    if reference.tokenizer.encode(_PROBE).ids != opened.tokenizer.encode(_PROBE).ids:
        raise InputError(
            f"{request.reference}: has other tokens than {request.model}; they cannot be compared"
        )
    return Beside(reference.decoder)


_PROBE = "def main(argv): return 'Straße 12345'  # naïve\n\tThe quick brown fox."


def _open_reference(path: Path, opened: Evaluated, how: How, stack: ExitStack) -> Evaluated:
    reference = open_evaluated(path, replace(how, engine=like(opened.engine, path), cache_type=None), stack)
    if reference.kind != opened.kind:
        raise InputError(f"{path}: cannot be compared, {reference.kind} with {opened.kind}")
    return reference


def _of_encoder(
    request: Request, text: Text, opened: Evaluated, how: How, stack: ExitStack
) -> dict[str, Any]:
    _refuse(request, "an encoder")
    lines, found = text.lines(), dict[str, Any]()
    if request.reference is None:
        raise UsageError("an encoder's vectors are measured by their distance to others'; give --reference")
    if request.speed:
        found["cost"] = cost.measure_encoder(opened, lines, opened.encoder.embed)

    def vectors(model: Evaluated, stage: str) -> Any:
        return embeddings(
            model.encoder, model.tokenizer, model.longest, lines, lambda i, n: request.progress(stage, i, n)
        )

    candidate = vectors(opened, "reading")
    reference = _open_reference(request.reference, opened, how, stack)
    expected = vectors(reference, "reading with the reference")
    if expected.shape != candidate.shape:
        raise InputError(
            f"{request.reference}: gives {expected.shape[1]} numbers, the model {candidate.shape[1]}"
        )
    return found | {
        "reference": reference.runtime.name,
        "answers": compare_vectors(expected, candidate, lines),
    }


def _of_classifier(
    request: Request, text: Text, opened: Evaluated, how: How, stack: ExitStack
) -> dict[str, Any]:
    _refuse(request, "a classifier")
    examples = read_examples(Path(text.name), text.lines(), opened.labels)
    found: dict[str, Any] = {"reference": None}
    if request.speed:
        found["cost"] = cost.measure_encoder(opened, [one.text for one in examples], opened.encoder.scores)

    def logits(model: Evaluated, stage: str) -> Any:
        return class_logits(
            model.encoder,
            model.tokenizer,
            model.longest,
            examples,
            lambda i, n: request.progress(stage, i, n),
        )

    own = logits(opened, "reading")
    if request.reference is None:
        found["answers"] = accuracy(own, examples)
        if not found["answers"]:
            raise UsageError(
                'plain sentences have no labels to be right about; give --reference, or lines of {"text": "...", '
                '"label": "..."}'
            )
        return found
    reference = _open_reference(request.reference, opened, how, stack)
    expected = logits(reference, "reading with the reference")
    if expected[0].shape != own[0].shape:
        raise InputError(
            f"{request.reference}: has {expected[0].shape[1]} labels, the model {own[0].shape[1]}"
        )
    return found | {"reference": reference.runtime.name, "answers": compare_classes(expected, own, examples)}


_MEASURES: dict[str, Callable[[Request, Text, Evaluated, How, ExitStack], dict[str, Any]]] = {
    "decoder": _of_decoder,
    "encoder": _of_encoder,
    "classifier": _of_classifier,
}


def _refuse(request: Request, kind: str) -> None:
    """Raise UsageError for what only models that generate have."""
    only = {"--context": request.context, "--save-log": request.save_log, "--prompts": request.prompts}
    only["--max-tokens"] = request.max_tokens
    for option, value in only.items():
        if value is not None:
            raise UsageError(f"{option} is for models that generate, and {request.model} is {kind}")


def _structured(request: Request, engine: EngineName, threads: int) -> dict[str, Any]:
    """The model's answers to the prompts, greedily; the reference's, too, where it is a model."""
    assert request.prompts is not None
    prompts = read_prompts(request.prompts)

    def answers(path: Path, engine: Wanted, cache_type: CacheType | None) -> dict[str, Any]:
        with open_decoder(path, engine, threads, _PROMPT_ROOM, cache_type) as opened:

            def answer(prompt: str | tuple[Message, ...]) -> str:
                if isinstance(prompt, str):
                    ids = opened.tokenizer.encode(prompt).ids
                else:
                    rendered = needed(opened.chat, path).render(list(prompt))
                    ids = opened.tokenizer.encode(rendered, add_special_tokens=False).ids
                opened.decoder.reset()
                tokens = generate(
                    opened.decoder, ids, request.answer_tokens, Sampler(), opened.stop, Timing()
                )
                return "".join(stream_text(opened.tokenizer, tokens))

            return check_answers(answer, prompts, lambda i, n: request.progress("answering", i, n))

    found = answers(request.model, engine, request.cache_type)
    if request.reference is not None and not is_log(request.reference):
        found["reference"] = answers(request.reference, like(engine, request.reference), None)
    return found


def _layers(request: Request, text: Text, opened: Evaluated) -> list[dict[str, Any]]:
    from edgeq.evaluation.layers import look_at_layers
    from edgeq.evaluation.onnx_layers import look_at_graph

    if request.reference is None or is_log(request.reference):
        raise UsageError("--layers compares weights; give --reference with the float model")
    if opened.engine == "onnxruntime":
        return look_at_graph(opened, request.reference, text, request.context, request.progress)
    return look_at_layers(request.model, request.reference, text, request.context, request.progress)
