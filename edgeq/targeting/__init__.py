"""``--target DEVICE`` of export and quantize: which format, made how, and what its runtime is to be told."""
