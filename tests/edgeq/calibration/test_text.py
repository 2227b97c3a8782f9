"""Reading texts: a user's file, or the built-in one."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeq.calibration.text import read_text, stream_text
from edgeq.errors import InputError


def write(folder: Path, content: bytes) -> Path:
    path = folder / "text.txt"
    path.write_bytes(content)
    return path


def test_a_file(tmp_path: Path) -> None:
    path = write(tmp_path, "Grüße.\n\n  two \nthree".encode())
    text = read_text(path)
    assert (text.name, text.builtin) == (str(path), False)
    assert text.content == "Grüße.\n\n  two \nthree"
    assert text.lines() == ["Grüße.", "two", "three"]


@pytest.mark.parametrize("content", [b"", b" \n\t\r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n"])
def test_empty(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InputError, match=r"text\.txt: is empty; give a text"):
        read_text(write(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "byte"),
    [
        (b"ab\xff", 2),
        ("Grüße".encode("latin-1"), 2),
        ("Text".encode("utf-16"), 0),
        (b"\xef\xbb\xbfab\xff", 5),
    ],
)
def test_not_utf8(tmp_path: Path, content: bytes, byte: int) -> None:
    with pytest.raises(InputError, match=rf"text\.txt: is not UTF-8 \(byte {byte}\); save it as UTF-8"):
        read_text(write(tmp_path, content))


def test_zero_bytes(tmp_path: Path) -> None:
    for content, byte in (("Text".encode("utf-16-le"), 1), (b"\0" * 9, 0), ("ü\0".encode(), 2)):
        path = write(tmp_path, content)
        for read in (read_text, lambda path: list(stream_text(path))):
            with pytest.raises(InputError, match=rf"is no text, or UTF-16 \(byte {byte} is zero\)"):
                read(path)


def test_a_device_that_never_ends() -> None:
    for read in (read_text, lambda path: list(stream_text(path))):
        with pytest.raises(InputError, match="/dev/zero: is a device; give a text file"):
            read(Path("/dev/zero"))


def test_missing_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.txt: cannot be read \(No such file or directory\)"):
        read_text(tmp_path / "none.txt")
    with pytest.raises(InputError, match="cannot be read") as caught:
        read_text(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    assert read_text(write(tmp_path, b"\xef\xbb\xbfone\ntwo")).content == "one\ntwo"


def test_windows_line_ends_are_no_text(tmp_path: Path) -> None:
    text = read_text(write(tmp_path, b"one\r\ntwo\r\n"))
    assert text.content == "one\ntwo\n"
    assert text.lines() == ["one", "two"]


def test_builtin() -> None:
    text = read_text(None)
    assert (text.name, text.builtin) == ("built-in text", True)
    assert len(text.lines()) >= 20
    assert len(set(text.lines())) == len(text.lines())


@pytest.mark.parametrize("size", [5, 16, 1000])
def test_stream_is_the_same_text_in_pieces(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: int
) -> None:
    monkeypatch.setattr("edgeq.calibration.text._PIECE_BYTES", size)
    content = "\ufeffGrüße, Welt.\r\n\r\n  two\nthree\n\tand four\nfünf" * 3
    path = write(tmp_path, content.encode())
    pieces = list(stream_text(path))
    text = "".join(piece.content for piece in pieces)
    assert text == read_text(path).content
    assert [piece.start for piece in pieces] == [0, *(piece.end for piece in pieces[:-1])]
    assert pieces[-1].end == len(content.encode())
    for piece in pieces[:-1]:
        assert piece.content.endswith("\n")
    if size == 16:
        assert len(pieces) > 2
        assert not any(piece.content[0].isspace() for piece in pieces)


def test_stream_of_one_endless_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("edgeq.calibration.text._PIECE_BYTES", 10)
    pieces = list(stream_text(write(tmp_path, b"abc " * 100)))
    assert "".join(piece.content for piece in pieces) == "abc " * 100
    assert max(len(piece.content) for piece in pieces) <= 50
