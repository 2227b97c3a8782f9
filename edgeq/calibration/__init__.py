"""What a quantizer learns from data before it rounds: texts, activation ranges."""
