"""A small CNN on scikit-learn's digits, trained with NumPy: two convolutions and a linear layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from foreign_graphs import node, proto
from numpy.typing import NDArray
from onnx_graphs import Floats

EPOCHS, BATCH, RATE = 6, 64, 3e-3
TRAINED_ON = 1297  # of 1797


@dataclass(frozen=True)
class Digits:
    """Images ``[n, 1, 8, 8]`` from 0 to 1, and which digit each is."""

    images: Floats
    labels: NDArray[np.int64]


def digits() -> tuple[Digits, Digits]:
    """(to train on, to test on)."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images = (data.images[order, None] / 16).astype(np.float32)
    labels = data.target[order].astype(np.int64)
    split = TRAINED_ON
    return Digits(images[:split], labels[:split]), Digits(images[split:], labels[split:])


def _columns(x: Floats, stride: int) -> Floats:
    """Patches of 3 × 3 with a border of zeros: ``[n, C, 8, 8]`` → ``[n, h, w, C · 9]``."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    windows = windows[:, :, ::stride, ::stride].transpose(0, 2, 3, 1, 4, 5)
    return windows.reshape(*windows.shape[:3], -1)


def _spread(gradient: Floats, channels: int) -> Floats:
    """The transpose of ``_columns`` at stride 1 or 2 for images of 8 × 8."""
    n, height, width, _ = gradient.shape
    stride = 8 // height
    parts = gradient.reshape(n, height, width, channels, 3, 3)
    padded = np.zeros((n, channels, 10, 10), np.float32)
    for dy in range(3):
        for dx in range(3):
            padded[:, :, dy : dy + 8 : stride, dx : dx + 8 : stride] += parts[..., dy, dx].transpose(
                0, 3, 1, 2
            )
    return padded[:, :, 1:9, 1:9]


def train(data: Digits) -> dict[str, Floats]:
    """Weights of ``conv 1 → 16, Relu, conv 16 → 32 with stride 2, Relu, linear 512 → 10``, by Adam."""
    rng = np.random.default_rng(1)
    shapes = {"w1": (9, 16), "b1": (16,), "w2": (144, 32), "b2": (32,), "w3": (512, 10), "b3": (10,)}
    weights = {
        name: (rng.standard_normal(shape) * (2 / shape[0]) ** 0.5 * (len(shape) > 1)).astype(np.float32)
        for name, shape in shapes.items()
    }
    first = {name: np.zeros_like(w) for name, w in weights.items()}
    second = {name: np.zeros_like(w) for name, w in weights.items()}
    step = 0
    for _ in range(EPOCHS):
        order = rng.permutation(len(data.labels))
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            step += 1
            for name, gradient in _gradients(weights, data.images[chosen], data.labels[chosen]).items():
                first[name] += 0.1 * (gradient - first[name])
                second[name] += 0.001 * (gradient**2 - second[name])
                ready = first[name] / (1 - 0.9**step), second[name] / (1 - 0.999**step)
                weights[name] -= (RATE * ready[0] / (np.sqrt(ready[1]) + 1e-8)).astype(np.float32)
    return weights


def _gradients(w: dict[str, Floats], x: Floats, labels: NDArray[np.int64]) -> dict[str, Floats]:
    c1 = _columns(x, 1)
    h1 = np.maximum(c1 @ w["w1"] + w["b1"], 0)
    c2 = _columns(h1.transpose(0, 3, 1, 2), 2)
    h2 = np.maximum(c2 @ w["w2"] + w["b2"], 0)
    flat = h2.transpose(0, 3, 1, 2).reshape(len(x), -1)
    logits = flat @ w["w3"] + w["b3"]
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(x)), labels] -= 1
    p /= len(x)
    d2 = (p @ w["w3"].T).reshape(len(x), 32, 4, 4).transpose(0, 2, 3, 1) * (h2 > 0)
    d1 = _spread(d2 @ w["w2"].T, 16).transpose(0, 2, 3, 1) * (h1 > 0)
    return {
        "w3": flat.T @ p,
        "b3": p.sum(axis=0),
        "w2": c2.reshape(-1, 144).T @ d2.reshape(-1, 32),
        "b2": d2.sum(axis=(0, 1, 2)),
        "w1": c1.reshape(-1, 9).T @ d1.reshape(-1, 16),
        "b1": d1.sum(axis=(0, 1, 2)),
    }


def digits_model(w: dict[str, Floats]) -> onnx.ModelProto:
    """The network as an ONNX graph: ``image [n, 1, 8, 8]`` → ``logits [n, 10]``."""
    constants = {
        "w1": w["w1"].T.reshape(16, 1, 3, 3),
        "w2": w["w2"].T.reshape(32, 16, 3, 3),
        **{name: w[name] for name in ("b1", "b2", "w3", "b3")},
    }
    nodes = [
        node("Conv", ["image", "w1", "b1"], ["c1"], pads=[1] * 4),
        node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "w2", "b2"], ["c2"], pads=[1] * 4, strides=[2, 2]),
        node("Relu", ["c2"], ["r2"]),
        node("Flatten", ["r2"], ["f"]),
        node("Gemm", ["f", "w3", "b3"], ["logits"]),
    ]
    constants = {name: np.ascontiguousarray(array) for name, array in constants.items()}
    return proto(nodes, {"image": ["n", 1, 8, 8]}, {"logits": 2}, constants)
