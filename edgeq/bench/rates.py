"""Engines' rates on this machine, from models of zeros that they run, so that predictions give back what these took.

Of each block type there is a wide model, too large for the caches: how fast it is gives the rates. Of one type of each
group that is multiplied alike there is a narrow one, too, of many layers: what it takes beyond the rates is the time
of a layer and of a short row of weights (docs/prediction.md). Models and engines take turns, in several rounds, and
each model's best turn counts: what the machine does while nothing disturbs it.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from edgeq.bench.child import Job
from edgeq.bench.worker import Worker, rounds
from edgeq.devices.measure import SOURCE, Roofs
from edgeq.devices.predict import pairs_operations, short_rows
from edgeq.devices.profile import Rates
from edgeq.devices.repacking import repacked
from edgeq.devices.work import Work
from edgeq.planning.model import open_model
from edgeq.planning.zeros import write_zeros
from edgeq.runtimes.engines import EngineName

FLOATS = "F16"  # what attention is predicted with, too
_ROUNDS, _SECONDS = 5, 46.0  # at most; no round begins that would end later
_PROMPT, _GEN = 64, 16
_DEPTH = _PROMPT + _GEN // 2
_LEAST_BYTES, _MOST_BYTES = 64_000_000, 256_000_000  # of a model's layers
_COMMON: Mapping[str, Any] = {
    "model_type": "llama",
    "vocab_size": 512,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
_WIDE = {"hidden_size": 2048, "intermediate_size": 6144, "num_attention_heads": 32, "num_key_value_heads": 8}
_NARROW = {"hidden_size": 512, "intermediate_size": 1280, "num_attention_heads": 8, "num_key_value_heads": 4}
Progress = Callable[[str, int, int], None]


class Took(NamedTuple):
    """Seconds of a token after ``_DEPTH`` others, and of a prompt of ``_PROMPT``."""

    step: float
    prompt: float


@dataclass(frozen=True)
class Sample:
    """A model of zeros in one type."""

    type_name: str
    path: Path
    work: Work

    @property
    def weights(self) -> int:
        """Those that a token is multiplied with."""
        return sum(product.weights for product in self.work.products)

    @property
    def short_rows(self) -> float:
        return sum(map(short_rows, self.work.products))

    @property
    def of_each(self) -> tuple[int, float]:
        """Weights that each token of a prompt is multiplied with, and their short rows."""
        products = [product for product in self.work.products if not product.last_only]
        return sum(product.weights for product in products), sum(map(short_rows, products))


@dataclass(frozen=True)
class Samples:
    """By type: wide models of all, narrow ones of each group's first. ``group`` names the first one of each type."""

    wide: Mapping[str, Sample]
    narrow: Mapping[str, Sample]
    group: Mapping[str, str]

    @property
    def all(self) -> list[Sample]:
        return [*self.wide.values(), *self.narrow.values()]


def measured_rates(
    engines: Mapping[EngineName, str],
    roofs: Roofs,
    types: Sequence[str],
    isa: Collection[str],
    cache_bytes: int,
    progress: Progress,
) -> list[Rates]:
    """Rates of engines (of ``edgeq.bench.engines``, with their names in profiles) for these types and 16 bits.

    Less than a minute on two cores, where nothing has to be compiled. On as many threads as ``roofs`` was measured
    with; with one, processor time counts. ``cache_bytes`` is the largest cache's size. Raises EdgeqError where an
    engine does not run a model.
    """
    size = min(max(_LEAST_BYTES, 2 * cache_bytes), _MOST_BYTES)
    with tempfile.TemporaryDirectory(prefix="edgeq-measure-") as folder, contextlib.ExitStack() as stack:
        samples = made_samples(Path(folder), tuple(dict.fromkeys([*types, FLOATS])), isa, size)
        workers = {engine: stack.enter_context(Worker()) for engine in engines}
        took = _turns(workers, samples.all, roofs.threads, progress)
    return [
        rates_of(name, roofs, samples, {path: best for (of, path), best in took.items() if of == engine})
        for engine, name in engines.items()
    ]


def made_samples(folder: Path, types: Sequence[str], isa: Collection[str], size: int) -> Samples:
    """The models, as files of about ``size`` bytes."""
    copied = repacked(isa)
    firsts: dict[object, str] = {}
    group = {name: firsts.setdefault((name in copied, name == FLOATS), name) for name in types}
    return Samples(
        wide={name: _made(folder, "wide", _WIDE, name, size) for name in types},
        narrow={name: _made(folder, "narrow", _NARROW, name, size) for name in firsts.values()},
        group=group,
    )


def _made(folder: Path, shape: str, sizes: Mapping[str, int], type_name: str, size: int) -> Sample:
    """As many layers as take ``size`` bytes."""

    def planned(layers: int) -> tuple[Work, Callable[[], Path]]:
        config = folder / "config.json"
        config.write_text(json.dumps({**_COMMON, **sizes, "num_hidden_layers": layers}), "utf-8")
        model = open_model(config)
        types = {name: type_name if len(dims) > 1 else "F32" for name, dims in model.tensors}

        def write() -> Path:
            path = folder / f"{shape}-{type_name}.gguf"
            write_zeros(model, types, path)
            return path

        return model.work(types), write

    one, two = (sum(product.nbytes for product in planned(layers)[0].products) for layers in (1, 2))
    work, write = planned(max(2, round(size / (two - one))))
    return Sample(type_name, write(), work)


def _turns(
    workers: Mapping[EngineName, Worker], samples: Sequence[Sample], n_threads: int, progress: Progress
) -> dict[tuple[str, Path], Took]:
    """The best of each engine with each model."""
    best: dict[tuple[str, Path], Took] = {}
    count = len(samples)
    for done in rounds(_SECONDS, most=_ROUNDS):
        for at, sample in enumerate(samples):
            progress("measuring", done * count + at, _ROUNDS * count)
            for engine, worker in workers.items():
                job = Job(str(sample.path), engine, n_threads, _PROMPT, _GEN, 1, n_threads == 1)
                found, before = worker.measure(job), best.get((engine, sample.path))
                took = Took(statistics.median(found.steps), statistics.median(found.prefill))
                best[engine, sample.path] = Took(*map(min, zip(took, before or took, strict=True)))
    progress("measuring", _ROUNDS * count, _ROUNDS * count)
    return best


def rates_of(engine: str, roofs: Roofs, samples: Samples, took: Mapping[Path, Took]) -> Rates:
    """What the formula of ``edgeq.devices.predict`` must be told to give back what the models took.

    The first type's rows cost nothing beyond their weights and its layer; the others' do.
    """
    asked = _Asked(roofs.read_gbs, samples, took)
    decode, prefill = {}, {}
    rows: dict[str, float] = {}
    many: dict[str, float] = {}
    for name, wide in samples.wide.items():
        weight, product = asked.weight(wide), asked.product(wide)
        decode[name], prefill[name] = round(1e-9 / weight, 2), round(2e-9 / product, 1)
        first = samples.group[name]
        if first == name:
            rows[name], many[name] = asked.rows(samples.narrow[name], weight, product)
        else:
            rows[name], many[name] = rows[first], many[first]
    return Rates(engine, roofs.threads, decode, prefill, SOURCE, round(asked.layer * 1e6, 1), rows, many)


class _Asked:
    """Seconds of one engine: of a weight, of a product with it, of a layer, of a short row."""

    def __init__(self, read_gbs: float, samples: Samples, took: Mapping[Path, Took]) -> None:
        self._took, self._read_gbs = took, read_gbs
        first = next(iter(samples.narrow))
        self.layer = self._layer(samples.wide[first], samples.narrow[first])
        floats = samples.wide[FLOATS]
        # Attention takes a hundredth of these models, so its rate need not be exact.
        self._flops = 2 * floats.of_each[0] * _PROMPT / took[floats.path].prompt

    def weight(self, wide: Sample) -> float:
        return self._step(wide) / wide.weights

    def product(self, wide: Sample) -> float:
        return self._prompt(wide, self.weight(wide)) / wide.of_each[0]

    def rows(self, narrow: Sample, weight: float, product: float) -> tuple[float, float]:
        """ns of a short row, of one token and of each of many, as what the narrow model took beyond its weights."""
        weights, short = narrow.of_each
        one = (self._step(narrow) - weight * narrow.weights) / narrow.short_rows
        each = (self._prompt(narrow, weight) - product * weights) / short
        return max(0.0, round(one * 1e9, 2)), max(0.0, round(each * 1e9, 2))

    def _layer(self, wide: Sample, narrow: Sample) -> float:
        """Beside its weights: both models' tokens take weights · x + layers · this."""
        tokens = self._token(wide), self._token(narrow)
        determinant = wide.weights * narrow.work.layers - narrow.weights * wide.work.layers
        return max(0.0, (wide.weights * tokens[1] - narrow.weights * tokens[0]) / determinant)

    def _token(self, sample: Sample) -> float:
        """Without reading the cache, which predictions add."""
        step, cached = (
            self._took[sample.path].step,
            sample.work.cache_values(_DEPTH) * sample.work.cache_bytes,
        )
        return max(step - cached / self._read_gbs / 1e9, step / 2)

    def _step(self, sample: Sample) -> float:
        """Of a token's products alone: half at least, should something have disturbed the model that gave the layer."""
        token = self._token(sample)
        return max(token - sample.work.layers * self.layer, token / 2)

    def _prompt(self, sample: Sample, weight: float) -> float:
        """Of the products of one token of a prompt; ``weight`` is of a token's alone."""
        attention = pairs_operations(sample.work, 0, _PROMPT) / self._flops
        last = weight * (sample.weights - sample.of_each[0])
        beside = sample.work.layers * self.layer + attention + last
        prompt = self._took[sample.path].prompt
        return max(prompt - beside, prompt / 2) / _PROMPT
