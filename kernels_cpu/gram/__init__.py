"""Rounding under a Gram matrix: the numbers of blocks that make Σ (w − x̂)·H·(w − x̂) small, not Σ (w − x̂)².

H = Xᵀ·X of what a layer reads, so that sum is the squared error of what the layer gives. ``round_by_feedback`` chooses
the codes of given scales one column after the other; ``descend`` improves codes and scales until little moves.
"""

from edgeq.kernels_cpu.gram.descent import descend
from edgeq.kernels_cpu.gram.feedback import feedback_factor, round_by_feedback

__all__ = ["descend", "feedback_factor", "round_by_feedback"]
