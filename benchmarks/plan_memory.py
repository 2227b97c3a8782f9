"""Predicted memory against llama.cpp's measured peak: ``python benchmarks/plan_memory.py``.

Six models of zeros × three formats × two contexts, each in a process of its own that reads 600 tokens and
generates one. Needs llama-cpp-python, and 1 GB of disk under the folder for temporary files.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from edgeq.devices.host import host_facts
from edgeq.devices.memory import footprint, repacked_types
from edgeq.planning.formats import formats_of
from edgeq.planning.model import open_model
from edgeq.planning.zeros import write_zeros

COMMON = {"model_type": "llama", "max_position_embeddings": 8192}
MODELS: dict[str, dict[str, Any]] = {
    "120M": {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 12, "num_attention_heads": 16,
             "num_key_value_heads": 4, "vocab_size": 32000, "tie_word_embeddings": True},
    "93M, large vocabulary": {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8,
             "num_attention_heads": 8, "vocab_size": 128000, "tie_word_embeddings": True},
    "480M": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 8, "num_attention_heads": 32,
             "num_key_value_heads": 4, "vocab_size": 32000},
    # The constants were fitted to those above; these were not looked at.
    "270M, held out": {"hidden_size": 1536, "intermediate_size": 4096, "num_hidden_layers": 6,
             "num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": 64000},
    "110M, held out": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 10,
             "num_attention_heads": 12, "vocab_size": 16000},
    "370M, held out": {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 14,
             "num_attention_heads": 20, "num_key_value_heads": 5, "vocab_size": 50304, "tie_word_embeddings": True},
}  # fmt: skip
QUANTS, CONTEXTS = ("Q4_K_M", "Q8_0", "F16"), (1024, 8192)
_RUN = """
import resource, sys
from llama_cpp import Llama
model = Llama(sys.argv[1], n_ctx=int(sys.argv[2]), n_threads=2, verbose=False)
model.eval(list(range(3, 603)))
model.eval([7])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def write_model(config: dict[str, Any], quant: str, path: Path) -> None:
    """A GGUF file with the types of a mix and zeros for weights."""
    described = path.with_suffix(".json")
    described.write_text(json.dumps(config))
    model = open_model(described)
    (made,) = (one for one in formats_of(model, (quant,)) if one.target == "gguf")
    write_zeros(model, made.types, path)


def main() -> None:
    """Print a line for each case, and the largest error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), help="which of the six")
    chosen = parser.parse_args().models
    repacked, errors = repacked_types(host_facts().isa, "desktop"), []
    for name, own in ((name, MODELS[name]) for name in chosen):
        for quant in QUANTS:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.gguf"
                write_model(COMMON | own, quant, path)
                model = open_model(path)
                made = next(iter(formats_of(model)))
                for context in CONTEXTS:
                    command = (sys.executable, "-c", _RUN, str(path), str(context))
                    done = subprocess.run(command, capture_output=True, text=True, check=True)
                    peak = int(done.stdout.split()[-1])
                    predicted = footprint(model.work(made.types), made.tensor_bytes, context, repacked).total
                    errors.append(predicted / peak - 1)
                    print(f"{name:22} {quant:7} {context:5} {peak / 1e6:7.1f} MB, "
                          f"predicted {predicted / 1e6:7.1f} ({errors[-1]:+.1%})", flush=True)  # fmt: skip
    worst = max(errors, key=abs)
    print(f"median {statistics.median(map(abs, errors)):.1%}, largest {worst:+.1%}")


if __name__ == "__main__":
    main()
