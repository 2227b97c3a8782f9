"""Ranges on threads: they cover the rows, many callers at once get right answers, forked children too."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from edgeq.formats.blocks import by_name
from edgeq.formats.errors import EdgeqError
from edgeq.kernels_cpu import threads
from edgeq.kernels_cpu.decode import decode
from edgeq.kernels_cpu.encode import encode


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = threads.get_threads()
    threads.set_threads(4)
    yield
    threads.set_threads(before)


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize("n", [0, 1, 3, 4, 1001])
def test_ranges_cover_the_rows(n: int):
    covered = [i for part in threads.run(range, n, threads.GRAIN_VALUES) for i in part]
    assert covered == list(range(n))


@pytest.mark.usefixtures("four_threads")
def test_small_work_stays_on_the_caller():
    assert threads.run(range, 100, 1) == [range(100)]


@pytest.mark.usefixtures("four_threads")
def test_an_exception_reaches_the_caller():
    def fail(first: int, last: int) -> None:
        raise ValueError(f"{first}-{last}")

    with pytest.raises(ValueError, match="-"):
        threads.run(fail, 10, threads.GRAIN_VALUES)


@pytest.mark.usefixtures("four_threads")
def test_many_callers_at_once():
    values = np.random.default_rng(0).standard_normal((512, 1024)).astype(np.float32)
    expected = by_name("Q8_0").encode(values)

    def work(_: int) -> bool:
        encoded = encode("Q8_0", values)
        return bool((encoded == expected).all() and decode("Q8_0", encoded, 1024).any())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(40)))


@pytest.mark.usefixtures("four_threads")
def test_a_thread_can_stay_alone():
    with ThreadPoolExecutor(1, initializer=threads.stay_on_this_thread) as pool:
        assert pool.submit(threads.run, range, 8, threads.GRAIN_VALUES).result() == [range(8)]
    assert len(threads.run(range, 8, threads.GRAIN_VALUES)) == 4  # the others as before


def test_fewer_than_one_thread_is_refused():
    with pytest.raises(EdgeqError, match="at least 1"):
        threads.set_threads(0)


def test_numba_num_threads_is_respected():
    code = "from edgeq.kernels_cpu import threads; print(threads.get_threads())"
    environment = {**os.environ, "NUMBA_NUM_THREADS": "3"}
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment).stdout == b"3\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_its_own_pool():
    code = """
import os, numpy as np
from edgeq.kernels_cpu import threads
from edgeq.kernels_cpu.encode import encode
threads.set_threads(3)
x = np.ones((512, 1024), np.float32)
rows = encode("Q8_0", x)
child = os.fork()
if child == 0:
    os._exit(0 if (encode("Q8_0", x) == rows).all() else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "0\n", done.stderr
