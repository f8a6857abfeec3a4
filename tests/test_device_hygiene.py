"""Code that got tensors makes its own where these are: nothing on the default device, nothing in an uninvited float64.

Extend with one line in CASES: a name, and a function of a factory `x(*shape)` of float32 coordinates.
"""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import elf
from course import boltzmann
from elf.data import qm9, spin_glass
from elf.generative import points
from elf.generative.molecules import KarrasDenoiser, NoisePredictor, denoising_loss
from elf.generative.samplers import sample_molecules
from elf.generative.schedules import Straight
from elf.geometry import (
    align,
    center,
    cross_distances,
    edge_distances,
    graphs,
    kabsch,
    norm,
    pairwise_distances,
    random_rotations,
    symmetry,
)
from elf.geometry.rigidity import draw_rigid_graph, flexes, is_rigid
from elf.models.egnn import EGNN, GNN
from elf.models.mlp import MLP
from elf.models.transformer import EquivariantTransformer
from elf.spins import SYMMETRIES, Couplings
from experiments.clouds import polygons
from experiments.cost.points import BroadcastPairEnergy
from experiments.molecules.conformer_network import ConformerNetwork
from experiments.spins.mean_field import MeanFieldNet
from experiments.spins.resnet import SpinResNet

ROOT = Path(__file__).parents[1]
Factory = Callable[..., Tensor]


def masked(energy: elf.Energy) -> Callable[[Factory], Tensor]:
    def case(x: Factory) -> Tensor:
        prediction = x(2, 5, 3).requires_grad_()
        mask = torch.ones(2, 5, dtype=torch.bool, device=prediction.device)
        value = energy.to(prediction.device)(prediction, x(2, 5, 3), mask)
        return torch.autograd.grad(value.sum(), prediction)[0]

    return case


def edges_of(x: Tensor) -> Tensor:
    return torch.tensor([[0, 1, 2], [1, 2, 4]], device=x.device)


def sparse(x: Factory) -> Tensor:
    prediction = x(2, 5, 3)
    return elf.PairEnergy(edges=edges_of(prediction))(prediction, x(2, 5, 3))


def sparse_gradient(x: Factory) -> Tensor:
    prediction = x(2, 5, 3).requires_grad_()
    mask = torch.ones(2, 5, dtype=torch.bool, device=prediction.device)
    energy = elf.PairEnergy(lambda r: 1 / (1 + r), edges=edges_of(prediction))
    return torch.autograd.grad(energy(prediction, x(2, 5, 3), mask).sum(), prediction)[0]


def conformer(x: Factory) -> Tensor:
    noise = x(2, 5, 3)
    mask = torch.ones(2, 5, dtype=torch.bool, device=noise.device)
    with torch.device("cpu"):
        network = ConformerNetwork(EquivariantTransformer(channels=8, heads=2, layers=1, pair_features=7), passes=2)
    return placed(network, noise)(noise, x(2, 5, 5), x(2, 5, 5, 7), mask)


def small_denoiser() -> KarrasDenoiser:
    with torch.device("cpu"):
        return KarrasDenoiser(EquivariantTransformer(channels=8, heads=2, layers=2))


def placed(network: torch.nn.Module, x: Tensor) -> torch.nn.Module:
    # Networks are made of the default type, as those of torch.nn are. `.to` where there is nothing to do fails on fake
    # parameters.
    network = network if torch.get_default_dtype() == x.dtype else network.to(x.dtype)
    return network if x.device.type == "cpu" else network.to(x.device)


def denoised(x: Factory) -> Any:
    positions = x(2, 5, 3)
    mask = torch.ones(2, 5, dtype=torch.bool, device=positions.device)
    return placed(small_denoiser(), positions).denoise(x(2, 5, 8), 1 + x(2).abs(), mask)


def graph_network(build: Callable[..., torch.nn.Module]) -> Callable[[Factory], Any]:
    def case(x: Factory) -> Any:
        positions = x(2, 5, 3)
        mask = torch.ones(2, 5, dtype=torch.bool, device=positions.device)
        with torch.device("cpu"):
            network = build(channels=8, layers=2)
        return placed(network, positions)(positions, x(2, 5, 6), x(2), mask)

    return case


def perceptron(x: Factory) -> Tensor:
    conditions = x(4, 1)
    with torch.device("cpu"):
        network = MLP(1, (6, 2), hidden=(8,))
    return placed(network, conditions)(conditions)


def spin_network(kind: type[torch.nn.Module]) -> Callable[[Factory], Tensor]:
    def case(x: Factory) -> Tensor:
        couplings = Couplings(x(2, 4, 3), x(2, 3, 4))
        with torch.device("cpu"):
            network = kind(4, 2)
        return placed(network, couplings.right)(couplings)

    return case


def turned(x: Factory) -> list[Tensor]:
    images = [symmetry.of_couplings(Couplings(x(2, 4, 2), x(2, 3, 3))) for symmetry in SYMMETRIES]
    return [image.right for image in images]


SPRINGS = [
    elf.springs.Constant(),
    elf.springs.Inverse(),
    elf.springs.InverseSquare(),
    elf.springs.Exponential(),
    elf.springs.Morse(),
    elf.springs.LennardJones(),
    elf.springs.BondAware(),
]
CASES: dict[str, Callable[[Factory], Any]] = {
    "Harmonic": masked(elf.Harmonic(normalize="atoms")),
    "Absolute": masked(elf.Absolute()),
    "AlignedHarmonic": masked(elf.AlignedHarmonic()),
    "AlignedHarmonic, reflections": masked(elf.AlignedHarmonic(allow_reflection=True)),
    **{f"PairEnergy, {type(spring).__name__}": masked(elf.PairEnergy(spring)) for spring in SPRINGS},
    "PairEnergy, function": masked(elf.PairEnergy(lambda r: 1 / (1 + r))),
    "PairEnergy, chunks": masked(elf.PairEnergy(chunk_size=2)),
    "PairEnergy, edges": sparse,
    "PairEnergy, edges, gradient": sparse_gradient,
    "BroadcastPairEnergy": masked(BroadcastPairEnergy()),
    "pairwise_distances": lambda x: pairwise_distances(x(2, 5, 3)),
    "cross_distances": lambda x: cross_distances(x(2, 5, 3), x(2, 4, 3)),
    "edge_distances": lambda x: edge_distances(y := x(2, 5, 3), edges_of(y)),
    "norm": lambda x: norm(x(5, 3)),
    "center": lambda x: center(x(2, 5, 3)),
    "kabsch": lambda x: kabsch(x(2, 5, 3), x(2, 5, 3)),
    "align": lambda x: align(x(2, 5, 3), x(2, 5, 3)),
    "denoiser": denoised,
    "EGNN": graph_network(EGNN),
    "GNN": graph_network(GNN),
    "conformer network": conformer,
    "MLP": perceptron,
    "SpinResNet": spin_network(SpinResNet),
    "MeanFieldNet": spin_network(MeanFieldNet),
    "Symmetry": turned,
}


def tensors(result: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_meta_tensors_pass_through(case: Callable[[Factory], Any]) -> None:
    with torch.device("meta"):
        results = tensors(case(lambda *shape: torch.zeros(shape)))
    assert results
    assert all(result.is_meta for result in results)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_nothing_is_made_on_the_default_device(
    case: Callable[[Factory], Any], odd_defaults: Callable[[], None]
) -> None:
    generator = torch.Generator().manual_seed(0)
    odd_defaults()  # whatever forgets its device becomes a meta tensor, and meets cpu tensors
    results = tensors(case(lambda *shape: torch.randn(shape, generator=generator, device="cpu", dtype=torch.float32)))
    assert results
    assert all(result.device.type == "cpu" and result.isfinite().all() for result in results)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_fake_tensors_pass_through(case: Callable[[Factory], Any]) -> None:
    with FakeTensorMode():
        results = tensors(case(lambda *shape: torch.zeros(shape)))
    assert results
    assert all(isinstance(result, FakeTensor) for result in results)


COUNTED = {"arange", "randint", "randperm", "tril_indices", "triu_indices"}
MADE = {"empty", "eye", "full", "linspace", "logspace", "ones", "rand", "randn", "tensor", "zeros"}
"""Functions that make tensors from nothing; the types of the second ones follow torch.set_default_dtype."""


def without_place_or_type(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and (name := ast.unparse(node.func)).startswith("torch."):
            given = {keyword.arg for keyword in node.keywords}
            wanted = {"device"} if name[6:] in COUNTED else {"device", "dtype"} if name[6:] in MADE else set()
            if None not in given and (missing := wanted - given):
                yield f"{file.relative_to(ROOT)}:{node.lineno}: {name} without {' and '.join(sorted(missing))}"


def test_every_tensor_made_from_nothing_says_where_and_of_which_type() -> None:
    # Networks are made where torch says, and of its type, as those of torch.nn are.
    files = [file for package in ("elf", "course") for file in sorted((ROOT / package).rglob("*.py"))]
    formulas = [
        ROOT / "experiments" / "clouds" / f"{name}.py" for name in ("exact", "minimiser", "polygons", "regularity")
    ]
    files = [file for file in files if file.parent.name != "models"] + formulas
    found = [line for file in files for line in without_place_or_type(file)]
    assert not found, "\n" + "\n".join(found)


def seeded() -> torch.Generator:
    return torch.Generator("cpu").manual_seed(0)


POSITIONS = torch.randn(2, 5, 3, generator=seeded())
NUMBERS = torch.tensor([[6, 1, 1, 1, 1], [8, 1, 1, 0, 0]])
ATOMS = torch.tensor([5, 3])
OCTAHEDRON = torch.cat([torch.eye(3), -torch.eye(3)])
TRAP = boltzmann.grid((-6, 6), dtype=torch.float32, device="cpu")
KARRAS, EPSILON = (
    KarrasDenoiser(EquivariantTransformer(channels=8, heads=2, layers=1)),
    NoisePredictor(EGNN(channels=8, layers=1)),
)


def point_loss() -> Tensor:
    return points.denoising_loss(lambda x, t: 0.9 * x, elf.PairEnergy(), POSITIONS, Straight(), seeded())


def rigid_graph() -> Any:
    edges = draw_rigid_graph(7, 2, seeded())[0]
    return edges, is_rigid(7, edges, 2), flexes(POSITIONS[0], graphs.complete_edges(5)[:, 1:])


def spin_glasses(folder: Path) -> Any:
    data = spin_glass.load(3, 4, cache_dir=folder)
    return data.couplings.right, data.couplings.down, data.spins


ANYWHERE: dict[str, Callable[[Path], Any]] = {
    "random rotations": lambda _: random_rotations(4, 3, seeded()),
    "complete edges": lambda _: graphs.complete_edges(5),
    "regular graphs by pairing": lambda _: graphs.random_regular_edges(8, 3, seeded(), count=2),
    "regular graphs by switching": lambda _: graphs.random_regular_edges(8, 3, seeded(), method="switching"),
    "rigid graph": lambda _: rigid_graph(),
    "automorphisms": lambda _: symmetry.automorphisms(pairwise_distances(OCTAHEDRON)),
    "invariance": lambda _: [symmetry.assert_invariant(elf.PairEnergy(), POSITIONS, -POSITIONS), POSITIONS][1],
    "flat batch": lambda _: elf.PairEnergy()(POSITIONS[0], -POSITIONS[0], batch=torch.arange(5, device="cpu") // 3),
    "Boltzmann": lambda _: boltzmann.distribution(lambda y: y.square().sum(-1), TRAP, 0.5).log_density,
    "Langevin": lambda _: boltzmann.langevin(
        lambda y: y.square().sum(-1), POSITIONS[0], 0.5, step=0.1, steps=3, generator=seeded()
    ),
    "loss of points": lambda _: point_loss(),
    "loss of molecules": lambda _: denoising_loss(KARRAS, elf.PairEnergy(), POSITIONS, NUMBERS, seeded()),
    "loss of the noise": lambda _: denoising_loss(EPSILON, elf.Harmonic(), POSITIONS, NUMBERS, seeded()),
    "sampler": lambda _: sample_molecules(KARRAS, ATOMS, seeded(), steps=3, churn=0.4).positions,
    "ancestral sampler": lambda _: sample_molecules(EPSILON, ATOMS, seeded(), method="ancestral", steps=3).positions,
    "polygons": lambda _: [getattr(polygons.sample(3, 5, 1.0, seeded()), name) for name in ("vertices", "angle")],
    "QM9": lambda folder: [
        getattr(qm9.load(cache_dir=folder, atoms=(3, 5)), name) for name in ("positions", "numbers", "counts")
    ],
    "spin glasses": spin_glasses,
}
"""What is made from nothing, from seeds, files and the tensors above."""


@pytest.fixture
def odd_defaults() -> Iterator[Callable[[], None]]:
    def choose() -> None:
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")

    try:
        yield choose
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("case", ANYWHERE.values(), ids=ANYWHERE.keys())
def test_default_device_and_dtype_change_nothing(
    case: Callable[[Path], Any], odd_defaults: Callable[[], None], tmp_path: Path
) -> None:
    expected = tensors(case(tmp_path / "plain"))
    odd_defaults()
    found = tensors(case(tmp_path / "odd"))
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert (one.device.type, one.dtype) == ("cpu", other.dtype)
        assert torch.equal(one, other)


class NoFloat64(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        assert not any(leaf.dtype == torch.float64 for leaf in tensors(result)), f"{func} made a float64 tensor"
        return result


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_float32_stays_float32(case: Callable[[Factory], Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    with NoFloat64():
        results = tensors(case(lambda *shape: torch.randn(shape, generator=generator)))
    assert results
    assert all(result.dtype == torch.float32 for result in results)


@pytest.mark.parametrize("build", [EGNN, GNN])
def test_the_papers_loss_and_sampler_stay_where_their_generator_is(build: Callable[..., torch.nn.Module]) -> None:
    predictor, generator = NoisePredictor(build(channels=8, layers=1)), torch.Generator().manual_seed(0)
    positions, numbers = torch.randn(2, 3, 3, generator=generator), torch.tensor([[6, 1, 1], [8, 1, 0]])
    with torch.device("meta"), NoFloat64():
        loss = denoising_loss(predictor, elf.PairEnergy(), positions, numbers, generator)
    assert all(part.device.type == "cpu" and part.isfinite() for part in loss)
    with torch.device("meta"):
        counts = torch.tensor([3, 2], device="cpu")
        drawn = sample_molecules(predictor, counts, generator, method="ancestral", steps=3, frames=2)
    assert all(part.device.type == "cpu" for part in (drawn.positions, drawn.numbers, drawn.trajectory))


def test_the_sampler_stays_where_its_generator_is() -> None:
    denoiser, counts = small_denoiser(), torch.tensor([3, 5])
    with torch.device("meta"):
        drawn = sample_molecules(denoiser, counts, torch.Generator("cpu").manual_seed(0), steps=3, churn=0.4)
    assert drawn.positions.device.type == drawn.numbers.device.type == "cpu"
    assert drawn.positions.isfinite().all()
