"""ONNX Runtime's DynamicQuantizeLSTM in NumPy, for onnx's reference interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun

Floats = NDArray[np.float32]


def rounded(x: Floats) -> Floats:
    """What uint8 codes of the array's own range stand for (ONNX, DynamicQuantizeLinear)."""
    low, high = min(float(x.min(initial=0)), 0.0), max(float(x.max(initial=0)), 0.0)
    scale = np.float32((high - low) / 255) or np.float32(1)
    zero = np.clip(np.rint(-low / scale), 0, 255)
    return ((np.clip(np.rint(x / scale) + zero, 0, 255) - zero) * scale).astype(np.float32)


def sigmoid(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))


class DynamicQuantizeLSTM(OpRun):
    """One direction, gates in the order i, o, f, c; the codes are ``[directions, inputs, 4 · hidden]``."""

    op_domain = "com.microsoft"

    def _run(self, x, w, r, b=None, lengths=None, h=None, c=None, p=None, ws=None, wz=None, rs=None, rz=None,
             hidden_size=None, direction=None, **ignored: Any):  # fmt: skip
        del lengths, p, wz, rz, ignored
        assert w.shape[0] == 1
        steps, batch = x.shape[:2]
        hidden = r.shape[1]
        wide, recurrent = (codes[0] * scale[0] for codes, scale in ((w, ws), (r, rs)))
        bias = np.zeros(8 * hidden, np.float32) if b is None else b[0]
        state = np.zeros((batch, hidden), np.float32) if h is None else h[0]
        cell = np.zeros((batch, hidden), np.float32) if c is None else c[0]
        inputs, states = rounded(x), []
        for step in range(steps):
            gates = inputs[step] @ wide + rounded(state) @ recurrent + bias[: 4 * hidden] + bias[4 * hidden :]
            i, o, f, new = np.split(gates.astype(np.float32), 4, axis=1)
            cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(new)
            state = (sigmoid(o) * np.tanh(cell)).astype(np.float32)
            states.append(state)
        return np.stack(states)[:, None], state[None], cell[None].astype(np.float32)
