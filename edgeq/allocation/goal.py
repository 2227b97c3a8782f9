"""What the user asks of a file beside its format: a size, a quality, a speed on a device."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf, prod
from pathlib import Path

from edgeq.allocation.candidates import DEFAULT_TYPES, parse_types, size_of
from edgeq.allocation.search import Goal
from edgeq.devices.machine import Machine
from edgeq.devices.predict import decode_seconds
from edgeq.devices.work import Product, Work
from edgeq.errors import UsageError
from edgeq.evaluation.loss import Loss
from edgeq.formats.gguf.mix_table import FILE_TYPES
from edgeq.formats.gguf.overrides import Override
from edgeq.formats.gguf.split_writer import parse_size
from edgeq.options import parsed
from edgeq.planning.model import cached_layers
from edgeq.source import ModelSource

_DEPTH = 128  # tokens before the one that is timed, as in `edgeq plan`


@dataclass(frozen=True)
class Wanted:
    """As the options have it; None where nobody asked. ``machine`` is what ``min_tps`` speaks of."""

    max_size: str | None = None
    target_bpw: float | None = None
    max_kl: float | None = None
    min_cosine: float | None = None
    min_tps: float | None = None
    types: str | None = None
    machine: Machine | None = None

    def __bool__(self) -> bool:
        limits = self.max_size, self.target_bpw, self.max_kl, self.min_cosine, self.min_tps
        return any(limit is not None for limit in limits)

    def check(self, to: str) -> None:
        """Raises UsageError for what contradicts itself; ``to`` is gguf or onnx."""
        if self.types is not None and not self:
            raise UsageError(
                "--types goes with --max-size, --target-bpw, --max-kl, --min-cosine or --min-tps"
            )
        if self.max_size is not None and self.target_bpw is not None:
            raise UsageError("--max-size and --target-bpw are both sizes; give one of them")
        for option, limit in (
            ("--target-bpw", self.target_bpw),
            ("--max-kl", self.max_kl),
            ("--min-cosine", self.min_cosine),
            ("--min-tps", self.min_tps),
        ):
            if limit is not None and not limit > 0:
                raise UsageError(f"{option} {limit:g}: must be above 0")
        if self.min_cosine is not None and not self.min_cosine < 1:
            raise UsageError(f"--min-cosine {self.min_cosine:g}: must be below 1")
        if self.min_cosine is not None and self.max_kl is not None:
            raise UsageError("--max-kl is for models that generate or classify, --min-cosine for encoders")
        if self.max_size is not None:
            parsed("--max-size", self.max_size, parse_size)
        if to == "gguf":
            self.candidates()

    def label(self) -> str:
        """What the file is called by, in place of a quant."""
        parts = [
            self.max_size,
            None if self.target_bpw is None else f"{self.target_bpw:g}bpw",
            None if self.max_kl is None else f"kl{self.max_kl:g}",
            None if self.min_cosine is None else f"cosine{self.min_cosine:g}",
            None if self.min_tps is None else f"{self.min_tps:g}tps",
        ]
        return "-".join(["auto", *(part.replace(" ", "") for part in parts if part)])

    def candidates(self) -> tuple[str, ...]:
        """The types that tensors may get: those asked for, without what the device has no rate for."""
        kinds = DEFAULT_TYPES if self.types is None else parse_types(self.types)
        if self.machine is None:
            return kinds
        known = tuple(kind for kind in kinds if kind in self.machine.decode)
        if not known:
            raise UsageError(f"--types {self.types}: {self.machine.unit} runs none of them")
        return known

    def check_loss(self, path: Path, loss: Loss) -> None:
        """Raises UsageError for a quality or a speed that the model of ``path`` does not have."""
        for option, limit in (("--max-kl", self.max_kl), ("--min-cosine", self.min_cosine)):
            if limit is not None and option != loss.option:
                raise UsageError(
                    f"{option} is not for {path}, whose quality is {loss.noun}; give {loss.option}"
                )

    def goal(self, parameters: int, header: int = 0) -> Goal:
        """In bytes of the file, seconds and loss; ``header`` bytes do not count as bits of weights."""
        nbytes: float = inf
        if self.max_size is not None:
            nbytes = parsed("--max-size", self.max_size, parse_size)
        elif self.target_bpw is not None:
            nbytes = self.target_bpw * parameters / 8 + header
        loss = self.max_kl or (inf if self.min_cosine is None else 1 - self.min_cosine)
        return Goal(nbytes, inf if self.min_tps is None else 1 / self.min_tps, loss)


@dataclass(frozen=True)
class Times:
    """Seconds of one token on a machine, tensor by tensor: the products alone, and what does not depend on types."""

    of: Callable[[str, str], float]
    fixed: float


NO_TIMES = Times(lambda name, kind: 0.0, 0.0)


def times(source: ModelSource, machine: Machine | None) -> Times:
    """What a device's profile predicts; all 0 where no machine is given."""
    if machine is None:
        return NO_TIMES
    hp = source.hp
    if not source.family.generates(source.hp):
        raise UsageError(f"{source.path}: generates no tokens; --min-tps and --target do not go with it here")
    tied = not source.has("output.weight")
    looked_up = set() if tied else {"token_embd.weight"}
    cached = cached_layers(hp, windows=True)
    rest = Work([], hp.n_layers, hp.hidden, hp.vocab, hp.n_heads * hp.head_dim, cached)

    def seconds(name: str, kind: str) -> float:
        if name in looked_up:
            return 0.0
        shape = source.shape(name)
        share = hp.n_experts_used / shape[0] if len(shape) > 2 and hp.n_experts_used else 1.0
        one = Work([Product(kind, prod(shape), share)], 0, 0, 0, 0)
        return decode_seconds(one, machine, 0)

    return Times(seconds, decode_seconds(rest, machine, _DEPTH))


def exactly(types: Mapping[str, str]) -> list[Override]:
    """Overrides that give each of these tensors its type."""
    return [Override(re.compile(f"^{re.escape(name)}$"), kind) for name, kind in types.items()]


def nearest_mix(types: Mapping[str, str], shape_of: Callable[[str], tuple[int, ...]]) -> str:
    """llama.cpp's name for a file most of whose bytes are of one type: what general.file_type says of it."""
    sizes: dict[str, int] = {}
    for name, kind in types.items():
        sizes[kind] = sizes.get(kind, 0) + size_of(kind, shape_of(name))
    base = max(sizes, key=lambda kind: sizes[kind])
    named = [kind.name for kind in FILE_TYPES.values() if kind.base == base]
    return next((name for name in named if name.endswith("_M")), named[0])
