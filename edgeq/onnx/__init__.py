"""ONNX files of any origin: ``edgeq.onnx.quantize(Request(source, out))``, ``edgeq.onnx.session(path)``."""

from edgeq.errors import FallbackWarning
from edgeq.onnx.request import DEFAULT_MIN_COSINE, Request
from edgeq.onnx.run import run as quantize
from edgeq.onnx.sessions import session

__all__ = ["DEFAULT_MIN_COSINE", "FallbackWarning", "Request", "quantize", "session"]
