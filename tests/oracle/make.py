"""Golden logits and hidden states of transformers: made anew and compared with the stored ones.

``--write`` stores them. Needs the ``[oracle]`` extra. Models named on the command line, or all.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file
from transformers.utils import logging

sys.path.insert(0, str(Path(__file__).parents[1]))
from oracle import embedders, encoders, models

CONFIGS = models.MODELS | encoders.MODELS | {name: one.config for name, one in embedders.MODELS.items()}

MOST_DIFFERENCE = 1e-4  # of the logits' range: other processors round otherwise


def main() -> int:
    """0 where every model gives its stored logits again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(CONFIGS))
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
        if name in embedders.MODELS:
            embedders.write_checkpoint(folder, name, shapes)
            logits = _vectors(folder, name)
        else:
            models.write_checkpoint(folder, name, shapes, CONFIGS[name])
            logits = _answer(folder, name)
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
    (folder / "config.json").write_text(json.dumps(CONFIGS[name]))
    config = transformers.AutoConfig.from_pretrained(folder)
    kind = _kind(name)
    make = kind.from_config if hasattr(kind, "from_config") else kind
    make(config).save_pretrained(folder)
    with safe_open(folder / "model.safetensors", "numpy") as file:
        return {tensor: file.get_slice(tensor).get_shape() for tensor in sorted(file.keys())}


def _kind(name: str) -> Any:
    """The class of the model: an encoder's config names its own."""
    if name in models.MODELS:
        return transformers.AutoModelForCausalLM
    if name in embedders.MODELS:
        return transformers.AutoModel
    return getattr(transformers, CONFIGS[name]["architectures"][0])


def _answer(folder: Path, name: str) -> NDArray[np.float32]:
    """Logits of a decoder or a classifier, the last hidden states of another encoder."""
    model = _loaded(folder, name)
    texts = [models.tokens()] if name in models.MODELS else encoders.texts(name)
    answers = []
    for tokens in texts:
        out = model.eval()(torch.tensor([tokens]))
        answers.append(out.logits if "logits" in out else out.last_hidden_state)
    result: NDArray[np.float32] = torch.cat(answers).reshape(-1, answers[0].shape[-1]).numpy()
    return result


def _loaded(folder: Path, name: str) -> Any:
    model, info = _kind(name).from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    wrong = {kind: list(info[kind]) for kind in ("missing_keys", "unexpected_keys") if info[kind]}
    if wrong:
        raise SystemExit(f"{folder}: transformers loads another model: {wrong}")
    return model


def _vectors(folder: Path, name: str) -> NDArray[np.float32]:
    """Sentence embeddings, by what sentence-transformers' modules do to the last hidden states."""
    model, embedder = _loaded(folder, name), embedders.MODELS[name]
    vectors = []
    for tokens in embedders.texts(name):
        hidden = model.eval()(torch.tensor([tokens])).last_hidden_state[0]
        vector = hidden[-1] if embedder.pooling == "lasttoken" else hidden.mean(dim=0)
        for i, (_, _, activation) in enumerate(embedder.dense, start=2):
            layer = load_file(folder / f"{i}_Dense/model.safetensors")
            vector = torch.nn.functional.linear(vector, layer["linear.weight"], layer.get("linear.bias"))
            vector = getattr(torch.nn, activation.rpartition(".")[2])()(vector)
        vectors.append(torch.nn.functional.normalize(vector, dim=0) if embedder.normalised else vector)
    result: NDArray[np.float32] = torch.stack(vectors).numpy()
    return result


if __name__ == "__main__":
    sys.exit(main())
