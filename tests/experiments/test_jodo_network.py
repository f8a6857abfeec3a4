"""JODO's network: its size, its symmetries, its padding, and one block against the formulas, pair by pair."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from elf.geometry.alignment import center, random_rotations
from experiments.molecules.jodo.network import Block, Context, Distances, GraphState, GraphTransformer, pairs_of

SIZES = (5, 7)


def make_network(dtype: torch.dtype = torch.float32, **changes) -> GraphTransformer:
    torch.manual_seed(0)
    settings = {"channels": 16, "heads": 4, "layers": 2, "stride": 0.3, **changes}
    return GraphTransformer(**settings).to(dtype).eval()


def make_state(generator: torch.Generator, dtype: torch.dtype, sizes=SIZES) -> tuple[GraphState, Tensor]:
    n = max(sizes)
    mask = torch.arange(n) < torch.tensor(sizes)[:, None]
    x, h, e = (torch.randn(len(sizes), n, *rest, generator=generator, dtype=dtype) for rest in ((3,), (6,), (n, 2)))
    bonds = (e + e.transpose(1, 2)) * pairs_of(mask)[..., None]
    return GraphState(center(1.5 * x, mask), h * mask[..., None], bonds), mask


def changed(state: GraphState, move) -> GraphState:
    return state._replace(positions=move(state.positions))


def permuted(state: GraphState, order: Tensor) -> GraphState:
    return GraphState(state.positions[:, order], state.atoms[:, order], state.bonds[:, order][:, :, order])


LEVELS = torch.tensor([-1.0, 2.0], dtype=torch.float64)


@pytest.fixture(params=["first", "self-conditioned"])
def told(request, generator, dtype):
    """A network, its arguments and its tolerance, with and without an answer before."""
    network, (state, mask) = make_network(dtype), make_state(generator, dtype)
    previous = None if request.param == "first" else make_state(generator, dtype)[0]
    return network, (state, LEVELS.to(dtype), mask, previous), {torch.float32: 3e-5, torch.float64: 1e-11}[dtype]


def close(first: GraphState, second: GraphState, tolerance: float) -> None:
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=0)


@pytest.mark.parametrize("mirror", [1, -1])
def test_the_answer_turns_and_mirrors_with_the_molecule(told, mirror, generator, dtype):
    network, (state, levels, mask, previous), tolerance = told
    turns = mirror * random_rotations(len(mask), generator=generator, dtype=dtype)
    other = random_rotations(len(mask), generator=generator, dtype=dtype)  # of what it said before: distances alone
    before = None if previous is None else changed(previous, lambda x: x @ other)
    answer = network(state, levels, mask, previous)
    turned = network(changed(state, lambda x: x @ turns), levels, mask, before)
    close(turned, changed(answer, lambda x: x @ turns), tolerance)
    assert (answer.positions - state.positions).norm(dim=-1)[mask].min() > 1e-3  # atoms move at all


def test_the_order_of_atoms_does_not_matter(told):
    network, (state, levels, mask, previous), tolerance = told
    order = torch.tensor([3, 6, 0, 2, 5, 1, 4])
    before = None if previous is None else permuted(previous, order)
    answer = network(state, levels, mask, previous)
    close(network(permuted(state, order), levels, mask[:, order], before), permuted(answer, order), tolerance)


def test_neither_padding_nor_what_stands_there_nor_the_batch_matters(told, generator, dtype):
    network, (state, levels, mask, previous), tolerance = told
    answer = network(state, levels, mask, previous)
    n, wide = mask.shape[1], mask.shape[1] + 3

    def widened(given: GraphState) -> GraphState:
        junk = [torch.randn(2, wide, *rest, generator=generator, dtype=dtype) for rest in ((3,), (6,), (wide, 2))]
        for part, kept in zip(junk, given, strict=True):
            inside = (slice(None), slice(n), slice(n))[: kept.ndim - 1]
            part[inside] = torch.where(
                (mask[..., None] if kept.ndim == 3 else pairs_of(mask)[..., None]), kept, part[inside]
            )
        return GraphState(*junk)

    more = torch.cat([mask, torch.zeros(2, 3, dtype=torch.bool)], dim=1)
    found = network(widened(state), levels, more, None if previous is None else widened(previous))
    close(GraphState(found[0][:, :n], found[1][:, :n], found[2][:, :n, :n]), answer, tolerance)
    assert all(not part[:, n:].any() for part in found)
    assert not answer.positions[~mask].any()
    assert not answer.bonds[~pairs_of(mask)].any()
    alone = GraphState(*(part[:1, : SIZES[0]] for part in state))
    alone = alone._replace(bonds=alone.bonds[:, :, : SIZES[0]])
    if previous is None:
        single = network(alone, levels[:1], mask[:1, : SIZES[0]])
        torch.testing.assert_close(single.positions, answer.positions[:1, : SIZES[0]], atol=tolerance, rtol=0)


def test_positions_are_centred_and_bonds_symmetric(told):
    network, (state, levels, mask, previous), tolerance = told
    answer = network(state, levels, mask, previous)
    assert answer.positions.sum(1).abs().max() < 10 * tolerance
    torch.testing.assert_close(answer.bonds, answer.bonds.transpose(1, 2), atol=tolerance, rtol=0)
    # Even for bonds that are not, as no noise of ours has them.
    upper = state.bonds * torch.ones(7, 7).triu()[..., None]
    odd = network(state._replace(bonds=upper.to(state.bonds.dtype)), levels, mask, previous).bonds
    torch.testing.assert_close(odd, odd.transpose(1, 2), atol=tolerance, rtol=0)


def test_it_is_told_the_level_the_bonds_and_what_it_said_before(generator):
    network, (state, mask) = make_network(), make_state(generator, torch.float32)
    levels, previous = LEVELS.float(), make_state(generator, torch.float32)[0]
    answer = network(state, levels, mask)
    others = [
        network(state, levels + 1, mask),
        network(state._replace(bonds=-state.bonds), levels, mask),
        network(state, levels, mask, previous),
    ]
    for other in others:
        assert all((a - b).abs().max() > 1e-4 for a, b in zip(answer, other, strict=True))
    # The heads that ask neighbours hear of bonds that were seen; without them, the embedding still does.
    unbonded = previous._replace(bonds=previous.bonds - 100)
    assert not torch.equal(network(state, levels, mask, unbonded).atoms, others[2].atoms)


def test_neighbours_are_bonded_or_within_1_41_angstrom_of_what_was_said_before():
    """JODO's program compares the square of the distance with 2: most C-C bonds, of 1.5 angstrom, are farther."""
    network = make_network()
    mask = torch.tensor([[True] * 4 + [False]])
    x = torch.tensor([[[0.0, 0, 0], [1.41, 0, 0], [0, 1.42, 0], [0, 0, -1.0], [0, 0, 0.5]]])
    bonds = torch.full((1, 5, 5, 2), -1.0)
    bonds[0, 0, 1, 0] = bonds[0, 1, 0, 0] = 0.0
    near = network._neighbours(pairs_of(mask), GraphState(x, torch.zeros(1, 5, 6), bonds))[0]
    assert near[..., 0].nonzero().tolist() == [[0, 1], [1, 0]]
    assert near[0, :, 1].tolist() == [False, True, False, True, False]
    first = network._neighbours(pairs_of(mask), None)
    assert torch.equal(first, pairs_of(mask)[..., None].expand(1, 5, 5, 2))


def test_what_the_blocks_are_told_is_worked_out_by_hand(generator):
    """The level in waves of learned frequencies, squared distances of the answer before, equal shares of neighbours."""
    network, (state, mask), levels = make_network(), make_state(generator, torch.float32), LEVELS.float()
    previous = make_state(generator, torch.float32)[0]
    heard, distances, contexts, drawn = [], [], [], []
    network.level[0].register_forward_pre_hook(lambda _, args: heard.append(args[0]))
    network.distances.register_forward_pre_hook(lambda _, args: distances.append(args[0]))
    network.blocks[0].register_forward_pre_hook(lambda _, args: contexts.append(args[3]))
    for head in network.bond_heads:
        head.register_forward_hook(lambda _, args, answer: drawn.append(answer[..., 0].detach()))
    answer = network(state, levels, mask, previous)
    for told, level in zip(heard[0].tolist(), levels.tolist(), strict=True):
        waves = [wave(2 * math.pi * f * level) for wave in (math.sin, math.cos) for f in network.frequencies.tolist()]
        assert told == pytest.approx([level, *waves], abs=1e-4)
    torch.testing.assert_close(distances[0], torch.cdist(previous.positions, previous.positions).square())
    near, seen = contexts[0].near, previous.bonds[..., 0] >= 0
    for b, size in enumerate(SIZES):
        for i in range(size):
            others = [j for j in range(size) if j != i]
            assert near[b, i, :, 0].nonzero()[:, 0].tolist() == [j for j in others if seen[b, i, j]]
            close = [j for j in others if math.dist(*previous.positions[b, [i, j]].tolist()) <= math.sqrt(2)]
            assert near[b, i, :, 1].nonzero()[:, 0].tolist() == close
            for extra in range(2):
                asked = [j for j in others if near[b, i, j, extra]] or others
                shares = [1 / len(asked) if j in asked else 0 for j in range(mask.shape[1])]
                assert contexts[0].means[b, i, :, extra].tolist() == pytest.approx(shares)
            for j in others:
                means = [float(values[b, i, j] + values[b, j, i]) / 2 for values in drawn]
                assert answer.bonds[b, i, j].tolist() == pytest.approx(means, abs=1e-6)


def count(channels: int, layers: int, heads: int, extra: int) -> int:
    """Numbers in the network, from its formulas alone."""
    h, e, t, k = channels, channels // 4, 4 * channels, channels // 4
    keys = (heads - extra) * (h // (heads - extra))

    def linear(a: int, b: int) -> int:
        return a * b + b

    g = linear(t, 2) + 2 * (k - 1)
    block = g + linear(k + e, e) + linear(t, 6 * h) + linear(t, 6 * e) + 2 * linear(h, keys) + linear(h, h)
    block += e * keys + e * h + linear(h, e) + linear(h, 2 * h) + linear(2 * h, h) + linear(e, 2 * e) + linear(2 * e, e)
    block += linear(2 * h + e + k, h) + linear(t, 2 * h) + linear(h, h) + h * (1 + extra) + 1

    def head(width: int, answers: int, each: int) -> int:
        hidden = linear(3 * width, width) + linear(width, width // 2)
        return layers * linear(width, 2 * width // layers) + answers * (hidden + linear(width // 2, each))

    heads_out = head(h, 1, 6) + head(e, 2, 1)
    return 8 + linear(17, t) + linear(t, t) + g + linear(12, h) + linear(4 + k, e) + layers * block + heads_out


@pytest.mark.parametrize(
    ("sizes", "published"), [((256, 8, 16, 2), 27.5e6), ((64, 4, 8, 2), 0.92e6), ((64, 4, 8, 0), None)]
)
def test_it_has_as_many_parameters_as_the_published_one(sizes, published):
    channels, layers, heads, extra = sizes
    network = GraphTransformer(channels=channels, layers=layers, heads=heads, extra_heads=extra)
    found = sum(p.numel() for p in network.parameters())
    assert found == count(*sizes)
    if published:
        assert found == pytest.approx(published, rel=5e-3)
    levels = sum(p.numel() for name, p in network.named_parameters() if "node_level" in name or "pair_level" in name)
    if channels == 256:
        assert levels / found == pytest.approx(0.57, abs=0.005)


def test_distances_are_gaussian_densities_of_squared_ones(generator):
    torch.manual_seed(0)
    features, level = Distances(4, 5).double(), torch.randn(1, 5, generator=generator, dtype=torch.float64)
    squared = torch.rand(1, 2, 2, generator=generator, dtype=torch.float64)
    a, b = features.affine(level)[0]
    r = squared * (1 + a) + b
    densities = [
        Normal(m, w.abs() + 1e-5).log_prob(r).exp() for m, w in zip(features.centres, features.widths, strict=True)
    ]
    torch.testing.assert_close(features(squared, level), torch.stack([r, *densities], dim=-1))
    start = Distances(2000, 5)
    for drawn in (start.centres, start.widths):  # anywhere between nothing and 3
        assert 0 <= drawn.detach().min() < 0.1 < 2.9 < drawn.detach().max() <= 3


def norm_of(u: Tensor) -> Tensor:
    return (u - u.mean()) / (u.var(unbiased=False) + 1e-6).sqrt()


def test_a_block_is_its_formulas_pair_by_pair(generator):
    """Each sum written as a loop over atoms and heads, without masks or broadcasting."""
    torch.manual_seed(1)
    n, width, pair, t, heads = 4, 8, 2, 6, 4
    block = Block(width, pair, t, heads, 2, 0.0, 0.3).double().eval()
    x, h, level = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((n, 3), (n, width), (t,))
    )
    e = torch.randn(n, n, pair, generator=generator, dtype=torch.float64)
    e = e + e.transpose(0, 1)
    near = torch.zeros(n, n, 2, dtype=torch.bool)
    near[0, 1, 0] = near[1, 0, 0] = near[2, 3, 1] = near[3, 2, 1] = True
    mask = torch.ones(1, n, dtype=torch.bool)
    pairs = pairs_of(mask)
    means = near.where(near.any(1, keepdim=True), pairs[0][..., None]).double()
    context = Context(level[None], mask, pairs, near[None], (means / means.sum(1, keepdim=True))[None])
    found = block(x[None], h[None], e[None], context)

    others = [[j for j in range(n) if j != i] for i in range(n)]
    g = block.distances((x[:, None] - x).square().sum(-1)[None], level[None])[0]
    s1, c1, g1, s2, c2, g2 = block.node_level(level).chunk(6)
    es1, ec1, eg1, es2, ec2, eg2 = block.pair_level(level).chunk(6)
    u = {
        (i, j): norm_of(block.mix(torch.cat([g[i, j], e[i, j]]))) * (1 + ec1) + es1 for i in range(n) for j in others[i]
    }
    inner = [norm_of(h[i]) * (1 + c1) + s1 for i in range(n)]
    gathered = []
    for i in range(n):
        heard = []
        for head in range(heads):
            keys, values = slice(4 * (head - 2), 4 * (head - 1)), slice(2 * head, 2 * head + 2)
            if head < 2:
                asked = [j for j in others[i] if near[i, j, head]] or others[i]
                shares = {j: float(j in asked) / len(asked) for j in others[i]}
            else:
                gate = {j: block.key_gate(u[i, j]).tanh()[keys] for j in others[i]}
                q = block.query(inner[i])[keys]
                logits = [(q * block.key(inner[j])[keys] * gate[j]).sum() / math.sqrt(width / heads) for j in others[i]]
                shares = dict(zip(others[i], torch.stack(logits).softmax(0), strict=True))
            heard.append(
                sum(shares[j] * (block.value(inner[j]) * block.value_gate(u[i, j]).tanh())[values] for j in others[i])
            )
        gathered.append(torch.cat(heard))
    y = [norm_of(h[i] + g1 * gathered[i]) * (1 + c2) + s2 for i in range(n)]
    h_new = [y[i] + g2 * block.node_mlp(y[i]) for i in range(n)]
    x_new = x.clone()
    for i in range(n):
        for j in others[i]:
            z = norm_of(e[i, j] + eg1 * block.to_pair(gathered[i] + gathered[j])) * (1 + ec2) + es2
            e_new = z + eg2 * block.pair_mlp(z)
            torch.testing.assert_close(found[2][0, i, j], e_new)
            shift, scale = block.move_level(level).chunk(2)
            w = norm_of(block.move_in(torch.cat([h_new[i], h_new[j], e_new, g[i, j]]))) * (1 + scale) + shift
            c = block.move(w).tanh()
            push = (c[0] + near[i, j, 0] * c[1] + near[i, j, 1] * c[2]) / 3
            x_new[i] += block.stride * push * (x[i] - x[j]) / (x[i] - x[j]).norm()
    torch.testing.assert_close(found[1][0], torch.stack(h_new))
    torch.testing.assert_close(found[0][0], x_new - x_new.mean(0))


def test_atoms_at_one_place_and_an_atom_alone_have_finite_gradients(generator):
    network = make_network()
    state, _ = make_state(generator, torch.float32, (3, 1))
    mask = torch.tensor([[True, True, True], [True, False, False]])
    positions = torch.zeros_like(state.positions).requires_grad_()
    answer = network(state._replace(positions=positions), LEVELS.float(), mask, state)
    sum(part.square().sum() for part in answer).backward()
    assert positions.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"channels": 30}, "channels is 30"),
        ({"layers": 0}, "layers is 0"),
        ({"extra_heads": 1}, "extra_heads is 1"),
        ({"heads": 2}, "extra_heads is 2; it should be 0 or 2, and less than heads=2"),
        ({"stride": 0}, "stride is 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        make_network(**changes)
