"""Texts to calibrate and to verify on: a file of the user's, or the small one that edgeq carries."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from edgeq.errors import InputError


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
    try:
        content = path.read_bytes().decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 (byte {error.start}); save it as UTF-8 text") from None
    if not content.strip():
        raise InputError(f"{path}: is empty; give a text with one sentence a line")
    return Text(str(path), content)
