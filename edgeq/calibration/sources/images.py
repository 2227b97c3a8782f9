"""A folder of pictures, prepared as the user declared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.calibration.inputs import Arrays, Input, checked
from edgeq.calibration.sources import Images, Samples, Want, is_plain, source
from edgeq.errors import InputError

_KINDS = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff"))
# Whatever a file is called: Pillow would hand PostScript to another program.
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF")
_MOST_PIXELS = 100_000_000
_MODES_OF_16_BITS = ("I;16", "I;16B", "I;16L", "I;16N", "I")  # Pillow cuts them at 255 when it converts


@source
def images(path: Path, want: Want) -> Samples | None:
    """A picture, or a folder with some in it: one sample each, in the order of their names."""
    found = path.rglob("*") if path.is_dir() else [path]
    files = sorted(file for file in found if file.suffix.lower() in _KINDS and is_plain(file))
    if not files:
        return None
    if len(want.inputs) != 1:
        raise InputError(f"{path}: pictures go with a graph of one input; give a folder of .npz files")
    (entry,) = want.inputs
    layout = _Layout.of(entry, want.images, path)
    if not want.images.declared:
        want.notes.append(
            "pictures were fed as numbers from 0 to 1; --normalize declares another preparation"
        )

    def iterate() -> Iterator[Arrays]:
        for file in files:
            pixels = layout.place(_pixels(file, layout.size, layout.channels), want.images)
            yield checked({entry.name: pixels.astype(entry.dtype)}, want.inputs, str(file))

    return Samples(str(path), len(files), iterate, pictures=True)


class _Layout:
    """Where height, width and channels stand in an input."""

    def __init__(self, first: bool, size: tuple[int, int], channels: int) -> None:
        self.first, self.size, self.channels = first, size, channels

    @classmethod
    def of(cls, entry: Input, prepared: Images, path: Path) -> _Layout:
        """Channels are the axis of 1 or 3, the first of the two; the size is the graph's, or the declared one."""
        shape = entry.shape
        if shape is None or len(shape) != 4 or (shape[1] not in (1, 3) and shape[3] not in (1, 3)):
            raise InputError(f"{path}: pictures do not fit the input {entry}; give .npz files")
        first = shape[1] in (1, 3)
        height, width = (shape[2], shape[3]) if first else (shape[1], shape[2])
        size = prepared.size
        if size is None:
            if not isinstance(height, int) or not isinstance(width, int):
                raise InputError(
                    f"{path}: the input {entry} does not say its size; give --resize HEIGHTxWIDTH"
                )
            size = height, width
        return cls(first, size, int(shape[1 if first else 3]))  # type: ignore[arg-type]

    def place(self, pixels: NDArray[np.float32], prepared: Images) -> NDArray[np.float32]:
        values = (pixels - np.asarray(prepared.mean)) / np.asarray(prepared.std)
        placed: NDArray[np.float32] = values.astype(np.float32)
        return (placed.transpose(2, 0, 1) if self.first else placed)[None]


def _pixels(file: Path, size: tuple[int, int], channels: int) -> NDArray[np.float32]:
    """A picture ``[height, width, channels]`` from 0 to 1."""
    from PIL import Image

    try:
        with Image.open(file, formats=_FORMATS) as picture:
            if picture.width * picture.height > _MOST_PIXELS:
                raise InputError(f"{file}: has {picture.width} × {picture.height} pixels; make it smaller")
            if picture.mode == "F":
                raise InputError(f"{file}: has pixels of 32 bits; save it with 8 or 16, or give .npz files")
            mode: Any = "L" if channels == 1 else "RGB"
            known: Image.Image = picture
            if picture.mode in _MODES_OF_16_BITS:
                known = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
            resized = known.convert(mode).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{file}: is no readable picture ({reason}); remove it from the folder") from None
    return (np.asarray(resized, np.float32) / np.float32(255)).reshape(*size, channels)
