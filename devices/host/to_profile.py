"""From what the operating system says to a profile: classes of cores, limits, GPUs."""

from __future__ import annotations

import datetime
import re

from edgeq.devices.fields import Source
from edgeq.devices.host.arm_parts import CLASSES
from edgeq.devices.host.facts import CoreGroup, HostFacts, HostGpu
from edgeq.devices.library import find
from edgeq.devices.profile import Cluster, Gpu, Limit, Memory, Profile
from edgeq.formats.errors import EdgeqError

THIS = "this"  # the id of this machine's profile
_UNKNOWN_GHZ = 3.0
_SMALL_X86 = re.compile(r"\bN\d{2,3}\b|Atom|Celeron.*\bN\d|Pentium.*\bN\d")  # all their cores are small ones

_MAKER = re.compile(r"NVIDIA|GeForce|Tesla|Laptop GPU")


def profile_of(facts: HostFacts) -> Profile:
    """A profile whose numbers come from the system; bandwidth and rates are left to the classes."""
    clusters = tuple(_cluster(group, facts) for group in facts.groups)
    limits: tuple[Limit, ...] = ()
    if facts.limit is not None and facts.limit < facts.memory:
        limits = tuple(
            Limit(app, facts.limit / 1e9, "a control group", THIS) for app in ("desktop", "server")
        )
    fast = sum(
        cluster.count
        for cluster, group in zip(clusters, facts.groups, strict=True)
        if not group.small and not cluster.core_class.endswith("-small")
    ) or sum(cluster.count for cluster in clusters)  # small ones only
    threads = max(1, min(fast, int(facts.cpus) if facts.cpus >= 1 else fast))
    today = datetime.date.today().isoformat()
    return Profile(
        id=THIS,
        name=facts.name,
        kind="server" if facts.virtual else "laptop" if facts.portable else "desktop",
        apps=("desktop", "browser", "server"),
        isa=facts.isa,
        threads=threads,
        clusters=clusters,
        memory=Memory(round(facts.memory / 1e9, 2), (), None, THIS),
        sources={THIS: Source(f"{facts.system}: what the operating system says", today)},
        limits=limits,
        gpus=tuple(_gpu(gpu) for gpu in facts.gpus),
    )


def _cluster(group: CoreGroup, facts: HostFacts) -> Cluster:
    ghz = group.mhz / 1000 or _UNKNOWN_GHZ
    return Cluster(group.name, core_class(group, facts), group.count, round(ghz, 2), THIS)


def core_class(group: CoreGroup, facts: HostFacts) -> str:
    """The class of cores: by their part where it is known, else by the instruction sets."""
    if group.name in CLASSES:
        return CLASSES[group.name]
    isa = set(facts.isa)
    if facts.machine == "arm":
        width = "mid" if group.small else "wide"
        if "dotprod" not in isa:
            return "arm-old"
        return f"arm-{width}-i8mm" if "i8mm" in isa else f"arm-{width}"
    if group.small or _SMALL_X86.search(facts.name):
        return "x86-small"
    if "avx512vnni" in isa:
        return "x86-avx512vnni"
    return "x86-avxvnni" if "avxvnni" in isa else "x86-avx2"


def _gpu(gpu: HostGpu) -> Gpu:
    """Its numbers from a profile of that name where there is one."""
    try:
        known = find(_MAKER.sub("", gpu.name)).gpus[0]
    except (EdgeqError, IndexError):
        return Gpu(gpu.name, "cuda", gpu.memory / 1e9, gpu.gbs or 300.0, 0.0, THIS)
    return Gpu(gpu.name, "cuda", gpu.memory / 1e9, gpu.gbs or known.gbs, known.teraflops, THIS)
