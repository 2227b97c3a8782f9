"""The disk cache: a second process compiles nothing, and a changed helper is not missed."""

import os
import subprocess
import sys
from pathlib import Path

from edgeq.kernels_cpu import jit

RUN = """
import numpy as np
from edgeq.kernels_cpu.decode import decode
from edgeq.kernels_cpu.encode import encode
from edgeq.kernels_cpu.encode import q8_0 as encoder
from edgeq.kernels_cpu.decode import q8_0 as decoder
from edgeq.kernels_cpu.matmul import matmul, q8_0 as product
x = np.ones((2, 256), np.float32)
rows = encode("q8_0", x)
decode("q8_0", rows, 256)
matmul(x, rows, "q8_0")
kernels = (encoder.encode_blocks, decoder.decode_blocks, product.matmul_rows)
print(sum(sum(k.stats.cache_misses.values()) for k in kernels))
print(sum(sum(k.stats.cache_hits.values()) for k in kernels))
"""


def run(code: str, cache: Path) -> list[str]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    ).stdout.split()


def test_a_second_process_compiles_nothing_unless_a_helper_changed(tmp_path: Path):
    assert run(RUN, tmp_path) == ["3", "0"]
    assert run(RUN, tmp_path) == ["0", "3"]
    changed = "import edgeq.kernels_cpu.jit as jit\njit.source_hash = lambda module: 'changed'\n"
    assert run(changed + RUN, tmp_path) == ["3", "0"]


PRODUCTS = """
import numpy as np
from edgeq.kernels_cpu import products, quantized_activations
from edgeq.kernels_cpu.isa import PORTABLE
from edgeq.kernels_cpu.products import panels
packed = products.pack("q8_0", np.zeros((3, 34), np.uint8), 32, PORTABLE)
for t in (1, 2):
    products.product(np.ones((t, 32), np.float32), packed)
kernels = (panels.one_row, panels.many_rows, quantized_activations._quantize_rows)
print(sum(sum(k.stats.cache_misses.values()) for k in kernels))
print(sum(sum(k.stats.cache_hits.values()) for k in kernels))
"""


def test_kernels_made_for_a_layout_are_cached(tmp_path: Path):
    """Their types are made from values that are equal, not the same, in the second process."""
    assert run(PRODUCTS, tmp_path) == ["3", "0"]
    assert run(PRODUCTS, tmp_path) == ["0", "3"]


def test_kernels_are_loaded_without_what_compiles_them(tmp_path: Path):
    """And one that is not there is compiled after one that was loaded."""
    imported = PRODUCTS + "import sys\nprint('numba.np.arraymath' in sys.modules)\n"
    run(PRODUCTS.replace("(1, 2)", "(1,)"), tmp_path)
    assert run(imported.replace("(1, 2)", "(1,)"), tmp_path)[-1] == "False"
    assert run(imported, tmp_path) == ["1", "2", "True"]


def test_helpers_are_parts_of_kernels_only(tmp_path: Path):
    """No machine code and no cache file of their own, and what they call is linked all the same."""
    code = (
        RUN.partition("kernels =")[0]
        + """
helper = encoder._round_half_away
print(len(helper.signatures), type(helper).__name__)
for result in helper.overloads.values():
    print(result.library.get_pointer_to_function(result.fndesc.llvm_func_name))
"""
    )
    assert run(code, tmp_path) == ["1", "CPUDispatcher", "0"]
    assert not list(tmp_path.rglob("*_round_half_away*"))
    assert list(tmp_path.rglob("q8_0.encode_blocks*"))


def test_the_hash_of_a_kernel_covers_its_helpers():
    from edgeq.kernels_cpu.encode import q4_k

    names = {Path(path).name for path in jit._sources(q4_k)}
    assert names >= {"q4_k.py", "super_block.py", "sub_scales.py", "lane_search.py", "tiles.py", "jit.py"}
    assert names >= {"simd.py", "vectors.py"}  # intrinsics and operators, too
    from edgeq.kernels_cpu.products import panels

    names = {Path(path).name for path in jit._sources(panels)}
    assert names >= {"tiles.py", "sources.py", "sums.py", "layout.py", "registers.py", "integer_dot.py"}


def test_formats_does_not_need_numba():
    code = "import sys; import edgeq.formats.blocks, edgeq.kernels_cpu; print('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
