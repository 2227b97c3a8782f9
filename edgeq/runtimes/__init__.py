"""The real runtimes behind one small interface each: ONNX Runtime, llama.cpp; and the table of engines."""
