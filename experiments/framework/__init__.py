"""How experiments are run, recorded, shown and published."""
