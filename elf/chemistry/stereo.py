"""Molecular graphs as network input, and the geometry that a graph should come with: hops, hands of stereo centres."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from elf.checks import require_count, require_tensor
from elf.chemistry.molecular_graph import bond_orders, to_rdkit
from elf.data.molecules import Molecules

MAX_HOPS = 5
PAIR_FEATURES = 3 + MAX_HOPS - 1
"""Bond of order 1, 2 or 3; else 2, 3, 4, or 5 and more bonds apart."""


@dataclass(frozen=True)
class GraphedMolecules:
    """Molecules with their bonds. orders: Kekule bond orders 0 to 3, zero where padded."""

    molecules: Molecules
    orders: Int[Tensor, "n atoms atoms"]

    @classmethod
    def of(cls, molecules: Molecules) -> GraphedMolecules:
        """Those of the molecules whose SMILES fits their coordinates (`bond_orders`), nearly all of QM9."""
        orders, verified = bond_orders(molecules)
        kept = molecules[verified].trimmed()
        size = kept.numbers.shape[1]
        return cls(kept, orders[verified][:, :size, :size])

    def __len__(self) -> int:
        return len(self.molecules)


def hops(orders: Int[Tensor, "*batch atoms atoms"], most: int = MAX_HOPS) -> Int[Tensor, "*batch atoms atoms"]:
    """Bonds on the shortest path between two atoms, at most `most`: 0 on the diagonal, `most` without a path."""
    most = min(require_count("most", most), 2**31)
    if require_tensor("orders", orders).is_floating_point() or orders.ndim < 2 or orders.shape[-1] != orders.shape[-2]:
        raise ValueError(f"orders has {orders.dtype} {tuple(orders.shape)}; it should be integers (..., atoms, atoms)")
    bonded = (orders > 0).float()
    reach = torch.eye(orders.shape[-1], dtype=torch.float32, device=orders.device).expand(orders.shape)
    result = torch.full_like(orders, most)
    for k in range(min(most, orders.shape[-1])):
        result = result.minimum(torch.where(reach > 0, k, most))
        reach = (reach + reach @ bonded).clamp(max=1)
    return result


def pair_features(orders: Int[Tensor, "*batch atoms atoms"]) -> Float[Tensor, "*batch atoms atoms features"]:
    """One-hot of what lies between two atoms (see `PAIR_FEATURES`), zero on the diagonal, float32."""
    # 1 to 3: the bond's order; 3 + k - 1: k bonds apart.
    apart = hops(orders)
    code = torch.where(orders > 0, orders, apart + 2).masked_fill(apart == 0, 0)
    return torch.nn.functional.one_hot(code.long(), PAIR_FEATURES + 1)[..., 1:].float()


@dataclass(frozen=True)
class StereoCentres:
    """Stereo centres of many molecules, one a row.

    molecule: its number. atoms: the centre and three of its neighbours, whose signed volume tells the hand.
    """

    molecule: Int[Tensor, " centres"]
    atoms: Int[Tensor, "centres 4"]

    @classmethod
    def of(cls, molecules: Molecules) -> StereoCentres:
        """Tetrahedral stereo centres as RDKit perceives them from bonds and coordinates."""
        from rdkit import Chem

        found: list[list[int]] = []
        for i in range(len(molecules)):
            mol = to_rdkit(molecules, i)
            for centre, _ in Chem.FindMolChiralCenters(mol, useLegacyImplementation=False):
                neighbours = sorted(atom.GetIdx() for atom in mol.GetAtomWithIdx(centre).GetNeighbors())
                found.append([i, centre, *neighbours[:3]])
        rows = torch.tensor(found, dtype=torch.long, device="cpu").view(-1, 5)
        return cls(rows[:, 0], rows[:, 1:])

    def hands(self, positions: Float[Tensor, "n atoms 3"]) -> Bool[Tensor, " centres"]:
        """Sign of the signed volume spanned by the centre's three neighbours: mirror images have opposite hands."""
        corners = positions[self.molecule[:, None], self.atoms]
        arms = corners[:, 1:] - corners[:, :1]
        return torch.linalg.det(arms) > 0
