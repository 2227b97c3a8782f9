"""The graph that is going to be quantized: read, checked, prepared, with the samples and the judge of its copies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import onnx_ir as ir

from edgeq.calibration.inputs import Arrays, Input, checked, inputs_of
from edgeq.calibration.made_up import made_up_samples
from edgeq.calibration.sources import Samples, Want, open_samples
from edgeq.devices.cpu import usable_cores
from edgeq.errors import EdgeqError, InputError, UsageError
from edgeq.formats.onnx.prepare import prepare
from edgeq.formats.onnx.read import read_model, tensors
from edgeq.onnx.compare import is_of_classes, within
from edgeq.onnx.job import Job, OnnxQuant
from edgeq.onnx.judge import Judge
from edgeq.onnx.left import quantized_operators
from edgeq.onnx.request import Request, parse_options
from edgeq.runtimes.onnxruntime import OnnxSession


@dataclass
class Subject:
    """What every step works on.

    ``samples`` are calibrated on, ``test`` is compared on (both are all where they are few). ``float_values`` counts
    the source's float numbers. ``proven`` is whether the float graph runs, and the user wants a proof.
    """

    request: Request
    quant: OnnxQuant
    job: Job
    judge: Judge
    samples: Samples
    test: Samples
    float_values: int
    threads: int
    proven: bool

    @property
    def model(self) -> ir.Model:
        """The prepared float graph."""
        return self.job.model

    def spread(self, count: int) -> list[Arrays]:
        """So many of the samples to compare on, from all over them."""
        step = max(1, self.test.count // count)
        return list(islice(iter(self.test), 0, step * count, step))

    def judged(self, model: ir.Model, samples: list[Arrays]) -> float:
        """How close a graph's answers are, both targets on one scale."""
        outputs = self.judge.compare(model, self.job.session, samples)
        return within(outputs, self.request.target, self.request.max_kl)


def open_subject(request: Request, quant: OnnxQuant, folder: Path) -> Subject:
    """Read and prepare; ``folder`` is for temporary files. Raises EdgeqError for what is wrong with file or options."""
    options = parse_options(request, quant)
    threads = request.threads or usable_cores()
    model = read_model(request.source)
    _refuse_quantized(request, model)
    inputs = _inputs(request, model)
    float_values = sum(tensor.size for _, tensor in tensors(model) if tensor.dtype.is_floating_point())
    _check_max_kl(request, model)
    notes = prepare(model)
    judge = Judge(request.source, model, folder, threads)
    runs = _FloatRuns(request.source, threads)
    data = _data(request, inputs, runs, notes)
    samples, test = (data, data) if data.made_up else data.split()
    job = Job(
        model, None if data.made_up else samples, options.profile, options.method, folder, options.keep_float,
        options.node_types, request.exempt_to, options.blocks, request.granularity, request.progress, notes,
        cache=request.cache,
    )  # fmt: skip
    job.check_types()
    _check_kept(request, job)
    can_run = (request.proof or not data.made_up) and _can_run(runs, samples, notes)
    proven = can_run and request.proof
    return Subject(request, quant, job, judge, samples, test, float_values, threads, proven)


class _FloatRuns:
    """The float graph in the runtime, loaded when it is first asked, let go with this."""

    def __init__(self, source: Path, threads: int) -> None:
        self._source, self._threads = source, threads

    @cached_property
    def _session(self) -> OnnxSession:
        return OnnxSession(self._source, self._threads)

    def refusal(self, feeds: Arrays) -> EdgeqError | None:
        """Why it does not run with these; None where it does."""
        try:
            self._session.run(feeds, self._session.outputs)
        except EdgeqError as error:
            return error
        return None


def _refuse_quantized(request: Request, model: ir.Model) -> None:
    found = quantized_operators(model)
    if found:
        raise InputError(
            f"{request.source}: is quantized already ({', '.join(sorted(found))}); start from the float file"
        )


def _inputs(request: Request, model: ir.Model) -> list[Input] | None:
    """None where one is no tensor: such a graph is quantized without being run."""
    try:
        return inputs_of(model)
    except InputError:
        if request.calibration is not None:
            raise
        return None


def _check_max_kl(request: Request, model: ir.Model) -> None:
    names = [str(value.name) for value in model.graph.outputs]
    if request.max_kl is not None and not any(map(is_of_classes, names)):
        raise UsageError(
            f"--max-kl {request.max_kl:g}: no output is named as logits, scores or classes, but {', '.join(names)}"
        )


def _check_kept(request: Request, job: Job) -> None:
    """Raise UsageError for a pattern of ``--keep-float`` that keeps nothing."""
    names = [*(node.name or "" for node in job.model.graph.all_nodes()), *job.model.graph.initializers]
    for text, pattern in zip(request.keep_float, job.keep_float, strict=True):
        if not any(map(pattern.search, names)):
            raise UsageError(f"--keep-float {text}: matches no node and no tensor")


def _data(request: Request, inputs: list[Input] | None, runs: _FloatRuns, notes: list[str]) -> Samples:
    """What the user gave, or made-up samples that the float graph takes."""
    given = request.calibration
    if given is None or inputs is None:
        return made_up_samples(inputs or [], lambda feeds: not request.proof or runs.refusal(feeds) is None)
    if isinstance(given, Path):
        return open_samples(given, Want(request.source, inputs, request.images, request.samples, notes))
    if isinstance(given, Iterator):
        raise InputError("calibration: is an iterator, which can be read once; give a list of samples")
    arrays, known = given, inputs  # names of their own, so that they cannot become None

    def iterate() -> Iterator[Arrays]:
        for number, feeds in enumerate(arrays):
            if not isinstance(feeds, Mapping):
                raise InputError(f"calibration sample {number}: is no dictionary of arrays by input")
            yield checked(feeds, known, f"calibration sample {number}")

    count = len(arrays) if isinstance(arrays, Sequence) else 0
    return Samples("arrays", count, iterate, limit=request.samples)


def _can_run(runs: _FloatRuns, samples: Samples, notes: list[str]) -> bool:
    """Run the float graph once: what it refuses is wrong where it was given, and proves nothing where made up."""
    first = next(iter(samples), None)
    if first is None:
        raise InputError(f"{samples.name}: holds no sample; give one at least")
    error = runs.refusal(first)
    if error is None:
        return True
    if not samples.made_up:
        raise InputError(f"{samples.name}: the float model refuses the first sample ({error})")
    notes.append(f"nothing is proven: the float model refuses made-up inputs ({error})")
    return False
