"""Types chosen tensor by tensor beside llama.cpp's mixes, both with the same codes, at the same size.

    python benchmarks/allocation.py [--bpw 4.25,5] [--effort best|normal] [--english FILE] [--tokens 20480] [--json OUT]

TinyLM. The mix beside a size is llama.cpp's nearest that is not smaller. Texts, windows and errors are those of
``benchmarks/methods.py``: held out from what either was calibrated on. The last line is the time of a whole search for
a quality (``--max-kl 0.02``).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from edgeq import export, quantize
from edgeq.allocation.goal import Wanted
from edgeq.convert import gguf_file
from edgeq.convert.checkpoint_rows import CheckpointRows
from edgeq.devices.cpu import usable_cores
from edgeq.formats.effort import Effort
from edgeq.formats.gguf.mix_table import FILE_TYPES
from edgeq.kernels_cpu import threads
from edgeq.source import SourceModel

from methods import TINYLM, Measure, show, texts  # isort: skip

_LEFT_OUT = {"F32", "F16", "BF16", "TQ1_0", "TQ2_0", "MXFP4_MOE"}


def nearest_mix(source: SourceModel, bpw: float) -> str:
    """llama.cpp's smallest mix of at least so many bits per weight."""
    rows = CheckpointRows(source)
    sizes = {quant: gguf_file.plan(rows, quant).total() for quant in FILE_TYPES if quant not in _LEFT_OUT}
    return min((size, quant) for quant, size in sizes.items() if 8 * size >= bpw * source.parameters())[1]


def exported(folder: Path, wanted: Wanted, effort: Effort, text: Path) -> Path:
    """The file that ``edgeq export`` makes of a goal."""
    request = export.Request(
        model=TINYLM, to="gguf", quant="", out=folder, calibration=text, effort=effort, wanted=wanted,
        proof=False, force=True,
    )  # fmt: skip
    return export.run(request).path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bpw", default="4.25")
    parser.add_argument("--effort", type=Effort, choices=("best", "normal"), default=Effort.best)
    parser.add_argument("--english", type=Path)
    parser.add_argument("--tokens", type=int, default=20480)
    parser.add_argument("--characters", type=int, default=400_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    threads.set_threads(usable_cores())
    calibration, held = texts(options.english, options.characters)
    measure, source, found = Measure(held, options.tokens), SourceModel.open(TINYLM), {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = folder / "both.txt"
        text.write_text(calibration["both"], encoding="utf-8")
        for bpw in map(float, options.bpw.split(",")):
            quant = nearest_mix(source, bpw)
            mix = folder / f"{quant}.gguf"
            given = text if options.effort is Effort.best else None
            request = quantize.Request(
                TINYLM, mix, quant, effort=options.effort, calibration=given, force=True
            )
            quantize.run(request)
            ours = exported(folder / "out", Wanted(target_bpw=bpw), options.effort, text)
            found[f"{bpw:g} bits"] = measured = measure.kl({quant: mix, "allocated": ours})
            show(f"{bpw:g} bits", measured)
        started = time.perf_counter()
        exported(folder / "out", Wanted(max_kl=0.02), options.effort, text)
        found["seconds of --max-kl 0.02"] = time.perf_counter() - started
    print(f"--max-kl 0.02 took {found['seconds of --max-kl 0.02']:.0f} s")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
