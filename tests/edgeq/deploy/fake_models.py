"""Models that fail as they are told to: by a word in their bundle, and by words in the prompt."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Fake:
    def __init__(self, name: str) -> None:
        self.name = name

    def answer(self, request: Mapping[str, Any]) -> Any:
        trouble = request.get("trouble", {}).get(self.name)
        if trouble == "nan":
            return [[1.0, float("nan")]]
        if trouble == "repetition":
            return "well, " + "round and " * 40
        if trouble == "timeout":
            time.sleep(60)
        if trouble == "memory":
            raise MemoryError
        if trouble == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if trouble == "crash":
            os._exit(7)
        if trouble == "error":
            raise ValueError(request["prompt"])
        print("a library that prints")
        return f"{self.name}: {request['prompt']}"


def open_fake(folder: str) -> Fake:
    """What the bundle's file says: a name, and how opening it goes."""
    said = json.loads((Path(folder) / "model.json").read_text())
    if said.get("load") == "refuse":
        raise ValueError("not a model")
    if said.get("load") == "exit":
        sys.exit(3)
    return Fake(said["name"])
