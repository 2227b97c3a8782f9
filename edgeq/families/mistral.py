"""Mistral: llama's graph, in old versions with a sliding window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from edgeq.families.llama import Llama


class Mistral(Llama):
    """Every layer has the window, where config.json has one."""

    model_types = ("mistral",)
    defaults: ClassVar[Mapping[str, Any]] = {"sliding_window": 4096}
