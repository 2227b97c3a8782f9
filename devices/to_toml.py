"""A profile as the TOML text that ``read_profile`` reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from edgeq.devices.profile import READ_IS, Profile

Value = str | float | Iterable[str] | Iterable[float] | Mapping[str, float]


def profile_toml(profile: Profile) -> str:
    """The profile in TOML, sections in the order of the built-in ones."""
    memory = profile.memory
    lines = _pairs(
        name=profile.name,
        kind=profile.kind,
        aliases=profile.aliases or None,
        apps=profile.apps,
        isa=profile.isa or None,
        threads=profile.threads,
        sustained=profile.sustained if profile.sustained_source else None,
        sustained_source=profile.sustained_source or None,
        notes=profile.notes or None,
    )
    for name, source in profile.sources.items():
        lines += ["", f"[sources.{name}]", *_pairs(what=source.what, date=source.date)]
    lines += ["", "[memory]"]
    lines += _pairs(
        gb=memory.gb,
        options=memory.options or None,
        peak_gbs=memory.peak_gbs,
        source=memory.source,
        read_gbs=memory.read_gbs,
        read_source=memory.read_source or None,
        read_is=memory.read_is if memory.read_is != READ_IS[0] else None,
    )
    for c in profile.clusters:
        lines += ["", "[[cores]]", f"class = {_value(c.core_class)}"]  # a word that no argument can have
        lines += _pairs(name=c.name, count=c.count, ghz=c.ghz, source=c.source)
    for g in profile.gpus:
        lines += ["", "[[gpus]]"]
        lines += _pairs(name=g.name, api=g.api, gb=g.gb, gbs=g.gbs, teraflops=g.teraflops, source=g.source)
        lines += _pairs(memory="shared" if g.shared else "own")
    for limit in profile.limits:
        lines += ["", "[[limits]]"]
        lines += _pairs(app=limit.app, gb=limit.gb, system=limit.system, source=limit.source)
    for r in profile.rates:
        lines += ["", "[[rates]]"]
        lines += _pairs(engine=r.engine, threads=r.threads, source=r.source)
        lines += _pairs(
            decode=r.decode,
            prefill=r.prefill,
            layer_us=r.layer_us,
            row_ns=r.row_ns or None,
            prefill_row_ns=r.prefill_row_ns or None,
        )
    return "\n".join(lines) + "\n"


def _pairs(**values: Value | None) -> list[str]:
    return [f"{key} = {_value(value)}" for key, value in values.items() if value is not None]


def _value(value: Value) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)  # TOML's basic strings escape as JSON's do
    if isinstance(value, int | float):
        return f"{value:.12g}"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(number)}" for key, number in value.items()) + " }"
    return "[" + ", ".join(_value(item) for item in value) + "]"
