"""What the tests of a user's mistakes share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

EXPORTS = (("gguf", "Q4_0"), ("onnx", "int8"))
BOTH = pytest.mark.parametrize(("to", "quant"), EXPORTS)


def is_one_line(err: str) -> None:
    assert err.startswith("edgeq: error: "), err
    assert err.count("\n") == 1, err
    assert err.endswith("\n")
    assert len(err) < 1000
    assert "Traceback" not in err


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder with its size and time of change, hidden ones too."""
    found = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        found[str(path)] = (status.st_size, status.st_mtime_ns) if path.is_file() else (0, 0)
    return found


def edit(file: Path, **changes: Any) -> None:
    """Change fields of a JSON file; None removes one."""
    value = json.loads(file.read_text("utf-8")) | changes
    file.write_text(json.dumps({k: v for k, v in value.items() if v is not None}), "utf-8")


def change_weights(model: Path, change) -> None:
    """Rewrite the weights as ``change`` leaves the dictionary of tensors."""
    file = model / "model.safetensors"
    tensors = dict(load_file(file))
    change(tensors)
    file.unlink()
    save_file(tensors, file)
