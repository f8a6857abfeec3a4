"""Measured claims about speed and memory. `python -m benchmarks` (or `make bench`) measures all; see README.md."""
