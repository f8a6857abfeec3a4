"""Eq. 7 against a loop, and the forms of the sum (chunks, edges, flat batches) against each other."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import elf
from elf import PairEnergy, springs
from elf.energy.one_pass import tile_elements

SPRINGS = {
    "constant": (springs.Constant(2.0), lambda r: 2.0),
    "inverse": (springs.Inverse(), lambda r: 1 / max(r, 0.01)),
    "inverse square": (springs.InverseSquare(), lambda r: 1 / max(r, 0.01) ** 2),
    "exponential": (springs.Exponential(42.0), lambda r: 42 * math.exp(-r)),
    "Lennard-Jones": (springs.LennardJones(), lambda r: 72 / max(r, 0.01) ** 2),
    "bond-aware": (springs.BondAware(9.0), lambda r: 9 if r <= 1.7 else 1 / r**2),
    "function": (lambda r: 1 / (1 + r), lambda r: 1 / (1 + r)),
}
every_spring = pytest.mark.parametrize(("spring", "formula"), SPRINGS.values(), ids=SPRINGS.keys())


def by_loop(prediction: Tensor, target: Tensor, formula: object) -> tuple[Tensor, Tensor]:
    """Eq. 7 over ordered pairs with its 1/2, and minus its force, both worked out by hand in Python's doubles."""
    values, gradients = [], []
    for p, t in zip(prediction.tolist(), target.tolist(), strict=True):
        value, gradient = 0.0, [[0.0] * len(p[0]) for _ in p]
        for i in range(len(p)):
            for j in range(len(p)):
                if i != j:
                    r, r_hat = math.dist(t[i], t[j]), math.dist(p[i], p[j])
                    value += 0.5 * formula(r) * (r - r_hat) ** 2
                    for d in range(len(p[0])):
                        gradient[i][d] += 2 * formula(r) * (r_hat - r) * (p[i][d] - p[j][d]) / r_hat
        values.append(value)
        gradients.append(gradient)
    return torch.tensor(values, dtype=prediction.dtype), torch.tensor(gradients, dtype=prediction.dtype)


def pair(generator: torch.Generator, *shape: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    prediction, target = torch.randn(2, *shape, dtype=dtype, generator=generator)
    return prediction.requires_grad_(), target


@every_spring
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_value_and_gradient_match_eq_7(
    spring: object, formula: object, dim: int, dtype: torch.dtype, generator: torch.Generator
) -> None:
    prediction, target = pair(generator, 3, 7, dim, dtype=dtype)
    value = PairEnergy(spring)(prediction, target)
    (gradient,) = torch.autograd.grad(value.sum(), prediction)
    expected, expected_gradient = by_loop(prediction.detach(), target, formula)
    rtol = 1e-6 if dtype == torch.float32 else 1e-13
    torch.testing.assert_close(value, expected, rtol=rtol, atol=0)
    # In float32, a distance's rounding moves a force by k r eps: relative to the largest force, not to each.
    scale = float(expected_gradient.abs().max())
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=2 * rtol * scale)


@every_spring
@pytest.mark.parametrize("options", [{}, {"chunk_size": 3}, {"edges": torch.triu_indices(7, 7, 1)}], ids=str)
def test_the_formula_for_autograd_matches_eq_7_too(
    spring: object, formula: object, options: dict, dtype: torch.dtype, generator: torch.Generator
) -> None:
    prediction, target = pair(generator, 3, 7, 3, dtype=dtype)
    expected, expected_gradient = by_loop(prediction.detach(), target, formula)
    rtol = 1e-6 if dtype == torch.float32 else 1e-13
    scale = float(expected_gradient.abs().max())
    value = PairEnergy(spring, **options)(prediction, target.requires_grad_())
    torch.testing.assert_close(value, expected, rtol=rtol, atol=0)
    (gradient,) = torch.autograd.grad(value.sum(), prediction, create_graph=True)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=2 * rtol * scale)
    again = PairEnergy(spring, **options)(prediction, target.detach())
    (gradient,) = torch.autograd.grad(again.sum(), prediction, create_graph=True)  # the formula, from within one pass
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=2 * rtol * scale)


def test_the_gradient_to_the_target_matches_differences_of_eq_7(generator: torch.Generator) -> None:
    prediction, target = pair(generator, 1, 5, 3)
    target.requires_grad_()
    (gradient,) = torch.autograd.grad(PairEnergy()(prediction, target).sum(), target)
    for i, d in ((0, 0), (3, 2)):
        shifted = []
        for step in (1e-6, -1e-6):
            moved = target.detach().clone()
            moved[0, i, d] += step
            shifted.append(float(by_loop(prediction.detach(), moved, lambda r: math.exp(-r))[0]))
        assert (shifted[0] - shifted[1]) / 2e-6 == pytest.approx(float(gradient[0, i, d]), rel=1e-6)


@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**32), st.floats(-3, 3))
def test_any_size_dimension_and_scale(atoms: int, dim: int, seed: int, exponent: float) -> None:
    prediction, target = 10**exponent * torch.randn(
        2, 1, atoms, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    expected, _ = by_loop(prediction, target, lambda r: math.exp(-r))
    value = PairEnergy(chunk_size=1 + seed % 5)(prediction, target)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-300)


def test_the_gradient_is_smooth_to_second_order(generator: torch.Generator) -> None:
    prediction, target = pair(generator, 1, 3, 2)
    target.requires_grad_()
    for energy in (PairEnergy(), PairEnergy(springs.InverseSquare()), PairEnergy(chunk_size=2)):
        assert torch.autograd.gradcheck(lambda p, t, e=energy: e(p, t), (prediction, target))
        assert torch.autograd.gradgradcheck(lambda p, t, e=energy: e(p, t), (prediction, target))


def test_coincident_predictions_feel_no_force_between_them() -> None:
    prediction = torch.zeros(1, 2, 3, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[[0.0, 0, 0], [1, 0, 0]]], dtype=torch.float64)
    value = PairEnergy(springs.Constant())(prediction, target)
    assert value.tolist() == [1]
    (gradient,) = torch.autograd.grad(value.sum(), prediction, create_graph=True)
    assert not gradient.any()
    assert torch.autograd.grad(gradient.sum(), prediction)[0].isfinite().all()


@pytest.mark.parametrize("chunk_size", [1, 3, 7, 8, 100])
def test_chunks_change_nothing(chunk_size: int, dtype: torch.dtype, rtol: float, generator: torch.Generator) -> None:
    prediction, target = pair(generator, 3, 8, 3, dtype=dtype)
    mask = torch.rand(3, 8, generator=generator) < 0.8
    mask[:, 0] = True
    for given_mask in (None, mask):
        whole = PairEnergy()(prediction, target, given_mask)
        chunks = PairEnergy(chunk_size=chunk_size)(prediction, target, given_mask)
        torch.testing.assert_close(chunks, whole, rtol=rtol, atol=0)
        torch.testing.assert_close(
            torch.autograd.grad(chunks.sum(), prediction)[0],
            torch.autograd.grad(whole.sum(), prediction)[0],
            rtol=10 * rtol,
            atol=rtol,
        )


def kept_for_backward(energy: PairEnergy, atoms: int, plain: bool) -> int:
    """Bytes that autograd keeps from forward to backward. A gradient to the target takes the plain formula."""
    storages = {}

    def pack(x: Tensor) -> Tensor:
        storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    prediction = torch.zeros(1, atoms, 3, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        energy(prediction, torch.ones(1, atoms, 3, requires_grad=plain)).sum().backward()
    return sum(storages.values())


def largest_tensor(energy: PairEnergy, atoms: int, plain: bool) -> int:
    """Elements of the largest tensor that forward or backward makes."""
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(
            self, func: object, types: object, args: tuple = (), kwargs: dict | None = None
        ) -> object:
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                largest = max(largest, result.numel())
            return result

    prediction = torch.zeros(1, atoms, 3, requires_grad=True)
    with Watch():
        energy(prediction, torch.ones(1, atoms, 3, requires_grad=plain)).sum().backward()
    return largest


def test_chunks_bound_the_memory_of_the_plain_formula() -> None:
    n, rows = 256, 8
    assert kept_for_backward(PairEnergy(), n, plain=True) > 4 * n * n
    assert kept_for_backward(PairEnergy(chunk_size=rows), n, plain=True) < 4 * n * n / 10
    assert largest_tensor(PairEnergy(), n, plain=True) == 3 * n * n
    assert largest_tensor(PairEnergy(chunk_size=rows), n, plain=True) == 3 * rows * n


def test_the_closed_form_keeps_coordinates_only_and_works_in_tiles() -> None:
    n = 1500
    coordinates = 4 * 3 * n
    assert kept_for_backward(PairEnergy(), n, plain=False) == 3 * coordinates  # prediction, target, gradient
    largest = largest_tensor(PairEnergy(), n, plain=False)
    assert largest <= 1.1 * 2 * 3 * tile_elements(torch.device("cpu")) < n * n / 2
    assert largest_tensor(PairEnergy(chunk_size=8), n, plain=False) <= 1.1 * 2 * 3 * 8 * n


def complete(n: int) -> Tensor:
    return torch.triu_indices(n, n, 1)


@every_spring
def test_all_edges_are_all_pairs(spring: object, formula: object, dtype: torch.dtype, rtol: float) -> None:
    prediction, target = pair(torch.Generator().manual_seed(3), 3, 6, 3, dtype=dtype)
    edges = complete(6)[:, torch.randperm(15, generator=torch.Generator().manual_seed(4))]
    value = PairEnergy(spring, edges=edges)(prediction, target)
    whole = PairEnergy(spring)(prediction, target)
    torch.testing.assert_close(value, whole, rtol=rtol, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(value.sum(), prediction)[0],
        torch.autograd.grad(whole.sum(), prediction)[0],
        rtol=10 * rtol,
        atol=1e3 * rtol,
    )


def test_some_edges_against_a_loop(generator: torch.Generator) -> None:
    prediction, target = pair(generator, 2, 5, 3)
    lists = [[(0, 1), (4, 2), (3, 0)], [(1, 2), (2, 3), (0, 4)]]

    def term(b: int, i: int, j: int) -> Tensor:
        r, r_hat = ((x[b, i] - x[b, j]).norm().item() for x in (target, prediction))
        return math.exp(-r) * (r - r_hat) ** 2

    shared = [sum(term(b, i, j) for i, j in lists[0]) for b in range(2)]
    own = [sum(term(b, i, j) for i, j in lists[b]) for b in range(2)]
    edges = torch.tensor(lists).mT
    assert PairEnergy(edges=edges[0])(prediction, target).tolist() == pytest.approx(shared)
    assert PairEnergy(edges=edges)(prediction, target).tolist() == pytest.approx(own)
    flat = torch.cat([edges[0], edges[1] + 5], 1).int()
    value = PairEnergy(edges=flat)(prediction.flatten(0, 1), target.flatten(0, 1), batch=torch.arange(10) // 5)
    assert value.tolist() == pytest.approx(own)


def test_padded_edge_lists(generator: torch.Generator) -> None:
    prediction, target = pair(generator, 2, 4, 3)
    edges = torch.tensor([[[0, 1, 2], [1, 2, 3]], [[0, -1, -1], [3, -1, -1]]])
    value = PairEnergy(edges=edges)(prediction, target)
    assert value[0].item() == pytest.approx(PairEnergy(edges=edges[0])(prediction, target)[0].item())
    assert value[1].item() == pytest.approx(PairEnergy(edges=edges[1, :, :1])(prediction, target)[1].item())


@pytest.mark.parametrize("per_sample", [False, True])
def test_edges_to_masked_atoms_contribute_nothing(per_sample: bool, generator: torch.Generator) -> None:
    prediction, target = pair(generator, 2, 5, 3)
    mask = torch.tensor([[True] * 5, [True, True, False, True, False]])
    edges = complete(5).expand(2, -1, -1) if per_sample else complete(5)
    junk = prediction.detach().clone()
    junk[~mask] = math.nan
    junk.requires_grad_()
    value = PairEnergy(edges=edges)(junk, target, mask)
    torch.testing.assert_close(value, PairEnergy()(prediction, target, mask))
    (gradient,) = torch.autograd.grad(value.sum(), junk)
    assert gradient.isfinite().all()
    assert not gradient[~mask].any()
    flat_edges = torch.cat([complete(5), complete(5) + 5], 1)
    flat = PairEnergy(edges=flat_edges)(
        junk.flatten(0, 1), target.flatten(0, 1), mask.flatten(), batch=torch.arange(10) // 5
    )
    torch.testing.assert_close(flat, value)


def test_no_edges_no_energy(generator: torch.Generator) -> None:
    prediction, target = pair(generator, 2, 5, 3)
    nothing = PairEnergy(edges=torch.zeros(2, 0, dtype=torch.int64))
    assert not nothing(prediction, target).any()
    assert not nothing(prediction[:, :1], target[:, :1]).any()


BAD_EDGES = [
    (torch.zeros(2, 3), TypeError, "edges has dtype torch.float32"),
    (torch.zeros(3, 2).long(), ValueError, r"edges has shape \(3, 2\)"),
    (torch.tensor([[0, 1], [1, 1]]), ValueError, "edges joins node 1 to itself"),
    (torch.tensor([[0, 1], [1, -2]]), ValueError, "edges mentions node -2"),
    (torch.tensor([[0, -1], [1, -1]]), ValueError, "edges mentions node -1"),
    (torch.tensor([[0, 3, 0], [1, 2, 1]]), ValueError, r"edges holds the pair \(0, 1\) more than once"),
    (torch.tensor([[0, 2, 3], [1, 3, 2]]), ValueError, r"edges holds the pair \(2, 3\) more than once"),
    (torch.tensor([[[0, 2], [1, 3]], [[0, 1], [1, 0]]]), ValueError, r"edges holds the pair \(0, 1\) more than once"),
    (torch.tensor([[[0, -1], [1, 3]]]), ValueError, "edges mentions node -1"),
]


@pytest.mark.parametrize(("edges", "error", "message"), BAD_EDGES, ids=[case[-1] for case in BAD_EDGES])
def test_bad_edges(edges: Tensor, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        PairEnergy(edges=edges)


def test_edges_that_do_not_fit_the_samples(generator: torch.Generator) -> None:
    prediction, target = pair(generator, 2, 4, 3)
    with pytest.raises(ValueError, match="edges mentions node 4; among 4 nodes"):
        PairEnergy(edges=complete(5))(prediction, target)
    with pytest.raises(ValueError, match="edges holds a list for each of 3 samples, but the batch has 2"):
        PairEnergy(edges=complete(4).expand(3, -1, -1))(prediction, target)
    flat, batch = prediction.flatten(0, 1), torch.arange(8) // 4
    with pytest.raises(ValueError, match=r"edges joins nodes \[3, 4\], of samples \[0, 1\]"):
        PairEnergy(edges=torch.tensor([[0, 3], [1, 4]]))(flat, flat, batch=batch)
    with pytest.raises(ValueError, match=r"for flat input with batch, it should be \(2, E\)"):
        PairEnergy(edges=complete(4).expand(2, -1, -1))(flat, flat, batch=batch)


def test_a_flat_or_collapsed_prediction_stays_so(generator: torch.Generator) -> None:
    target = torch.randn(1, 5, 3, dtype=torch.float64, generator=generator)
    for start in (torch.zeros_like(target), target * torch.tensor([1, 1, 0])):
        x = start.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(PairEnergy()(x, target).sum(), x)
        assert not gradient[..., 2].any()
        assert bool(gradient.any()) == bool(start.any())


def test_bad_settings() -> None:
    assert PairEnergy(chunk_size=np.int64(3)).chunk_size == 3
    with pytest.raises(TypeError, match="chunk_size is True; it should be an integer"):
        PairEnergy(chunk_size=True)
    with pytest.raises(ValueError, match="chunk_size is 0; it should be at least 1"):
        PairEnergy(chunk_size=0)
    with pytest.raises(ValueError, match="chunk_size is given together with edges"):
        PairEnergy(edges=complete(3), chunk_size=2)


BAD_SPRINGS = [
    (lambda r: r.sum(), r"answers torch.float32 \(1, 6\) with torch.float32 \(\)"),
    (lambda r: r.double(), r"with torch.float64 \(1, 6\)"),
    (lambda r: 1.0, "with 1.0"),
    (lambda r: 1 - r, "answers distance .* with -.*finite and not negative"),
    (lambda r: 1 / (r - r), "with inf; spring constants should be finite"),
]


@pytest.mark.parametrize(("spring", "message"), BAD_SPRINGS, ids=[message for _, message in BAD_SPRINGS])
def test_answers_of_a_function_are_checked(spring: object, message: str, generator: torch.Generator) -> None:
    prediction, target = 3 * torch.randn(2, 2, 3, 3, generator=generator)
    with pytest.raises(ValueError, match=message):
        PairEnergy(spring)(prediction, target)


def test_a_singular_function_is_only_asked_about_real_pairs(generator: torch.Generator) -> None:
    prediction, target = pair(generator, 2, 5, 3)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    value = PairEnergy(lambda r: 1 / r**2)(prediction, target, mask)
    torch.testing.assert_close(value, PairEnergy(springs.InverseSquare(r_min=1e-9))(prediction, target, mask))
    target = target.clone()
    target[0, 1] = target[0, 0]
    with pytest.raises(ValueError, match=r"springs answers distance 0.0 with inf"):
        PairEnergy(lambda r: 1 / r**2)(prediction, target, mask)


def test_a_module_may_be_the_springs(generator: torch.Generator) -> None:
    class Learned(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.length = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

        def forward(self, r: Tensor) -> Tensor:
            return (-r / self.length).exp()

    prediction, target = pair(generator, 2, 5, 3)
    energy = PairEnergy(Learned())
    value = energy(prediction, target)
    torch.testing.assert_close(value, PairEnergy()(prediction, target))
    assert torch.autograd.grad(value.sum(), list(energy.parameters()))[0].abs() > 0


def test_repr_tells_the_settings() -> None:
    energy = PairEnergy(springs.Inverse(2.0), edges=complete(3), normalize="atoms")
    assert repr(energy) == "PairEnergy(springs=Inverse(k=2.0, r_min=0.01), normalize='atoms', edges=(2, 3))"
    assert repr(PairEnergy(chunk_size=4)).endswith("normalize='sum', chunk_size=4)")
    assert elf.PairEnergy().springs == springs.Exponential()


@pytest.mark.parametrize("flat", [False, True])
def test_weights_of_samples_multiply_their_gradients(flat: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 2, 4, 3, dtype=torch.float64, generator=generator)
    weights = torch.tensor([3.0, -0.25], dtype=torch.float64)
    alone = []
    for sample in range(2):
        p = x[sample : sample + 1].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(elf.PairEnergy()(p, y[sample : sample + 1]).sum(), p)
        alone.append(weights[sample] * gradient)
    x.requires_grad_()
    options = {"batch": torch.arange(8) // 4} if flat else {}
    arguments = (x.flatten(0, 1), y.flatten(0, 1)) if flat else (x, y)
    (gradient,) = torch.autograd.grad((weights * elf.PairEnergy()(*arguments, **options)).sum(), x)
    torch.testing.assert_close(gradient, torch.cat(alone))
