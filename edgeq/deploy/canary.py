"""Which requests go to the new model: by a hash of their key, so that the same user always gets the same one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from edgeq.errors import UsageError

_BITS = 53  # what a float holds exactly


def bucket(key: str, salt: str = "") -> float:
    """A number in [0, 1) that only the key and the salt decide, evenly spread: the same on every machine and release.

    It is the first 53 bits of SHA-256 over ``salt``, a zero byte and ``key`` in UTF-8.
    """
    digest = hashlib.sha256(salt.encode() + b"\0" + key.encode("utf-8", "surrogatepass")).digest()
    return int(int.from_bytes(digest[:8], "big") >> (64 - _BITS)) / (1 << _BITS)


@dataclass(frozen=True)
class Canary:
    """A bundle that answers a share of the keys.

    Attributes:
        bundle: the folder.
        share: of the keys, 0 to 1. A larger share keeps the keys of a smaller one.
        salt: decides which keys; another one for each experiment, so that not always the same users go first.
    """

    bundle: Path
    share: float
    salt: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise UsageError(f"a canary's share of {self.share:g} is not within 0 and 1")

    def takes(self, key: str) -> bool:
        """Whether the key's requests go to the canary."""
        return bucket(key, self.salt) < self.share
