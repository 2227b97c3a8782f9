"""Calibration data of every kind, and what is wrong with it said in one line."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edgeq.calibration.imitations import IMITATIONS
from edgeq.calibration.inputs import Input
from edgeq.calibration.made_up import made_up_samples
from edgeq.calibration.sources import Images, Samples, Want, arrays, open_samples
from edgeq.errors import InputError, UsageError

F32, I64 = np.dtype(np.float32), np.dtype(np.int64)
X = Input("x", F32, ("n", 3, 4, 4))
IDS = [
    Input("input_ids", I64, ("batch", "tokens")),
    Input("attention_mask", I64, ("batch", "tokens")),
    Input("past_key_values.0.key", F32, ("batch", 2, "past", 8)),
]


def want(folder: Path, *inputs: Input, images: Images | None = None, limit: int = 0) -> Want:
    return Want(folder / "m.onnx", list(inputs), images or Images(), limit)


def pixels(count: int) -> NDArray[np.float32]:
    return np.arange(count * 48, dtype=np.float32).reshape(count, 3, 4, 4)


def test_npz_in_the_order_of_names(tmp_path: Path) -> None:
    for name, value in (("b", 2), ("a", 1)):
        np.savez_compressed(tmp_path / f"{name}.npz", x=pixels(1).astype(np.float64) * value)
    samples = open_samples(tmp_path, want(tmp_path, X))
    found = [feeds["x"] for feeds in samples]
    assert [array.dtype for array in found] == [F32, F32]
    np.testing.assert_array_equal(found[1], 2 * found[0])
    assert len(list(samples)) == 2  # again


@pytest.mark.parametrize(("batch", "lengths"), [("n", [16, 16, 8]), (1, [1] * 40), (20, [20, 20])])
def test_many_samples_in_one_array(batch: int | str, lengths: list[int], tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", pixels(40))
    samples = open_samples(tmp_path / "x.npy", want(tmp_path, Input("x", F32, (batch, 3, 4, 4))))
    found = [feeds["x"] for feeds in samples]
    assert [len(array) for array in found] == lengths
    np.testing.assert_array_equal(np.concatenate(found), pixels(40))


def test_a_limit(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", pixels(40))
    given = want(tmp_path, Input("x", F32, (1, 3, 4, 4)), limit=3)
    samples = open_samples(tmp_path, given)
    assert len(list(samples)) == 3
    assert len(list(samples.first(2))) == 2


def test_held_out_samples_are_not_calibrated_on() -> None:
    def iterate(count: int) -> Samples:
        return Samples("s", count, lambda: iter([{"x": np.array(i)} for i in range(count)]))

    kept, held = iterate(30).split()
    assert len(list(kept)) == kept.count == 24
    assert [int(feeds["x"]) for feeds in held] == [4, 9, 14, 19, 24, 29]
    same, also = iterate(24).split()
    assert same is also


@pytest.mark.parametrize("first", [True, False])
def test_images(first: bool, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    Image.new("RGB", (8, 6), (255, 0, 51)).save(tmp_path / "deep" / "b.png")
    Image.new("L", (3, 3), 102).save(tmp_path / "a.jpg")
    shape = ("n", 3, "h", "w") if first else ("n", "h", "w", 3)
    prepared = Images((4, 6), (0.5, 0.5, 0.5), (0.5, 0.25, 0.5), declared=True)
    samples = open_samples(tmp_path, want(tmp_path, Input("x", F32, shape), images=prepared))
    gray, red = (feeds["x"] for feeds in samples)
    assert red.shape == ((1, 3, 4, 6) if first else (1, 4, 6, 3))
    at = red[0, :, 0, 0] if first else red[0, 0, 0]
    np.testing.assert_allclose(at, [1, -2, -0.6], atol=1e-5)
    np.testing.assert_allclose((gray[0, :, 0, 0] if first else gray[0, 0, 0])[0], -0.2, atol=0.02)


def test_pictures_of_16_bits_and_hidden_files(tmp_path: Path) -> None:
    Image.fromarray(np.full((6, 8), 40_000, np.uint16)).save(tmp_path / "a.png")
    (tmp_path / "._a.png").write_bytes(b"not a picture")
    (feeds,) = open_samples(tmp_path, want(tmp_path, X))
    np.testing.assert_allclose(feeds["x"], 40_000 / 65_535, atol=0.005)


def test_only_pictures_are_prepared(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", pixels(2))
    with pytest.raises(UsageError, match="--resize and --normalize prepare images"):
        open_samples(tmp_path, want(tmp_path, X, images=Images((4, 4))))
    Image.new("RGB", (8, 6)).save(tmp_path / "b.png")
    assert len(list(open_samples(tmp_path / "b.png", want(tmp_path, X, images=Images((4, 4)))))) == 1


def tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({"a": 1, "b": 2, "c": 3}, unk_token="a"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(folder / "tokenizer.json"))


def test_text(tmp_path: Path) -> None:
    tokenizer(tmp_path)
    (tmp_path / "t.txt").write_text("a b c\n\n  b\n", encoding="utf-8")
    first, second = open_samples(tmp_path / "t.txt", want(tmp_path, *IDS))
    assert first["input_ids"].tolist() == [[1, 2, 3]]
    assert second["attention_mask"].tolist() == [[1]]
    assert first["past_key_values.0.key"].shape == (1, 2, 0, 8)


def test_text_for_a_fixed_length(tmp_path: Path) -> None:
    tokenizer(tmp_path)
    (tmp_path / "t.txt").write_text("a b c\nb\n", encoding="utf-8")
    inputs = [Input("input_ids", np.dtype(np.int32), (1, 2)), Input("attention_mask", I64, (1, 2))]
    first, second = open_samples(tmp_path / "t.txt", want(tmp_path, *inputs))
    assert first["input_ids"].tolist() == [[1, 2]]
    assert second["input_ids"].tolist() == [[2, 0]]
    assert second["attention_mask"].tolist() == [[1, 0]]


def test_json_lines(tmp_path: Path) -> None:
    tokenizer(tmp_path)
    ids = [Input("input_ids", I64, ("batch", "tokens"))]
    lines = [json.dumps({"input_ids": [[3, 1]]}), "", json.dumps({"text": "c b"})]
    (tmp_path / "d.jsonl").write_text("\n".join(lines), encoding="utf-8")
    found = [
        feeds["input_ids"].tolist() for feeds in open_samples(tmp_path / "d.jsonl", want(tmp_path, *ids))
    ]
    assert found == [[[3, 1]], [[3, 2]]]


def test_made_up_samples() -> None:
    inputs = [
        Input("input_ids", I64, ("batch", "tokens")),
        Input("attention_mask", I64, ("batch", "tokens")),
        Input("picture", F32, ("batch", 3, None, None)),
        Input("state", F32, (2, None, 16)),
        Input("rate", I64, ()),
    ]

    def accepts(feeds: dict[str, NDArray[np.generic]]) -> bool:
        return feeds["state"].shape == (2, 1, 16) and feeds["input_ids"].shape[1] >= 256

    samples = made_up_samples(inputs, accepts)
    assert samples.made_up
    first, again = list(samples), list(samples)
    assert len(first) == 8
    assert first[0]["input_ids"].shape == first[0]["attention_mask"].shape == (1, 256)
    assert first[0]["attention_mask"].all()
    assert first[0]["picture"].shape == (1, 3, 224, 224)
    assert first[0]["rate"].shape == ()
    np.testing.assert_array_equal(first[3]["picture"], again[3]["picture"])
    assert not np.array_equal(first[0]["picture"], first[1]["picture"])


def test_made_up_numbers_are_those_that_the_graph_takes() -> None:
    inputs = [
        Input("ids", I64, ("n", "t"), rows=7),
        Input("t_lengths", I64, ("n",)),
        Input("sr", I64, (), choices=(16000,)),
        Input("mode", I64, (), choices=(0, 1)),
        Input("pixels", np.dtype(np.uint8), ("n", "h", "w", 3)),
    ]

    def accepts(feeds: dict[str, NDArray[np.generic]]) -> bool:
        return int(feeds["mode"]) != 1

    found = list(made_up_samples(inputs, accepts))
    assert {int(feeds["sr"]) for feeds in found} == {16000, 8000}
    assert {int(feeds["mode"]) for feeds in found} == {0, 2}
    ids = np.concatenate([feeds["ids"].reshape(-1) for feeds in found])
    assert (ids.min(), ids.max()) == (0, 6)
    assert found[0]["t_lengths"].tolist() == [found[0]["ids"].shape[1]]
    assert found[0]["pixels"].shape == (1, 224, 224, 3)
    assert int(found[0]["pixels"].max()) > 150


@pytest.mark.parametrize(
    ("role", "shape", "low", "high"),
    [
        ("sound", (1, 1600), -1, 1),
        ("picture", (1, 3, 24, 32), -6, 6),
        ("picture", (1, 24, 32, 3), -6, 6),
        ("picture", (1, 1, 8, 8), -6, 6),
        ("pixels", (1, 3, 24, 32), 0, 255),
        ("state", (2, 1, 16), -1, 1),
    ],
)
def test_imitations(role: str, shape: tuple[int, ...], low: float, high: float) -> None:
    made = [IMITATIONS[role](np.random.default_rng(number), shape, number) for number in range(4)]
    assert all(one.shape == shape and np.isfinite(one).all() for one in made)
    assert low <= min(one.min() for one in made) < max(one.max() for one in made) <= high
    assert not np.array_equal(made[1], made[2])
    assert made[0].any() == (role != "state")  # at first a state is zero


def nothing(folder: Path) -> Path:
    return folder / "nowhere"


def empty_folder(folder: Path) -> Path:
    (folder / "d").mkdir()
    return folder / "d"


def npz(**arrays: NDArray[np.generic]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        np.savez(folder / "s.npz", **arrays)
        return folder / "s.npz"

    return make


def headed(shape: str, kind: str = "<f4", suffix: str = ".npz") -> Callable[[Path], Path]:
    """An array of 16 bytes, of which the header says something else."""
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}".encode()
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 16

    def make(folder: Path) -> Path:
        file = folder / f"s{suffix}"
        if suffix == ".npy":
            file.write_bytes(content)
            return file
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("x.npy", content)
        return file

    return make


def huge_header(folder: Path) -> Path:
    """64 MB of blanks, which 64 kB hold."""
    length = 1 << 26
    with zipfile.ZipFile(folder / "s.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x02\x00" + length.to_bytes(4, "little") + b" " * length)
    return folder / "s.npz"


def changed(offset: int, value: int) -> Callable[[Path], Path]:
    """An archive with a byte of its directory's first entry changed, and of the entry itself."""

    def make(folder: Path) -> Path:
        file = folder / "s.npz"
        np.savez(file, x=pixels(1))
        content = bytearray(file.read_bytes())
        content[content.index(b"PK\x01\x02") + offset] = content[offset - 2] = value
        file.write_bytes(content)
        return file

    return make


def broken_stream(folder: Path) -> Path:
    np.savez_compressed(folder / "s.npz", x=np.random.default_rng(0).random((40, 3, 4, 4)))
    content = bytearray((folder / "s.npz").read_bytes())
    content[300:340] = b"\xff" * 40
    (folder / "s.npz").write_bytes(content)
    return folder / "s.npz"


def a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "s.npz")
    return folder


def pickled(folder: Path) -> Path:
    np.savez(folder / "s.npz", x=np.array([{"a": 1}], object), allow_pickle=True)
    return folder / "s.npz"


def written(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def picture(content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "p.png").write_bytes(content)
        return folder

    return make


broken_picture = picture(b"\x89PNG\r\n\x1a\nno")


def large_picture(folder: Path) -> Path:
    """The header of 900 million pixels."""
    Image.new("1", (8, 8)).save(folder / "p.png")
    content = bytearray((folder / "p.png").read_bytes())
    content[16:24] = struct.pack(">II", 30_000, 30_000)
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    (folder / "p.png").write_bytes(content)
    return folder


def float_picture(folder: Path) -> Path:
    Image.fromarray(np.ones((4, 4), np.float32)).save(folder / "p.tiff")
    return folder


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (nothing, "no such file or directory"),
        (empty_folder, "is no calibration data; give a text"),
        (npz(y=pixels(1)), r"has no x, has y; the model's inputs are x float32 \[n, 3, 4, 4\]"),
        (
            npz(x=pixels(1)[:, :2]),
            r"x has the shape \[1, 2, 4, 4\], the model wants x float32 \[n, 3, 4, 4\]",
        ),
        (npz(x=pixels(1)[0]), r"x has the shape \[3, 4, 4\]"),
        (npz(x=np.array(["a"])), "is no readable array file .x is <U1, not of numbers"),
        (headed("(9,)"), "has not the bytes of its shape"),
        (headed("(-4, 3, 4, 4)"), "has an impossible shape"),
        (headed("(-1, 3, 4, 4)", suffix=".npy"), "has an impossible shape"),
        (headed("(288230376151711744,)"), "has an impossible shape"),
        (headed("(0, 99999999999999999999, 4, 4)"), "has an impossible shape"),
        (headed("(99999999999, 3, 4, 4)", "|V0"), "is |V0, not of numbers"),
        (headed("(" * 200, suffix=".npy"), r"\(x has no .npy header\)"),
        (headed("(1.5,)", suffix=".npy"), r"\(x has no .npy header\)"),
        (huge_header, "the header of x has 67108864 bytes"),
        (changed(8, 1), "is encrypted"),
        (changed(10, 99), "is compressed in a way that NumPy does not write"),
        (broken_stream, "is no readable array file"),
        (a_pipe, "is no calibration data; give a text"),
        (
            npz(**{f"x{i}": pixels(1) for i in range(9)}),
            "has no x, has x0, has x1, has x2, has x3, has x4, …;",
        ),
        (npz(x=pixels(2) * np.nan), "x holds no number, only NaN or infinity"),
        (npz(x=pixels(2).astype(np.float64) + 1e300), "x holds no number, only NaN or infinity"),
        (npz(x=pixels(0)), "holds a sample without a number"),
        (npz(x=np.full((2, 3, 4, 4), 1j)), "x is complex128, the model wants x float32"),
        (pickled, "x holds Python objects, not numbers"),
        (written("s.npy", pickle.dumps({"a": 1})), "the magic string is not correct"),
        (written("s.npz", b"PK\x03\x04 no"), "is no readable array file"),
        (written("s.npy", b"\x93NUMPY\x01"), "is no readable array file"),
        (written("s.jsonl", b"[1]\n"), "line 1: is no JSON object"),
        (written("s.jsonl", b'{"x": [[1], [1, 2]]}\n'), "line 1: x is no array of numbers"),
        (written("s.jsonl", b'{"x": "a"}\n'), "line 1: x is no array of numbers"),
        (written("s.jsonl", b"{}\n"), "line 1: holds nothing"),
        (written("s.jsonl", b'{"x": "caf\xe9"}\n'), "line 1: is not UTF-8"),
        (written("s.jsonl", b'{"x": ' + b"[" * 100_000 + b"\n"), "line 1: is no JSON object"),
        (written("s.jsonl", b'{"text": "\\ud800"}\n'), "has no tokenizer.json"),
        (written("s.txt", b"hello\n"), "has no tokenizer.json, which a text needs"),
        (broken_picture, "is no readable picture"),
        (picture(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "cannot identify image file"),
        (large_picture, "is no readable picture .Image size"),
        (float_picture, "has pixels of 32 bits; save it with 8 or 16"),
    ],
)
def test_bad_data(make: Callable[[Path], Path], problem: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        list(open_samples(make(tmp_path), want(tmp_path, X)))
    assert len(str(caught.value).splitlines()) == 1


def test_pictures_for_a_graph_that_says_no_size(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "b.png")
    with pytest.raises(InputError, match="does not say its size; give --resize HEIGHTxWIDTH"):
        open_samples(tmp_path, want(tmp_path, Input("x", F32, ("n", 3, None, None))))
    with pytest.raises(InputError, match="pictures do not fit the input"):
        open_samples(tmp_path, want(tmp_path, Input("x", F32, ("n", 3))))


def test_text_for_another_graph(tmp_path: Path) -> None:
    tokenizer(tmp_path)
    (tmp_path / "t.txt").write_text("a b\n", encoding="utf-8")
    with pytest.raises(InputError, match="the model has no input_ids but x float32"):
        list(open_samples(tmp_path / "t.txt", want(tmp_path, X)))


IDS_ONLY = Input("input_ids", np.dtype(np.int32), ("batch", "tokens"))


def test_json_lines_that_hold_no_tokens_or_too_large_ones(tmp_path: Path) -> None:
    tokenizer(tmp_path)
    path = tmp_path / "d.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": ""}\n{"text": "b"}\n')  # with a byte order mark
    assert [feeds["input_ids"].tolist() for feeds in open_samples(path, want(tmp_path, IDS_ONLY))] == [[[2]]]
    for line, problem in (
        (b'{"text": "\\ud800"}', "line 1: text has half a surrogate pair"),
        (b'{"input_ids": [[1099511627776]]}', "input_ids has numbers that are too large for int32"),
    ):
        path.write_bytes(line)
        with pytest.raises(InputError, match=problem):
            list(open_samples(path, want(tmp_path, IDS_ONLY)))


def test_an_archive_is_read_a_few_rows_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that small archives of huge arrays are no danger, and one sample that is huge is refused."""
    np.savez_compressed(tmp_path / "s.npz", x=pixels(40))
    monkeypatch.setattr(arrays, "_MOST_BYTES", 16 * pixels(1).nbytes)
    assert [len(feeds["x"]) for feeds in open_samples(tmp_path / "s.npz", want(tmp_path, X))] == [16, 16, 8]
    fixed = Input("x", F32, (40, 3, 4, 4))
    with pytest.raises(InputError, match="for one run of the model"):
        list(open_samples(tmp_path / "s.npz", want(tmp_path, fixed)))


def test_a_line_of_megabytes(tmp_path: Path) -> None:
    tokenizer(tmp_path)
    (tmp_path / "t.txt").write_text("b " * 2_000_000)
    (feeds,) = open_samples(tmp_path / "t.txt", want(tmp_path, IDS_ONLY, limit=1))
    assert feeds["input_ids"].shape == (1, 512)
