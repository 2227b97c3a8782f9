"""``edgeq calibrate``: a model reads a text, and how large its layers' inputs were becomes an importance matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq import tokenization
from edgeq.calibration.importance import BLOCKS, ImportanceCollector, decoder_samples, encoder_samples
from edgeq.engine import model as engine
from edgeq.errors import EdgeqError, InputError, UsageError
from edgeq.formats.atomic import check_output
from edgeq.formats.gguf.imatrix import DEFAULT_CHUNK_SIZE, Coverage, ImportanceMatrix, merge
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.outputs import refuse_source

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Progress = Callable[[str, int, int], None]
Shapes = dict[str, tuple[int, ...]]


@dataclass
class Request:
    """What the user asked for. Without ``data`` only the files of ``merge`` are added up."""

    model: Path
    data: Path | None
    out: Path
    merge: list[Path] = field(default_factory=list)
    chunk_size: int = DEFAULT_CHUNK_SIZE
    max_tokens: int | None = None
    head: bool = False
    force: bool = False
    progress: Progress = lambda stage, done, total: None


@dataclass
class Result:
    """What came of it."""

    path: Path
    tokens: int  # read in this run
    matrix: ImportanceMatrix
    coverage: Coverage

    def record(self) -> dict[str, Any]:
        """The result in JSON's types."""
        return {
            "file": str(self.path),
            "tokens": self.tokens,
            "chunks": self.matrix.chunk_count,
            "chunk_size": self.matrix.chunk_size,
            "datasets": self.matrix.datasets,
            "columns": sum(entry.sums.size for entry in self.matrix.entries.values()),
            "coverage": asdict(self.coverage),
        }


def run(request: Request) -> Result:
    """Read the text, merge, write the file; raises EdgeqError, before the work where that can be."""
    if request.data is None and not request.merge:
        raise UsageError("give --data FILE to read, or --merge FILE to add up matrices that are there")
    check_output(request.out, force=request.force)
    refuse_source(request.out, request.model, request.data)
    others = [ImportanceMatrix.read(path, request.chunk_size) for path in request.merge]
    with _opened(request.model) as (model, open_tokenizer):
        shapes = _weights(model)
        for other in others:
            other.check_values()
            _check_fits(other, shapes, request.model)
        tokens, own = 0, []
        if request.data is not None:
            matrix = _read(request, request.data, model, open_tokenizer())
            tokens, own = int(max(entry.counts.max() for entry in matrix.entries.values())), [matrix]
        total = merge([*own, *others])
        total.write(request.out, force=request.force)
        # The head and the embeddings may be known, and need not be.
        wanted = {
            name: shape for name, shape in shapes.items() if name.startswith(BLOCKS) or name in total.entries
        }
        return Result(request.out, tokens, total, total.coverage(wanted))


def _read(request: Request, data: Path, model: engine.Model, tokenizer: Tokenizer) -> ImportanceMatrix:
    limit = request.max_tokens
    if not model.family.generates(model.hp):
        samples = encoder_samples(data, tokenizer, model.hp.context, limit)
    else:
        if request.chunk_size > model.hp.context:
            raise UsageError(
                f"--chunk-size {request.chunk_size}: {request.model} was trained for {model.hp.context} tokens"
            )
        samples = decoder_samples(data, tokenizer, request.chunk_size, limit)
    collector, done = ImportanceCollector(request.head), 0
    for sample in samples:
        collector.read(model, sample.tokens)
        done += len(sample.tokens)
        size = data.stat().st_size
        request.progress("calibrating", *((done, limit) if limit else (sample.read, max(sample.read, size))))
    if not done:
        raise InputError(f"{data}: has no tokens; give a longer text")
    return collector.matrix(str(data), request.chunk_size)


def _weights(model: engine.Model) -> Shapes:
    """The model's matrices by name."""
    specs = model.family.tensors(model.hp)
    return {spec.name: spec.shape for spec in specs if len(spec.shape) > 1 and model.weights.has(spec.name)}


def _check_fits(matrix: ImportanceMatrix, shapes: Shapes, model: Path) -> None:
    """Refuse a matrix of another model before hours of work."""
    found = matrix.coverage(shapes)
    if found.misfits:
        name, problem = next(iter(found.misfits.items()))
        raise EdgeqError(f"{matrix.origin}: {name!r} has {problem}; it does not belong to {model}")
    if not found.tensors:
        raise EdgeqError(f"{matrix.origin}: has no tensor of {model}; it belongs to another model")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[engine.Model, Callable[[], Tokenizer]]]:
    """A model of either kind, and what opens its tokenizer; raises EdgeqError."""
    if path.is_dir():
        yield engine.open_model(path), lambda: tokenization.from_directory(path)
    elif path.exists():
        with GGUFFile.open(path) as file:
            yield engine.from_gguf(file), lambda: tokenization.from_gguf(path, file.metadata)
    else:
        raise InputError(f"{path}: no such file or directory")
