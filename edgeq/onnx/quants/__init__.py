"""The quants of ONNX files, one a file; importing registers them."""
