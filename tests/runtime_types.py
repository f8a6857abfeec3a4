"""The type checker that jaxtyping's import hook applies to every annotated function of ours while testing."""

import numpy as np
from beartype import BeartypeConf, FrozenDict, beartype

# What is annotated as a number takes NumPy's as well (`elf.checks`); an int is welcome where a float is, as in
# `Constant(k=2)`.
NUMBERS = FrozenDict({int: int | np.integer, float: float | int | np.floating | np.integer})
typechecked = beartype(conf=BeartypeConf(hint_overrides=NUMBERS))
