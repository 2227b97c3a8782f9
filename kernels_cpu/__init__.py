"""Floor 1: how to do it fast. Numba twins of the plain codecs in ``edgeq.formats``, by the same names."""
