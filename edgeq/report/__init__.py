"""What an export leaves beside its file: edgeq.json and report.html."""
