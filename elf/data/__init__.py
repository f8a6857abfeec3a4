"""Data sets: molecules, polygons, spin glasses. Each loader returns a frozen record of tensors."""
