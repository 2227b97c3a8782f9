"""Arrays that look like sounds, pictures and states: a network answers noise with next to nothing, which tells little.

Each takes a generator, a shape and the number of the sample, and gives floats of that shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Imitation = Callable[[np.random.Generator, tuple[int, ...], int], NDArray[np.float64]]
_HARMONICS, _PITCH = 12, (0.005, 0.02)  # cycles a sample: 80 to 320 Hz of 16 kHz
_QUIET = 4  # each so manieth sound has no voice
_COARSE = 6  # a picture is made of so many squares a side, smoothed


def numbers(rng: np.random.Generator, shape: tuple[int, ...], number: int) -> NDArray[np.float64]:
    """Gaussian, of deviation 1."""
    del number
    return rng.standard_normal(shape)


def sound(rng: np.random.Generator, shape: tuple[int, ...], number: int) -> NDArray[np.float64]:
    """Voices within ±1, that is harmonics whose loudness swells, over noise; along the last axis."""
    length = shape[-1] if shape else 1
    loudness = 10 ** rng.uniform(-3, -1.5)
    noise = loudness * rng.standard_normal(shape)
    if number % _QUIET == _QUIET - 1:
        return noise
    time = np.arange(length)
    phase = 2 * math.pi * rng.uniform(*_PITCH) * (time + 8 * np.sin(time / 2000))
    voice = sum(np.sin(k * phase + rng.uniform(0, 6)) / k for k in range(1, _HARMONICS + 1))
    swell = 0.6 + 0.4 * np.sin(time / 1300 + rng.uniform(0, 6))
    found: NDArray[np.float64] = np.clip(noise + rng.uniform(0.03, 0.3) * swell * voice, -1, 1)
    return found


def picture(rng: np.random.Generator, shape: tuple[int, ...], number: int) -> NDArray[np.float64]:
    """Smooth patches with edges: from 0 to 1 and, in turn, of mean 0 and deviation 1, as one or the other is usual."""
    found = _patches(rng, shape)
    return found if number % 2 else (found - found.mean()) / max(float(found.std()), 1e-6)


def pixels(rng: np.random.Generator, shape: tuple[int, ...], number: int) -> NDArray[np.float64]:
    """The same, from 0 to 255."""
    del number
    return np.floor(255.999 * _patches(rng, shape))


def state(rng: np.random.Generator, shape: tuple[int, ...], number: int) -> NDArray[np.float64]:
    """What a recurrent layer keeps, within ±1; zeros, as at the start, for the first sample."""
    return np.clip(0.3 * rng.standard_normal(shape), -1, 1) * min(number, 1)


IMITATIONS: dict[str, Imitation] = {
    "numbers": numbers, "sound": sound, "picture": picture, "pixels": pixels, "state": state,
}  # fmt: skip


def _patches(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """From 0 to 1; channels, the axis of at most 4, share most of what they show."""
    last = shape[-1] <= 4 < shape[1]
    height, width = shape[1:3] if last else shape[2:4]
    channels = (shape[0], shape[3]) if last else shape[:2]
    grey, tint = rng.random((1, 1, _COARSE, _COARSE)), rng.random((*channels, _COARSE, _COARSE))
    fine = _stretched(0.7 * grey + 0.3 * tint, height, width)
    edges = _stretched(grey, height, width) > rng.uniform(0.4, 0.6)
    found = np.clip(0.7 * fine + 0.25 * edges + 0.02 * rng.standard_normal(fine.shape), 0, 1)
    return found.transpose(0, 2, 3, 1) if last else found


def _stretched(coarse: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Bilinear, along the last two axes."""
    for axis, size in ((2, height), (3, width)):
        at = np.linspace(0, _COARSE - 1, size)
        low = np.minimum(at.astype(int), _COARSE - 2)
        share = (at - low).reshape([-1 if k == axis else 1 for k in range(4)])
        coarse = (1 - share) * coarse.take(low, axis) + share * coarse.take(low + 1, axis)
    return coarse
