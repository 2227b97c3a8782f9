"""Damaged GGUF files: the reader answers with FormatError, or with tensors that can be read."""

from __future__ import annotations

import functools
import os
import random
import struct
import tempfile
import time
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeq.formats.blocks import by_id
from edgeq.formats.errors import FormatError
from edgeq.formats.gguf.parse import parse_header
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.formats.gguf.writer import GGUFWriter, TensorPlan, Typed, ValueType

FUZZ = settings(deadline=None, suppress_health_check=list(HealthCheck), database=None)
PATH = Path("fuzz.gguf")
MARKS = (0, 1, 2, 255, 1 << 16, (1 << 30) + 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 62, (1 << 64) - 1)


@functools.cache
def valid_file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "valid.gguf"
        metadata = {
            "general.name": "fuzz",
            "x.count": 3,
            "x.eps": 1e-5,
            "x.flag": True,
            "x.wide": Typed(7, ValueType.UINT64),
            "tokenizer.tokens": ["a", "bc", "", "ü"],
            "tokenizer.scores": [0.5, -1.0],
            "general.alignment": 32,
        }
        plans = [
            TensorPlan("one", "F32", (5,)),
            TensorPlan("blk.0.q", "Q4_0", (3, 64)),
            TensorPlan("blk.0.k", "Q4_K", (2, 256)),
            TensorPlan("blk.0.x", "IQ2_XXS", (1, 2, 256)),
        ]
        with GGUFWriter(path, "fuzz", metadata, plans) as writer:
            for plan in plans:
                size = writer.planned_bytes(plan.name)
                writer.write_rows(plan.name, np.arange(size).astype(np.uint8))
        return path.read_bytes()


def check(content: bytes) -> None:
    """Only FormatError may be raised; every tensor of a file that parses must be readable."""
    try:
        header = parse_header(content, PATH)
    except FormatError:
        return
    for t in header.tensors.values():
        assert 0 <= t.offset <= t.offset + t.nbytes <= len(content)
        assert t.n_rows * t.row_bytes == t.nbytes


@settings(FUZZ, max_examples=1500)
@given(st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=6))
def test_flipped_bytes(flips: list[tuple[int, int]]) -> None:
    content = bytearray(valid_file())
    for position, value in flips:
        content[position % len(content)] = value
    check(bytes(content))


@settings(FUZZ, max_examples=800)
@given(st.integers(0, 1 << 20), st.sampled_from(MARKS), st.sampled_from(["<I", "<Q"]))
def test_numbers_at_the_edges(position: int, value: int, layout: str) -> None:
    content = bytearray(valid_file())
    size = struct.calcsize(layout)
    struct.pack_into(layout, content, position % (len(content) - size), value % (1 << 8 * size))
    check(bytes(content))


@settings(FUZZ, max_examples=400)
@given(st.integers(0, 1 << 20), st.binary(max_size=24))
def test_cut_and_continued(position: int, tail: bytes) -> None:
    content = valid_file()
    check(content[: position % len(content)] + tail)


@settings(FUZZ, max_examples=600)
@given(st.integers(0, 1 << 20), st.integers(0, 1 << 20), st.integers(0, 200))
def test_spliced(source: int, target: int, size: int) -> None:
    content = valid_file()
    source, target = source % len(content), target % len(content)
    check(content[:target] + content[source : source + size] + content[target:])
    check(content[:target] + content[source : source + size] + content[target + size :])


@settings(FUZZ, max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=3))
def test_mapped_tensors_can_be_read(flips: list[tuple[int, int]]) -> None:
    content = bytearray(valid_file())
    for position, value in flips:
        content[position % len(content)] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fuzz.gguf"
        path.write_bytes(content)
        try:
            file = GGUFFile.open(path)
        except FormatError:
            return
        with file, np.errstate(all="ignore"):
            for name in file.tensors:
                file.rows(name).sum()
                file.release(name)
                if by_id(file.info(name).type_id) is not None:
                    file.decode(name)


def test_every_cut_of_the_valid_file() -> None:
    content = valid_file()
    for length in range(1, len(content)):
        check(content[:length])


def test_random_damage_for_a_while() -> None:
    """Another seed each time, for ``FUZZ_SECONDS`` (CI: a minute)."""
    seed = random.SystemRandom().randrange(1 << 32)
    rng, end = random.Random(seed), time.monotonic() + float(os.environ.get("FUZZ_SECONDS", "1"))
    while time.monotonic() < end:
        content = bytearray(valid_file())
        for _ in range(rng.randint(1, 4)):
            _damage(content, rng)
        try:
            check(bytes(content))
        except BaseException as error:
            error.add_note(f"seed {seed}; the file, in hexadecimal: {content.hex()}")
            raise


def _damage(content: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(content) - 8)
    match rng.randrange(4):
        case 0:
            content[at] = rng.randrange(256)
        case 1:
            struct.pack_into("<Q", content, at, rng.choice(MARKS))
        case 2:
            content[at : at + rng.randrange(64)] = rng.randbytes(rng.randrange(64))
        case _:
            start = rng.randrange(len(content))
            content[at:at] = content[start : start + rng.randrange(200)]
