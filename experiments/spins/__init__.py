"""Spin glasses: Table 5 and its settings."""
