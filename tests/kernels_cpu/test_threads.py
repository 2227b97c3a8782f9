"""Ranges on threads: they cover the rows, many callers at once get right answers, forked children too."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from edgeq.devices.detect import instruction_set
from edgeq.formats.blocks import by_name
from edgeq.formats.errors import EdgeqError
from edgeq.kernels_cpu import products, threads
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


class Crowd:
    """A kernel that counts how many of it run at once."""

    def __init__(self) -> None:
        self.lock, self.now, self.most = threading.Lock(), 0, 0

    def __call__(self, first: int, last: int) -> int:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.002)
        with self.lock:
            self.now -= 1
        return last - first


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize("n", [1, 3])
def test_no_more_kernels_run_than_threads_are_set(n: int):
    """Whatever number of Python threads call, with work to share and with work too small for that."""
    threads.set_threads(n)
    crowd = Crowd()
    with ThreadPoolExecutor(6) as pool:
        shared = list(pool.map(lambda _: sum(threads.run(crowd, 12, threads.GRAIN_VALUES)), range(12)))
        small = list(pool.map(lambda _: sum(threads.run(crowd, 12, 1)), range(12)))
    assert shared == small == [12] * 12
    assert crowd.most == n


@pytest.mark.usefixtures("four_threads")
def test_a_kernel_that_calls_kernels_stays_on_its_thread():
    """Were its inner calls to wait for others of its kind, all might wait for each other."""

    def outer(first: int, last: int) -> int:
        return sum(sum(threads.run(lambda a, b: b - a, 8, threads.GRAIN_VALUES)) for _ in range(first, last))

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda _: sum(threads.run(outer, 8, threads.GRAIN_VALUES)), range(12)))
    assert results == [64] * 12


@pytest.mark.usefixtures("four_threads")
def test_a_failed_kernel_makes_room():
    def fail(first: int, last: int) -> None:
        raise ValueError

    threads.set_threads(1)
    for _ in range(3):
        with pytest.raises(ValueError):  # noqa: PT011
            threads.run(fail, 1, 1)
    assert threads.run(range, 3, 1) == [range(3)]


@pytest.mark.usefixtures("four_threads")
def test_products_of_several_callers():
    """Right results while others multiply, and while the number of threads changes."""
    rng = np.random.default_rng(1)
    rows = by_name("Q4_K").encode(rng.standard_normal((96, 1024)).astype(np.float32))
    packed = products.pack("Q4_K", rows, 1024, instruction_set())
    xs = [rng.standard_normal((t, 1024)).astype(np.float32) for t in (1, 5, 1, 9)]
    expected = [products.product(x, packed) for x in xs]

    def work(i: int) -> bool:
        if i % 7 == 0:
            threads.set_threads(1 + i % 4)
        return np.array_equal(products.product(xs[i % 4], packed), expected[i % 4])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(80)))


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
from edgeq.kernels_cpu import products, threads
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
