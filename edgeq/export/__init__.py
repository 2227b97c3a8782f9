"""``edgeq export``: a model directory becomes a file for a runtime, proven there, with a report."""

from edgeq.export.request import Progress, Request, Result
from edgeq.export.run import run

__all__ = ["Progress", "Request", "Result", "run"]
