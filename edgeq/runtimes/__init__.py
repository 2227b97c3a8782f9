"""The real runtimes behind one small interface each: ONNX Runtime, llama.cpp."""

ONNX_SUFFIXES = (".onnx", ".ort")  # of graphs as ONNX writes them, and in ONNX Runtime's own form
