"""The prediction: its formula by hand, and the directions in which nothing may go."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.devices.library import find
from edgeq.devices.machine import Machine, cpu_of
from edgeq.devices.memory import ceiling, footprint, repacked_types
from edgeq.devices.predict import decode_seconds, decode_speed, prefill_seconds, prefill_speed
from edgeq.devices.profile import Limit
from edgeq.devices.work import CachedLayers, Product, Work
from edgeq.formats.gguf.types import TENSOR_TYPES_BY_NAME

TYPES = ("F16", "Q8_0", "Q4_K")


def machine(
    read_gbs: float = 10.0, decode: float = 20.0, prefill: float = 100.0, waiting: float = 0.0
) -> Machine:
    rates = dict.fromkeys(TENSOR_TYPES_BY_NAME, decode), dict.fromkeys(TENSOR_TYPES_BY_NAME, prefill)
    return Machine("CPU", 4, read_gbs, *rates, waiting, 8.0, False)


def work(*products: Product, cached: tuple[CachedLayers, ...] = (CachedLayers(2, 64),)) -> Work:
    return Work(products, layers=2, hidden=64, vocab=1000, attention=64, cached=cached)


works = st.builds(
    work,
    st.builds(Product, st.sampled_from(TYPES), st.integers(256, 10**10), st.floats(0.01, 1)),
    st.builds(Product, st.sampled_from(TYPES), st.integers(256, 10**10), st.floats(0.01, 1)),
    cached=st.tuples(st.builds(CachedLayers, st.integers(1, 80), st.integers(1, 9999), st.integers(0, 4096))),
)
rates = st.floats(0.1, 1000)


def test_reading_binds_or_unpacking_does():
    """1e9 weights in Q8_0 are 1.0625 GB: 0.10625 s at 10 GB/s, 0.05 s at 20e9 weights/s."""
    one = work(Product("Q8_0", 10**9), cached=())
    assert decode_seconds(one, machine(), 0) == pytest.approx(0.10625)
    assert decode_seconds(one, machine(read_gbs=100), 0) == pytest.approx(0.05)
    assert decode_seconds(one, machine(read_gbs=100, waiting=0.001), 0) == pytest.approx(0.052)


def test_the_cache_is_read_and_a_window_bounds_it():
    """2 layers × 64 values × 1000 positions × 2 bytes = 256 kB."""
    empty = Product("Q8_0", 0)
    assert decode_seconds(work(empty), machine(), 1000) == pytest.approx(256e3 / 10e9)
    windowed = work(empty, cached=(CachedLayers(2, 64, 100),))
    assert decode_seconds(windowed, machine(), 1000) == pytest.approx(25.6e3 / 10e9)


def test_experts_are_read_as_far_as_they_are_used():
    """A token reads an eighth; a long prompt reads all, and multiplies with an eighth."""
    experts = work(Product("Q8_0", 10**9, 0.125), cached=())
    assert decode_seconds(experts, machine(), 0) == pytest.approx(0.10625 / 8)
    assert prefill_seconds(experts, machine(prefill=1e6), 64) == pytest.approx(0.10625, rel=1e-3)


def test_prefill_is_bound_by_arithmetic():
    """2 × 1e9 × 512 operations at 100e9 a second are 10.24 s."""
    seconds = prefill_seconds(work(Product("Q8_0", 10**9), cached=()), machine(), 512)
    assert seconds == pytest.approx(10.24, rel=0.01)


def test_of_a_prompt_only_the_last_token_gets_logits():
    """2 × 1e8 × 64 operations at 100e9 a second are 0.128 s; the head takes the time of one token."""
    body, head = Product("Q8_0", 10**8), Product("Q8_0", 10**9, last_only=True)
    one = machine(read_gbs=1000, decode=1000)
    alone = prefill_seconds(work(body, cached=()), one, 64)
    assert alone == pytest.approx(0.128, rel=0.01)
    assert prefill_seconds(work(body, head, cached=()), one, 64) == pytest.approx(alone + 1.0625e-3)


def test_short_rows_cost_llama_cpp_a_call_each():
    """1e6 rows of 512 weights are 0.75e6 rows more than the rates had: 12 ns each by four threads are 2.25 ms."""
    rows = Product("Q8_0", 512 * 10**6, rows=10**6)
    plain = machine()
    slowed = dataclasses.replace(plain, row_seconds={"Q8_0": 12e-9 / 4})
    more = decode_seconds(work(rows, cached=()), slowed, 0) - decode_seconds(work(rows, cached=()), plain, 0)
    assert more == pytest.approx(2.25e-3)
    long = dataclasses.replace(rows, rows=512 * 10**6 // 4096)
    assert decode_seconds(work(long, cached=()), slowed, 0) == decode_seconds(work(long, cached=()), plain, 0)
    ours, theirs = (cpu_of(find("n100"), 4, engine).row_seconds for engine in ("edgeq", "llama.cpp"))
    assert ours == {}
    assert theirs["Q6_K"] == pytest.approx(3e-9)
    assert "Q4_K" not in theirs  # repacked


@given(works, rates, rates, rates, st.floats(1, 4), st.integers(0, 5000))
@settings(max_examples=60, deadline=None)
def test_a_faster_machine_is_never_slower(what, read, decode, prefill, times, depth):
    slow = machine(read, decode, prefill)
    for faster in (
        machine(read * times, decode, prefill),
        machine(read, decode * times, prefill),
        machine(read, decode, prefill * times),
    ):
        assert decode_seconds(what, faster, depth) <= decode_seconds(what, slow, depth)
        assert prefill_seconds(what, faster, 600) <= prefill_seconds(what, slow, 600)


@given(works, st.integers(1, 9000), st.integers(0, 9000))
@settings(max_examples=60, deadline=None)
def test_more_context_never_takes_less(what, context, more):
    small, large = (footprint(what, 10**6, size) for size in (context, context + more))
    assert large.cache >= small.cache
    assert large.total >= small.total
    assert decode_seconds(what, machine(), context + more) >= decode_seconds(what, machine(), context)
    assert prefill_seconds(what, machine(), context + more) >= prefill_seconds(what, machine(), context)


def test_the_range_holds_the_prediction():
    for speed in (decode_speed(work(Product("Q4_K", 10**9)), machine(), 5),
                  prefill_speed(work(Product("Q4_K", 10**9)), machine(), 5)):  # fmt: skip
        assert speed.low < speed.tokens_per_second < speed.high


def test_an_unmeasured_device_has_the_wider_range():
    weights = work(Product("Q4_K", 10**9))
    known, guessed = (
        decode_speed(weights, dataclasses.replace(machine(), measured=flag), 5) for flag in (True, False)
    )
    assert known.tokens_per_second == guessed.tokens_per_second
    assert guessed.low < known.low < known.high < guessed.high


def test_what_is_assumed_is_not_measured():
    assert cpu_of(find("apple-m1")).measured
    assert not cpu_of(find("apple-m2")).measured
    assert cpu_of(find("galaxy-s23")).measured  # its rates are
    assert not cpu_of(find("ryzen-7-5700g")).measured


def test_fewer_threads_than_were_measured_read_less():
    """Graviton 4 was measured with 96 threads at 220 GB/s; one of a server's cores reads 15.5."""
    one, many = find("graviton-4"), find("raspberry-pi-5")
    assert cpu_of(one).read_gbs == pytest.approx(220)
    assert cpu_of(one, 4).read_gbs == pytest.approx(62)
    assert cpu_of(one, 48).read_gbs == pytest.approx(220)
    assert cpu_of(many, 1).read_gbs == pytest.approx(9.0)


def test_slow_cores_beside_fast_ones_hold_them_up():
    """An RK3588 has four Cortex-A76 and four A55; nothing is lost where all cores are slow, or where both are near."""
    board = find("orange-pi-5")
    four, six, eight = (cpu_of(board, threads) for threads in (4, 6, 8))
    assert six.read_gbs == pytest.approx(four.read_gbs * 0.88**2)
    assert eight.read_gbs == pytest.approx(four.read_gbs * 0.88**4)
    assert eight.decode["Q4_K"] < four.decode["Q4_K"]
    assert cpu_of(find("rk3566"), 4).decode["Q4_K"] > 3 * cpu_of(find("rk3566"), 1).decode["Q4_K"]
    mixed = find("core-i5-1240p")
    assert cpu_of(mixed, mixed.cores).decode["Q4_K"] > cpu_of(mixed, 4).decode["Q4_K"]


def test_a_limit_that_was_seen_goes_before_the_rule():
    phone = find("pixel-9")
    assert ceiling(phone, "android").nbytes == pytest.approx(3.28e9)
    assert "Android 16" in ceiling(phone, "android").why
    assert ceiling(phone, "browser").nbytes == pytest.approx(4.29e9)
    pi = find("raspberry-pi-5")
    assert ceiling(pi, "desktop").nbytes == pytest.approx(6.4e9)
    boxed = dataclasses.replace(pi, limits=(Limit("desktop", 1.5, "a control group", "maker"),))
    assert ceiling(boxed, "desktop").nbytes == pytest.approx(1.5e9)
    assert ceiling(pi, "desktop", 24.0).nbytes == pytest.approx(22.8e9)


def test_what_is_repacked_counts_twice_where_the_file_is_mapped():
    assert "Q4_K" in repacked_types(("avx2",), "server")
    assert "Q6_K" not in repacked_types(("avx2",), "server")
    assert "Q6_K" in repacked_types(("neon", "dotprod"), "desktop")
    assert repacked_types(("neon", "dotprod"), "android") == frozenset()
    one = work(Product("Q4_K", 256 * 1000), Product("Q6_K", 256 * 1000))
    assert footprint(one, 10**6, 512, {"Q4_K"}).repacked == 144 * 1000
