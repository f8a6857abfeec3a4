"""What a call of the pair energy may say: spring constants, edges, a periodic cell; against double loops."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor

import elf
from elf import PairEnergy, springs
from elf.geometry.distances import checked_cell, nearest_image

HEXAGONAL = [[2.0, 0, 0], [1.0, 3**0.5, 0], [0, 0, 2.5]]


def by_loop(x: Tensor, y: Tensor, k: list, pairs: list, images: list | None = None) -> tuple[float, list]:
    """sum k_ij (r - r_hat)^2 over these pairs of one sample, and its gradient, in Python's doubles."""

    def shortest(a: list, b: list) -> list:
        return min(
            ([p - q + s for p, q, s in zip(a, b, shift, strict=True)] for shift in images or [[0.0] * len(a)]),
            key=lambda d: math.hypot(*d),
        )

    p, t = x.tolist(), y.tolist()
    value, gradient = 0.0, [[0.0] * len(p[0]) for _ in p]
    for (i, j), stiffness in zip(pairs, k, strict=True):
        d = shortest(p[i], p[j])
        r, r_hat = math.hypot(*shortest(t[i], t[j])), math.hypot(*d)
        value += stiffness * (r - r_hat) ** 2
        for axis, component in enumerate(d):
            force = 2 * stiffness * (r_hat - r) * component / r_hat
            gradient[i][axis] += force
            gradient[j][axis] -= force
    return value, gradient


def upper(n: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(n) for j in range(i + 1, n)]


def samples(
    generator: torch.Generator, atoms: int = 7, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """Prediction, target, and symmetric constants with NaN on the diagonal, where nothing counts."""
    x, y = torch.randn(2, 3, atoms, 3, dtype=dtype, generator=generator)
    k = torch.rand(3, atoms, atoms, dtype=dtype, generator=generator)
    k = k + k.mT
    k.diagonal(dim1=1, dim2=2).fill_(math.nan)
    return x.requires_grad_(), y, k


def check(value: Tensor, x: Tensor, expected: list[tuple[float, list]], dtype: torch.dtype) -> None:
    rtol = 1e-6 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(value, torch.tensor([v for v, _ in expected], dtype=dtype), rtol=rtol, atol=0)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    for b, (_, forces) in enumerate(expected):
        wanted = torch.tensor(forces, dtype=dtype)
        torch.testing.assert_close(
            gradient[b, : len(forces)], wanted, rtol=0, atol=4 * rtol * float(wanted.abs().max() + 1e-30)
        )
        assert not gradient[b, len(forces) :].any()


@pytest.mark.parametrize("atoms", [1, 2, 6, 7])
@pytest.mark.parametrize("options", [{}, {"chunk_size": 2}], ids=str)
def test_constants_of_all_pairs(atoms: int, options: dict, dtype: torch.dtype, generator: torch.Generator) -> None:
    x, y, k = samples(generator, atoms, dtype)
    energy = PairEnergy(**options)
    for given in (k, k[0]):
        each = given.expand(3, atoms, atoms).double()
        expected = [
            by_loop(x[b], y[b], [float(each[b, i, j]) for i, j in upper(atoms)], upper(atoms)) for b in range(3)
        ]
        check(energy(x, y, k=given), x, expected, dtype)
        check(energy(x, y.clone().requires_grad_(), k=given), x, expected, dtype)  # autograd's formula


@pytest.mark.parametrize("shared", [False, True])
def test_constants_with_masks_and_flat_batches(shared: bool, dtype: torch.dtype, generator: torch.Generator) -> None:
    x, y, k = samples(generator, 7, dtype)
    sizes = [7, 4, 1]
    mask = torch.arange(7) < torch.tensor(sizes)[:, None]
    k = k[0] if shared else k.masked_fill(~(mask[:, :, None] & mask[:, None]), math.nan)
    each = k.expand(3, 7, 7).double()
    expected = [
        by_loop(x[b, :n], y[b, :n], [float(each[b, i, j]) for i, j in upper(n)], upper(n)) for b, n in enumerate(sizes)
    ]
    check(PairEnergy()(x, y, mask, k=k), x, expected, dtype)
    batch = torch.arange(3).repeat_interleave(torch.tensor(sizes))
    check(PairEnergy()(x[mask], y[mask], batch=batch, k=k), x, expected, dtype)
    padded = elf.PairEnergy()(x.flatten(0, 1), y.flatten(0, 1), mask.flatten(), batch=torch.arange(21) // 7, k=k)
    check(padded, x, expected, dtype)


def test_blocks_of_samples_get_their_own_constants(generator: torch.Generator) -> None:
    x, y, k = samples(generator)
    mask = torch.arange(7) < torch.tensor([[7], [5], [7]])
    for given in (k.nan_to_num(), k[0].nan_to_num()):
        whole = elf.energy.pair.one_pass.all_pairs(x.detach(), y, mask, given, True)
        parts = elf.energy.pair.one_pass.all_pairs(x.detach(), y, mask, given, True, tile=7)
        torch.testing.assert_close(parts, whole)


@pytest.mark.parametrize("own", [False, True])
def test_edges_and_their_constants_in_the_call(own: bool, dtype: torch.dtype, generator: torch.Generator) -> None:
    x, y, _ = samples(generator, 6, dtype)
    lists = (
        [[(0, 1), (4, 2), (3, 0)], [(1, 2), (2, 3), (0, 4)], [(5, 0), (1, 2), (3, 2)]]
        if own
        else [[(0, 1), (4, 2), (3, 0)]] * 3
    )
    edges = torch.tensor(lists).mT.contiguous()
    k = torch.rand(3, 3, dtype=dtype, generator=generator)
    mask = torch.tensor([[True] * 6, [True] * 6, [True, True, True, True, False, False]])
    for given in (k, k[0], None):
        stiff = [
            [math.exp(-math.dist(*y[b][list(pair)].tolist())) for pair in lists[b]]
            if given is None
            else given.expand(3, 3)[b].tolist()
            for b in range(3)
        ]
        whole = [by_loop(x[b], y[b], stiff[b], lists[b]) for b in range(3)]
        options = {} if given is None else {"k": given}
        check(PairEnergy()(x, y, edges=edges if own else edges[0], **options), x, whole, dtype)
        flat_options = {} if given is None else {"k": given.expand(3, 3).flatten()}
        flat_edges = torch.cat([edges[b] + 6 * b for b in range(3)], 1)
        batch = torch.arange(18) // 6
        flat = PairEnergy()(x.flatten(0, 1), y.flatten(0, 1), batch=batch, edges=flat_edges, **flat_options)
        check(flat, x, whole, dtype)
        there = [[max(pair) < 4 or b < 2 for pair in lists[b]] for b in range(3)]
        stiff = [[s * h for s, h in zip(*both, strict=True)] for both in zip(stiff, there, strict=True)]
        masked = [by_loop(x[b], y[b], stiff[b], lists[b]) for b in range(3)]
        check(PairEnergy(edges=edges if own else edges[0])(x, y, mask, **options), x, masked, dtype)
    # Where no edge is, neither is a constant.
    padded = torch.cat([edges, torch.full((3, 2, 1), -1)], 2)
    junk = torch.cat([k, torch.full((3, 1), math.nan, dtype=dtype)], 1)
    torch.testing.assert_close(PairEnergy()(x, y, edges=padded, k=junk), PairEnergy()(x, y, edges=edges, k=k))


@pytest.mark.parametrize("edges", [None, torch.tensor([[0, 1, 2], [1, 3, 4]])], ids=["pairs", "edges"])
def test_derivatives_and_transforms_with_constants(edges: Tensor | None, generator: torch.Generator) -> None:
    x, y, k = samples(generator, 5)
    if edges is not None:
        k = k[:, 0, 1:4].contiguous()
    options = {} if edges is None else {"edges": edges}
    energy = PairEnergy()
    base = k.nan_to_num().requires_grad_()

    def value(p: Tensor, c: Tensor) -> Tensor:
        return energy(p, y, k=c if edges is not None else c + c.mT, **options)

    assert torch.autograd.gradcheck(value, (x, base))
    assert torch.autograd.gradgradcheck(value, (x, base))
    assert torch.autograd.gradgradcheck(lambda p: energy(p, y, k=k, **options), x)
    (to_k,) = torch.autograd.grad(energy(x, y, k=base, **options).sum(), base)
    if edges is None:
        assert torch.equal(to_k, to_k.mT)  # a step along it stays symmetric
    else:
        check(
            energy(x, y, k=k, **options),
            x,
            [by_loop(x[b], y[b], k[b].tolist(), edges.mT.tolist()) for b in range(3)],
            x.dtype,
        )
    plain = k.nan_to_num()
    each = torch.func.vmap(torch.func.grad(lambda p, t, c: energy(p[None], t[None], k=c[None], **options)[0]))
    (gradient,) = torch.autograd.grad(energy(x, y, k=plain, **options).sum(), x)
    torch.testing.assert_close(each(x.detach(), y, plain), gradient)


def test_coordinates_in_half_precision_take_constants_in_single(generator: torch.Generator) -> None:
    x, y, k = (part.detach().float() for part in samples(generator))
    for half in (k, k.bfloat16()):
        value = PairEnergy()(x.bfloat16(), y.bfloat16(), k=half)
        torch.testing.assert_close(value, PairEnergy()(x.bfloat16().float(), y.bfloat16().float(), k=half.float()))


def test_the_first_row_of_a_table_need_not_be_used() -> None:
    table = torch.tensor([[1.0, 2.0, 3.0], [2.0, 4.0, 5.0], [3.0, 5.0, 6.0]])
    expected = torch.tensor([[6.0, 5.0], [5.0, 4.0]])
    assert torch.equal(springs.by_elements(torch.tensor([2, 1]), table), expected)


@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e4])
def test_how_symmetric_constants_should_be_depends_on_no_unit(unit: float) -> None:
    x = torch.randn(1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    k = torch.full((3, 3), unit, dtype=torch.float64)
    expected = PairEnergy()(2 * x, x, k=k)
    k[0, 1] *= 1 + 5e-6  # rounding of a matrix that was computed
    torch.testing.assert_close(PairEnergy()(2 * x, x, k=k), expected, rtol=1e-5, atol=0)
    k[0, 1] *= 1 + 1e-4
    with pytest.raises(ValueError, match="it should be symmetric"):
        PairEnergy()(2 * x, x, k=k)


X = torch.zeros(2, 3, 3)
PATH = torch.tensor([[0, 1], [1, 2]])
ONES = torch.ones(3, 3)
BAD = [
    (elf.Harmonic(), {"k": ONES}, ValueError, "k is given; Harmonic has no spring constants"),
    (elf.AlignedHarmonic(), {"edges": PATH}, ValueError, "edges is given; AlignedHarmonic has no edges"),
    (elf.HeightEnergy(), {"cell": torch.ones(3)}, ValueError, "cell is given; HeightEnergy has no periodic distances"),
    (PairEnergy(), {"k": ONES[0]}, ValueError, r"k has shape \(3,\); it should be \(3, 3\) or \(2, 3, 3\)"),
    (PairEnergy(edges=PATH), {"k": ONES}, ValueError, r"k has shape \(3, 3\); it should be \(2,\) or \(2, 2\)"),
    (PairEnergy(), {"k": ONES.double()}, ValueError, "k is torch.float64 on cpu; it should be torch.float32 on cpu"),
    (PairEnergy(), {"k": ONES.to("meta")}, ValueError, "k is torch.float32 on meta"),
    (PairEnergy(), {"k": -ONES}, ValueError, r"k is -1.0 at \(0, 1\); spring constants should be finite and not neg"),
    (PairEnergy(), {"k": ONES / 0}, ValueError, r"k is inf at \(0, 1\)"),
    (PairEnergy(), {"k": ONES * math.nan}, ValueError, r"k is nan at \(0, 1\)"),
    (PairEnergy(), {"k": ONES.triu()}, ValueError, r"k is 1.0 at \(0, 1\) and 0.0 at \(1, 0\); it should be symmetric"),
    (PairEnergy(edges=PATH), {"edges": PATH}, ValueError, "edges is given, but the energy has edges of its own"),
    (PairEnergy(), {"edges": PATH + 1}, ValueError, "edges mentions node 3; among 3 nodes"),
    (PairEnergy(), {"edges": torch.cat([PATH, PATH.flip(0)], 1)}, ValueError, r"elf.geometry.undirected\(edges\)"),
    (PairEnergy(), {"cell": torch.ones(2)}, ValueError, r"cell is torch.float32 \(2,\); it should be floating, \(3,\)"),
    (PairEnergy(), {"cell": torch.tensor([1.0, 0, 1])}, ValueError, r"cell is \[1.0, 0.0, 1.0\]; lengths should be"),
    (PairEnergy(), {"cell": torch.ones(3, 3)}, ValueError, "its rows should span space"),
    (PairEnergy(), {"cell": torch.tensor([[1.0, 0, 0], [0.9, 1, 0], [0, 0, 1]])}, ValueError, "it should be reduced"),
]


@pytest.mark.parametrize(("energy", "options", "error", "message"), BAD, ids=[case[-1] for case in BAD])
def test_bad_options(energy: elf.Energy, options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        energy(X, X + 1, **options)


@pytest.mark.parametrize("lengths", [[2.0, 3.0, 2.5], HEXAGONAL], ids=["box", "hexagonal"])
@pytest.mark.parametrize("options", [{}, {"chunk_size": 2}, {"edges": torch.triu_indices(5, 5, 1)}], ids=str)
def test_periodic_distances(lengths: list, options: dict, dtype: torch.dtype, generator: torch.Generator) -> None:
    x, y = 2 * torch.randn(2, 2, 5, 3, dtype=dtype, generator=generator)
    x.requires_grad_()
    cell = torch.tensor(lengths, dtype=dtype)
    rows = cell.diag().tolist() if cell.ndim == 1 else lengths
    images = [
        [sum(n * row[d] for n, row in zip(steps, rows, strict=True)) for d in range(3)]
        for steps in product(range(-6, 7), repeat=3)
    ]
    springs = elf.springs.Constant(1.5)
    expected = [by_loop(x[b], y[b], [1.5] * 10, upper(5), images) for b in range(2)]
    energy = PairEnergy(springs, **options)
    value = energy(x, y, cell=cell)
    torch.testing.assert_close(
        value,
        torch.tensor([v for v, _ in expected], dtype=dtype),
        rtol=2e-5 if dtype == torch.float32 else 1e-12,
        atol=0,
    )
    (gradient,) = torch.autograd.grad(value.sum(), x)
    torch.testing.assert_close(
        gradient,
        torch.tensor([g for _, g in expected], dtype=dtype),
        rtol=1e-4,
        atol=1e-4 if dtype == torch.float32 else 1e-10,
    )
    moved = (
        y + torch.tensor(rows, dtype=dtype)[0] - 2 * torch.tensor(rows, dtype=dtype)[2] * torch.eye(5, 1, dtype=dtype)
    )
    torch.testing.assert_close(energy(moved, y, cell=cell), torch.zeros(2, dtype=dtype), rtol=0, atol=1e-9)


@pytest.mark.parametrize("lengths", [[2.0, 3.0, 2.5], HEXAGONAL], ids=["box", "hexagonal"])
def test_derivatives_and_transforms_in_a_cell(lengths: list, generator: torch.Generator) -> None:
    x, y = torch.randn(2, 2, 4, 3, dtype=torch.float64, generator=generator)
    cell = torch.tensor(lengths, dtype=torch.float64, requires_grad=True)
    x.requires_grad_()
    energy = PairEnergy()
    springs = (lambda p, c: energy(p, y, cell=c)), (x, cell)
    assert torch.autograd.gradcheck(*springs)
    assert torch.autograd.gradgradcheck(*springs)
    (gradient,) = torch.autograd.grad(energy(x, y, cell=cell.detach()).sum(), x)
    each = torch.func.vmap(torch.func.grad(lambda p, t: energy(p[None], t[None], cell=cell.detach())[0]))
    torch.testing.assert_close(each(x.detach(), y), gradient)
    flat = energy(x.flatten(0, 1), y.flatten(0, 1), batch=torch.arange(8) // 4, cell=cell)
    torch.testing.assert_close(flat, energy(x, y, cell=cell))


def test_constants_that_learn(generator: torch.Generator) -> None:
    x, y, _ = samples(generator)
    numbers = torch.randint(3, (3, 7), generator=generator)
    table = torch.nn.Parameter(torch.zeros(3, 3, dtype=torch.float64))
    wanted = torch.rand(3, 3, dtype=torch.float64, generator=generator)
    measured = PairEnergy()(x.detach(), y, k=springs.by_elements(numbers, wanted + wanted.mT))
    optimizer = torch.optim.SGD([table], lr=1e-4)
    losses = []
    for _ in range(30):
        k = springs.by_elements(numbers, (table + table.mT).exp())
        loss = (PairEnergy()(x.detach(), y, k=k) - measured).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_bonds_of_masked_atoms_do_not_matter(generator: torch.Generator) -> None:
    x, y, _ = samples(generator)
    mask = torch.arange(7) < torch.tensor([[7], [5], [2]])
    orders = (torch.rand(3, 7, 7, generator=generator) < 0.3).triu(1)
    orders = orders | orders.mT
    clean = PairEnergy()(x, y, mask, k=springs.by_bonds(orders, y))
    junk = y.masked_fill(~mask[..., None], math.nan)
    torch.testing.assert_close(PairEnergy()(x, junk, mask, k=springs.by_bonds(orders, junk)), clean)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_images_of_reduced_lattices_are_the_nearest(dim: int, generator: torch.Generator) -> None:
    steps = torch.cartesian_prod(*[torch.arange(-3.0, 4, dtype=torch.float64)] * dim).view(-1, dim)
    seen = 0
    while seen < 20:
        cell = torch.randn(dim, dim, dtype=torch.float64, generator=generator)
        try:
            checked_cell(cell, cell)
        except ValueError:
            continue
        seen += 1
        d = 5 * torch.randn(400, dim, dtype=torch.float64, generator=generator)
        near = nearest_image(d, cell)
        every = near[:, None] + steps @ cell
        torch.testing.assert_close(near.norm(dim=-1), every.norm(dim=-1).amin(1))
        whole = torch.linalg.solve(cell.mT, (near - d).mT)
        torch.testing.assert_close(whole, whole.round(), rtol=0, atol=1e-9)


def test_builders_of_constants(generator: torch.Generator) -> None:
    orders = torch.zeros(5, 5)  # a chain 0-1-2-3 with a double bond, and an atom by itself
    for i, j, order in ((0, 1, 1.0), (1, 2, 2.0), (2, 3, 1.5)):
        orders[i, j] = orders[j, i] = order
    target = torch.randn(2, 5, 3, dtype=torch.float64, generator=generator)
    numbers, table = torch.tensor([0, 1, 1, 0, 2]), torch.tensor([[1.0, 2, 3], [2, 4, 5], [3, 5, 6]])
    hops = [[0, 1, 2, 3, 9], [1, 0, 1, 2, 9], [2, 1, 0, 1, 9], [3, 2, 1, 0, 9], [9, 9, 9, 9, 0]]
    bonds = springs.by_bonds(orders, target, bonded=9.0, other=4.0)
    elements, far = springs.by_elements(numbers, table), springs.by_hops(orders, [8.0, 3.0, 2.0, 0.5])
    alone = springs.by_hops(orders.long(), [7], torch.float64)
    for i, j in product(range(5), repeat=2):
        if i == j:
            continue
        for b in range(2):
            r = math.dist(target[b, i].tolist(), target[b, j].tolist())
            assert float(bonds[b, i, j]) == pytest.approx(9 if hops[i][j] == 1 else 4 / r**2, rel=1e-12)
        assert float(elements[i, j]) == table[numbers[i], numbers[j]]
        assert float(far[i, j]) == {1: 8.0, 2: 3.0, 3: 2.0}.get(hops[i][j], 0.5)
        assert float(alone[i, j]) == 7
    assert alone.dtype == torch.float64
    x = torch.randn(2, 5, 3, dtype=torch.float64, generator=generator)
    for k in (bonds, elements.double(), far.double()):
        value = PairEnergy()(x, target, k=k)
        expected = [
            by_loop(x[b], target[b], [float(k.expand(2, 5, 5)[b, i, j]) for i, j in upper(5)], upper(5))[0]
            for b in range(2)
        ]
        assert value.tolist() == pytest.approx(expected)
    with pytest.raises(ValueError, match="constants is empty; it should hold at least one number"):
        springs.by_hops(orders, [])
    with pytest.raises(ValueError, match="bonded is 0; it should be finite and greater than zero"):
        springs.by_bonds(orders, target, bonded=0)


def test_both_directions_become_one() -> None:
    directed = torch.tensor([[0, 1, 2, 1, 2, 2, 3], [1, 0, 1, 2, 2, 0, 2]], dtype=torch.int32)
    edges = elf.geometry.undirected(directed)
    assert edges.tolist() == [[0, 0, 1, 2], [1, 2, 2, 3]]
    assert edges.dtype == torch.int64
    assert elf.geometry.undirected(edges).tolist() == edges.tolist()


@pytest.mark.parametrize(("numbers", "said"), [([-1, 1], "-1"), ([1, 5], "5")])
def test_numbers_without_a_row_in_the_table_are_named(numbers: list[int], said: str) -> None:
    table = torch.ones(3, 3)
    with pytest.raises(ValueError, match=f"numbers holds {said}; it should be between 0 and 2, the last row of table"):
        springs.by_elements(torch.tensor(numbers), table)


@pytest.mark.parametrize(
    ("edge_index", "error", "message"),
    [
        (torch.tensor([0, 1]), ValueError, r"edge_index has shape \(2,\); it should be \(2, edges\)"),
        (torch.rand(2, 3), TypeError, "edge_index has dtype torch.float32; it should be an integer type"),
    ],
)
def test_what_is_no_edge_index_is_told(edge_index, error, message) -> None:
    with pytest.raises(error, match=message):
        elf.geometry.undirected(edge_index)
