"""What is compiled is told once on a terminal, and counted; what is loaded from the disk cache is counted too."""

import io
from typing import Any

import numba
import numpy as np
import pytest

from edgeq.kernels_cpu import activations, compiling, isa
from edgeq.kernels_cpu.compiling import Purpose
from edgeq.kernels_cpu.products import layout_for
from edgeq.kernels_cpu.products.tiles import LayoutType
from edgeq.kernels_cpu.roofs import fill
from edgeq.kernels_cpu.vectors import Lanes


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


FLOATS = numba.float32[::1]


def compile_again(kernel: Any, *arrays: object) -> None:
    """Without the disk cache."""
    numba.njit(kernel.py_func).compile((numba.int64, numba.int64, *arrays))


def test_compilations_are_counted_and_loads_are_not_among_them():
    with compiling.watched() as seen:
        compile_again(activations._gelu, FLOATS, FLOATS)
        numba.njit(lambda x: x + 1)(1)  # somebody else's
    assert [(c.kernel, c.purpose) for c in seen.compiled] == [("_gelu", Purpose())]
    assert seen.compiled[0].seconds > 0
    with compiling.watched() as later:
        fill(0, 4, np.zeros(4, np.float32))
        fill(0, 4, np.zeros(4, np.float32))
    assert len(later.compiled) + later.loaded <= 1  # by now it may be in memory
    assert len(seen.compiled) == 1


def test_a_terminal_is_told_once(monkeypatch: pytest.MonkeyPatch):
    terminal, announcer = Terminal(), compiling._Announcer()
    monkeypatch.setattr("sys.stderr", terminal)
    for purpose in [Purpose("Q4_K", "avx2"), Purpose("Q4_K", "avx2"), Purpose("", "avx2"), Purpose()]:
        announcer.begins(purpose)
    assert terminal.getvalue() == (
        "edgeq: compiling kernels for Q4_K on avx2, once; `edgeq warmup MODEL` does it ahead\n"
        "edgeq: compiling kernels for avx2, once\n"
        "edgeq: compiling kernels, once\n"
    )


def test_the_announcer_is_there_and_quiet_elsewhere(capsys: pytest.CaptureFixture[str], monkeypatch):
    compile_again(fill, FLOATS)
    assert capsys.readouterr().err == ""
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    compile_again(fill, FLOATS)
    assert terminal.getvalue() in ("", "edgeq: compiling kernels, once\n")  # told before, in a terminal
    monkeypatch.setattr("sys.stderr", None)  # as with pythonw
    compiling._Announcer().begins(Purpose())


def test_types_know_what_they_are_for():
    assert LayoutType(layout_for("q4_k", isa.AVX512_VNNI)).purpose == Purpose("Q4_K", "avx512vnni")
    assert Lanes("neon", 4, isa.NEON.features).purpose == Purpose("", "neon")
    assert compiling._purpose((Lanes("neon", 4, isa.NEON.features), numba.int64)) == Purpose("", "neon")
