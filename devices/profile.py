"""What a device is, as data: one TOML file each, every number with a source and its date.

``[sources.ID]`` has ``what`` (where the numbers come from, in words) and ``date``; the tables with numbers name
one by ``source``. What a profile does not say is left to its cores' classes (``classes.toml``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgeq.devices.fields import Fields, Source, read_toml
from edgeq.formats.errors import FormatError
from edgeq.formats.gguf.types import TENSOR_TYPES_BY_NAME

KINDS = ("phone", "tablet", "laptop", "desktop", "board", "server", "gpu")
APPS = ("ios", "android", "browser", "desktop", "server")
ENGINES = ("llama.cpp", "edgeq")
# Of x86 and of ARM, by the names that edgeq has for them; what the operating system does not show does not count.
INSTRUCTION_SETS = (
    "avx2", "fma", "f16c", "avx512f", "avx512vnni", "avxvnni", "amx-int8", "amx-bf16",
    "neon", "dotprod", "i8mm", "bf16", "sve", "sve2", "sme",
)  # fmt: skip
READ_IS = ("measured", "assumed")
_MOST_GB, _MOST_GBS = 1e5, 1e5
_MOST_LAYER_US, _MOST_ROW_NS = 1e6, 1e6


@dataclass(frozen=True)
class Cluster:
    """Cores of one kind: how many, their highest clock in GHz, their class in ``classes.toml``."""

    name: str
    core_class: str
    count: int
    ghz: float
    source: str


@dataclass(frozen=True)
class Memory:
    """GB of 10⁹ bytes and GB/s: by the bus (``peak_gbs``) and as read by all cores (``read_gbs``); None: unknown.

    ``options`` are the sizes that are sold. ``read_is`` says whether the device was measured, or one like it
    (``READ_IS``).
    """

    gb: float
    options: tuple[float, ...]
    peak_gbs: float | None
    source: str
    read_gbs: float | None = None
    read_source: str = ""
    read_is: str = "measured"


@dataclass(frozen=True)
class Gpu:
    """A GPU that llama.cpp can use. ``teraflops`` are of float16 with float32 sums; 0 where nobody says."""

    name: str
    api: str
    gb: float
    gbs: float
    teraflops: float
    source: str
    shared: bool = False  # its memory is the CPU's


@dataclass(frozen=True)
class Limit:
    """GB that one app may use, under the version of the system that was seen to set it."""

    app: str
    gb: float
    system: str
    source: str


@dataclass(frozen=True)
class Rates:
    """What was measured with an engine: 10⁹ weights per second decoded, 10⁹ operations per second of many rows.

    Where models were measured, too: µs that each layer takes beside (``layer_us``; None: by class), and ns of a short
    row of weights by type, as one token is multiplied with it (``row_ns``) and as each of many (``prefill_row_ns``).
    """

    engine: str
    threads: int
    decode: Mapping[str, float]
    prefill: Mapping[str, float]
    source: str
    layer_us: float | None = None
    row_ns: Mapping[str, float] = field(default_factory=dict)
    prefill_row_ns: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Profile:
    """A device. ``isa`` are instruction sets as its operating system shows them; ``threads`` those to run on."""

    id: str
    name: str
    kind: str
    apps: tuple[str, ...]
    isa: tuple[str, ...]
    threads: int
    clusters: tuple[Cluster, ...]
    memory: Memory
    sources: Mapping[str, Source]
    aliases: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    gpus: tuple[Gpu, ...] = ()
    limits: tuple[Limit, ...] = ()
    rates: tuple[Rates, ...] = ()
    sustained: float = 1.0  # of the speed, once it is warm
    sustained_source: str = ""
    path: Path | None = None

    @property
    def cores(self) -> int:
        return sum(cluster.count for cluster in self.clusters)


def read_profile(path: Path) -> Profile:
    """Read and check a profile; raises FormatError naming the file and the field that is wrong."""
    top = read_toml(path)
    sources = top.sources()
    memory = _memory(top.table("memory"), sources)
    clusters = tuple(_cluster(row, sources) for row in top.rows("cores"))
    gpus = tuple(_gpu(row, sources) for row in top.rows("gpus"))
    kind = top.choice("kind", KINDS)
    if not clusters and not gpus:
        raise FormatError(path, "cores: there are none; write [[cores]] or [[gpus]]")
    profile = Profile(
        id=path.stem,
        name=top.text("name"),
        kind=kind,
        aliases=top.texts("aliases"),
        apps=tuple(_app(top, name) for name in top.texts("apps")),
        isa=top.texts("isa", INSTRUCTION_SETS),
        threads=top.count("threads", 1024, default=sum(c.count for c in clusters)),
        clusters=clusters,
        memory=memory,
        gpus=gpus,
        limits=tuple(_limit(row, sources) for row in top.rows("limits")),
        rates=tuple(_rates(row, sources) for row in top.rows("rates")),
        sustained=top.number("sustained", 0.05, 1, default=1.0),
        sustained_source=_source(top, "sustained_source", sources) if "sustained" in top else "",
        notes=top.texts("notes"),
        sources=sources,
        path=path,
    )
    top.done()
    _check_used(path, profile)
    return profile


def with_memory(profile: Profile, gb: float) -> Profile:
    """The same device with another amount of memory."""
    return dataclasses.replace(profile, memory=dataclasses.replace(profile.memory, gb=gb))


def _source(table: Fields, field: str, sources: Mapping[str, Source]) -> str:
    return table.choice(field, sources) if sources else table.choice(field, ("a name under [sources]",))


def _memory(table: Fields, sources: Mapping[str, Source]) -> Memory:
    read = table.optional("read_gbs", 0.1, _MOST_GBS)
    memory = Memory(
        gb=table.number("gb", 0.1, _MOST_GB),
        options=table.number_list("options", 0.1, _MOST_GB),
        peak_gbs=table.optional("peak_gbs", 0.1, _MOST_GBS),
        source=_source(table, "source", sources),
        read_gbs=read,
        read_source=_source(table, "read_source", sources) if read is not None else "",
        read_is=table.choice("read_is", READ_IS, default=READ_IS[0]) if read is not None else READ_IS[0],
    )
    table.done()
    return memory


def _cluster(table: Fields, sources: Mapping[str, Source]) -> Cluster:
    cluster = Cluster(
        name=table.text("name"),
        core_class=table.text("class"),
        count=table.count("count", 1024),
        ghz=table.number("ghz", 0.1, 10),
        source=_source(table, "source", sources),
    )
    table.done()
    return cluster


def _gpu(table: Fields, sources: Mapping[str, Source]) -> Gpu:
    gpu = Gpu(
        name=table.text("name"),
        api=table.choice("api", ("cuda", "metal", "vulkan", "opencl")),
        gb=table.number("gb", 0.1, _MOST_GB),
        gbs=table.number("gbs", 0.1, _MOST_GBS),
        teraflops=table.number("teraflops", 0, 1e5, default=0.0),
        shared=table.choice("memory", ("own", "shared"), default="own") == "shared",
        source=_source(table, "source", sources),
    )
    table.done()
    return gpu


def _app(top: Fields, name: str) -> str:
    if name not in APPS:
        raise top.error("apps", f"must be of {', '.join(APPS)}, not {name!r}")
    return name


def _limit(table: Fields, sources: Mapping[str, Source]) -> Limit:
    limit = Limit(
        app=table.choice("app", APPS),
        gb=table.number("gb", 0.01, _MOST_GB),
        system=table.text("system"),
        source=_source(table, "source", sources),
    )
    table.done()
    return limit


def _rates(table: Fields, sources: Mapping[str, Source]) -> Rates:
    rates = Rates(
        engine=table.choice("engine", ENGINES),
        threads=table.count("threads", 1024),
        decode=table.numbers("decode", 1e-3, 1e6),
        prefill=table.numbers("prefill", 1e-3, 1e7),
        source=_source(table, "source", sources),
        layer_us=table.optional("layer_us", 0, _MOST_LAYER_US),
        row_ns=table.numbers("row_ns", 0, _MOST_ROW_NS),
        prefill_row_ns=table.numbers("prefill_row_ns", 0, _MOST_ROW_NS),
    )
    for name in (*rates.decode, *rates.prefill, *rates.row_ns, *rates.prefill_row_ns):
        if name not in TENSOR_TYPES_BY_NAME:
            raise table.error("decode", f"there is no block type {name}")
    table.done()
    return rates


def _check_used(path: Path, profile: Profile) -> None:
    """A source that no number names is a number that lost its source."""
    used = {profile.memory.source, profile.memory.read_source, profile.sustained_source}
    for rows in (profile.clusters, profile.gpus, profile.limits, profile.rates):
        used |= {row.source for row in rows}
    for name in profile.sources:
        if name not in used:
            raise FormatError(path, f"sources.{name}: no number names it")
