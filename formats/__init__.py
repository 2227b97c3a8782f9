"""Floor 0: what the bytes mean. NumPy only; the plain codecs here are the specification."""
