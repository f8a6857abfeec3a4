"""How near each candidate for a mended energy comes to what is asked of it: stable atoms and bonds better than MSE's,
and no figure worse by more than the spread. See "mended_energies" in `experiments.molecules.gifts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any, NamedTuple

BETTER: dict[str, int] = {
    **dict.fromkeys(("atom_stability", "molecule_stability", "stable_connected", "connected", "validity"), 1),
    **dict.fromkeys(("mmd_bond", "mmd_angle", "mmd_dihedral", "fcd"), -1),
    "posebusters": 1,
    **dict.fromkeys(("bond@0.1", "1-3@0.1", "1-4@0.1", "aligned@0.1", "out_of_plane@0.1"), -1),
    **{f"restart_stable@{sigma}": 1 for sigma in (0.2, 0.5)},
}
"""Figures that are judged, all that every network has: 1 where more is better, -1 where less is."""

Cells = Sequence[Mapping[str, Any]]


class Verdict(NamedTuple):
    """atoms: lead over MSE in stable atoms, a share of one. bonds, flat: MMD of bonds, and the error out of plane at
    noise of 0.1 angstrom, over MSE's. worse: figures of `BETTER` behind MSE by more than the spread."""

    atoms: float
    bonds: float
    flat: float
    worse: tuple[str, ...]

    @property
    def mends(self) -> bool:
        """Whether it is all that was asked: ahead in atoms and bonds, nowhere behind, within 20 % out of plane."""
        return self.atoms > 0 and self.bonds < 1 and self.flat <= 1.2 and not self.worse


def figures(cells: Cells, network: str, loss: str) -> dict[int, Mapping[str, float]]:
    """The results of one kind of network, by seed."""
    kind = {"network": network, "loss": loss}.items()
    return {cell["cell"]["seed"]: cell["result"] for cell in cells if kind <= cell["cell"].items()}


def spread(cells: Cells, network: str) -> dict[str, float]:
    """By how much two networks trained with MSE differ, one standard deviation: the square root of two times that of
    MSE's networks."""
    runs = figures(cells, network, "mse").values()
    return {figure: 2**0.5 * stdev(run[figure] for run in runs) for figure in BETTER}


def against_mse(cells: Cells, network: str, loss: str, spread: Mapping[str, float]) -> Verdict:
    """What a loss does beside MSE, means over pairs of networks of the same seed."""
    own, mse = figures(cells, network, loss), figures(cells, network, "mse")
    seeds = own.keys() & mse.keys()
    means = [{figure: mean(runs[seed][figure] for seed in seeds) for figure in BETTER} for runs in (own, mse)]
    ours, theirs = means
    noise = {figure: value / len(seeds) ** 0.5 for figure, value in spread.items()}
    worse = [f for f, sign in BETTER.items() if sign * (ours[f] - theirs[f]) < -noise[f]]
    lead = ours["atom_stability"] - theirs["atom_stability"]
    bonds, flat = (ours[figure] / theirs[figure] for figure in ("mmd_bond", "out_of_plane@0.1"))
    return Verdict(lead, bonds, flat, tuple(worse))
