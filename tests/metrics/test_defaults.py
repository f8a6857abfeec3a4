"""Chemistry and metrics whatever torch's default dtype and device are, and on devices that have no float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_molecules import ETHYLENE, METHANE, WATER, batch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from elf.chemistry import bonds, stereo
from elf.chemistry.force_field import ForceField, force_fields
from elf.chemistry.molecular_graph import bond_orders, to_rdkit
from elf.chemistry.vibrations import mode_displacements, normal_modes, random_displacements, thermal_displacements
from elf.data.molecules import Molecules, SmilesList
from elf.metrics import chemnet, mmd, substructures
from elf.metrics import molecules as metrics
from elf.metrics.poses import pose_checks
from elf.metrics.strain import strain
from experiments.clouds import regularity as shapes

POSITIONS, NUMBERS = batch(METHANE, WATER, ETHYLENE)
RECORD = Molecules(POSITIONS, NUMBERS, SmilesList.from_strings(["C", "O", "C=C"]), torch.arange(3))


def vibrations() -> list[Any]:
    (_, field, x), *_ = force_fields(RECORD[:1], to_rdkit)[0]
    modes = normal_modes(field.hessian(x.float()), x, field.masses)
    generator = torch.Generator("cpu").manual_seed(0)
    return [
        modes.wavenumbers,
        field.energy(x[None].float()),
        field.gradient(x),
        field.minimise(x.float()),
        random_displacements(x, 0.1, 2, generator),
        thermal_displacements(modes, x, 0.1, 2, generator)[0],
        mode_displacements(modes, x, 0.1),
    ]


def graphs() -> list[Any]:
    graphed = stereo.GraphedMolecules.of(RECORD)
    centres = stereo.StereoCentres.of(RECORD)
    return [*bond_orders(RECORD), graphed.orders, stereo.pair_features(graphed.orders), centres.hands(POSITIONS)]


def tables() -> list[Any]:
    found = metrics.stability(POSITIONS, NUMBERS)
    values = metrics.evaluate(POSITIONS, NUMBERS, training_smiles=["C"])
    return [
        *(found.atom_stable, found.molecule_stable, metrics.fragments(POSITIONS, NUMBERS)),
        *(bonds.QM9.thresholds(), bonds.GEOM.allowed(), metrics.bond_orders(POSITIONS, NUMBERS)),
        torch.tensor([float(value) for value in values.values()], dtype=torch.float64, device="cpu"),
        strain(POSITIONS, NUMBERS).energies,
        torch.tensor(list(pose_checks(POSITIONS, NUMBERS).values()), dtype=torch.float64, device="cpu"),
    ]


def statistics() -> list[Any]:
    samples = [f(POSITIONS, NUMBERS) for f in (substructures.bond_lengths, substructures.bond_angles)]
    planar = substructures.dihedral_angles(POSITIONS, NUMBERS)
    compared = mmd.compare(samples[0], samples[0], ("C1H",), limit=5)["C1H"]
    rows = POSITIONS[0, :, :2]
    distance = chemnet.frechet_distance(rows, rows + 1)
    numbers = torch.tensor([compared, distance], dtype=torch.float64, device="cpu")
    return [*samples[0].values(), *samples[1].values(), *planar.values(), numbers, shapes.quality(rows[None])]


def chemnets() -> list[Any]:
    chemnet._chemnet.cache_clear()
    return [chemnet.chemnet_activations(["CCO", "C"]), chemnet.chemnet_activations([])]


CASES: list[Callable[[], list[Any]]] = [vibrations, graphs, tables, statistics, chemnets]


@pytest.mark.parametrize("case", CASES)
def test_defaults_of_torch_change_nothing(case):
    wanted = case()
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        found = case()
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    for first, second in zip(wanted, found, strict=True):
        assert (second.dtype, second.device) == (first.dtype, first.device)
        torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-6)


class NoFloat64OffTheCpu(TorchFunctionMode):
    """An MPS of paper: tensors derived from marked ones are elsewhere until `.cpu()`, and have no float64 there."""

    def __init__(self, *inputs: Tensor) -> None:
        super().__init__()
        self.there = {id(x): x for x in inputs}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(id(leaf) in self.there for leaf in tree_leaves((args, kwargs))) and func is not Tensor.cpu:
            for leaf in tree_leaves(result):
                if isinstance(leaf, Tensor):
                    assert leaf.dtype != torch.float64, f"{func} makes a float64 tensor away from the CPU"
                    self.there[id(leaf)] = leaf
        elif func is Tensor.cpu:
            result = result.clone()
        return result


@pytest.mark.parametrize(
    "case",
    [
        lambda x: chemnet.frechet_distance(x[0], x[1]),
        lambda x: mmd.squared_mmd(x[0, :, 0], x[1, :, 0]),
        lambda x: mmd.compare({"a": x[0, :, 0]}, {"a": x[1, :, 0]}, ["a"]),
        lambda x: FIELD.energy(x[0, :5]),
        lambda x: FIELD.gradient(x[0, :5]),
        lambda x: FIELD.hessian(x[0, :5]),
        lambda x: FIELD.minimise(x[0, :5]),
        lambda x: strain(x, NUMBERS),
        lambda x: metrics.to_rdkit(x[2], NUMBERS[2]),
        lambda x: bond_orders(Molecules(x, NUMBERS, RECORD.smiles, RECORD.index)),
        lambda x: stereo.StereoCentres.of(Molecules(x, NUMBERS, RECORD.smiles, RECORD.index)),
    ],
)
def test_no_float64_before_the_cpu(case):
    x = POSITIONS.clone()
    with NoFloat64OffTheCpu(x):
        case(x)


FIELD = ForceField(to_rdkit(RECORD, 0))
