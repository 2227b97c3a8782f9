"""Floor 2: what a device is and which format it should get."""
