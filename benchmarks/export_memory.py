"""Peak memory and time of a checkpoint's conversion to GGUF, on a synthetic llama of about a billion parameters.

    python benchmarks/export_memory.py [--layers 16] [--quant Q4_K_M]

The checkpoint (random bfloat16, sharded safetensors) is made in a temporary folder of about twice its parameters in
bytes. The bar: peak resident memory at most 350 MB + 2 × the largest tensor. The proof is left out here: it loads
the finished file in a process of its own, which llama.cpp fills with the file.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np

TOKENIZER = Path(__file__).parents[1] / "tests" / "assets" / "tinylm"
_PIECE = 1 << 20  # values
HIDDEN, FFN, VOCAB, HEADS, KV_HEADS = 2048, 8192, 32_000, 32, 8


def config(layers: int) -> dict[str, object]:
    """The config.json of the model."""
    return {
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": FFN,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "vocab_size": VOCAB,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "tie_word_embeddings": True,
    }


def shards(layers: int) -> Iterator[dict[str, tuple[int, ...]]]:
    """Tensor shapes shard by shard: the embedding first, then four layers each."""
    yield {"model.embed_tokens.weight": (VOCAB, HIDDEN), "model.norm.weight": (HIDDEN,)}
    kv = HIDDEN // HEADS * KV_HEADS
    for first in range(0, layers, 4):
        shapes: dict[str, tuple[int, ...]] = {}
        for i in range(first, min(layers, first + 4)):
            p = f"model.layers.{i}."
            shapes |= {
                p + "input_layernorm.weight": (HIDDEN,),
                p + "post_attention_layernorm.weight": (HIDDEN,),
            }
            shapes |= {p + f"self_attn.{n}_proj.weight": (HIDDEN, HIDDEN) for n in "qo"}
            shapes |= {p + f"self_attn.{n}_proj.weight": (kv, HIDDEN) for n in "kv"}
            shapes |= {p + f"mlp.{n}_proj.weight": (FFN, HIDDEN) for n in ("gate", "up")}
            shapes[p + "mlp.down_proj.weight"] = (HIDDEN, FFN)
        yield shapes


def write_checkpoint(folder: Path, layers: int) -> tuple[int, int]:
    """Write the checkpoint; (parameters, bytes of the largest tensor)."""
    random = np.random.default_rng(0)
    names = list(shards(layers))
    weight_map, parameters, largest = {}, 0, 0
    for number, shapes in enumerate(names, start=1):
        file = f"model-{number:05d}-of-{len(names):05d}.safetensors"
        header, offset = {}, 0
        for name, shape in shapes.items():
            size = 2 * int(np.prod(shape))
            header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + size]}
            weight_map[name] = file
            parameters, largest, offset = parameters + size // 2, max(largest, size), offset + size
        text = json.dumps(header).encode()
        with (folder / file).open("wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            for shape in shapes.values():
                # In small pieces: a child's peak begins with what its parent holds.
                count = int(np.prod(shape))
                for first in range(0, count, _PIECE):
                    piece = random.standard_normal(min(_PIECE, count - first), dtype=np.float32) * np.float32(
                        0.02
                    )
                    out.write(piece.astype(ml_dtypes.bfloat16).tobytes())
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(config(layers)))
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(TOKENIZER / name, folder / name)
    return parameters, largest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--quant", default="Q4_K_M")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgeq-bench-") as temporary:
        folder = Path(temporary) / "synthetic"
        folder.mkdir()
        parameters, largest = write_checkpoint(folder, options.layers)
        command = [sys.executable, "-m", "edgeq", "export", str(folder), "--to", "gguf"]
        command += ["--quant", options.quant, "-o", str(Path(temporary) / "out"), "--no-proof"]
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (
            1 if sys.platform == "darwin" else 1024
        )
    bar = 350e6 + 2 * largest
    print(f"{parameters / 1e9:.2f} billion parameters to {options.quant} in {seconds:.0f} s")
    print(f"peak memory {peak / 1e6:.0f} MB, bar {bar / 1e6:.0f} MB (350 MB + 2 × {largest / 1e6:.0f} MB)")
    sys.exit(peak > bar)


if __name__ == "__main__":
    main()
