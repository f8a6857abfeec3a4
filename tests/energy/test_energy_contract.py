"""What holds for every energy: shapes, masks, flat batches, precision, and errors that say what is wrong."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import elf

ENERGIES = {
    "Harmonic": elf.Harmonic(),
    "Absolute": elf.Absolute(),
    "AlignedHarmonic": elf.AlignedHarmonic(),
    "AlignedHarmonic, reflections": elf.AlignedHarmonic(allow_reflection=True),
    "PairEnergy": elf.PairEnergy(),
    "PairEnergy, chunks": elf.PairEnergy(elf.springs.InverseSquare(), chunk_size=3),
    "Sum": elf.PairEnergy() + 30 * elf.Harmonic(normalize="atoms"),
    "PairEnergy, edges": elf.PairEnergy(edges=torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 0, 1]])),
}
every_energy = pytest.mark.parametrize("energy", ENERGIES.values(), ids=ENERGIES.keys())
DENSE = {name: energy for name, energy in ENERGIES.items() if name != "PairEnergy, edges"}
every_dense_energy = pytest.mark.parametrize("energy", DENSE.values(), ids=DENSE.keys())
with_heights = pytest.mark.parametrize(
    "energy", [*DENSE.values(), elf.HeightEnergy()], ids=[*DENSE.keys(), "HeightEnergy"]
)


def samples(
    generator: torch.Generator, dtype: torch.dtype = torch.float64, dim: int = 3
) -> tuple[Tensor, Tensor, Tensor]:
    prediction, target = torch.randn(2, 4, 6, dim, dtype=dtype, generator=generator)
    mask = torch.arange(6) < torch.tensor([6, 5, 2, 1])[:, None]
    return prediction, target, mask


@every_energy
@pytest.mark.parametrize("dim", [1, 2, 3, 5])
def test_one_value_per_sample_zero_at_the_target(energy: elf.Energy, dim: int, dtype: torch.dtype) -> None:
    prediction, target, mask = samples(torch.Generator().manual_seed(dim), dtype, dim)
    for given in (None, mask):
        value = energy(prediction, target, given)
        assert value.shape == (4,)
        assert value.dtype == dtype
        assert (value[:3] > 0).all()
        zero = energy(target, target, given)
        torch.testing.assert_close(zero, torch.zeros_like(zero), rtol=0, atol=1e-10)


@every_dense_energy
def test_masked_atoms_influence_neither_value_nor_gradient(energy: elf.Energy, generator: torch.Generator) -> None:
    prediction, target, mask = samples(generator)
    prediction.requires_grad_()
    counts = mask.sum(1).tolist()
    alone = torch.cat([energy(prediction[b : b + 1, :n], target[b : b + 1, :n]) for b, n in enumerate(counts)])
    torch.testing.assert_close(energy(prediction, target, mask), alone)
    (expected,) = torch.autograd.grad(alone.sum(), prediction)
    for junk in (0.0, 1e30, math.nan, math.inf):
        dirty = torch.where(mask[..., None], prediction.detach(), junk).requires_grad_()
        dirty_target = torch.where(mask[..., None], target, -junk)
        value = energy(dirty, dirty_target, mask)
        (gradient,) = torch.autograd.grad(value.sum(), dirty)
        torch.testing.assert_close(value, alone)
        torch.testing.assert_close(gradient, expected)
        assert not gradient[~mask].any()


SPACE = {
    "all pairs": {},
    "edges": {"edges": torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 0, 1]])},
    "constants": {"k": torch.ones(6, 6, dtype=torch.float64)},
    "cell": {"cell": torch.tensor([4.0, 5, 6], dtype=torch.float64)},
}


@pytest.mark.parametrize("options", SPACE.values(), ids=SPACE.keys())
@pytest.mark.parametrize("junk", [7.0, 1e12, math.nan])
def test_what_is_masked_does_not_count_where_the_pair_energy_is_given_it(
    options: dict, junk: float, generator: torch.Generator
) -> None:
    """Finite numbers at masked atoms are left where they are, for the pass over pairs and for the formula alike."""
    prediction, target, mask = samples(generator)
    real = mask[..., None]
    pair = elf.PairEnergy(lambda r: 1 / (0.1 + r)) if "k" not in options else elf.PairEnergy()
    for energy in (pair, pair + elf.PairEnergy()) + ((pair + elf.Harmonic(),) if "cell" not in options else ()):
        found = []
        for x, y in ((0.0, 0.0), (junk, -junk)):
            dirty = torch.where(real, prediction, x).requires_grad_()
            value = energy(dirty, torch.where(real, target, y), mask, **options)
            (force,) = torch.autograd.grad(value.sum(), dirty, retain_graph=True)
            (slow,) = torch.autograd.grad(value.sum(), dirty, create_graph=True)
            (curvature,) = torch.autograd.grad((slow * slow.detach()).sum(), dirty)
            found.append([value, force, slow, curvature])
            assert not force[~mask].any()
            assert not curvature[~mask].any()
        for clean, other in zip(*found, strict=True):
            torch.testing.assert_close(other, clean, rtol=1e-12, atol=1e-12)


@every_energy
def test_atoms_divides_by_the_number_of_real_atoms(energy: elf.Energy, generator: torch.Generator) -> None:
    prediction, target, mask = samples(generator)
    expected = energy(prediction, target, mask) / torch.tensor([6, 5, 2, 1])
    energy.normalize = "atoms"
    torch.testing.assert_close(energy(prediction, target, mask), expected)
    everything = energy(prediction, target)
    energy.normalize = "sum"
    torch.testing.assert_close(everything, energy(prediction, target) / 6)


@pytest.mark.parametrize("energy", [*ENERGIES.values(), elf.HeightEnergy()], ids=[*ENERGIES.keys(), "HeightEnergy"])
def test_pairs_divides_by_the_number_of_pairs(energy: elf.Energy, generator: torch.Generator) -> None:
    prediction, target, mask = samples(generator)
    whole, masked = energy(prediction, target), energy(prediction, target, mask)
    energy.normalize = "pairs"
    try:
        # The edges are 01 12 23 30 41: of 5, 5, 1 and 0 of the first atoms, 5, 5, 1 and none.
        counts = ([5] * 4, [5, 5, 1, 1]) if getattr(energy, "edges", None) is not None else ([15] * 4, [15, 10, 1, 1])
        torch.testing.assert_close(energy(prediction, target), whole / torch.tensor(counts[0]))
        torch.testing.assert_close(energy(prediction, target, mask), masked / torch.tensor(counts[1]))
        batch = torch.arange(4).repeat_interleave(6)
        if counts[0] == [15] * 4:
            flat = energy(prediction.flatten(0, 1), target.flatten(0, 1), mask.flatten(), batch=batch)
            torch.testing.assert_close(flat, masked / torch.tensor(counts[1]))
        else:
            edges = torch.cat([energy.edges + 6 * b for b in range(4)], 1)
            flat = elf.PairEnergy(edges=edges, normalize="pairs")
            value = flat(prediction.flatten(0, 1), target.flatten(0, 1), mask.flatten(), batch=batch)
            torch.testing.assert_close(value, masked / torch.tensor(counts[1]))
    finally:
        energy.normalize = "sum"


@with_heights
@pytest.mark.parametrize("flat", [False, True])
def test_nonfinite_samples_are_nan_and_alone(energy: elf.Energy, flat: bool, generator: torch.Generator) -> None:
    prediction, target, mask = samples(generator)
    batch = torch.arange(4).repeat_interleave(6)

    def call(x: Tensor, y: Tensor, given: Tensor | None) -> Tensor:
        if not flat:
            return energy(x, y, given)
        given = None if given is None else given.flatten()
        return energy(x.flatten(0, 1), y.flatten(0, 1), given, batch=batch)

    good = prediction.clone().requires_grad_()
    expected = [call(good, target, given) for given in (None, mask)]
    gradients = [torch.autograd.grad(v.sum(), good)[0] for v in expected]
    energy.nonfinite = "nan"
    try:
        for junk in (math.nan, math.inf, 1e200):
            x = prediction.clone()
            x[1, 2, 0] = junk
            x[3, 4] = math.nan  # masked
            for given, value, gradient in zip((None, mask), expected, gradients, strict=True):
                x.requires_grad_()
                found = call(x, target, given)
                (slope,) = torch.autograd.grad(found.sum(), x)
                bad = [1, 3] if given is None else [1]
                assert found.isnan().nonzero().flatten().tolist() == bad
                rest = [b for b in range(4) if b not in bad]
                torch.testing.assert_close(found[rest], value[rest], rtol=1e-12, atol=0)
                torch.testing.assert_close(slope[rest], gradient[rest], rtol=1e-12, atol=1e-12)
                real = torch.ones_like(mask) if given is None else mask
                assert slope[bad][real[bad]].isnan().all()  # a gradient scaler sees it
        assert call(prediction, target / torch.tensor([1.0, 0, 1, 1])[:, None, None], None).isnan().tolist() == [
            False, True, False, False,
        ]  # fmt: skip
        empty = mask & torch.tensor([True, True, False, True])[:, None]
        assert call(prediction, target, empty).isnan().tolist() == [False, False, True, False]
    finally:
        energy.nonfinite = "error"


@with_heights
def test_nan_for_bad_samples_needs_no_look_at_coordinates(energy: elf.Energy, generator: torch.Generator) -> None:
    looks = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(
            self, func: object, types: object, args: tuple = (), kwargs: dict | None = None
        ) -> object:
            if "_local_scalar_dense" in str(func):
                looks.append(func)
            return func(*args, **(kwargs or {}))

    prediction, target, mask = samples(generator)
    for nonfinite in ("error", "nan"):
        energy.nonfinite, looks[:] = nonfinite, []
        try:
            with Watch():
                energy(prediction, target, mask)
        finally:
            energy.nonfinite = "error"
        assert bool(looks) == (nonfinite == "error") or isinstance(energy, elf.HeightEnergy | elf.AlignedHarmonic)


@every_dense_energy
@pytest.mark.parametrize("normalize", ["sum", "atoms"])
def test_flat_batches_agree_with_masks(energy: elf.Energy, normalize: str, generator: torch.Generator) -> None:
    prediction, target, mask = samples(generator)
    prediction.requires_grad_()
    batch = torch.arange(4).repeat_interleave(torch.tensor([6, 5, 2, 1]))
    energy.normalize = normalize
    expected = energy(prediction, target, mask)
    flat = energy(prediction[mask], target[mask], batch=batch)
    torch.testing.assert_close(flat, expected)
    torch.testing.assert_close(
        torch.autograd.grad(flat.sum(), prediction)[0], torch.autograd.grad(expected.sum(), prediction)[0]
    )
    # All nodes, those of the mask left out by a flat mask; any integer type of index.
    every = torch.arange(4, dtype=torch.int32).repeat_interleave(6)
    masked = energy(prediction.flatten(0, 1), target.flatten(0, 1), mask.flatten(), batch=every)
    energy.normalize = "sum"
    torch.testing.assert_close(masked, expected)


@pytest.mark.parametrize("energy", [*ENERGIES.values(), elf.HeightEnergy()], ids=[*ENERGIES.keys(), "HeightEnergy"])
def test_coordinates_up_to_the_largest_have_finite_values(energy: elf.Energy, dtype: torch.dtype) -> None:
    prediction, target, mask = samples(torch.Generator().manual_seed(0), dtype)
    for size in (1e-15, 1e14 if dtype == torch.float32 else 1e149):
        x = (size * prediction).requires_grad_()
        value = energy(x, size * target, mask)
        assert value.isfinite().all()
        assert torch.autograd.grad(value.sum(), x)[0].isfinite().all()


@every_energy
def test_num_samples_of_any_integer_type(energy: elf.Energy, generator: torch.Generator) -> None:
    x, y = torch.randn(2, 10, 3, generator=generator)
    batch = torch.tensor([0] * 5 + [1] * 5)
    expected = energy(x, y, batch=batch)
    for number in (2, np.int64(2)):
        assert torch.equal(energy(x, y, batch=batch, num_samples=number), expected)


@every_energy
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(
    energy: elf.Energy, half: torch.dtype, generator: torch.Generator
) -> None:
    prediction, target, mask = samples(generator, torch.float32)
    prediction, target = (100 * prediction).to(half), (100 * target).to(half)
    expected = energy(prediction.float(), target.float(), mask)
    assert expected.max() > 1e5 or isinstance(energy, elf.Absolute | elf.PairEnergy)  # beyond float16
    prediction.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = energy(prediction, target, mask)
        mixed = energy(prediction, target.float(), mask)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(mixed, expected)
    (gradient,) = torch.autograd.grad(value.sum(), prediction)
    assert gradient.dtype == half
    assert gradient.isfinite().all()


@every_energy
@pytest.mark.parametrize("atoms", [5, 6])
def test_coincident_atoms_have_finite_gradient(energy: elf.Energy, atoms: int, dtype: torch.dtype) -> None:
    spread = torch.randn(1, atoms, 3, dtype=dtype, generator=torch.Generator().manual_seed(1))
    collapsed = torch.ones(1, atoms, 3, dtype=dtype)
    for prediction, target in ((collapsed, spread), (spread, collapsed), (collapsed, collapsed)):
        prediction, target = prediction.clone().requires_grad_(), target.clone().requires_grad_()
        value = energy(prediction, target)
        gradients = torch.autograd.grad(value.sum(), (prediction, target), allow_unused=True)
        assert value.isfinite().all()
        assert all(gradient is None or gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("atoms", [1, 2])
@every_dense_energy
def test_tiny_samples(energy: elf.Energy, atoms: int, dtype: torch.dtype, generator: torch.Generator) -> None:
    prediction, target = torch.randn(2, 3, atoms, 3, dtype=dtype, generator=generator)
    prediction.requires_grad_()
    value = energy(prediction, target)
    (gradient,) = torch.autograd.grad(value.sum(), prediction)
    assert value.isfinite().all()
    assert gradient.isfinite().all()
    if atoms == 1 and isinstance(energy, elf.PairEnergy):
        assert not value.any()
        assert not gradient.any()


@every_energy
def test_no_state(energy: elf.Energy) -> None:
    assert energy.state_dict() == {}
    assert list(energy.parameters()) == []


X = torch.zeros(2, 3, 3)
NAN = torch.tensor([[[0.0, 0, 0], [0, math.nan, 0], [1, 1, 1]], [[0, 0, 0], [1, 0, 0], [0, 1, 0]]])
REAL = torch.ones(2, 3, dtype=torch.bool)
FLAT = torch.zeros(5, 3)
BAD_CALLS = [
    ((X, X, None, X), {}, TypeError, "an argument after the mask has no name; it should have one: batch=..."),
    ((FLAT, FLAT, torch.zeros(5).long()), {}, ValueError, r"batch=\.\.\. where nodes of several samples are in a row"),
    ((X.long(), X), {}, TypeError, "prediction has dtype torch.int64; it should be a floating-point"),
    ((X, X.long()), {}, TypeError, "target has dtype torch.int64"),
    ((X[0], X[0]), {}, ValueError, r"prediction has shape \(3, 3\); it should be \(batch, atoms, dim\)"),
    ((X[0], X[0]), {}, ValueError, r"\(batch, atoms, dim\): prediction\[None\] for one sample; batch=\.\.\."),
    ((X, X[:, :2]), {}, ValueError, r"prediction has shape \(2, 3, 3\), target has \(2, 2, 3\)"),
    ((X, X[..., :2]), {}, ValueError, r"prediction has shape \(2, 3, 3\), target has \(2, 3, 2\)"),
    ((X, X[:1]), {}, ValueError, r"target has \(1, 3, 3\)"),
    ((X[:, :0], X[:, :0]), {}, ValueError, r"\(2, 0, 3\); no axis may be empty"),
    ((X, X.double()), {}, ValueError, "prediction has dtype torch.float32, target has torch.float64"),
    ((X, X.to("meta")), {}, ValueError, "prediction is on cpu, target on meta"),
    ((NAN, X), {}, ValueError, r"prediction holds 1 atoms with a NaN .* first at index \(0, 1\)"),
    ((X, X / 0), {}, ValueError, r"target holds 6 atoms with a NaN or infinite"),
    ((X, X, REAL.float()), {}, TypeError, "mask has dtype torch.float32; it should be torch.bool.*: mask > 0.5"),
    ((X, X, REAL.long()), {}, TypeError, r"torch.int64; it should be torch.bool.*: mask.bool\(\); .* it is batch="),
    ((X, X, REAL[:1]), {}, ValueError, r"mask has shape \(1, 3\); it should be \(batch, atoms\) = \(2, 3\)"),
    ((X, X, REAL[..., None]), {}, ValueError, r"mask has shape \(2, 3, 1\).*: mask.squeeze\(-1\)"),
    ((X, X, REAL.to("meta")), {}, ValueError, "mask is on meta; it should be on cpu"),
    ((X, X, REAL & torch.tensor([[True], [False]])), {}, ValueError, "mask leaves sample 1 without a real atom"),
    ((X, X), {"batch": torch.zeros(2).long()}, ValueError, r"\(2, 3, 3\); it should be \(nodes, dim\)"),
    (
        (FLAT, FLAT),
        {"batch": torch.zeros(4).long()},
        ValueError,
        r"batch has shape \(4,\); it should be \(nodes,\) = \(5,\)",
    ),
    ((FLAT, FLAT), {"batch": torch.zeros(5)}, TypeError, "batch has dtype torch.float32"),
    ((FLAT, FLAT), {"batch": torch.tensor([0, 1, 0, 1, 1])}, ValueError, "batch goes from 1 to 0 at node 2"),
    (
        (FLAT, FLAT),
        {"batch": torch.tensor([0, 0, 2, 2, 2])},
        ValueError,
        "from 0 to 2 at node 2.*no sample may be empty",
    ),
    ((FLAT, FLAT), {"batch": torch.tensor([1, 1, 1, 2, 2])}, ValueError, "batch starts with sample 1"),
    ((FLAT, FLAT), {"batch": torch.tensor([-1, 0, 1, 1, 1])}, ValueError, "batch starts with sample -1"),
    (
        (FLAT, FLAT, torch.tensor([True, True, True, False, False])),
        {"batch": torch.tensor([0, 0, 0, 1, 1])},
        ValueError,
        "mask leaves sample 1 without a real atom",
    ),
    (
        (FLAT, FLAT),
        {"batch": torch.tensor([0, 0, 0, 1, 1]), "num_samples": 3},
        ValueError,
        "num_samples is 3, but batch holds samples 0 to 1; sample 2 is empty",
    ),
    (
        (FLAT, FLAT),
        {"batch": torch.tensor([0, 0, 0, 1, 1]), "num_samples": 1},
        ValueError,
        "num_samples is 1, but batch holds samples 0 to 1; these should agree",
    ),
    ((FLAT, FLAT), {"batch": torch.zeros(5).long(), "num_samples": True}, TypeError, "num_samples is True"),
    ((X, X), {"num_samples": 2}, ValueError, "num_samples is 2; it should be given together with batch"),
    ((X + 1e19, X), {}, ValueError, r"prediction holds a coordinate of 1e\+19 at index \(0, 0\).*at most 1e\+15"),
    ((X, X - 1e19), {}, ValueError, r"target holds a coordinate of 1e\+19"),
    ((X.double(), X.double() + 1e200), {}, ValueError, r"target holds .* 1e\+200 .*float64.*at most 1e\+150"),
]


@pytest.mark.parametrize("energy", [elf.Harmonic(), elf.PairEnergy()], ids=["Harmonic", "PairEnergy"])
@pytest.mark.parametrize(("args", "kwargs", "error", "message"), BAD_CALLS, ids=[case[-1] for case in BAD_CALLS])
def test_errors_name_the_argument(energy: elf.Energy, args: tuple, kwargs: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        energy(*args, **kwargs)


@pytest.mark.parametrize("kind", [elf.Harmonic, elf.Absolute, elf.AlignedHarmonic, elf.PairEnergy])
def test_normalize_is_checked(kind: type[elf.Energy]) -> None:
    with pytest.raises(ValueError, match="normalize is 'mean'; it should be one of 'sum', 'atoms', 'pairs'"):
        kind(normalize="mean")


def test_energy_is_abstract() -> None:
    with pytest.raises(TypeError, match="abstract"):
        elf.Energy()
