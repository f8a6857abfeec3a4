"""Molecules: the losses compared on QM9, the paper's tables, conformers, springs."""
