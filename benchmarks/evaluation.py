"""``edgeq eval`` beside llama.cpp's own numbers: perplexity and KL of the same files on the same windows.

python benchmarks/evaluation.py [--quants Q4_K_M,Q2_K] [--text FILE] [--tokens 20480] [--context 256] [--json OUT]

TinyLM, on the held-out modules of the running Python's standard library or on a file. llama.cpp's side is
llama-cpp-python with the logits of all tokens, no code of edgeq's: sums in float64, by llama-perplexity's rule (the
second half of each window). Ours is ``edgeq.evaluate``, once in llama.cpp, where only the arithmetic of the evaluation
can differ, and once in the embedded engine, whose processor time is stated for one thread. llama.cpp's attention is
rounded to 16 bits; what that alone changes is told by a second run of it with a float32 cache and plain attention. The
bar is half a per cent for perplexity and mean KL.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from edgeq import tokenization
from edgeq.convert import gguf_file
from edgeq.convert.checkpoint_rows import CheckpointRows
from edgeq.evaluate import Request, run
from edgeq.formats.effort import Effort
from edgeq.source import SourceModel

# Behind edgeq, whose tests have a folder of its name.
sys.path.append(str(Path(__file__).parents[1] / "tests"))
import heldout

TINYLM = Path(heldout.__file__).parent / "assets" / "tinylm"
BAR = 0.005


def log_probabilities(path: Path, windows: np.ndarray, plain: bool) -> Any:
    """Float64 log probabilities of each window's scored rows, by llama-cpp-python; ``plain``: attention in float32."""
    context = windows.shape[1]
    floats = {"type_k": llama_cpp.GGML_TYPE_F32, "type_v": llama_cpp.GGML_TYPE_F32, "flash_attn": False}
    llama = llama_cpp.Llama(
        str(path),
        n_ctx=context,
        n_batch=context,
        n_threads=1,
        n_threads_batch=1,
        logits_all=True,
        verbose=False,
        **(floats if plain else {}),
    )
    for tokens in windows:
        llama.reset()
        llama._ctx.kv_cache_clear()
        llama.eval(tokens.tolist())
        logits = llama.scores[context // 2 : context - 1].astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        yield logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def theirs(quantized: Path, reference: Path, windows: np.ndarray, plain: bool = False) -> dict[str, float]:
    """Perplexity, that of the reference, and mean KL with its error."""
    kl, nll, base = [], [], []
    pairs = zip(*(log_probabilities(path, windows, plain) for path in (quantized, reference)), strict=True)
    for tokens, (q, p) in zip(windows, pairs, strict=True):
        following = tokens[windows.shape[1] // 2 + 1 :]
        rows = np.arange(len(following))
        kl.append((np.exp(p) * (p - q)).sum(axis=1))
        nll.append(-q[rows, following])
        base.append(-p[rows, following])
    values = np.concatenate(kl)
    return {
        "perplexity": float(np.exp(np.concatenate(nll).mean())),
        "perplexity_float": float(np.exp(np.concatenate(base).mean())),
        "kl_mean": float(values.mean()),
        "kl_standard_error": float(values.std() / np.sqrt(len(values) - 1)),
    }


def show(name: str, ours: dict[str, float], reference: dict[str, float]) -> dict[str, Any]:
    """Print and give what differs, as shares."""
    off = {key: ours[key] / reference[key] - 1 for key in ("perplexity", "perplexity_float", "kl_mean")}
    print(f"  {name} (bar ±{BAR:.1%})")
    for key, value in off.items():
        print(f"    {key:17} {ours[key]:.6f}, {reference[key]:.6f}, {value:+.3%}")
    return {"ours": ours, "llama.cpp": reference, "off": off}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quants", default="Q4_K_M,Q2_K")
    parser.add_argument("--text", type=Path)
    parser.add_argument("--tokens", type=int, default=20480)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--json", type=Path)
    wanted = parser.parse_args()
    text = wanted.text.read_text(encoding="utf-8") if wanted.text else heldout.code()
    ids = tokenization.from_directory(TINYLM).encode(text).ids[: wanted.tokens]
    windows = np.asarray(ids[: len(ids) // wanted.context * wanted.context]).reshape(-1, wanted.context)
    rows = CheckpointRows(SourceModel.open(TINYLM))
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / "text.txt"
        data.write_text(text, encoding="utf-8")
        paths = {quant: folder / f"{quant}.gguf" for quant in ("F16", *wanted.quants.split(","))}
        for quant, path in paths.items():
            plan = gguf_file.plan(rows, quant)
            gguf_file.write(rows, plan, path, gguf_file.WriteOptions(effort=Effort.ggml))
        for quant in wanted.quants.split(","):
            request = Request(
                paths[quant], data, paths["F16"], context=wanted.context, max_tokens=wanted.tokens
            )
            request.threads, request.speed = 1, False
            started = time.process_time()
            embedded = run(request)["answers"]
            seconds = time.process_time() - started
            in_theirs = run(replace(request, engine="llama.cpp"))["answers"]
            reference, plain = (theirs(paths[quant], paths["F16"], windows, one) for one in (False, True))
            print(
                f"{quant}: {embedded['tokens']:,} tokens scored, {seconds:.1f} s of processor time for both models"
            )
            compared = {
                "edgeq in llama.cpp, beside llama.cpp": (in_theirs, reference),
                "embedded engine, beside llama.cpp": (embedded, reference),
                "embedded engine, beside llama.cpp's plain attention": (embedded, plain),
                "llama.cpp's plain attention, beside its own default": (plain, reference),
            }
            results[quant] = {name: show(name, *pair) for name, pair in compared.items()}
            results[quant]["seconds"] = seconds
    if wanted.json:
        wanted.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
