"""How near each candidate for a mended energy comes to what is asked of it: stable atoms and bonds better than MSE's,
and no figure worse by more than the spread. See "mended_energies" in `experiments.molecules.gifts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, stdev
from typing import Any, NamedTuple

from experiments.framework.experiment import load_result
from experiments.framework.tables import enough

BETTER: dict[str, int] = {
    **dict.fromkeys(("atom_stability", "molecule_stability", "stable_connected", "connected", "validity"), 1),
    **dict.fromkeys(("mmd_bond", "mmd_angle", "mmd_dihedral", "fcd"), -1),
    "posebusters": 1,
    "strain": -1,
    **dict.fromkeys(("bond@0.1", "1-3@0.1", "1-4@0.1", "aligned@0.1", "out_of_plane@0.1"), -1),
    **{f"restart_stable@{sigma}": 1 for sigma in (0.2, 0.5)},
}
"""Figures that are judged: 1 where more is better, -1 where less is. Strain is judged where every network has enough
molecules that can be built: after 12,000 steps."""

Cells = Sequence[Mapping[str, Any]]


class Verdict(NamedTuple):
    """atoms: lead over MSE in stable atoms, a share of one. bonds, flat: MMD of bonds, and the error out of plane at
    noise of 0.1 angstrom, over MSE's. worse: figures of `BETTER` behind MSE by more than the spread."""

    atoms: float
    bonds: float
    flat: float
    worse: tuple[str, ...]

    @property
    def leads(self) -> bool:
        """Ahead in atoms and bonds, and within 20 % out of plane."""
        return self.atoms > 0 and self.bonds < 1 and self.flat <= 1.2

    @property
    def mends(self) -> bool:
        """Whether it is all that was asked: it leads, and is nowhere behind."""
        return self.leads and not self.worse


def drawn(figures: Iterable[str]) -> list[str]:
    """Those of the figures that judge drawn molecules, and not single steps of denoising or restarts."""
    return [figure for figure in figures if "@" not in figure]


def figures(cells: Cells, network: str, loss: str) -> dict[int, Mapping[str, Any]]:
    """The results of one kind of network, by seed; None for what rests on too few molecules."""
    kind = {"network": network, "loss": loss}.items()
    return {cell["cell"]["seed"]: enough(cell)["result"] for cell in cells if kind <= cell["cell"].items()}


def spread(cells: Cells, network: str) -> dict[str, float]:
    """By how much two networks trained with MSE differ, one standard deviation: the square root of two times that of
    MSE's networks. Figures that one of these lacks are left out."""
    runs = figures(cells, network, "mse").values()
    have = [figure for figure in BETTER if all(run[figure] is not None for run in runs)]
    return {figure: 2**0.5 * stdev(run[figure] for run in runs) for figure in have}


def against_mse(cells: Cells, network: str, loss: str, spread: Mapping[str, float]) -> Verdict:
    """What a loss does beside MSE, means over pairs of networks of the same seed; figures that one of them or
    `spread` lacks (see `enough`) are not judged."""
    own, mse = figures(cells, network, loss), figures(cells, network, "mse")
    seeds = own.keys() & mse.keys()
    judged = [f for f in spread if all(runs[seed][f] is not None for runs in (own, mse) for seed in seeds)]
    ours, theirs = ({f: mean(runs[seed][f] for seed in seeds) for f in judged} for runs in (own, mse))
    noise = {figure: value / len(seeds) ** 0.5 for figure, value in spread.items()}
    worse = [f for f in judged if BETTER[f] * (ours[f] - theirs[f]) < -noise[f]]
    lead = ours["atom_stability"] - theirs["atom_stability"]
    bonds, flat = (ours[figure] / theirs[figure] for figure in ("mmd_bond", "out_of_plane@0.1"))
    return Verdict(lead, bonds, flat, tuple(worse))


CONFIRMED = {
    2400: ("two_gifts", "two_gifts_mended"),
    12_000: ("two_gifts_long", "two_gifts_long_mended", "two_gifts_long_equivariant"),
}
"""Steps -> the results that hold the networks of the reported seeds."""


def confirmed(loss: str = "half_heights", steps: int = 2400) -> dict[str, Verdict]:
    """Network -> what became of the winner on the reported seeds beside MSE, whose own networks give the spread."""
    cells = [cell for name in CONFIRMED[steps] for cell in load_result(name)["cells"]]
    return {name: against_mse(cells, name, loss, spread(cells, name)) for name in ("plain", "equivariant")}


def in_words() -> str:
    """What became of the winner, at every length and on both networks."""
    return "; ".join(
        f"{network}, {steps:,} steps: stable atoms {100 * verdict.atoms:+.1f} points, "
        f"MMD of bonds {verdict.bonds:.2f} of MSE's, out of plane {verdict.flat:.2f}"
        for steps in CONFIRMED
        for network, verdict in confirmed(steps=steps).items()
    )


def leads() -> bool:
    """Whether it is ahead of MSE in stable atoms in every pair of networks, and in bonds in the mean, on both networks
    and at every length."""
    for steps, names in CONFIRMED.items():
        cells = [cell for name in names for cell in load_result(name)["cells"]]
        for network, verdict in confirmed(steps=steps).items():
            own, mse = (figures(cells, network, loss) for loss in ("half_heights", "mse"))
            pairs = own.keys() & mse.keys()
            if verdict.bonds >= 1 or any(own[s]["atom_stability"] <= mse[s]["atom_stability"] for s in pairs):
                return False
    return True


def mends() -> bool:
    """Whether it is all that was asked, on both networks, after 2,400 steps."""
    return all(verdict.mends for verdict in confirmed().values())
