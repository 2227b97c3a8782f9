"""The rules of the ONNX lint, one a file; importing registers them."""
