"""JODO's diffusion: schedule, encoding, noise, the loss from its parts, samplers; and what turning the target does."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from elf.geometry.alignment import center, random_rotations
from experiments.molecules.jodo import poses
from experiments.molecules.jodo.data import AROMATIC, Graphs, load
from experiments.molecules.jodo.diffusion import (
    ATOM_WEIGHT,
    BOND_WEIGHT,
    MEAN_SPRINGS,
    POSITION_LOSSES,
    Cosine,
    Encoding,
    JointDiffusion,
    joint_loss,
    packed,
    position_loss,
    unpacked,
)
from experiments.molecules.jodo.network import GraphState, GraphTransformer, pairs_of
from experiments.molecules.jodo.sampling import closed_shells, first_atoms, sample_graphs, self_conditioned

WATER = Graphs(
    torch.tensor([[[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0], [9, 9, 9]]]),
    torch.tensor([[8, 1, 1, 0]]),
    torch.tensor([[[0, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]]),
    torch.zeros(1, 4, dtype=torch.long),
)


@pytest.fixture(scope="module")
def graphs() -> Graphs:
    return load((1, 5), (5, 29), "validation", limit=12)[0].trimmed()


def make_model(**changes) -> JointDiffusion:
    torch.manual_seed(0)
    network = GraphTransformer(channels=16, heads=4, layers=2, dropout=0.0, stride=0.3)
    return JointDiffusion(network, Cosine(**changes), Encoding())


@pytest.mark.parametrize(
    ("t", "log_snr"), [(1e-5, 14.8), (1e-3, 10.1), (0.1, 3.6), (0.5, 0.0), (0.9, -3.7), (0.9946, -9.6), (0.99999, -22)]
)
def test_the_schedule_is_jodos(t, log_snr):
    schedule = Cosine()
    time = torch.tensor([t], dtype=torch.float64)
    alpha, sigma = schedule.alpha(time), schedule.sigma(time)
    torch.testing.assert_close(alpha.square() + sigma.square(), torch.ones(1, dtype=torch.float64))
    assert float(schedule.log_snr(time)) == pytest.approx(log_snr, abs=0.06 if t < 0.999 else 0.6)
    assert float(schedule.weight(time)) == pytest.approx(math.exp(float(schedule.log_snr(time)) / 4))
    torch.testing.assert_close(schedule.log_snr(time.float()).double(), schedule.log_snr(time), rtol=1e-3, atol=1e-4)


def test_the_ends_of_the_schedule_are_clean_and_noisy_whatever_the_shift():
    t = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    for shift in (0.002, 0.05, 0.3):
        schedule = Cosine(shift=shift)
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        torch.testing.assert_close(alpha.square() + sigma.square(), torch.ones(3, dtype=torch.float64))
        assert alpha[0] == pytest.approx(1, abs=1e-12)
        assert alpha[2] == pytest.approx(0, abs=1e-12)
        # Angles of a right angle: from shift to 1 + shift, of 1 + shift.
        first, angle = (90 * part / (1 + shift) for part in (shift, 0.3 + shift))
        wanted = math.cos(math.radians(angle)) / math.cos(math.radians(first))
        assert alpha[1] == pytest.approx(wanted, rel=1e-12)


def test_times_end_where_nothing_is_noisy_and_are_drawn_where_the_sampler_goes(generator):
    schedule = Cosine()
    grid = schedule.grid(5)
    torch.testing.assert_close(grid, torch.tensor([0.9946, 0.7462, 0.4978, 0.2494, 0.001, 0]))
    assert (schedule.alpha(grid[-1:]).item(), schedule.sigma(grid[-1:]).item()) == (1, 0)
    within, all_of_it = schedule.draw(4000, generator), Cosine(within=False).draw(4000, generator)
    assert 1e-3 <= within.min() < 0.01 < 0.98 < within.max() <= 0.9946
    assert 1e-5 <= all_of_it.min() < 1e-3
    assert 0.9946 < all_of_it.max() < 1
    assert within.mean() == pytest.approx(0.498, abs=0.02)


def test_no_time_is_drawn_at_which_nothing_or_all_is_noise(monkeypatch, generator):
    monkeypatch.setattr(torch, "rand", lambda n, **_: torch.linspace(0, 1, n))
    for schedule, ends in ((Cosine(), (1e-3, 0.9946)), (Cosine(within=False), (1e-5, 1 - 1e-5))):
        times = schedule.draw(3, generator)
        assert times[::2].tolist() == pytest.approx(ends, rel=1e-6)
        assert schedule.log_snr(times).isfinite().all()


def test_water_encoded_by_hand():
    state = Encoding().encode(WATER)
    hot = [[-1, -1, -1, 1, -1, 0], [1, -1, -1, -1, -1, 0], [1, -1, -1, -1, -1, 0], [0] * 6]  # H, C, N, O, F, charge
    assert torch.equal(state.atoms[0], torch.tensor(hot) / 4)
    torch.testing.assert_close(state.bonds[0, 0, 1], torch.tensor([1.0, -1 / 3]))
    assert torch.equal(state.bonds[0, 1, 2], torch.tensor([-1.0, -1.0]))
    assert not state.bonds[0, 3].any()
    assert not state.bonds[0].diagonal(dim1=0, dim2=1).any()
    torch.testing.assert_close(state.positions.sum(1), torch.zeros(1, 3))
    torch.testing.assert_close(
        state.positions[0, 1] - state.positions[0, 0], WATER.positions[0, 1] - WATER.positions[0, 0]
    )


@pytest.mark.parametrize("aromatic", [False, True])
def test_graphs_come_back(aromatic):
    graphs, _ = load((6, 6), (5, 29), "validation", aromatic=aromatic)
    assert bool((graphs.orders == AROMATIC).any()) == aromatic
    charged = graphs.map(torch.clone)
    charged.charges[0, 0], charged.charges[0, 1] = 1, -1
    encoding = Encoding(aromatic=aromatic)
    state = encoding.encode(charged)
    assert state.bonds.shape[-1] == encoding.bond_channels
    assert state.atoms.shape[-1] == encoding.atom_channels
    found = encoding.decode(unpacked(packed(state), encoding.atom_channels), charged.mask)
    for name in ("numbers", "orders", "charges"):
        assert torch.equal(getattr(found, name), getattr(charged, name).long()), name
    torch.testing.assert_close(found.positions, center(charged.positions, charged.mask))


def test_rounding_to_atoms_and_bonds():
    mask = torch.ones(1, 2, dtype=torch.bool)
    atoms = torch.tensor([[[0.0, 0.1, 0.3, 0.2, 0, 0.26], [0, 0, 0, 0.01, 0, -0.3]]])

    def orders(exists: float, order: float) -> int:
        bond = torch.tensor([2 * exists - 1, 2 * order / 3 - 1])
        state = GraphState(torch.zeros(1, 2, 3), atoms, bond.expand(1, 2, 2, 2))
        found = Encoding().decode(state, mask).orders
        assert not found.diagonal(dim1=1, dim2=2).any()
        return int(found[0, 0, 1])

    cases = [(0.49, 3), (0.51, 0.4), (0.51, 0.6), (0.9, 1.4), (0.9, 1.6), (0.9, 2.4), (0.9, 2.6), (1.3, 4.2)]
    assert [orders(*case) for case in cases] == [0, 0, 1, 1, 2, 2, 3, 3]
    state = GraphState(torch.zeros(1, 2, 3), atoms, torch.zeros(1, 2, 2, 2))
    found = Encoding().decode(state, mask)
    assert (found.numbers.tolist(), found.charges.tolist()) == ([[7, 8]], [[1, -1]])
    kept = Encoding().decode(state, mask, {7: frozenset({0, 1}), 8: frozenset({0})})
    assert kept.charges.tolist() == [[1, 0]]


def test_what_cannot_be_encoded_is_refused():
    aromatic = Graphs(WATER.positions, WATER.numbers, WATER.orders * AROMATIC, WATER.charges)
    with pytest.raises(ValueError, match=r"orders holds aromatic bonds \(4\)"):
        Encoding().encode(aromatic)
    with pytest.raises(ValueError, match="unknown elements"):
        Encoding().encode(Graphs(WATER.positions, 2 * WATER.numbers, WATER.orders, WATER.charges))


def test_noise_has_variance_one_in_every_stream_and_symmetric_bonds(generator):
    mask = first_atoms(torch.tensor([5, 9])).repeat(400, 1)
    noise = unpacked(make_model().noise(mask, generator, torch.float64), 6)
    assert torch.equal(noise.bonds, noise.bonds.transpose(1, 2))
    assert not noise.bonds[~pairs_of(mask)].any()
    assert not noise.atoms[~mask].any()
    torch.testing.assert_close(noise.positions.sum(1), torch.zeros(800, 3, dtype=torch.float64))
    assert noise.bonds[pairs_of(mask)].var() == pytest.approx(1, abs=0.02)
    assert noise.atoms[mask].var() == pytest.approx(1, abs=0.03)
    of_nine = noise.positions[1::2, :9]
    assert of_nine.var() == pytest.approx(8 / 9, abs=0.03)  # the centre is gone


def by_hand(name: str, x_hat: Tensor, x: Tensor, x_t: Tensor) -> float:
    """The loss on positions of one molecule without padding, atom by atom or pair by pair."""
    n = len(x)
    if name in ("mse", "kabsch"):
        if name == "kabsch":  # the turn that brings x onto x_t, from the quaternion that maximises the overlap
            c = x_t.T @ x
            a = c - c.T
            k = torch.zeros(4, 4, dtype=x.dtype)
            k[0, 0], k[1:, 1:] = c.trace(), c + c.T - c.trace() * torch.eye(3, dtype=x.dtype)
            k[0, 1:] = k[1:, 0] = torch.stack([a[2, 1], a[0, 2], a[1, 0]])
            w, *v = torch.linalg.eigh(k)[1][:, -1]
            v = torch.stack(v)
            cross = torch.tensor([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]], dtype=x.dtype)
            turn = torch.eye(3, dtype=x.dtype) + 2 * w * cross + 2 * cross @ cross
            x = x @ turn.T
        return sum(float((x_hat[i] - x[i]).square().mean()) for i in range(n))
    total = 0.0
    for i in range(n):
        for j in range(n):
            if i != j:
                r, r_hat = float((x[i] - x[j]).norm()), float((x_hat[i] - x_hat[j]).norm())
                k = 24 * math.exp(-r) if name.startswith("exponential") else 3.7 / r
                total += 0.5 * k / n * (r - r_hat) ** 2
    return total / (MEAN_SPRINGS[name.removesuffix("_even")] if name.endswith("_even") else 1)


@pytest.mark.parametrize("name", ["mse", "kabsch", "inverse", "exponential", "inverse_even", "exponential_even"])
def test_the_first_loss_is_the_sum_of_its_parts_worked_out_by_hand(name, graphs):
    model = make_model().double()
    clean, mask = model.encoding.encode(graphs, torch.float64), graphs.mask
    parts = joint_loss(model, position_loss(name), clean, mask, torch.Generator().manual_seed(3), conditioned=1.0)
    # The same draws: times, noise; the answer of the second pass, which was told the first.
    generator = torch.Generator().manual_seed(3)
    t = model.schedule.draw(len(graphs), generator).double()
    noise = model.noise(mask, generator, torch.float64)
    alpha, sigma = model.schedule.alpha(t), model.schedule.sigma(t)
    x_t = alpha[:, None, None] * packed(clean) + sigma[:, None, None] * noise
    answer = unpacked(model(x_t, t, mask, model(x_t, t, mask)).detach(), 6)
    positions = atoms = bonds = 0.0
    for b, n in enumerate(graphs.counts.tolist()):
        weight = float((alpha[b] / sigma[b]).sqrt()) / len(graphs)
        given = (part[b, :n] for part in (answer.positions, clean.positions, x_t[..., :3]))
        positions += weight * by_hand(name, *given)
        atoms += weight * ATOM_WEIGHT * float((answer.atoms[b, :n] - clean.atoms[b, :n]).square().sum()) / 6
        bonds += weight * BOND_WEIGHT * float((answer.bonds[b, :n, :n] - clean.bonds[b, :n, :n]).square().sum()) / 2
    assert [part.item() for part in parts] == pytest.approx([positions, atoms, bonds], rel=1e-6)
    assert min(parts) > 0.01


def test_springs_are_as_loud_as_they_are_said_to_be():
    graphs, _ = load((1, 7), (5, 29), "train")
    distances = (graphs.positions[:, :, None] - graphs.positions[:, None]).norm(dim=-1)[pairs_of(graphs.mask)]
    assert float((3.7 / distances).mean()) == pytest.approx(MEAN_SPRINGS["inverse"], rel=0.01)
    assert float((24 * (-distances).exp()).mean()) == pytest.approx(MEAN_SPRINGS["exponential"], rel=0.01)


@pytest.mark.parametrize("name", ["inverse_even", "exponential_even"])
def test_even_energies_are_as_loud_as_mse(name, graphs, generator):
    x, mask = graphs.positions.double(), graphs.mask
    moved = x + 1e-3 * center(torch.randn(*x.shape, generator=generator, dtype=x.dtype), mask)
    values = [position_loss(n)(moved, x, x, mask).mean() for n in (name, "mse")]
    assert 0.6 < float(values[0] / values[1]) < 1.6


def test_turning_the_target_changes_the_mse_and_no_energy_of_distances(graphs):
    """Erratum 8: the energy program leaves JODO's alignment on; it costs an SVD, and gives the same gradient."""
    model = make_model()
    for name in ("inverse", "exponential"):
        assert poses.turning_changes(model, graphs, name, 1) < 1e-4
    assert poses.turning_changes(model, graphs, "mse", 1) > 0.05


def test_poses_are_free_for_the_energy_and_measured(graphs, generator):
    turns = random_rotations(len(graphs), generator=generator)

    class Turned(JointDiffusion):
        def forward(self, x_t, t, mask, previous=None):
            clean = packed(self.encoding.encode(graphs))
            return torch.cat([clean[..., :3] @ turns, clean[..., 3:]], dim=-1)

    model = Turned(nn.Linear(1, 1), Cosine(), Encoding())  # type: ignore[arg-type]
    figures = poses.pose_figures(model, graphs, 0)
    assert all(figures[f"turned@{t}"] < 1e-5 and figures[f"placed@{t}"] > 0.5 for t in poses.TIMES)
    clean, mask = model.encoding.encode(graphs), graphs.mask
    assert float(position_loss("inverse")(clean.positions @ turns, clean.positions, clean.positions, mask).max()) < 1e-8


def test_pose_figures_are_means_over_molecules(graphs):
    """An answer of twice the size misses each atom by its distance to the centre, and no turn helps."""

    class Twice(JointDiffusion):
        def forward(self, x_t, t, mask, previous=None):
            clean = packed(self.encoding.encode(graphs))
            return torch.cat([2 * clean[..., :3], clean[..., 3:]], dim=-1)

    sizes = []
    for x, real in zip(graphs.positions, graphs.mask, strict=True):
        sizes.append(float((x[real] - x[real].mean(0)).square().sum(1).mean().sqrt()))
    figures = poses.pose_figures(Twice(nn.Linear(1, 1), Cosine(), Encoding()), graphs, 0)  # type: ignore[arg-type]
    assert list(figures.values()) == pytest.approx([sum(sizes) / len(sizes)] * 6, rel=1e-4)


def test_the_root_mean_square_of_a_shift_is_its_length():
    mask = first_atoms(torch.tensor([2, 4]))
    x = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)) * mask[..., None]
    moved = x + torch.tensor([[[3.0, 0, 4]], [[0, 2, 0]]]) * mask[..., None]
    assert poses.rmsd(moved, x, mask).tolist() == pytest.approx([5, 2])
    lame = x + torch.tensor([0.0, 0, 6]) * (torch.arange(4) == 0)[:, None]
    assert poses.rmsd(lame, x, mask).tolist() == pytest.approx([6 / math.sqrt(2), 6 / math.sqrt(4)])


def test_what_turning_changes_is_relative_to_the_gradient(graphs, monkeypatch):
    model = make_model()
    change = poses.turning_changes(model, graphs, "mse", 1)
    for name in ("mse", "kabsch"):
        loud = replace(position_loss(name), weight=10 * position_loss(name).weight)
        monkeypatch.setitem(POSITION_LOSSES, name, loud)
    assert poses.turning_changes(model, graphs, "mse", 1) == pytest.approx(change, rel=1e-3)
    # Twice the loss in the place of the turned one: a change of the size of the gradient.
    monkeypatch.setitem(POSITION_LOSSES, "kabsch", replace(loud, turned=False, weight=2 * loud.weight))
    assert poses.turning_changes(model, graphs, "mse", 1) == pytest.approx(1, rel=1e-4)


class Known(JointDiffusion):
    """Knows the molecule; answers it, turned by `turns` where there are some."""

    def __init__(self, clean: Tensor, turns: Tensor | None = None) -> None:
        super().__init__(nn.Linear(1, 1), Cosine(), Encoding())  # type: ignore[arg-type]
        self.clean, self.turns, self.told = clean, turns, []

    def forward(self, x_t, t, mask, previous=None):
        self.told.append(previous)
        clean = self.clean[:, : mask.shape[1]]
        return clean if self.turns is None else torch.cat([clean[..., :3] @ self.turns, clean[..., 3:]], dim=-1)


@pytest.mark.parametrize("method", ["ancestral", "ddim", "heun"])
def test_samplers_end_at_the_molecule_the_network_knows(method, graphs):
    one = graphs[2:3].trimmed()
    model = Known(packed(Encoding().encode(one)))
    found = sample_graphs(model, one.counts, torch.Generator().manual_seed(0), method=method, steps=6)
    for name in ("numbers", "orders", "charges"):
        assert torch.equal(getattr(found, name), getattr(one, name).long()), name
    torch.testing.assert_close(found.positions, center(one.positions, one.mask), atol=1e-5, rtol=1e-5)
    assert model.told[0] is None
    assert all(torch.equal(told, model.clean) for told in model.told[1:])
    assert len(model.told) == (11 if method == "heun" else 6)


def test_an_answer_in_another_pose_is_turned_onto_the_noisy_molecule(graphs, generator):
    one = graphs[2:3].trimmed()
    clean = packed(Encoding().encode(one))
    turned = Known(clean, random_rotations(1, generator=generator))
    x_t = clean + 1e-3 * turned.noise(one.mask, generator)
    found = self_conditioned(turned, one.mask, turned=True)(x_t, torch.full((1,), 0.01))
    torch.testing.assert_close(found, clean, atol=0.01, rtol=0)
    plain = self_conditioned(turned, one.mask)(x_t, torch.full((1,), 0.01))
    assert (plain - clean).abs().max() > 0.3


@pytest.mark.parametrize("method", ["ancestral", "ddim", "heun"])
def test_closed_shells_change_one_atom_of_a_radical_and_nothing_else(method, graphs):
    """Methyl is asked for; CH3 has nine electrons, so that the surest atom but one stays and one becomes another."""
    methyl = Graphs(
        torch.tensor([[[0.0, 0, 0], [1.08, 0, 0], [-0.54, 0.94, 0], [-0.54, -0.94, 0]]]),
        torch.tensor([[6, 1, 1, 1]]),
        torch.tensor([[[0, 1, 1, 1], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]]),
        torch.zeros(1, 4, dtype=torch.long),
    )
    clean = packed(Encoding().encode(methyl))
    clean[0, 2, 3:5] = torch.tensor([0.20, 0.15])  # this hydrogen could be a carbon
    asked = {"method": method, "steps": 20, "closed_shell": True}
    found = sample_graphs(Known(clean), methyl.counts, torch.Generator().manual_seed(0), **asked)
    assert found.numbers.tolist() == [[6, 1, 6, 1]]
    assert torch.equal(found.orders, methyl.orders)
    even = graphs[2:3].trimmed()
    same = sample_graphs(Known(packed(Encoding().encode(even))), even.counts, torch.Generator().manual_seed(0), **asked)
    assert torch.equal(same.numbers, even.numbers.long())
    torch.testing.assert_close(same.positions, center(even.positions, even.mask), atol=1e-5, rtol=1e-5)


def test_the_network_sees_settled_elements_with_the_noise_of_the_time(generator):
    clean, seen = packed(Encoding().encode(WATER)), []

    class Watched(Known):
        def forward(self, x_t, t, mask, previous=None):
            seen.append((x_t, t))
            return super().forward(x_t, t, mask, previous)

    model = Watched(clean)
    drawn = model.noise(WATER.mask, generator)
    answer = closed_shells(self_conditioned(model, WATER.mask), model, WATER.mask, lambda: drawn)
    odd = torch.full_like(clean, 7.0)
    early, late = torch.tensor([0.5]), torch.tensor([0.2])
    answer(odd, early)
    assert torch.equal(seen[-1][0], odd)
    answer(odd, late)
    answer(odd, torch.tensor([0.1]))
    noises = []
    for x_t, t in seen[-2:]:
        assert torch.equal(x_t[..., :3], odd[..., :3])
        assert torch.equal(x_t[..., 9:], odd[..., 9:])
        noises.append((x_t[..., 3:9] - model.schedule.alpha(t) * clean[..., 3:9]) / model.schedule.sigma(t))
    for noise in noises:
        torch.testing.assert_close(noise, drawn[..., 3:9], atol=1e-4, rtol=1e-4)


def test_samples_repeat_come_in_order_and_have_symmetric_bonds():
    model, counts = make_model(), torch.tensor([7, 3, 5, 4])
    draws = [
        sample_graphs(model, counts, torch.Generator().manual_seed(1), method="ddim", steps=3, batch_size=2)
        for _ in range(2)
    ]
    assert torch.equal(draws[0].counts, counts)
    assert torch.equal(draws[0].positions, draws[1].positions)
    assert torch.equal(draws[0].orders, draws[0].orders.mT)
    assert draws[0].positions.isfinite().all()


def test_odd_arguments_are_refused(graphs):
    with pytest.raises(ValueError, match="loss is 'mae'"):
        position_loss("mae")
    with pytest.raises(ValueError, match="method is 'euler'"):
        sample_graphs(make_model(), torch.tensor([3]), torch.Generator(), method="euler")
    clean = Encoding().encode(graphs)
    with pytest.raises(TypeError, match="model is a Linear"):
        joint_loss(nn.Linear(1, 1), position_loss("mse"), clean, graphs.mask, torch.Generator())
