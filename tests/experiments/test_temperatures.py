"""Hot molecules and relaxed samples: units, closed forms of both ways to heat, what is read and relaxed, the cells."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import scipy.constants as nature
import torch
from rdkit import Chem

from elf.chemistry.force_field import BOLTZMANN, ForceField
from elf.chemistry.molecular_graph import to_rdkit
from elf.chemistry.vibrations import normal_modes
from elf.data import qm9
from elf.geometry import center
from elf.metrics import molecules as metrics
from experiments import find, reproduce
from experiments.molecules import gifts, heated, relaxed, small, temperatures

SMOKE = temperatures.settings_at("smoke")
DRAWS = 4000
UNIT = SimpleNamespace(kcal=1000 * nature.calorie / nature.N_A, dalton=nature.atomic_mass, fs=1e-15, angstrom=1e-10)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def one(name: str):
    return qm9.find(name)


def field_of(name: str) -> tuple[ForceField, torch.Tensor]:
    field = ForceField(to_rdkit(one(name), 0))
    return field, field.minimise()


def spring(k: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hessian, positions and masses of two atoms 1.1 angstrom apart along x."""
    along = torch.zeros(6, dtype=torch.float64)
    along[0], along[3] = -1, 1
    positions = torch.tensor([[0.0, 0, 0], [1.1, 0, 0]], dtype=torch.float64)
    return k * torch.outer(along, along), positions, torch.tensor([1.0, 19.0], dtype=torch.float64)


def test_units_are_those_of_nature():
    assert heated.TIME * UNIT.fs == pytest.approx(UNIT.angstrom * math.sqrt(UNIT.dalton / UNIT.kcal), rel=1e-7)
    assert pytest.approx(nature.k / UNIT.kcal, rel=1e-9) == BOLTZMANN


@pytest.mark.parametrize(("k", "kelvin"), [(700.0, 300.0), (700.0, 1000.0), (5.0, 300.0)])
def test_a_harmonic_bond_swings_by_the_root_of_kt_over_k_and_a_soft_one_as_if_it_were_stiffer(k, kelvin):
    hessian, positions, masses = spring(k)
    modes, source = normal_modes(hessian, positions, masses), generator()
    moves = torch.stack([heated.harmonic(modes, kelvin, source) for _ in range(DRAWS)])
    reduced = 19 / 20
    omega = 2 * math.pi * nature.c * 100 * heated.SOFT * UNIT.fs * heated.TIME  # of `SOFT`, in the units of the house
    stiff = max(k, reduced * omega**2)
    assert (stiff == k) == (k == 700.0)
    swing = moves[:, 1, 0] - moves[:, 0, 0]
    assert float(swing.square().mean()) == pytest.approx(BOLTZMANN * kelvin / stiff, rel=0.08)
    torch.testing.assert_close(moves[:, 0, 0], -19 * moves[:, 1, 0])  # the centre of mass stays
    assert moves[..., 1:].abs().max() < 1e-9


@pytest.mark.parametrize("way", ["modes", "langevin"])
def test_a_harmonic_molecule_has_kt_over_two_in_each_of_its_3n_minus_6_modes(way):
    field, minimum = field_of("O")
    hessian, kelvin = field.hessian(minimum), 1000.0
    modes = normal_modes(hessian, minimum, field.masses)
    if way == "modes":
        source = generator()
        moves = torch.stack([heated.harmonic(modes, kelvin, source) for _ in range(DRAWS)])
    else:

        def gradient(x):
            return ((x - minimum).flatten(-2) @ hessian).view(x.shape)

        start = minimum.expand(DRAWS, 3, 3)
        moves = heated.langevin(gradient, start, field.masses, kelvin, generator()) - minimum
    flat = moves.flatten(1)
    energy = torch.einsum("ni,ij,nj->n", flat, hessian, flat) / 2
    assert len(modes.stiffness) == 3
    assert float(energy.mean()) == pytest.approx(3 / 2 * BOLTZMANN * kelvin, rel=0.04)
    each = torch.einsum("ni,ki->nk", flat @ hessian, modes.directions.flatten(1)) / modes.stiffness
    expected = BOLTZMANN * kelvin / modes.stiffness
    assert ((each.square().mean(dim=0) / expected - 1).abs() < 0.1).all()


def test_a_free_atom_diffuses_as_ornstein_and_uhlenbeck_have_it():
    kelvin, mass, friction, steps, step = 3000.0, 12.0, 0.02, 200, 0.5
    start = torch.zeros(DRAWS, 1, 3, dtype=torch.float64)
    masses = torch.tensor([mass], dtype=torch.float64)
    x = heated.langevin(torch.zeros_like, start, masses, kelvin, generator(), steps=steps, step=step, friction=friction)
    time, speed = steps * step, nature.k * kelvin / (mass * UNIT.dalton) * (UNIT.fs / UNIT.angstrom) ** 2
    expected = 2 * speed / friction**2 * (friction * time - 1 + math.exp(-friction * time))
    assert float(x.square().mean()) == pytest.approx(expected, rel=0.04)


def test_both_ways_agree_on_a_stiff_molecule_at_300_kelvin():
    field, minimum = field_of("O")
    modes, source = normal_modes(field.hessian(minimum), minimum, field.masses), generator()
    drawn = torch.stack([minimum + heated.harmonic(modes, 300.0, source) for _ in range(300)])
    start = minimum.expand(300, *minimum.shape)
    moved = heated.langevin(field.gradient, start, field.masses, 300.0, generator(1), steps=400)
    for atoms in ((0, 1), (1, 2)):
        swings = [(x[:, atoms[0]] - x[:, atoms[1]]).norm(dim=-1).std() for x in (drawn, moved)]
        assert float(swings[0] / swings[1]) == pytest.approx(1, abs=0.15)
    energies = [float((field.energy(x) - field.energy(minimum)).mean()) for x in (drawn, moved)]
    for energy in energies:
        assert energy == pytest.approx(3 / 2 * BOLTZMANN * 300, rel=0.15)


def test_the_same_molecules_are_distorted_alike_at_each_temperature_whatever_else_is_heated():
    some = qm9.load(heavy_atoms=(3, 3), atoms=(5, 29), split="train", limit=4)
    cold, warm, hot, hottest = (heated.heat(some, kelvin) for kelvin in heated.KELVIN)
    for other in (warm, hot, hottest):
        assert torch.equal(other.molecules.index, cold.molecules.index)
    moves = [each.molecules.positions - cold.molecules.positions for each in (warm, hot)]
    torch.testing.assert_close(moves[1], math.sqrt(10 / 3) * moves[0], atol=1e-5, rtol=1e-4)
    assert moves[0].abs().max() > 0.02
    alone = heated.heat(some[2:3], 3000)
    assert torch.equal(alone.molecules.positions[0], hottest.molecules.positions[2])
    assert torch.equal(alone.energies, hottest.energies[2:3])
    for each in (cold, warm, hot, hottest):
        mask = each.molecules.numbers != 0
        torch.testing.assert_close(center(each.molecules.positions, mask), each.molecules.positions, atol=1e-5, rtol=0)
    assert cold.energies.tolist() == [0] * 4
    assert hottest.energies.min() > 0.1


def test_what_is_left_out_is_named():
    charged = qm9.find("NC(=[NH2+])C([O-])=O")
    methane = qm9.find("C")
    found = heated.heat(charged, 0)
    assert len(found.molecules) == 0
    assert found.lost == {"unreadable": [], "untyped": [], "no_minimum": [], "changed": charged.index.tolist()}
    assert set(found.lost) == set(heated.LOST)
    assert len(heated.heat(methane, 300).molecules) == 1


def test_the_cache_has_what_was_made_and_is_made_anew_by_other_rules(tmp_path, monkeypatch):
    real = heated.cache_folder
    monkeypatch.setattr(heated, "cache_folder", lambda: tmp_path)
    arguments = (1000, (1, 2), (5, 29), "train")
    first, again = (heated.heated_qm9.__wrapped__(*arguments) for _ in range(2))
    (path,) = tmp_path.glob("*.safetensors")
    assert real() != tmp_path
    assert torch.equal(first.molecules.positions, again.molecules.positions)
    assert torch.equal(first.energies, again.energies)
    assert first.lost == again.lost
    assert list(first.molecules.smiles) == list(again.molecules.smiles)
    made = path.stat().st_mtime_ns
    monkeypatch.setattr(heated, "SOFT", 800.0)
    assert not torch.equal(heated.heated_qm9.__wrapped__(*arguments).molecules.positions, first.molecules.positions)
    assert path.stat().st_mtime_ns > made


@pytest.mark.parametrize("name", ["O", "C=O", "C#N", "c1ccncc1", "CC(=O)N"])
def test_minima_are_read_as_themselves(name):
    molecule = qm9.find(name)
    assert relaxed.is_itself(molecule, 0)
    mol = relaxed.perceived(molecule.positions[0], molecule.numbers[0])
    assert not any(atom.GetNumRadicalElectrons() or atom.GetFormalCharge() for atom in mol.GetAtoms())


def test_a_lost_hydrogen_is_missing_and_a_near_one_has_one_neighbour():
    molecule = qm9.find("CC")
    x, z = molecule.positions[0].double(), molecule.numbers[0]
    hydrogen = int((z == 1).nonzero()[0])
    near = relaxed.bonded(x, z)
    assert int(near.sum()) == 2 * 7
    assert torch.equal(near, near.T)
    owner = int(near[hydrogen].nonzero()[0])
    away = x[hydrogen] - x[owner]
    for factor, bonds in ((1.4, 7), (3.0, 6)):  # 1.53 and 3.3 angstrom
        moved = x.clone()
        moved[hydrogen] = x[owner] + factor * away
        assert int(relaxed.bonded(moved, z).sum()) == 2 * bonds
        hot = SimpleNamespace(positions=moved[None], numbers=z[None], smiles=["CC"])
        assert relaxed.is_itself(hot, 0) == (bonds == 7)
        hydrogens = [atom.GetTotalNumHs() for atom in relaxed.perceived(moved, z).GetAtoms()]
        assert hydrogens == [0] * 8  # implicit ones: none
    between = x.clone()
    carbons = (z == 6).nonzero()[:, 0]
    between[hydrogen] = x[carbons].mean(dim=0) + torch.tensor([0.01, 0.02, 0.0]).double()
    assert int(relaxed.bonded(between, z)[hydrogen].sum()) == 1


def test_figures_of_a_strained_molecule_are_its_energy_and_its_bonds():
    molecule = qm9.find("CC#N")
    field, minimum = field_of("CC#N")
    z = molecule.numbers[0]
    x = minimum.clone()
    hydrogen = int((z == 1).nonzero()[0])
    x[hydrogen] += 0.1 * (x[hydrogen] - x[0]) / (x[hydrogen] - x[0]).norm()
    lone = torch.full_like(x, 0)
    lone[:, 0] = 5 * torch.arange(len(z))  # a gas of atoms
    both = relaxed.relaxed_figures(torch.stack([x, lone]), torch.stack([z, z]))
    assert both["relaxed"] == both["relaxed_molecules"] == both["relaxed_atoms"] == 0.5
    assert both["unreadable"] + both["untyped"] + both["no_minimum"] == 0.5
    energy = float(field.energy(x) - field.energy(minimum))
    assert both["kelvin"] == pytest.approx(2 * energy / ((3 * 6 - 6) * BOLTZMANN), rel=1e-3)
    assert both["bond_error"] == pytest.approx(0.1 / math.sqrt(5), rel=1e-2)
    cold = relaxed.relaxed_figures(minimum[None], z[None])
    assert cold["kelvin"] == pytest.approx(0, abs=1e-3)
    assert metrics.stability(minimum[None], z[None]).molecule_fraction == cold["relaxed_molecules"] == 1
    charged = qm9.find("NC(=[NH2+])C([O-])=O")
    refused = relaxed.relaxed_figures(charged.positions, charged.numbers)
    assert metrics.stability(charged.positions, charged.numbers).atom_fraction > 0.5
    assert (refused["unreadable"], refused["relaxed_atoms"], refused["relaxed_molecules"]) == (1, 0, 0)
    nothing = relaxed.relaxed_figures(lone[None], z[None])
    assert (nothing["relaxed_atoms"], nothing["kelvin"], nothing["bond_error"]) == (0, None, None)


def test_the_recipe_is_that_of_the_plain_network_of_two_gifts():
    own, theirs = temperatures.settings_at("laptop"), gifts.settings_of("two_gifts", "laptop")
    recipe, other = temperatures.recipe_at(own, 300), gifts.recipe_of(theirs, "plain")
    changed = {name for name, value in vars(recipe).items() if value != vars(other)[name]}
    assert changed == {"data", "steps", "samples"}
    assert (recipe.network, recipe.turned, recipe.steps, recipe.samples) == ("plain", True, (1200,), 500)
    assert small.DATA["qm9_300K"][1:] == small.DATA["qm9"][1:]
    assert temperatures.settings_at("gpu").recipe.heavy_atoms == (1, 7)
    assert len(temperatures.cells(own, 3)) == 3 * 4 * (2 + 1)


def test_cells_are_the_same_twice_and_resume(tmp_path):
    whole = reproduce("temperatures", scale="smoke", seeds=1, workdir=tmp_path / "a", output=tmp_path / "a.json")
    reproduce("temperatures", scale="smoke", seeds=1, workdir=tmp_path / "b", only={"loss": "data"})
    part = reproduce("temperatures", scale="smoke", seeds=1, workdir=tmp_path / "b", output=tmp_path / "b.json")
    one, other = (json.loads(path.read_text()) for path in (whole, part))

    def figures(result):
        return [{k: v for k, v in cell["result"].items() if k != "seconds"} for cell in result["cells"]]

    assert figures(one) == figures(other)
    found = temperatures.by_temperature(one)
    assert list(found) == ["energy", "data"]
    assert list(found["data"]) == [0, 3000]
    hot = next(c["result"] for c in one["cells"] if (c["cell"]["loss"], c["cell"]["temperature"]) == ("data", 3000))
    assert 0.5 < hot["equipartition"] < 1.5
    assert set(hot["lost"]) == set(heated.LOST)
    assert hot["heated"] + sum(map(len, hot["lost"].values())) == len(
        qm9.load(heavy_atoms=(1, 3), atoms=(5, 29), split="train")
    )
    text = find("temperatures").table(one)
    assert [line.split("|")[1].strip() for line in text.splitlines()[2:]] == ["0", "0", "3000", "3000"]


def test_leads_are_of_networks_that_started_alike():
    values = {("mse", 0): (0.5, 0.6), ("energy", 0): (0.7, 0.9), ("mse", 300): (0.4, 0.4), ("energy", 300): (0.3, 0.6)}
    rows = [
        {"cell": {"temperature": kelvin, "loss": loss, "seed": seed}, "result": {"relaxed_atoms": value}}
        for (loss, kelvin), both in values.items()
        for seed, value in reversed(list(enumerate(both)))
    ]
    found = temperatures.leads({"cells": rows})
    assert found == {0: pytest.approx([0.2, 0.3]), 300: pytest.approx([-0.1, 0.2])}


def test_a_temperature_of_few_relaxed_molecules_is_none_and_leaves_its_pair_out():
    rows = [
        {
            "cell": {"temperature": 300, "loss": loss, "steps": 1200, "seed": seed},
            "result": {"molecules": 500, "relaxed": n / 500, "relaxed_atoms": 0.1, "kelvin": kelvin, "bond_error": 0.2},
        }
        for loss, figures in {"mse": [(29, 9000.0), (40, 8000.0)], "energy": [(60, 7000.0), (55, 6000.0)]}.items()
        for seed, (n, kelvin) in enumerate(figures)
    ]
    assert temperatures.by_temperature({"cells": rows}, "kelvin") == {
        "mse": {300: [None, 8000]},
        "energy": {300: [7000, 6000]},
    }
    assert temperatures.leads({"cells": rows}, "kelvin") == {300: [-2000]}
    assert temperatures.leads({"cells": rows}) == {300: [0, 0]}
    mse, energy = find("temperatures").summarise(rows)
    assert "kelvin" not in mse
    assert "bond_error" not in mse
    assert mse["relaxed_atoms"]["mean"] == 0.1
    assert energy["kelvin"]["mean"] == 6500
    lines = find("temperatures").table({"summary": [mse, energy]}).splitlines()
    place = [word.strip() for word in lines[0].split("|")].index("temperature (K)")
    assert [line.split("|")[place].strip() for line in lines[2:]] == ["-", "6500 ± 707 (2)"]


def test_perceived_molecules_are_sane_rdkit_molecules():
    molecule = qm9.find("CC(=O)N")
    mol = relaxed.perceived(molecule.positions[0], molecule.numbers[0])
    assert Chem.SanitizeMol(mol, catchErrors=True) == 0
    assert mol.GetNumAtoms() == int(molecule.counts[0])
    x = molecule.positions[0, : mol.GetNumAtoms()].double()
    torch.testing.assert_close(torch.from_numpy(mol.GetConformer().GetPositions()), x)
