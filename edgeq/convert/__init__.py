"""Readers of a family that write files: the GGUF converter and the ONNX builder."""
