"""What each energy resists: its curvature along bonds, angles, torsions and out of the plane of flat groups.

No training. At the force field's minimum of QM9 molecules, every internal coordinate q has a direction of Cartesian
space, the unit vector along its gradient (Wilson's), and every energy a Hessian H: the curvature is u^T H u. The scale
of a loss is arbitrary, so what counts is the curvature of one kind over that of bonds. The yardstick is MMFF94; beside
it, where tblite is installed, stands GFN2-xTB, along the same coordinates at its own minimum. A pair energy does not
feel a flat group bend to second order, whatever its springs: see `elf.HeightEnergy`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from elf import springs
from elf.chemistry.force_field import ForceField
from elf.chemistry.molecular_graph import to_rdkit
from elf.chemistry.stereo import GraphedMolecules
from elf.chemistry.vibrations import rigid_motions
from elf.energy import Energy, HeightEnergy, PairEnergy
from elf.scales import nearest
from experiments.framework.experiment import Callbacks, Cell, Experiment, cell_slug
from experiments.framework.tables import text_table
from experiments.molecules.errors import FLAT, heights
from experiments.molecules.losses import MENDED, RootPairEnergy, pair_hessian, staircase
from experiments.molecules.springs import bootstrap_interval, draw
from experiments.molecules.tight_binding import quantum_minimum, tblite_version

EXPONENTIAL = springs.Exponential(k=5.0)
SPRINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "exponential": EXPONENTIAL,
    "inverse": springs.Inverse(),
    "inverse square": springs.InverseSquare(),
    "constant": springs.Constant(),
    "fitted": staircase,
}
SUMS: dict[str, Energy] = {
    f"exponential + {c:g} heights": PairEnergy(EXPONENTIAL) + HeightEnergy(c) for c in (0.1, 1.0, 10.0)
}
ROOT = RootPairEnergy(EXPONENTIAL, 1.0)
CANDIDATES = ("half_kabsch", "fifth_kabsch", "inverse_heights", "fitted_heights", "half_heights")
"""Of `MENDED` those that have a row of that name. The others' row is another's: of "heights_0.1" it is "exponential +
0.1 heights", and so on; of "root" "root of exponential"; of "window_0.2" and its like, below their border of noise,
"exponential"."""
NAMES = ("mse", "kabsch", *SPRINGS, *SUMS, "root of exponential", *CANDIDATES)
"""The energies of the table, below MMFF94 and GFN2-xTB."""
KINDS = ("stretch", "bend", "single-bond torsion", "double-bond torsion", "out of plane")
TORSIONS = {1: KINDS[2], 2: KINDS[3]}
"""Order of the bond in the middle -> kind; none about triple bonds."""
STRAIGHT = 0.98
"""Cosine of the angle from which on three atoms are a line, and no torsion about them is counted."""


@dataclass(frozen=True)
class Settings:
    """How many molecules of QM9's test split a cell has; seeds have others."""

    molecules: int


SETTINGS = {"smoke": Settings(4), "live": Settings(20), "laptop": Settings(60), "paper": Settings(1000)}


def internal_coordinates(
    positions: Float[Tensor, "atoms 3"], orders: Int[Tensor, "atoms atoms"]
) -> dict[str, list[tuple[int, ...]]]:
    """Kind -> atoms of each coordinate: i-j, i-j-k, i-j-k-l, and an atom with its three neighbours in one plane."""
    near = [row.nonzero()[:, 0].tolist() for row in orders > 0]
    found: dict[str, list[tuple[int, ...]]] = {kind: [] for kind in KINDS}
    for j, around in enumerate(near):
        found["bend"] += [(i, j, k) for i, k in combinations(around, 2) if not _straight(positions, i, j, k)]
        if len(around) == 3 and abs(float(value("out of plane", positions[[j, *around]]))) < FLAT:
            found["out of plane"].append((j, *around))
    found["stretch"] = [(j, k) for j, around in enumerate(near) for k in around if j < k]
    for j, k in found["stretch"]:
        ends = [(i, x) for i in near[j] for x in near[k] if i != k and x not in (i, j)]
        bent = [(i, x) for i, x in ends if not (_straight(positions, i, j, k) or _straight(positions, j, k, x))]
        if kind := TORSIONS.get(int(orders[j, k])):
            found[kind] += [(i, j, k, x) for i, x in bent]
    return found


def _straight(positions: Tensor, i: int, j: int, k: int) -> bool:
    first, second = positions[i] - positions[j], positions[k] - positions[j]
    return bool((first @ second).abs() > STRAIGHT * first.norm() * second.norm())


def value(kind: str, atoms: Float[Tensor, "n 3"]) -> Tensor:
    """The coordinate: angstrom for stretch and out of plane, radians for the others."""
    if kind == "stretch":
        return (atoms[0] - atoms[1]).norm()
    if kind == "bend":
        a, b = atoms[0] - atoms[1], atoms[2] - atoms[1]
        return torch.atan2(torch.linalg.cross(a, b).norm(), a @ b)
    if kind == "out of plane":
        rows = torch.tensor([[0, 0, 1, 2, 3]], dtype=torch.int64, device=atoms.device)
        return heights(atoms[None], rows)[0]
    a, b, c = atoms[1] - atoms[0], atoms[2] - atoms[1], atoms[3] - atoms[2]
    first, second = torch.linalg.cross(a, b), torch.linalg.cross(b, c)
    return torch.atan2((a * b.norm()) @ second, first @ second)


def direction(kind: str, atoms: Sequence[int], positions: Float[Tensor, "atoms 3"]) -> Float[Tensor, " coordinates"]:
    """The unit vector along the coordinate's gradient."""
    x = positions.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(kind, x[list(atoms)]), x)
    return gradient.flatten() / gradient.norm()


def hessians(minimum: Float[Tensor, "atoms 3"]) -> dict[str, Float[Tensor, "coordinates coordinates"]]:
    """Second derivatives of every surrogate at its target; Kabsch's are MSE's with rigid motions taken out."""
    n, mask = minimum.numel(), torch.ones(1, len(minimum), dtype=torch.bool, device=minimum.device)
    rigid = rigid_motions(minimum)
    found = {"mse": 2 * torch.eye(n, dtype=torch.float64, device=minimum.device)}
    found["kabsch"] = found["mse"] - 2 * rigid.T @ rigid
    found |= {name: pair_hessian(spring, minimum[None], mask)[0] for name, spring in SPRINGS.items()}
    for name, energy in {**SUMS, "root of exponential": ROOT}.items():
        found[name] = torch.autograd.functional.hessian(partial(_energy_at, energy, minimum), minimum.flatten())
    internal = torch.eye(n, dtype=torch.float64, device=minimum.device) - rigid.T @ rigid
    for name in CANDIDATES:
        here = partial(_energy_at, MENDED[name](), minimum)
        # Kabsch's alignment carries no gradient; and what is per atom there is the whole molecule's here.
        bent = internal @ torch.autograd.functional.hessian(here, minimum.flatten()) @ internal
        found[name] = len(minimum) * bent
    return found


def _energy_at(energy: Energy, target: Tensor, flat: Tensor) -> Tensor:
    return energy(flat.view(1, -1, 3), target[None])[0]


def run_cell(settings: Settings, cell: Cell, workdir: Path, callbacks: Callbacks) -> dict[str, Any]:
    """The curvatures of all coordinates of the cell's molecules.

    Returns:
        "molecules"; "coordinates": kind -> how many; "curvature": energy -> kind -> the mean over molecules of a
        molecule's mean (kcal/mol/angstrom^2 for "mmff94" and "gfn2", the loss's own unit else); "share": the same over
        that of bonds in the same molecule, as mean with a 95 % bootstrap interval over molecules.
        Of a cell with energy "gfn2" also "tblite", its version, and "lost", the molecules without a minimum that has
        their bonds; where tblite is not installed "left_out", the reason, alone.
    """
    own: dict[str, Any] = {}
    if quantum := cell.get("energy") == "gfn2":
        try:
            own = {"tblite": tblite_version(), "lost": []}
        except ModuleNotFoundError as error:
            return {"left_out": str(error)}
    graphed = GraphedMolecules.of(draw("test", settings.molecules, cell["seed"]))
    counts = dict.fromkeys(KINDS, 0)
    curvature: dict[str, dict[str, list[float]]] = {}
    share: dict[str, dict[str, list[float]]] = {}
    for i in range(len(graphed)):
        mol = to_rdkit(graphed.molecules, i)
        field = ForceField(mol)
        minimum = field.minimise(field.positions)
        coordinates = internal_coordinates(minimum, graphed.orders[i])
        if not quantum:
            at, found = minimum, {"mmff94": field.hessian(minimum), **hessians(minimum)}
        elif here := quantum_minimum(mol, minimum, coordinates["stretch"]):
            at, found = here[0], {"gfn2": here[1]}
        else:
            own["lost"].append(i)
            continue
        moves = {
            kind: torch.stack([direction(kind, atoms, at) for atoms in rows])
            for kind, rows in coordinates.items()
            if rows
        }
        for kind, rows in moves.items():
            counts[kind] += len(rows)
        for name, hessian in found.items():
            means = {k: float(torch.einsum("qi,ij,qj->q", u, hessian, u).mean()) for k, u in moves.items()}
            for kind, mean in means.items():
                curvature.setdefault(name, {}).setdefault(kind, []).append(mean)
                share.setdefault(name, {}).setdefault(kind, []).append(mean / means["stretch"])
    return own | {
        "molecules": len(graphed) - len(own.get("lost", ())),
        "coordinates": counts,
        "curvature": _each(lambda means: _digits(sum(means) / len(means)), curvature),
        "share": _each(_interval, share),
    }


def _each(
    summary: Callable[[list[float]], object], figures: Mapping[str, Mapping[str, list[float]]]
) -> dict[str, dict[str, object]]:
    return {name: {kind: summary(values) for kind, values in own.items()} for name, own in figures.items()}


def _digits(number: float) -> float:
    return float(f"{number:.4g}")


def _interval(values: Sequence[float]) -> dict[str, float]:
    low, high = bootstrap_interval(torch.tensor(values, dtype=torch.float64, device="cpu"))
    return {"mean": _digits(sum(values) / len(values)), "low": _digits(low), "high": _digits(high)}


def summarise(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The mean over seeds of each share, in per cent of the bonds'; kinds that a seed's molecules lack are left out."""
    found = []
    for name in ("mmff94", "gfn2", *NAMES):
        results = [row["result"] for row in rows]
        shares = [result["share"][name] for result in results if name in result.get("share", ())]
        means = {
            kind: _digits(100 * sum(share[kind]["mean"] for share in shares) / len(shares))
            for kind in KINDS
            if shares and all(kind in share for share in shares)
        }
        found += [{"energy": name, **means}] if means else []
    return found


def table(result: dict[str, Any]) -> str:
    """Curvature in per cent of that of bonds; under it, which cells were left out, and why."""
    rows = [
        {"energy": row["energy"], **{kind: f"{row[kind]:.3g}" if kind in row else "-" for kind in KINDS}}
        for row in result["summary"]
    ]
    cells = [(row["cell"], row["result"]["left_out"]) for row in result["cells"] if "left_out" in row["result"]]
    return "\n".join([text_table(rows), *(f"Left out: {cell_slug(cell)}. {reason}" for cell, reason in cells)])


def cells(settings: Settings, seeds: int) -> list[dict[str, Any]]:
    """One for each seed; and one with GFN2-xTB alone, which takes longest and needs an extra."""
    return [{**own, "seed": seed} for own in ({}, {"energy": "gfn2"}) for seed in range(seeds)]


EXPERIMENT = Experiment(
    name="curvatures",
    title="Curvature along internal coordinates, in per cent of that of bonds: energies, MMFF94 and GFN2-xTB",
    settings=partial(nearest, SETTINGS),
    cells=cells,
    run_cell=run_cell,
    summarise=summarise,
    table=table,
)
