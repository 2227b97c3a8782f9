"""ONNX files of anybody's through ``edgeq quantize`` without a flag: how far the answers move, size, speed, time.

    python benchmarks/foreign.py MODEL.onnx … [--state OUTPUT=INPUT …] [--threads 2]
    python benchmarks/foreign.py --operators 200

A folder ``MODEL/`` of ``.npz`` files beside a file, named as its inputs, is what its answers are compared on; the
quantizer does not see it. Without one they are compared on made-up inputs. ``--state`` carries an output to an input of
the next sample, each graph its own, from where the data's state is not zero: a stream, as its consumer feeds it.
Errors are shares of the range of the float answers, all outputs but states together.

``--operators`` sends so many of ONNX's own node tests (of the ``onnx`` package) through static int8, each behind a
linear layer and with what it is fed made constant: none may raise anything but a one-line error.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeq.calibration.inputs import Arrays, inputs_of
from edgeq.calibration.made_up import made_up_samples
from edgeq.errors import EdgeqError
from edgeq.formats.onnx.read import read_model
from edgeq.onnx import Request, quantize
from edgeq.runtimes.onnxruntime import OnnxSession

Answers = list[dict[str, Any]]


def data_of(source: Path, session: OnnxSession) -> list[Arrays]:
    folder = source.with_suffix("")
    if folder.is_dir():
        return [dict(np.load(file)) for file in sorted(folder.glob("*.npz"))]

    def accepts(feeds: Arrays) -> bool:
        try:
            session.run(feeds, session.outputs)
        except EdgeqError:
            return False
        return True

    return list(made_up_samples(inputs_of(read_model(source)), accepts))


def stream(session: OnnxSession, data: Sequence[Arrays], states: Mapping[str, str]) -> Answers:
    """Answers by output; ``states`` are inputs by the output that goes on in them."""
    found: Answers = []
    for feeds in data:
        carried = {name: found[-1][output] for output, name in states.items() if found and feeds[name].any()}
        found.append(dict(zip(session.outputs, session.run(feeds | carried, session.outputs), strict=True)))
    return found


def errors(expected: Answers, given: Answers, states: Mapping[str, str]) -> tuple[float, float, float]:
    """(mean, 99 of 100, largest) error as a share of the range, of the worst output."""
    worst = (0.0, 0.0, 0.0)
    for name in expected[0].keys() - states.keys():
        pairs = [(np.asarray(a[name]), np.asarray(b[name])) for a, b in zip(expected, given, strict=True)]
        same = [
            (a.reshape(-1), b.reshape(-1)) for a, b in pairs if a.shape == b.shape and a.dtype.kind == "f"
        ]
        if not same:
            continue
        a, b = (np.concatenate(side).astype(np.float64) for side in zip(*same, strict=True))
        difference = np.abs(a - b) / (float(np.ptp(a)) or 1.0)
        worst = max(
            worst,
            (float(difference.mean()), float(np.quantile(difference, 0.99)), float(difference.max())),
        )
    return worst


def row(source: Path, states: Mapping[str, str], threads: int) -> str:
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        try:
            record = quantize(Request(source, Path(folder), threads=threads))
        except EdgeqError as error:
            return f"{source.stem:16} {error}"
        seconds = time.process_time() - started
        session = OnnxSession(source, threads)
        data = data_of(source, session)
        ours = OnnxSession(Path(record["files"][0]), threads, record["session"])
        mean, high, most = errors(stream(session, data, states), stream(ours, data, states), states)
    speed = record["proof"]["speed_against_float"] if record["proof"] else float("nan")
    return (
        f"{source.stem:16} {source.stat().st_size / 1e6:7.1f} {record['bytes'] / source.stat().st_size:6.2f} "
        f"{record['quant']:13} {len(record['layers']):6} {len(record['exempted']):6} {100 * mean:8.3f} "
        f"{100 * high:8.3f} {100 * most:8.3f} {speed:6.2f} {seconds:8.1f}  {'; '.join(record['gates'])}"
    )


def operators(most: int) -> Iterator[tuple[str, onnx.ModelProto, Arrays]]:
    """(name, graph, a sample) of node tests whose first input is a float tensor, behind a MatMul."""
    from onnx.backend.test.case.node import collect_testcases

    found = 0
    cases = [case for case in collect_testcases(None) if case.model is not None and case.data_sets]
    for case in cases[:: max(1, len(cases) // (4 * most))]:
        model, fed = case.model, case.data_sets[0][0]
        opset = next((entry.version for entry in model.opset_import if entry.domain == ""), 0)
        kind = model.graph.input[0].type.tensor_type.elem_type if model.graph.input else 0
        plain = all(isinstance(one, np.ndarray | np.generic) for one in fed)
        if found == most or not 11 <= opset <= 26 or kind != TensorProto.FLOAT or not plain:
            continue
        if fed[0].ndim < 2 or not fed[0].size:
            continue
        found += 1
        yield case.name, _behind_a_layer(model, fed), {"edgeq_x": fed[0]}


def _behind_a_layer(model: onnx.ModelProto, fed: Sequence[Any]) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    constants = zip([value.name for value in graph.input][1:], fed[1:], strict=True)
    graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in constants)
    width = fed[0].shape[-1]
    weight = np.eye(width, dtype=np.float32) + np.float32(0.01)
    graph.initializer.append(numpy_helper.from_array(weight, "edgeq_w"))
    first = graph.input[0].name
    graph.node.insert(0, helper.make_node("MatMul", ["edgeq_x", "edgeq_w"], [first], name="edgeq_layer"))
    del graph.input[1:]
    graph.input[0].name = "edgeq_x"
    return changed


def try_operators(most: int, threads: int) -> None:
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for name, model, sample in operators(most):
            source = Path(folder) / f"{name}.onnx"
            source.write_bytes(model.SerializeToString())
            request = Request(
                source,
                Path(folder) / "out",
                "int8",
                [sample] * 4,
                force=True,
                allow_slower=True,
                threads=threads,
            )
            try:
                record = quantize(request)
                outcomes["a gate said no" if record["gates"] else "within the target"] += 1
            except EdgeqError as error:
                outcomes["refused in one line" if "\n" not in str(error) else "refused in many lines"] += 1
                print(f"{name}: {error}")
            (Path(folder) / "out" / "edgeq.json").unlink(missing_ok=True)
    print(dict(outcomes))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--state", action="append", default=[], metavar="OUTPUT=INPUT")
    parser.add_argument("--operators", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # node tests compute with infinities
    if options.models:
        states = dict(text.split("=", 1) for text in options.state)
        print(
            f"{'model':16} {'MB':>7} {'size':>6} {'quant':13} {'layers':>6} {'float':>6} {'mean %':>8} {'99 %':>8} "
            f"{'most %':>8} {'speed':>6} {'CPU s':>8}"
        )
        for source in options.models:
            session = OnnxSession(source, options.threads)
            own = {o: i for o, i in states.items() if o in session.outputs and i in session.inputs}
            print(row(source, own, options.threads), flush=True)
    if options.operators:
        try_operators(options.operators, options.threads)


if __name__ == "__main__":
    main()
