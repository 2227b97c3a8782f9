"""How close a quantized model stays to the float one, and how fast it is."""
