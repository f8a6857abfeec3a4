"""Which hand a molecule's stereo centres have, told to a network; and conformers of RDKit's to compare.

A graph without hands leaves both mirror images equally right, and an equivariant network has no other source to choose
from than its noise. So hands are told twice: in the noise, where atoms thrown at random change places until every
centre has the hand it should; and before each pass over the atoms, where every centre is told whether it still has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence

from elf.chemistry.molecular_graph import to_rdkit
from elf.chemistry.stereo import GraphedMolecules, StereoCentres

TURNS = 2000
"""Exchanges after which it must have worked: centres that share neighbours undo each other's for a while."""


@dataclass(frozen=True)
class Hands:
    """Of each molecule: centres and three neighbours of each, -1 where it has fewer centres; hands; number of atoms."""

    atoms: Int[Tensor, "n centres 4"]
    right: Bool[Tensor, "n centres"]
    counts: Int[Tensor, " n"]

    @classmethod
    def of(cls, data: GraphedMolecules) -> Hands:
        """Those of the molecules as they stand in space."""
        stereo = StereoCentres.of(data.molecules)
        each = torch.bincount(stereo.molecule, minlength=len(data)).tolist()
        atoms = pad_sequence(list(stereo.atoms.split(each)), batch_first=True, padding_value=-1)
        right = pad_sequence(list(stereo.hands(data.molecules.positions).split(each)), batch_first=True)
        return cls(atoms, right, data.molecules.counts)

    def __getitem__(self, rows: slice | Int[Tensor, " chosen"]) -> Hands:
        return Hands(self.atoms[rows], self.right[rows], self.counts[rows])

    def seen(self, positions: Float[Tensor, "n atoms 3"]) -> Float[Tensor, "n atoms 2"]:
        """At every centre, how far it has its hand: the volume its three unit bonds span,
        positive for the right hand; and the sign of that. Zero elsewhere."""
        corners, sides = self._corners(positions), torch.where(self.right, 1.0, -1.0).to(positions)
        arms = normalize(corners[..., 1:, :] - corners[..., :1, :], dim=-1)
        volume = torch.linalg.det(arms) * sides * (self.atoms[..., 0] >= 0)
        at_atoms = volume.new_zeros(positions.shape[:2])
        # Every atom is a centre once at most; rows without one add nothing to the first atom.
        at_atoms = at_atoms.scatter_add(1, self.atoms[..., 0].clamp(min=0), volume)
        return torch.stack([at_atoms, at_atoms.sign()], dim=-1)

    def _corners(self, positions: Float[Tensor, "n atoms 3"]) -> Float[Tensor, "n centres 4 3"]:
        samples = torch.arange(len(positions), device=positions.device)[:, None, None]
        return positions[samples, self.atoms.clamp(min=0)]

    def told(self, noise: Float[Tensor, "n atoms 3"]) -> Float[Tensor, "n atoms 3"]:
        """The noise, with atoms of a molecule exchanged until every centre has its hand."""
        noise, real = noise.clone(), self.atoms[..., 0] >= 0
        generator = torch.Generator(noise.device).manual_seed(0)
        for _ in range(TURNS):
            corners = self._corners(noise)
            wrong = real & ((torch.linalg.det(corners[..., 1:, :] - corners[..., :1, :]) > 0) != self.right)
            if not bool(wrong.any()):
                return noise
            rows = wrong.any(1).nonzero().squeeze(1)
            # A wrong centre, one of its four atoms, and any other, by lot: a rule would go round in circles, and
            # exchanges among four do not part two centres of a cage with the same neighbours.
            lots = torch.rand(
                len(rows), wrong.shape[1] + 2, generator=generator, dtype=torch.float32, device=noise.device
            )
            centre = self.atoms[rows, lots[:, 2:].masked_fill(~wrong[rows], -1).argmax(1)]
            one = centre.gather(1, (4 * lots[:, :1]).long()).squeeze(1)
            other = (self.counts[rows] * lots[:, 1]).long()
            noise[rows, one], noise[rows, other] = noise[rows, other], noise[rows, one]
        raise RuntimeError(f"after {TURNS} exchanges, {len(rows)} molecules have a centre of the wrong hand")


def embedded(
    data: GraphedMolecules, seed: int, *, told: bool
) -> tuple[Float[Tensor, "found atoms 3"], Int[Tensor, " found"]]:
    """Conformers by RDKit's ETKDG (version 3), as they come, from the graphs with or without hands.

    Returns:
        Positions in angstrom; and which molecules they are of, as RDKit finds none for some cages with hands.
    """
    from rdkit import Chem
    from rdkit.Chem import rdDistGeom

    settings = rdDistGeom.ETKDGv3()
    settings.randomSeed = int(np.random.default_rng(seed).integers(2**10, 2**20))  # type: ignore[assignment]
    positions, found = torch.zeros_like(data.molecules.positions), []
    for i in range(len(data)):
        mol = to_rdkit(data.molecules, i)
        if not told:
            Chem.RemoveStereochemistry(mol)
        if rdDistGeom.EmbedMolecule(mol, settings) < 0:
            continue
        positions[i, : mol.GetNumAtoms()] = torch.from_numpy(mol.GetConformer().GetPositions()).to(positions)
        found.append(i)
    kept = torch.tensor(found, dtype=torch.long, device=positions.device)
    return positions[kept], kept
