"""What ``edgeq inspect`` shows of a model, and its toolbox for GGUF files: hashes, a comparison, a check."""

from edgeq.inspection.overview import inspect_model, is_gguf, shortened

__all__ = ["inspect_model", "is_gguf", "shortened"]
