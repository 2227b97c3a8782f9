"""Golden logits of transformers: made anew and compared with the stored ones, or stored with ``--write``.

Needs the ``[oracle]`` extra. Models named on the command line, or all.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import models
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

MOST_DIFFERENCE = 1e-4  # of the logits' range: other processors round otherwise


def main() -> int:
    """0 where every model gives its stored logits again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(models.MODELS))
    parser.add_argument("--write", action="store_true", help="store what transformers gives")
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    bad = [name for name in arguments.names if not _check(name, arguments.write)]
    if bad:
        print("differ:", ", ".join(bad))
    return bool(bad)


def _check(name: str, write: bool) -> bool:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shapes = _shapes(folder, name)
        models.write_checkpoint(folder, name, shapes)
        logits = _logits(folder)
    if write:
        models.save_shapes(name, shapes)
        models.save_logits(name, logits)
    golden = models.golden_logits(name)
    difference = float(np.abs(golden - logits).max() / (golden.max() - golden.min()))
    same = difference <= MOST_DIFFERENCE and models.stored_shapes()[name] == shapes
    print(f"{name}: {difference:.1e} of the range {golden.min():.2f} to {golden.max():.2f}")
    return same


def _shapes(folder: Path, name: str) -> dict[str, list[int]]:
    """The tensors of the model as transformers saves them."""
    (folder / "config.json").write_text(json.dumps(models.MODELS[name]))
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).save_pretrained(folder)
    with safe_open(folder / "model.safetensors", "numpy") as file:
        return {tensor: file.get_slice(tensor).get_shape() for tensor in sorted(file.keys())}


def _logits(folder: Path) -> NDArray[np.float32]:
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    wrong = {kind: list(info[kind]) for kind in ("missing_keys", "unexpected_keys") if info[kind]}
    if wrong:
        raise SystemExit(f"{folder}: transformers loads another model: {wrong}")
    logits: NDArray[np.float32] = model.eval()(torch.tensor([models.tokens()])).logits[0].numpy()
    return logits


if __name__ == "__main__":
    sys.exit(main())
