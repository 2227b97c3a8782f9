"""An evaluation in a process of its own, so that its peak of memory is the model's and not the converter's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from edgeq.errors import EdgeqError


def evaluate_apart(
    model: Path, reference: Path, data: Path | None, out: Path | None, threads: int = 0
) -> dict[str, Any]:
    """The record of ``edgeq eval``, added to ``out``'s edgeq.json and report.html where given. Raises EdgeqError."""
    command = [sys.executable, "-m", "edgeq", "eval", str(model), "--reference", str(reference), "--json"]
    command += ["--threads", str(threads), *(["--output", str(out)] if out else [])]
    command += ["--data", str(data)] if data else []
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"]
        raise EdgeqError(f"{model}: cannot be evaluated ({said[-1].removeprefix('edgeq: error: ')})")
    record: dict[str, Any] = json.loads(done.stdout)
    return record
