"""Which type each tensor gets, so that a whole model keeps to a size, a quality or a speed and loses least."""
