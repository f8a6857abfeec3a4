"""Whatever is handed to chemistry, metrics and molecule records: an answer, or an error that says what is wrong.

Run by test_fuzz.py in a process of its own, where no import hook checks annotations before the functions themselves do:
`python fuzz_molecules.py EXAMPLES` tries each function that often, and prints what came out wrong.
"""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elf.chemistry import bonds, force_field, molecular_graph, stereo, vibrations
from elf.data import geom, molecules, qm9
from elf.metrics import chemnet, mmd, strain, substructures
from elf.metrics import molecules as metrics
from experiments.clouds import regularity as shapes

TOLD = (ValueError, TypeError, IndexError, FileNotFoundError)
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 200),
    st.sampled_from(
        [10**40, -(2**63), 2**64, 0.5, float("nan"), float("inf"), "", "C", b"C", (), [], {}, [None], ["C"]]
    ),
    st.sampled_from(
        [np.int64(1), np.uint8(200), np.bool_(True), np.float32(2), np.zeros((2, 2)), np.array([2**64 - 1])]
    ),
    st.sampled_from([torch.tensor(1), torch.tensor([1.5]), torch.tensor([True, False]), torch.zeros(0), object]),
)
TEXT = st.one_of(
    st.text(max_size=12),
    st.text("CHNOSPF[]()=#+-@123clBr.*%/\\", max_size=12),
    st.from_regex(r"([A-Z][a-z]?[0-9\u0660-\u0669]{0,3}){1,4}", fullmatch=True),
    JUNK,
)
NUMBERS = st.lists(st.integers(-2, 125) | st.sampled_from([1, 1, 6, 6, 7, 8, 9, 17, 0, 2**40]), min_size=0, max_size=6)


@st.composite
def clouds(draw: st.DrawFn) -> tuple[object, object]:
    """Positions (1, n, 3) and numbers (1, n), mostly."""
    numbers = draw(NUMBERS)
    n = len(numbers) if draw(st.integers(0, 9)) else draw(st.integers(0, 3))
    seed, size = draw(st.integers(0, 99)), draw(st.sampled_from([0.0, 0.5, 1.0, 1.0, 3.0, 1e19, 1e38]))
    dtype = draw(st.sampled_from([torch.float32] * 4 + [torch.float64, torch.float16, torch.bfloat16, torch.long]))
    positions = size * torch.randn(1, n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if draw(st.integers(0, 9)) == 0 and positions.numel():
        positions[0, 0, 0] = draw(st.sampled_from([torch.nan, torch.inf]))
    x = draw(st.sampled_from([positions.to(dtype)] * 9 + [positions[0], positions[..., :2]]))
    z = torch.tensor(numbers, dtype=torch.long)[None]
    return draw(JUNK) if draw(st.integers(0, 19)) == 0 else x, draw(JUNK) if draw(st.integers(0, 19)) == 0 else z


@cache
def records() -> molecules.Molecules:
    """Ten molecules of QM9, without its files."""
    positions = torch.randn(3, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    numbers = torch.tensor([[8, 1, 1], [6, 0, 0], [17, 1, 0]], dtype=torch.long)
    return molecules.Molecules(
        positions, numbers, molecules.SmilesList.from_strings(["O", "[C]", "Cl"]), torch.arange(3, dtype=torch.long)
    )


@cache
def water() -> force_field.ForceField:
    """MMFF94 of water."""
    from rdkit import Chem
    from rdkit.Chem import rdDistGeom

    mol = Chem.AddHs(Chem.MolFromSmiles("O"))
    rdDistGeom.EmbedMolecule(mol, randomSeed=1)
    return force_field.ForceField(mol)


def one_molecule(cloud: tuple, smiles: object) -> molecules.Molecules:
    """A record of a cloud, if it is one."""
    return molecules.Molecules(*cloud, molecules.SmilesList.from_strings([smiles]), torch.zeros(1, dtype=torch.long))


def both(f: Callable) -> Callable:
    """Under either table."""
    return lambda cloud, third: f(*cloud, rules=bonds.GEOM) if third is None else f(*cloud, third)


PAIR = st.tuples(clouds(), st.none() | JUNK)
SAMPLES = st.tuples(clouds(), clouds()).map(lambda pair: (pair[0][0], pair[1][0]))
FLAT = SAMPLES.map(lambda pair: tuple(x.flatten() if isinstance(x, torch.Tensor) else x for x in pair))
ROWS = SAMPLES.map(lambda pair: tuple(x[0] if isinstance(x, torch.Tensor) and x.ndim == 3 else x for x in pair))
CASES: dict[str, tuple[Callable, st.SearchStrategy]] = {
    "Molecules": (one_molecule, st.tuples(clouds(), TEXT)),
    "getitem": (lambda i: records()[i], st.tuples(JUNK | st.lists(JUNK, max_size=3) | st.slices(4))),
    "smiles": (lambda i: records().smiles[i], st.tuples(JUNK | st.slices(4))),
    "smiles.find": (lambda text: records().smiles.find(text), st.tuples(TEXT)),
    "subset": (
        lambda a, h, f: records().subset(atoms=a, heavy_atoms=h, formula=f),
        st.tuples(JUNK | st.lists(JUNK, min_size=2, max_size=2), JUNK, TEXT),
    ),
    "parse_formula": (molecules.parse_formula, st.tuples(TEXT)),
    "formula": (
        lambda z: molecules.formula(z[0] if isinstance(z, torch.Tensor) and z.ndim else z),
        clouds().map(lambda c: c[1:]),
    ),
    "one_hot": (lambda z, e: molecules.one_hot(z, e), st.tuples(clouds().map(lambda c: c[1]), NUMBERS | JUNK)),
    "find": (lambda text: qm9.find(text, within=records()), st.tuples(TEXT)),
    "split_index": (qm9.split_index, st.tuples(JUNK)),
    "qm9.load": (
        lambda *a: qm9.load(limit=a[0], split=a[1], seed=a[2]),
        st.tuples(JUNK.filter(lambda v: not isinstance(v, int)), JUNK, JUNK),
    ),
    "geom.load": (
        lambda *a: geom.load("/nowhere", conformations=a[0], split=a[1], max_atoms=a[2]),
        st.tuples(JUNK, JUNK, JUNK),
    ),
    "to_rdkit": (
        lambda cloud, text, i: molecular_graph.to_rdkit(one_molecule(cloud, text), i),
        st.tuples(clouds(), TEXT, st.just(0) | JUNK),
    ),
    "bond_orders": (
        lambda cloud, text: molecular_graph.bond_orders(one_molecule(cloud, text)),
        st.tuples(clouds(), TEXT),
    ),
    "hops": (lambda x, most: stereo.hops(x, most), st.tuples(clouds().map(lambda c: c[1]), JUNK)),
    "pair_features": (stereo.pair_features, st.tuples(clouds().map(lambda c: c[1]))),
    "rigid_motions": (lambda pair: vibrations.rigid_motions(pair[0]), st.tuples(ROWS)),
    "random_displacements": (
        lambda pair, size, n: vibrations.random_displacements(pair[0], size, n, torch.Generator()),
        st.tuples(
            ROWS, st.just(0.1) | JUNK, st.just(2) | JUNK.filter(lambda v: not (isinstance(v, int) and v > 10**6))
        ),
    ),
    "normal_modes": (
        lambda pair, masses: vibrations.normal_modes(torch.eye(3 * len(pair[0]), dtype=pair[0].dtype), pair[0], masses),
        st.tuples(ROWS.filter(lambda p: isinstance(p[0], torch.Tensor) and p[0].ndim), JUNK),
    ),
    "ForceField": (force_field.ForceField, st.tuples(JUNK)),
    "energy": (lambda pair: water().energy(pair[0]), st.tuples(ROWS)),
    "hessian": (lambda pair, step: water().hessian(pair[0], step=step), st.tuples(ROWS, st.just(1e-4) | JUNK)),
    "minimise": (lambda pair, n: water().minimise(pair[0], attempts=n), st.tuples(ROWS, JUNK)),
    "bond_orders of clouds": (both(metrics.bond_orders), PAIR),
    "stability": (both(metrics.stability), PAIR),
    "fragments": (both(metrics.fragments), PAIR),
    "to_smiles": (both(metrics.to_smiles), PAIR),
    "evaluate": (both(metrics.evaluate), PAIR),
    "canonical_smiles": (metrics.canonical_smiles, st.tuples(TEXT | st.lists(TEXT, max_size=3))),
    "strain": (both(strain.strain), PAIR),
    "lengths": (both(lambda x, z, o=None, rules=bonds.QM9: substructures.bond_lengths(x, z, o, rules=rules)), PAIR),
    "angles": (both(lambda x, z, o=None, rules=bonds.QM9: substructures.bond_angles(x, z, o, rules=rules)), PAIR),
    "dihedrals": (
        both(lambda x, z, o=None, rules=bonds.QM9: substructures.dihedral_angles(x, z, o, rules=rules)),
        PAIR,
    ),
    "squared_mmd": (lambda pair, n: mmd.squared_mmd(*pair, chunk_size=n), st.tuples(FLAT, st.just(4) | JUNK)),
    "compare": (
        lambda a, b, c, d: mmd.compare(a, {"C": torch.ones(2)}, b, limit=c, seed=d),
        st.tuples(JUNK | st.just({"C": torch.zeros(3)}), JUNK, JUNK, JUNK),
    ),
    "frechet_distance": (lambda pair: chemnet.frechet_distance(*pair), st.tuples(ROWS)),
    "quality": (
        lambda cloud, r: shapes.quality(cloud[0][..., :2], r),
        st.tuples(clouds().filter(lambda c: isinstance(c[0], torch.Tensor) and c[0].ndim), JUNK),
    ),
    "radius_error": (lambda cloud, r: shapes.radius_error(cloud[0], r), st.tuples(clouds(), JUNK)),
}


def broken(answer: object) -> bool:
    """Whether an answer holds a NaN."""
    if isinstance(answer, torch.Tensor):
        return answer.is_floating_point() and bool(answer.isnan().any())
    if isinstance(answer, dict):
        return any(map(broken, answer.values()))
    return any(map(broken, answer)) if isinstance(answer, tuple) else isinstance(answer, float) and answer != answer


def faults(function: Callable, strategy: st.SearchStrategy, examples: int) -> tuple[int, list[str]]:
    """How many inputs were tried, and what went wrong."""
    tried = 0

    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(strategy)
    def case(arguments: tuple) -> None:
        nonlocal tried
        tried += 1
        try:
            answer = function(*arguments)
        except TOLD as error:
            answer = torch.nan if not str(error) else None
        assert not broken(answer), f"an error without words, or NaN: {answer}"

    try:
        case()
    except BaseException as error:
        found = error.exceptions if isinstance(error, BaseExceptionGroup) else [error]
        return tried, [
            "".join(traceback.format_exception(one, limit=-2))[-900:] + "".join(one.__notes__)[:300] for one in found
        ]
    return tried, []


def main(examples: int, names: list[str]) -> int:
    """Try every function, and say how many inputs there were; the number of faults."""
    total, lines = 0, []
    for name in names or CASES:
        tried, found = faults(*CASES[name], examples)
        total += tried
        lines += [f"--- {name}: {fault}" for fault in found]
    print(f"{total} inputs", *lines, sep="\n")
    return len(lines)


if __name__ == "__main__":
    warnings.simplefilter("error")
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]) > 0)
