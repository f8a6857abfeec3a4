"""The type checker that jaxtyping's import hook applies to every annotated function of `elf` while testing."""

from beartype import BeartypeConf, beartype

# PEP 484's numeric tower: an int is welcome where a float is annotated, as in `Constant(k=2)`.
typechecked = beartype(conf=BeartypeConf(is_pep484_tower=True))
