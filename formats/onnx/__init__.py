"""ONNX graphs: building them, saving them, and the passes that quantize them."""
