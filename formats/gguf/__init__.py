"""GGUF files: their bytes read and written, and the type of each tensor in them."""
