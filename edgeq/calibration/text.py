"""Texts to calibrate and to verify on: a file of the user's, or the small one that edgeq carries."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from edgeq.errors import InputError

_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Text:
    """A text and where it came from. Encoders read it line by line, decoders as a whole."""

    name: str
    content: str
    builtin: bool = False

    def lines(self) -> list[str]:
        """The non-empty lines, stripped."""
        return [line.strip() for line in self.content.splitlines() if line.strip()]


def read_text(path: Path | None) -> Text:
    """Read a UTF-8 text file, or the built-in text for None; raises InputError naming the file."""
    if path is None:
        content = (files("edgeq.calibration") / "builtin.txt").read_text(encoding="utf-8")
        return Text("built-in text", content, builtin=True)
    _refuse_device(path)
    try:
        content = path.read_bytes().decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error.start) from None
    if "\0" in content:
        raise _no_text(path, len(content[: content.index("\0")].encode()))
    if not content.strip():
        raise InputError(f"{path}: is empty; give a text with one sentence a line")
    return Text(str(path), content)


@dataclass(frozen=True)
class Piece:
    """A part of a text file, whole lines of it, and where in the file it begins and ends, in bytes."""

    content: str
    start: int
    end: int

    def place(self, share: float) -> int:
        """Where in the file the first ``share`` of this piece ends, about."""
        return self.start + round((self.end - self.start) * share)


def stream_text(path: Path) -> Iterator[Piece]:
    """Read a UTF-8 text file of any length in pieces of about a megabyte; raises InputError naming the file.

    A piece ends where a line ends and the next one begins with no white space, because there no tokenizer's word
    goes on. A file without such a place in four megabytes is cut at any line's end, or anywhere if it has none.
    """
    _refuse_device(path)
    decoder = codecs.getincrementaldecoder("utf-8")()
    waiting, start, end, any_text = "", 0, 0, False
    try:
        with path.open("rb") as file:
            while block := file.read(_PIECE_BYTES):
                pending = len(decoder.getstate()[0])
                try:
                    waiting += decoder.decode(block)
                except UnicodeDecodeError as error:
                    raise _not_utf8(path, end - pending + error.start) from None
                if b"\0" in block:
                    raise _no_text(path, end + block.index(b"\0"))
                end += len(block)
                any_text = any_text or bool(_clean(waiting, start).strip())
                cut = _line_end(waiting)
                if not cut and len(waiting) > 4 * _PIECE_BYTES:
                    cut = waiting.rfind("\n") + 1 or len(waiting)
                if cut:
                    piece, waiting = waiting[:cut], waiting[cut:]
                    yield Piece(_clean(piece, start), start, start + len(piece.encode()))
                    start += len(piece.encode())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if unfinished := decoder.getstate()[0]:
        raise _not_utf8(path, end - len(unfinished))
    if not any_text:
        raise InputError(f"{path}: is empty; give a text with one sentence a line")
    if waiting:
        yield Piece(_clean(waiting, start), start, end)


def _line_end(text: str) -> int:
    """The end of the last line after which the next begins with no white space; 0 where there is none."""
    at = text.rfind("\n")
    while at >= 0 and (at + 1 == len(text) or text[at + 1].isspace()):
        at = text.rfind("\n", 0, at)
    return at + 1


def _clean(text: str, start: int) -> str:
    return (text if start else text.removeprefix("\ufeff")).replace("\r\n", "\n")


def _refuse_device(path: Path) -> None:
    if path.is_char_device() or path.is_block_device():  # /dev/zero never ends
        raise InputError(f"{path}: is a device; give a text file")


def _not_utf8(path: Path, byte: int) -> InputError:
    return InputError(f"{path}: is not UTF-8 (byte {byte}); save it as UTF-8 text")


def _no_text(path: Path, byte: int) -> InputError:
    return InputError(f"{path}: is no text, or UTF-16 (byte {byte} is zero); save it as UTF-8 text")
