"""The one-pass energy against a double-precision reference: every layout and option, and where it steps aside."""

import threading
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from elf import PairEnergy, springs
from elf.energy import one_pass

SPRINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "exponential": springs.Exponential(2.6, 1.3),
    "exponential 1": springs.Exponential(),
    "constant": springs.Constant(3.0),
    "inverse": springs.Inverse(5.0),
    "inverse square": springs.InverseSquare(),
    "bond-aware": springs.BondAware(9.0, cutoff=1.1),
    "function": lambda r: 1 / (0.1 + r),
    "singular function": lambda r: 1 / r**2,
}
RTOL = {torch.float32: 1e-5, torch.float64: 1e-12}


class Reference:
    """Eq. 7 over an explicit list of pairs, in float64, by autograd; and what rounding of distances must do to it.

    A distance is known to one part in 1 / eps. Where stretches are under 2 % of the distances, an error is therefore
    measured against 2 % of what the energy (or force) would be if every stretch were as long as its distance.
    """

    def __init__(self, prediction: Tensor, target: Tensor, pairs: Tensor, spring: Callable[[Tensor], Tensor]) -> None:
        x, y = prediction.detach().double().requires_grad_(), target.detach().double()
        i, j = pairs
        length = (x[i] - x[j]).square().sum(-1).sqrt()
        rest = (y[i] - y[j]).square().sum(-1).sqrt()
        k = spring(rest)
        value = (k * (rest - length).square()).sum()
        (self.gradient,) = torch.autograd.grad(value, x)
        self.value = value.detach()
        scale = k * (rest + length).detach()
        of_atom = torch.zeros(len(x), dtype=torch.float64).index_add(0, i, scale).index_add(0, j, scale)
        self.value_scale = torch.maximum(self.value, 0.02 * (scale * (rest - length).detach().abs()).sum())
        self.gradient_scale = max(float(self.gradient.abs().max()), 0.02 * 2 * float(of_atom.max()))

    def check(self, value: Tensor, gradient: Tensor, divisor: int = 1) -> None:
        rtol = RTOL[value.dtype]
        assert abs(float(value) * divisor - float(self.value)) <= rtol * float(self.value_scale)
        error = (gradient.double() * divisor - self.gradient).abs().max()
        assert float(error) <= rtol * self.gradient_scale


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """(prediction, target) of a few samples with masks, sizes 1 to 40, in 1 to 4 dimensions, near and far."""
    samples, dim = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    sizes = draw(st.lists(st.integers(1, 40), min_size=samples, max_size=samples))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    target = 10 ** draw(st.floats(-1, 1)) * torch.randn(
        samples, max(sizes), dim, dtype=torch.float64, generator=generator
    )
    noise = draw(st.sampled_from([0.03, 0.3, 3.0]))
    prediction = target + noise * torch.randn(target.shape, dtype=torch.float64, generator=generator)
    prediction += draw(st.sampled_from([0.0, 2.0]))
    mask = torch.arange(max(sizes)) < torch.tensor(sizes)[:, None]
    return prediction, target, mask, sizes


precisions = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


def complete(n: int) -> Tensor:
    return torch.triu_indices(n, n, 1)


def run(energy: PairEnergy, prediction: Tensor, *arguments: Tensor | None, **options: Tensor) -> tuple[Tensor, Tensor]:
    prediction = prediction.clone().requires_grad_()
    value = energy(prediction, *arguments, **options)
    weights = torch.arange(1, len(value) + 1, dtype=value.dtype)  # a sum would not tell samples apart
    (gradient,) = torch.autograd.grad(value, prediction, weights)
    return value.detach(), gradient


@precisions
@pytest.mark.parametrize("spring", SPRINGS.values(), ids=SPRINGS.keys())
@settings(max_examples=15)  # of every spring
@given(cases(), st.sampled_from(["sum", "atoms"]), st.sampled_from([None, 1, 3]))
def test_dense_masked_and_ragged_batches(
    dtype: torch.dtype, spring: Callable[[Tensor], Tensor], case: tuple, normalize: str, chunk_size: int | None
) -> None:
    prediction, target, mask, sizes = (part.to(dtype) if i < 2 else part for i, part in enumerate(case))
    energy = PairEnergy(spring, normalize=normalize, chunk_size=chunk_size)
    value, gradient = run(energy, prediction, target, mask)
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    flat_value, flat_gradient = run(energy, prediction[mask], target[mask], batch=batch)
    assert not gradient[~mask].any()
    for b, n in enumerate(sizes):
        reference = Reference(prediction[b, :n], target[b, :n], complete(n), spring)
        divisor = n if normalize == "atoms" else 1
        reference.check(value[b], gradient[b, :n] / (b + 1), divisor)
        reference.check(flat_value[b], flat_gradient[batch == b] / (b + 1), divisor)


@precisions
@pytest.mark.parametrize("spring", SPRINGS.values(), ids=SPRINGS.keys())
@settings(max_examples=15)
@given(cases(), st.floats(0.05, 1))
def test_edge_lists(dtype: torch.dtype, spring: Callable[[Tensor], Tensor], case: tuple, share: float) -> None:
    prediction, target, mask, sizes = (part.to(dtype) if i < 2 else part for i, part in enumerate(case))
    generator = torch.Generator().manual_seed(sizes[0])
    lists = []
    for n in sizes:
        pairs = complete(n)
        pairs = pairs[:, torch.rand(pairs.shape[1], generator=generator) < share]
        lists.append(pairs.where(torch.rand(pairs.shape[1], generator=generator) < 0.5, pairs.flip(0)))
    longest = max(pairs.shape[1] for pairs in lists)
    padded = torch.stack([torch.nn.functional.pad(pairs, (0, longest - pairs.shape[1]), value=-1) for pairs in lists])
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    starts = [sum(sizes[:b]) for b in range(len(sizes))]
    joined = torch.cat([pairs + start for pairs, start in zip(lists, starts, strict=True)], 1)
    # A shared list on masked samples means the edges among the atoms that are there.
    shared = complete(max(sizes))[:, torch.rand(complete(max(sizes)).shape[1], generator=generator) < share]
    results = {
        "own": (run(PairEnergy(spring, edges=padded), prediction, target), lists),
        "flat": (run(PairEnergy(spring, edges=joined), prediction[mask], target[mask], batch=batch), lists),
        "shared": (
            run(PairEnergy(spring, edges=shared), prediction, target, mask),
            [shared[:, (shared < n).all(0)] for n in sizes],
        ),
    }
    for layout, ((value, gradient), pairs) in results.items():
        for b, n in enumerate(sizes):
            own = gradient[batch == b] if layout == "flat" else gradient[b, :n]
            Reference(prediction[b, :n], target[b, :n], pairs[b], spring).check(value[b], own / (b + 1))


@precisions
@given(cases(), st.integers(1, 500))
def test_tiles_of_any_size(dtype: torch.dtype, case: tuple, tile: int) -> None:
    prediction, target, mask, sizes = (part.to(dtype) if i < 2 else part for i, part in enumerate(case))
    for spring in (springs.Exponential(), lambda r: 1 / r**2):
        prediction, target = prediction * mask[..., None], target * mask[..., None]
        value, gradient = one_pass.all_pairs(prediction, target, mask, spring, True, tile=tile)
        alone, nothing = one_pass.all_pairs(prediction, target, mask, spring, False, tile=tile)
        assert nothing is None
        assert torch.equal(alone, value)
        for b, n in enumerate(sizes):
            pairs = complete(n)
            reference = Reference(prediction[b, :n], target[b, :n], pairs, spring)
            reference.check(value[b], gradient[b, :n])
            terms, force = one_pass.along_edges(prediction[b, :n], target[b, :n], None, pairs, spring, True, tile=tile)
            reference.check(terms.sum(), force)


@precisions
@pytest.mark.parametrize("atoms", [180, 1001])
def test_larger_systems(dtype: torch.dtype, atoms: int, generator: torch.Generator) -> None:
    target = 4 * torch.randn(3, atoms, 3, dtype=dtype, generator=generator)
    prediction = target + 0.3 * torch.randn(target.shape, dtype=dtype, generator=generator)
    value, gradient = run(PairEnergy(), prediction, target)
    for b in range(3):
        Reference(prediction[b], target[b], complete(atoms), springs.Exponential()).check(
            value[b], gradient[b] / (b + 1)
        )


def closed(value: Tensor) -> bool:
    """Whether this value came from the closed form, rather than from autograd."""
    seen, left = set(), [value.grad_fn]
    while left:
        node = left.pop()
        if node is not None and node not in seen:
            seen.add(node)
            left.extend(parent for parent, _ in node.next_functions)
    return any("KnownGradient" in node.name() for node in seen)


class Learned(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.length = torch.nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, r: Tensor) -> Tensor:
        return (-r / self.length).exp()


EDGES = torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 0, 1]])


@pytest.mark.parametrize("edges", [None, EDGES], ids=["pairs", "edges"])
def test_it_steps_aside_where_autograd_is_needed(edges: Tensor | None, generator: torch.Generator) -> None:
    prediction, target = torch.randn(2, 2, 5, 3, dtype=torch.float64, generator=generator)
    prediction.requires_grad_()
    energy = PairEnergy(edges=edges)
    expected = energy(prediction, target)
    assert closed(expected)
    assert closed(PairEnergy(lambda r: 1 / (1 + r), edges=edges)(prediction, target))
    (gradient,) = torch.autograd.grad(expected.sum(), prediction)
    target.requires_grad_()
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    learned = Learned()
    for other in (energy, PairEnergy(learned, edges=edges), PairEnergy(lambda r: (-r * scale).exp(), edges=edges)):
        value = other(prediction, target)
        assert not closed(value)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(torch.autograd.grad(value.sum(), prediction, retain_graph=True)[0], gradient)
        target = target.detach()  # from the second on, the springs are why
    torch.testing.assert_close(
        *(
            torch.autograd.grad(v, s)[0]
            for v, s in (
                (PairEnergy(learned, edges=edges)(prediction, target).sum(), learned.length),
                (-PairEnergy(lambda r: (-r * scale).exp(), edges=edges)(prediction, target).sum(), scale),
            )
        )
    )
    with torch.no_grad():
        torch.testing.assert_close(PairEnergy(learned, edges=edges)(prediction, target), expected)
    assert closed(PairEnergy(learned.requires_grad_(False), edges=edges)(prediction, target))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own forward mode still uses it
@pytest.mark.parametrize("energy", [PairEnergy(), PairEnergy(chunk_size=2), PairEnergy(edges=EDGES)], ids=str)
def test_derivatives_of_every_kind_agree(energy: PairEnergy, generator: torch.Generator) -> None:
    prediction, target = torch.randn(2, 2, 5, 3, dtype=torch.float64, generator=generator)

    def value(x: Tensor) -> Tensor:
        return energy(x, target).sum()

    direction = torch.randn(prediction.shape, dtype=torch.float64, generator=generator)
    (gradient,) = torch.autograd.grad(value(x := prediction.clone().requires_grad_()), x)
    torch.testing.assert_close(torch.func.grad(value)(prediction), gradient)
    torch.testing.assert_close(torch.func.jvp(value, (prediction,), (direction,))[1], (gradient * direction).sum())
    torch.testing.assert_close(torch.autograd.functional.jacobian(value, prediction, vectorize=True), gradient)
    each = torch.func.vmap(torch.func.grad(lambda x, y: energy(x[None], y[None])[0]))(prediction, target)
    torch.testing.assert_close(each, gradient)
    hessian = torch.func.hessian(value)(prediction)
    torch.testing.assert_close(torch.autograd.functional.hessian(value, prediction), hessian)
    torch.testing.assert_close(torch.autograd.functional.hessian(value, prediction, vectorize=True), hessian)
    step = 1e-6
    shifted = [torch.func.grad(value)(prediction + sign * step * direction) for sign in (1, -1)]
    product = (hessian * direction).sum((-3, -2, -1))
    torch.testing.assert_close(product, (shifted[0] - shifted[1]) / (2 * step), rtol=1e-6, atol=1e-7)
    assert torch.autograd.gradgradcheck(value, prediction.requires_grad_())


@pytest.mark.parametrize("options", [{}, {"chunk_size": 2}, {"edges": EDGES}], ids=str)
def test_transforms_that_run_over_something_else(options: dict, generator: torch.Generator) -> None:
    prediction, target = torch.randn(2, 2, 5, 3, dtype=torch.float64, generator=generator)
    for x, y in ((prediction.requires_grad_(), target), (prediction, target.clone().requires_grad_())):
        energy = PairEnergy(**options)
        scaled = torch.vmap(lambda s, e=energy, x=x, y=y: s * e(x, y))(torch.arange(3, dtype=torch.float64))
        torch.testing.assert_close(scaled[2], 2 * energy(x, y))
        gradients = [torch.autograd.grad(v.sum(), x)[0] for v in (scaled[1], energy(x, y))]
        torch.testing.assert_close(*gradients)
    prediction = prediction.detach()
    value = PairEnergy(**options)(prediction, target).sum()  # and its arrays are on the shelf: nobody's business there
    slope = torch.func.grad(lambda s: s * PairEnergy(**options)(prediction, target).sum())(value)
    torch.testing.assert_close(slope, value)

    def of_length(length: Tensor) -> Tensor:
        return PairEnergy(lambda r: (-r / length).exp(), **options)(prediction, target).sum()

    lengths = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    values = torch.vmap(of_length)(lengths)
    torch.testing.assert_close(values, torch.stack([of_length(length) for length in lengths]))
    slope = (of_length(lengths[1] + 1e-6) - of_length(lengths[1] - 1e-6)) / 2e-6
    torch.testing.assert_close(torch.func.grad(of_length)(lengths[1]), slope, rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.vmap(torch.func.grad(of_length))(lengths)[1], slope, rtol=1e-6, atol=0)


def test_a_changed_input_is_an_error_not_a_wrong_gradient(generator: torch.Generator) -> None:
    prediction, target = torch.randn(2, 2, 5, 3, generator=generator)
    for changed in (0, 1):
        inputs = [prediction.clone().requires_grad_(), target.clone()]
        value = PairEnergy()(*inputs).sum()
        with torch.no_grad():
            inputs[changed].add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            value.backward()


def test_workspaces_keep_nothing_between_calls(generator: torch.Generator) -> None:
    energy = PairEnergy()
    inputs = [
        torch.randn(2, samples, atoms, dim, dtype=dtype, generator=generator)
        for samples, atoms, dim in ((1, 2, 1), (3, 8, 1), (4, 9, 3), (1, 700, 3), (900, 41, 2), (7, 12, 3))
        for dtype in (torch.float32, torch.float64)
    ]
    with torch.inference_mode():
        first = [energy(*pair) for pair in inputs]
    kept = [run(energy, *pair) for pair in inputs]
    copies = [(value.clone(), gradient.clone()) for value, gradient in kept]
    for pair, (value, gradient) in reversed(list(zip(inputs, copies, strict=True))):
        again = run(energy, *pair)
        assert torch.equal(again[0], value)
        assert torch.equal(again[1], gradient)
    for value, (kept_value, kept_gradient), (copy, copy_gradient) in zip(first, kept, copies, strict=True):
        assert torch.equal(value, copy)
        assert torch.equal(kept_value, copy)
        assert torch.equal(kept_gradient, copy_gradient)
    assert 0 < len(one_pass._shelf.spaces) <= one_pass.SHELF_SIZE


def test_threads_and_springs_that_call_an_energy_do_not_meet(generator: torch.Generator) -> None:
    prediction, target = torch.randn(2, 8, 30, 3, dtype=torch.float64, generator=generator)
    inner = PairEnergy(springs.Constant())

    def nested(r: Tensor) -> Tensor:
        inner(target + 1, 2 * target)
        return (-r).exp()

    expected = run(PairEnergy(), prediction, target)
    torch.testing.assert_close(run(PairEnergy(nested), prediction, target), expected)
    results: list[tuple[Tensor, Tensor]] = []

    def work() -> None:
        results.extend(run(PairEnergy(), prediction, target) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 80
    for value, gradient in results:
        assert torch.equal(value, expected[0])
        assert torch.equal(gradient, expected[1])


def test_edges_give_the_same_bits_every_time(generator: torch.Generator) -> None:
    prediction, target = torch.randn(2, 1, 5000, 3, generator=generator)
    edges = torch.randint(5000, (2, 40_000), generator=generator).sort(0).values.unique(dim=1)
    edges = edges[:, edges[0] != edges[1]]
    energy = PairEnergy(edges=edges)
    first = run(energy, prediction, target)
    torch.set_num_threads(2)
    try:
        for _ in range(3):
            value, gradient = run(energy, prediction, target)
            assert torch.equal(gradient, first[1])
            torch.testing.assert_close(value, first[0])
    finally:
        torch.set_num_threads(1)
