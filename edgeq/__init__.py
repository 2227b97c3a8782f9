"""edgeq: models for edge devices. Nothing heavy is imported here: importing ``edgeq.formats`` runs this file."""

__version__ = "0.1.0"
