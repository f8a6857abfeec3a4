import pytest
import torch

from elf.spins import (
    Couplings,
    descend,
    flip_energies,
    frustrated_plaquettes,
    gauge_transform,
    ising_energy,
    local_fields,
    unsatisfied_bonds,
)
from elf.spins.lattice import plaquettes


def dense(couplings: Couplings, sample: int) -> torch.Tensor:
    """J_ij as a symmetric matrix, written down site by site."""
    _, height, width = couplings.shape
    matrix = torch.zeros(height * width, height * width, dtype=couplings.right.dtype)
    for r in range(height):
        for c in range(width):
            here = r * width + c
            for array, there, exists in (
                (couplings.right, r * width + (c + 1) % width, c + 1 < width or couplings.periodic),
                (couplings.down, (r + 1) % height * width + c, r + 1 < height or couplings.periodic),
            ):
                if exists:
                    matrix[here, there] += array[sample, r, c]
                    matrix[there, here] += array[sample, r, c]
    return matrix


SIZES = [(3, 4, False), (1, 5, False), (1, 1, False), (3, 4, True), (2, 2, True), (3, 5, True)]


@pytest.mark.parametrize(("height", "width", "periodic"), SIZES)
def test_energies_and_fields_against_the_matrix(make, random_spins, dtype, rtol, height, width, periodic):
    couplings = make(3, height, width, periodic, dtype)
    spins = random_spins(couplings)
    for k in range(3):
        J, y = dense(couplings, k), spins[k].flatten().to(dtype)
        close = {"rtol": rtol, "atol": 20 * rtol}
        torch.testing.assert_close(ising_energy(spins, couplings)[k], -0.5 * y @ J @ y, **close)
        torch.testing.assert_close(local_fields(spins, couplings)[k].flatten(), J @ y, **close)


@pytest.mark.parametrize(("height", "width", "periodic"), SIZES)
def test_edges_and_values_are_the_bonds(make, random_spins, height, width, periodic):
    couplings = make(2, height, width, periodic)
    spins = random_spins(couplings)
    first, second = couplings.edges
    flat = spins.flatten(1).double()
    energy = -(couplings.values * flat[:, first] * flat[:, second]).sum(1)
    torch.testing.assert_close(energy, ising_energy(spins, couplings))


@pytest.mark.parametrize(("height", "width", "periodic"), SIZES[:1] + SIZES[3:])
def test_flip_energies_are_what_a_flip_costs(make, random_spins, height, width, periodic):
    couplings = make(2, height, width, periodic)
    spins = random_spins(couplings)
    before, cost = ising_energy(spins, couplings), flip_energies(spins, couplings)
    for r in range(height):
        for c in range(width):
            flipped = spins.clone()
            flipped[:, r, c] *= -1
            torch.testing.assert_close(ising_energy(flipped, couplings) - before, cost[:, r, c])


@pytest.mark.parametrize("periodic", [False, True])
def test_frustration_is_gauge_invariant_and_counts_broken_bonds(make, random_spins, periodic):
    couplings = make(4, 4, 5, periodic)
    spins, signs = random_spins(couplings), random_spins(couplings)
    other = gauge_transform(couplings, signs)
    torch.testing.assert_close(ising_energy(spins * signs, other), ising_energy(spins, couplings))
    assert torch.equal(frustrated_plaquettes(other), frustrated_plaquettes(couplings))
    right, down = unsatisfied_bonds(spins, couplings)
    for k in range(4):
        for r in range(4 if periodic else 3):
            for c in range(5 if periodic else 4):
                around = [right[k, r, c], right[k, (r + 1) % 4, c], down[k, r, c], down[k, r, (c + 1) % 5]]
                assert sum(map(int, around)) % 2 == int(frustrated_plaquettes(couplings)[k, r, c])


@pytest.mark.parametrize(("height", "width", "periodic"), [(5, 4, False), (4, 4, True), (5, 3, True), (1, 1, False)])
def test_descent_ends_where_no_flip_gains(make, random_spins, dtype, height, width, periodic):
    couplings = make(6, height, width, periodic, dtype)
    spins = random_spins(couplings)
    end = descend(spins, couplings)
    assert (flip_energies(end, couplings) > -1e-5).all()
    assert (ising_energy(end, couplings) <= ising_energy(spins, couplings) + 1e-5).all()
    assert height == 1 or (ising_energy(end, couplings) < ising_energy(spins, couplings) - 1).any()


def test_bonds_around_squares_by_hand():
    """Which bonds are broken, which squares are frustrated (a coupling of zero counts as positive), and their bonds."""
    spins = torch.tensor([[[1.0, 1.0], [1.0, -1.0]]])
    right, down = unsatisfied_bonds(spins, Couplings(torch.tensor([[[2.0], [-1.0]]]), torch.tensor([[[-1.0, 1.0]]])))
    assert (right.flatten().tolist(), down.flatten().tolist()) == ([False, False], [True, True])
    for right, down, odd in (([0, 1], [1, 1], False), ([1, 1], [0, 1], False), ([-1, 0], [1, 1], True)):
        square = Couplings(torch.tensor(right).view(1, 2, 1).float(), torch.tensor(down).view(1, 1, 2).float())
        assert bool(frustrated_plaquettes(square)) is odd
    assert plaquettes(3, 3, periodic=False).tolist() == [[0, 2, 6, 7], [1, 3, 7, 8], [2, 4, 9, 10], [3, 5, 10, 11]]
    torus = plaquettes(3, 3, periodic=True).tolist()
    assert len(torus) == 9
    assert (torus[0], torus[-1]) == ([0, 3, 9, 10], [8, 2, 17, 15])


def test_a_batch_is_indexed_and_converted(make):
    couplings = make(5, 3, 3)
    assert len(couplings) == 5
    assert couplings[1:3].shape == (2, 3, 3)
    assert torch.equal(couplings[torch.tensor([4, 0])].right[1], couplings.right[0])
    assert couplings.to(torch.float32).down.dtype == torch.float32


def test_bad_couplings_are_named():
    right, down = torch.zeros(2, 3, 3), torch.zeros(2, 2, 4)
    Couplings(right, down)
    with pytest.raises(TypeError, match="right"):
        Couplings([[1.0]], down)
    with pytest.raises(TypeError, match=r"down has dtype torch\.int64"):
        Couplings(right, down.long())
    with pytest.raises(ValueError, match=r"right has shape \(3, 3\)"):
        Couplings(right[0], down)
    with pytest.raises(ValueError, match=r"free boundaries they should be \(B, H, W - 1\)"):
        Couplings(right, down.mT)
    with pytest.raises(ValueError, match=r"periodic boundaries they should be \(B, H, W\)"):
        Couplings(right, down, periodic=True)
    with pytest.raises(ValueError, match="sides should be >= 2"):
        Couplings(torch.zeros(1, 1, 4), torch.zeros(1, 1, 4), periodic=True)
    with pytest.raises(ValueError, match="they should be alike"):
        Couplings(right, down.double())
    bad = right.clone()
    bad[1, 2, 0] = torch.nan
    with pytest.raises(ValueError, match=r"right is nan at \(1, 2, 0\)"):
        Couplings(bad, down)
    with pytest.raises(TypeError, match="periodic"):
        Couplings(right, down, periodic=1)


@pytest.mark.parametrize("function", [ising_energy, local_fields, flip_energies, descend, unsatisfied_bonds])
def test_bad_spins_are_named(make, random_spins, function):
    couplings = make(2, 3, 4)
    spins = random_spins(couplings)
    with pytest.raises(ValueError, match=r"spins has shape \(3, 4\)"):
        function(spins[0], couplings)
    spins[1, 2, 3] = 0
    with pytest.raises(ValueError, match=r"spins is 0 at \(1, 2, 3\); spins should be \+1 or -1"):
        function(spins, couplings)
    with pytest.raises(TypeError, match="spins"):
        function([1, -1], couplings)


def test_nothing_is_made_on_the_default_device(make, random_spins):
    couplings = make(2, 3, 3)
    spins = random_spins(couplings)
    with torch.device("meta"):
        for result in (
            flip_energies(spins, couplings),
            descend(spins, couplings),
            frustrated_plaquettes(couplings),
            couplings.edges,
        ):
            assert result.device.type == "cpu"


@pytest.mark.parametrize("dtype", [torch.bool, torch.complex64])
def test_spins_are_real_numbers(make, dtype):
    couplings = make(1, 2, 2)
    with pytest.raises(TypeError, match=f"spins has dtype {dtype}"):
        ising_energy(torch.ones(1, 2, 2, dtype=dtype), couplings)
    with pytest.raises(TypeError, match="couplings"):
        ising_energy(torch.ones(1, 2, 2), couplings.right)
