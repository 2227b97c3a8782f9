"""Which format a model should have on a device: what would be made, what it takes there, and how it ranks."""
