"""What a CPU that will run the file asks of its 8-bit codes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from edgeq.errors import InputError
from edgeq.formats.onnx.int8 import FULL_RANGE, S8S8, SAFE_RANGE, U8S8, U8U8, Types

TYPES = {"u8s8": U8S8, "s8s8": S8S8, "u8u8": U8U8}


@dataclass(frozen=True)
class Profile:
    """The types of codes, what two neighbouring weights may weigh together, and the session's entries.

    ``block_size`` and ``accuracy_level`` are of weights in blocks, where the user says nothing.
    """

    name: str
    types: Types
    limit: int
    session: dict[str, str] = field(default_factory=dict)
    block_size: int = 32
    accuracy_level: int = 4


# vpmaddubsw, which x86 has before VNNI, adds two products in a saturating int16; VNNI, AMX and ARM sum in 32 bits.
# ONNX Runtime's ARM kernels multiply signed by signed; it keeps such files signed only when the session says so.
_SIGNED = {"session.qdqisint8allowed": "1"}
PROFILES = {
    profile.name: profile
    for profile in (
        Profile("generic", U8S8, SAFE_RANGE),
        Profile("avx2", U8S8, SAFE_RANGE),
        Profile("avx-vnni", U8S8, FULL_RANGE),
        Profile("avx512-vnni", U8S8, FULL_RANGE),
        Profile("amx", U8S8, FULL_RANGE),
        Profile("neon-dotprod", S8S8, FULL_RANGE, _SIGNED),
        Profile("neon-i8mm", S8S8, FULL_RANGE, _SIGNED),
    )
}


def find_profile(isa: str) -> Profile:
    """The profile of that name, any case; raises InputError listing them."""
    if isa.lower() not in PROFILES:
        raise InputError(f"{isa}: there are {', '.join(PROFILES)}")
    return PROFILES[isa.lower()]


def find_types(scheme: str) -> Types:
    """The types of that name, any case; raises InputError listing them."""
    if scheme.lower() not in TYPES:
        raise InputError(f"{scheme}: there are {', '.join(TYPES)}")
    return TYPES[scheme.lower()]


def changed(profile: Profile, types: Types | None, full_range: bool) -> Profile:
    """A profile with other types, or with all 8 bits of the weights."""
    types = types or profile.types
    limit = (
        FULL_RANGE if full_range or types is U8U8 else profile.limit
    )  # u8 x u8 is summed in 32 bits everywhere
    return replace(profile, types=types, limit=limit, session=_SIGNED if types is S8S8 else {})
