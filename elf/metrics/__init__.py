"""Metrics: what a generated sample is worth, apart from the loss that trained its model."""
