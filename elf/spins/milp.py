"""Exact ground states of any graph by mixed-integer linear programming (HiGHS, through scipy.optimize.milp)."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from jaxtyping import Int8
from torch import Tensor

from elf.checks import require_positive
from elf.spins.graph import Graph, descend, ising_energy, require_real

GRAIN = 2.0**46
"""Couplings are whole multiples of the largest divided by this: sums of some hundred of them are exact in float64."""
GAP = 1e-6
"""HiGHS' tolerance in units of the largest |J|: what lies closer than this to the lowest energy, it calls lowest."""


@dataclass(frozen=True, eq=False)
class GraphGroundState:
    """What the solver found for one graph.

    Attributes:
        spins: +-1, (N,) int8; the first is +1.
        energy: E = - sum_<ij> J_ij y_i y_j.
        optimal: whether it is proven that no configuration is lower by more than 1e-6 of the largest |J|; False after
            a time-out, and where some coupling is smaller than that, so that its sign may not be seen.
        bound: no configuration has less energy than this, up to the same 1e-6.
    """

    spins: Int8[Tensor, " spins"]
    energy: float
    optimal: bool
    bound: float


def graph_ground_state(couplings: Tensor, time_limit: float = 60.0) -> GraphGroundState:
    """The ground state of Ising spins with any symmetric couplings; practical up to some 30 spins if all are coupled.

    Args:
        couplings: J, (N, N), symmetric, zero on the diagonal; zero means no bond.
        time_limit: seconds. At a time-out the answer is the best configuration found, improved by single flips, with
            `optimal` False.

    Raises:
        TypeError, ValueError: couplings that are not a tensor of real numbers, not square, not finite, not symmetric,
            with a diagonal, so large that energies overflow, or whose graph falls into parts (each part could be
            flipped alone; solve them one by one).
    """
    matrix = require_real("couplings", couplings).detach().cpu().double()
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) == 0:
        raise ValueError(f"couplings has shape {tuple(couplings.shape)}; it should be square, with a row for each spin")
    if not bool((finite := matrix.isfinite()).all()):
        raise ValueError(f"couplings holds {int((~finite).sum())} NaN or infinite values; all should be finite")
    if bool(matrix.diagonal().any()) or not torch.equal(matrix, matrix.T):
        raise ValueError("couplings is not symmetric with a zero diagonal; it should be: J_ij = J_ji, J_ii = 0")
    first, second = edges = matrix.triu().nonzero().T
    return solve(Graph(edges, matrix[first, second], len(matrix)), time_limit)


def whole_units(values: np.ndarray) -> np.ndarray:
    """J / max |J| along the last axis, as whole numbers of 1 / GRAIN: the same whatever the unit of J is."""
    largest = np.abs(values).max(-1, keepdims=True, initial=0)
    return np.round(GRAIN * np.divide(values, largest, out=np.zeros_like(values), where=largest > 0))


def require_connected(first: np.ndarray, second: np.ndarray, n: int, what: str) -> None:
    """The bonds (first, second) join all n spins, or a ValueError that says in how many parts they fall."""
    from scipy import sparse
    from scipy.sparse.csgraph import connected_components

    graph = sparse.coo_matrix((np.ones(len(first)), (first, second)), shape=(n, n))
    parts, _ = connected_components(graph, directed=False)
    if parts > 1:
        raise ValueError(
            f"the non-zero couplings of {what} leave its {n} spins in {parts} disconnected parts, which can be flipped "
            "one by one; all spins should be connected (solve the parts separately)"
        )


def solve(couplings: Graph, time_limit: float, cycles: np.ndarray | None = None) -> GraphGroundState:
    """The ground state of one sample, on the CPU in float64.

    Minimises sum 2 J z over z_ij = [y_i != y_j], with y_i = 1 - 2 x_i, x binary, and of |x_i - x_j| <= z_ij <=
    min(x_i + x_j, 2 - x_i - x_j) the side that the sign of J presses against. `cycles` (C, 4), bonds that close a
    square, add the odd-cycle inequalities z(F) - z(C without F) <= |F| - 1, |F| odd, which on planar graphs make the
    relaxation tight.
    """
    from scipy import sparse
    from scipy.optimize import Bounds, LinearConstraint, milp

    time_limit = require_positive("time_limit", time_limit)
    (first, second), exact, n = couplings.edges.numpy(), couplings.values[0].detach().numpy(), prod(couplings.sites)
    require_connected(first[exact != 0], second[exact != 0], n, "the graph")
    if n == 1:
        return GraphGroundState(torch.ones(1, dtype=torch.int8, device="cpu"), 0.0, True, 0.0)
    unit, values = float(np.abs(exact).max()), whole_units(exact) / GRAIN
    bonds = len(values)
    index = np.arange(bonds)
    satisfiable, other = index[values > 0], index[values <= 0]

    def rows(which: np.ndarray, a: float, b: float, z: float) -> sparse.csr_matrix:
        row = np.arange(len(which))
        columns = np.concatenate([first[which], second[which], n + which])
        data = np.repeat([a, b, z], len(which))
        return sparse.csr_matrix((data, (np.tile(row, 3), columns)), shape=(len(which), n + bonds))

    blocks = [rows(satisfiable, 1, -1, -1), rows(satisfiable, -1, 1, -1), rows(other, -1, -1, 1), rows(other, 1, 1, 1)]
    upper = [np.zeros(2 * len(satisfiable) + len(other)), np.full(len(other), 2.0)]
    if cycles is not None and len(cycles):
        for odd in (s for s in np.ndindex(2, 2, 2, 2) if sum(s) % 2):
            sign = np.where(odd, 1.0, -1.0)
            row = np.repeat(np.arange(len(cycles)), 4)
            data = np.tile(sign, len(cycles))
            blocks.append(sparse.csr_matrix((data, (row, n + cycles.ravel())), shape=(len(cycles), n + bonds)))
            upper.append(np.full(len(cycles), sum(odd) - 1.0))
    low, high = np.zeros(n + bonds), np.ones(n + bonds)
    high[0] = 0  # the first spin is +1: the flipped twin is left out
    answer = milp(
        np.concatenate([np.zeros(n), 2 * values]),
        integrality=np.concatenate([np.ones(n), np.zeros(bonds)]),
        bounds=Bounds(low, high),
        constraints=LinearConstraint(sparse.vstack(blocks, format="csr"), -np.inf, np.concatenate(upper)),
        options={"time_limit": time_limit, "mip_rel_gap": 0.0},
    )
    if answer.status not in (0, 1):
        raise RuntimeError(f"HiGHS ended with status {answer.status}: {answer.message}")
    found = torch.from_numpy(np.ones(n) if answer.x is None else 1.0 - 2.0 * np.round(answer.x[:n]))
    relative = couplings.with_values(torch.from_numpy(values)[None])
    descended = descend(found.view(1, *couplings.sites), relative)
    energy, least = float(ising_energy(descended, relative)), -float(np.abs(values).sum())
    if answer.mip_dual_bound is not None and np.isfinite(answer.mip_dual_bound):
        least = max(least, float(answer.mip_dual_bound - values.sum()))
    below = max(0.0, energy - least)
    optimal = answer.status == 0 and below <= GAP and np.abs(values[values != 0]).min() >= GAP
    spins = descended.flatten() * descended.flatten()[0]
    energy = float(ising_energy(spins.view(descended.shape), couplings))
    return GraphGroundState(spins.to(torch.int8), energy, bool(optimal), energy - unit * below)
