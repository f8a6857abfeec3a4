"""JODO: atoms, bonds and positions of a molecule drawn together, with the pair energy in it (Table 3)."""
