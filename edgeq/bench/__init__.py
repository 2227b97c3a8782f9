"""Benchmarks that anyone can run from an installed package: ours and the peers in turns, in one process."""
