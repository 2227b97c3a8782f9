"""The embedded engine: a family's forward pass computed with NumPy and the Numba kernels."""
