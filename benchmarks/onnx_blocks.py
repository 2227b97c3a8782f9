"""Weights of a decoder of about a billion parameters to 4-bit blocks: edgeq beside ONNX Runtime's own quantizer.

    python benchmarks/onnx_blocks.py [--layers 16] [--turns 1]

The source is an ONNX file with external data, float32 weights as a llama of that size has them, made in a temporary
folder of about five gigabytes. Each turn runs both as processes of their own, one after the other: reading the file,
rounding to blocks of 32 and writing the result. What is compared is user + system seconds, since other work on the
machine does not count there; the peak is the most that was resident, mapped files included. Kernels are compiled
ahead unless ``--cold`` is given. The bars: at most a quarter of the peer's seconds and 1 GB; and with --nearest the
peer's bytes, weight by weight.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HIDDEN, FFN, VOCAB, KV = 2048, 8192, 32_000, 512
BLOCK = 32
_BAR_RATIO, _BAR_BYTES = 4.0, 1e9

_OURS = """
from pathlib import Path
from edgeq.onnx import Request, quantize
quantize(Request(Path(source), Path(target), "int4", block_size=32, nearest=mode == "nearest", proof=False))
"""
_THEIRS = """
import onnx
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
work = MatMulNBitsQuantizer(onnx.load(source), block_size=32, is_symmetric=True)
work.process()
work.model.save_model_to_file(target, True)
"""
_MEASURED = """
import json, resource, sys
source, target, mode = sys.argv[1:4]
{work}
used = resource.getrusage(resource.RUSAGE_SELF)
unit = 1 if sys.platform == "darwin" else 1024
print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss * unit]))
"""
WAYS = {"ONNX Runtime": (_THEIRS, ""), "edgeq --nearest": (_OURS, "nearest"), "edgeq": (_OURS, "search")}


def shapes(layers: int) -> Iterator[tuple[str, int, int]]:
    """(name, inputs, outputs) of each matrix."""
    for layer in range(layers):
        yield f"{layer}.q", HIDDEN, HIDDEN
        yield f"{layer}.k", HIDDEN, KV
        yield f"{layer}.v", HIDDEN, KV
        yield f"{layer}.o", HIDDEN, HIDDEN
        yield f"{layer}.gate", HIDDEN, FFN
        yield f"{layer}.up", HIDDEN, FFN
        yield f"{layer}.down", FFN, HIDDEN
    yield "head", HIDDEN, VOCAB


def write_decoder(path: Path, layers: int) -> int:
    """Write the file and its external data; returns the parameters."""
    random, total = np.random.default_rng(0), 0
    # One random matrix, from which all are cut: what the numbers are does not matter here.
    numbers = random.standard_normal(HIDDEN * VOCAB, dtype=np.float32) * np.float32(0.02)
    nodes, weights, inputs, outputs = [], [], {}, []
    with path.with_name(f"{path.name}_data").open("wb") as file:
        for name, n_in, n_out in shapes(layers):
            tensor = TensorProto(name=f"{name}.weight", data_type=TensorProto.FLOAT, dims=[n_in, n_out])
            tensor.data_location = TensorProto.EXTERNAL
            size = n_in * n_out
            start = total % 4096 if size + 4096 <= numbers.size else 0
            for key, value in (
                ("location", f"{path.name}_data"),
                ("offset", str(file.tell())),
                ("length", str(4 * size)),
            ):
                tensor.external_data.add(key=key, value=value)
            file.write(numbers[start : start + size].tobytes())
            total += size
            weights.append(tensor)
            x = f"x{n_in}"
            inputs[x] = helper.make_tensor_value_info(x, TensorProto.FLOAT, ["n", n_in])
            nodes.append(helper.make_node("MatMul", [x, tensor.name], [name], name=name))
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", n_out]))
    graph = helper.make_graph(nodes, "decoder", list(inputs.values()), outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return total


def measured(work: str, source: Path, target: Path, mode: str) -> tuple[float, int]:
    """(user + system seconds, peak of resident bytes) of a process of its own."""
    script = _MEASURED.format(work=work)
    done = subprocess.run(
        [sys.executable, "-c", script, source, target, mode], check=True, capture_output=True
    )
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    return float(seconds), int(peak)


def compile_ahead(folder: Path) -> None:
    """What the first run on a machine does: some ten seconds, kept on disk from then on."""
    folder.mkdir()
    weight = np.random.default_rng(0).standard_normal((HIDDEN, 64), np.float32)
    x, y = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", c]) for n, c in (("x", HIDDEN), ("y", 64))
    )
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="y")
    graph = helper.make_graph([node], "small", [x], [y], [numpy_helper.from_array(weight, "w")])
    source = folder / "small.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), source)
    for number, (work, mode) in enumerate(WAYS.values()):
        (folder / str(number)).mkdir()
        measured(work, source, folder / str(number) / "out.onnx", mode)


def same_bytes(ours: Path, theirs: Path) -> bool:
    """Whether both files' codes and scales are equal, product by product."""
    models = [onnx.load(path) for path in (ours, theirs)]
    stored = [{tensor.name: tensor for tensor in model.graph.initializer} for model in models]
    products = [{node.output[0]: list(node.input) for node in model.graph.node} for model in models]
    assert products[0].keys() == products[1].keys()
    return all(
        stored[0][a].raw_data == stored[1][b].raw_data
        for output, inputs in products[0].items()
        for a, b in zip(inputs[1:3], products[1][output][1:3], strict=True)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--cold", action="store_true", help="kernels need not be compiled ahead")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgeq-bench-") as temporary:
        folder = Path(temporary)
        source = folder / "decoder.onnx"
        parameters = write_decoder(source, options.layers)
        if not options.cold:
            compile_ahead(folder / "small")
        targets = {name: folder / str(number) / "out.onnx" for number, name in enumerate(WAYS)}
        runs: dict[str, list[tuple[float, int]]] = {name: [] for name in WAYS}
        for _ in range(options.turns):
            for name, (work, mode) in WAYS.items():
                targets[name].parent.mkdir(exist_ok=True)
                for old in targets[name].parent.iterdir():
                    old.unlink()
                runs[name].append(measured(work, source, targets[name], mode))
        equal = same_bytes(targets["edgeq --nearest"], targets["ONNX Runtime"])
    print(f"{parameters / 1e9:.2f} billion parameters, blocks of {BLOCK}, {options.turns} turns")
    theirs = runs["ONNX Runtime"]
    good = equal
    for name, found in runs.items():
        ratio = statistics.median(peer[0] / own[0] for peer, own in zip(theirs, found, strict=True))
        seconds, peak = statistics.median(one[0] for one in found), max(one[1] for one in found)
        print(f"{name:<16}{seconds:>8.1f} s{ratio:>7.2f} ×{peak / 1e6:>9,.0f} MB")
        if name == "edgeq --nearest":
            good = good and ratio >= _BAR_RATIO and peak <= _BAR_BYTES
    print(f"bytes of round-to-nearest: {'equal' if equal else 'DIFFERENT'}")
    sys.exit(not good)


if __name__ == "__main__":
    main()
