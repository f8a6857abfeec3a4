import pytest
import torch
from torch import Tensor

from elf.data.spin_glass import sample_couplings
from elf.spins import Couplings, gauge_transform
from elf.spins.graph import neighbour_sum
from experiments.spins.mean_field import DIRECTIONS, MeanFieldNet, messages
from experiments.spins.resnet import coupling_planes


def random_signs(shape: tuple[int, int, int], seed: int = 0) -> Tensor:
    return torch.randint(2, shape, generator=torch.Generator().manual_seed(seed)) * 2.0 - 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("periodic", [False, True])
def test_messages_add_up_to_local_fields(periodic, dtype):
    couplings = sample_couplings(3, 4, 5, seed=2, periodic=periodic).to(dtype)
    values = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1), dtype=dtype)
    planes = coupling_planes(couplings)[:, :DIRECTIONS]
    received = messages(values[:, None].expand(-1, DIRECTIONS, -1, -1), planes, periodic)
    assert received.dtype == dtype
    torch.testing.assert_close(received.sum(1), neighbour_sum(couplings, values))
    torch.testing.assert_close(received[1, 0, 2, 1], couplings.right[1, 2, 1] * values[1, 2, 2])
    torch.testing.assert_close(received[1, 1, 2, 1], couplings.right[1, 2, 0] * values[1, 2, 0])
    torch.testing.assert_close(received[1, 2, 2, 1], couplings.down[1, 2, 1] * values[1, 3, 1])
    torch.testing.assert_close(received[1, 3, 2, 1], couplings.down[1, 1, 1] * values[1, 1, 1])


@pytest.mark.parametrize("periodic", [False, True])
def test_it_contains_the_mean_field_iteration(periodic):
    """With the right weights the network is h <- sum_j J_ij tanh(beta h_j), written without it."""
    beta, layers = 1.3, 4
    couplings = sample_couplings(2, 5, 6, seed=3, periodic=periodic).to(torch.float64)
    net = MeanFieldNet(1, layers, sent=1, periodic=periodic).double()
    with torch.no_grad():
        net.stem.weight.zero_()
        net.stem.bias.fill_(0.7)
        net.head.weight.fill_(1)
        for layer in net.layers:
            layer.send.weight.fill_(beta)
            layer.receive.weight.fill_(1)
        bonds = torch.zeros(2, 30, 30, dtype=torch.float64)
        first, second = couplings.edges
        bonds[:, first, second] = couplings.values
        bonds = bonds + bonds.mT
        fields = torch.full((2, 30), 0.7, dtype=torch.float64)
        for _ in range(layers):
            fields = fields + torch.einsum("bij,bj->bi", bonds, torch.tanh(beta * fields))
        torch.testing.assert_close(net(couplings).flatten(1), fields)


@pytest.mark.parametrize("periodic", [False, True])
def test_after_the_stem_gauges_go_straight_through(periodic):
    """Flip some sites' fields and their bonds: these sites' logits flip, the others stay. For any weights."""
    couplings = sample_couplings(3, 4, 6, seed=4, periodic=periodic).to(torch.float64)
    signs = random_signs(couplings.shape).double()
    net = MeanFieldNet(8, 5, periodic=periodic).double()

    def logits(lattice: Couplings, fields: Tensor) -> Tensor:
        planes = coupling_planes(lattice)[:, :DIRECTIONS]
        for layer in net.layers:
            fields = layer(fields, planes)
        return net.head(fields)[:, 0]

    fields = net.stem(coupling_planes(couplings))
    torch.testing.assert_close(logits(couplings, fields), net(couplings))
    renamed = logits(gauge_transform(couplings, signs), signs[:, None] * fields)
    torch.testing.assert_close(renamed, signs * net(couplings))
    assert not torch.allclose(net(gauge_transform(couplings, signs)), signs * net(couplings))


def test_a_layer_is_one_bond_of_reach():
    """The influence of a bond ends where the depth says."""
    for layers in (1, 3):
        net = MeanFieldNet(8, layers)
        couplings = sample_couplings(1, 1, 12)
        changed = Couplings(couplings.right.clone(), couplings.down)
        changed.right[0, 0, 0] += 0.5
        moved = (net(changed) - net(couplings))[0, 0].abs() > 0
        # The stem sees one site further than its own planes.
        assert moved.nonzero().max() == layers + 2
        assert moved[: layers + 3].all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_size_and_dtype(dtype):
    net = MeanFieldNet(4, 3, sent=2).to(dtype)
    for height, width in ((1, 1), (2, 5), (16, 16)):
        logits = net(sample_couplings(3, height, width).to(dtype))
        assert logits.shape == (3, height, width)
        assert logits.dtype == dtype
        assert logits.isfinite().all()


def test_open_lattices_have_corners_and_tori_have_none():
    for periodic in (False, True):
        net = MeanFieldNet(8, 4, periodic=periodic)
        with torch.no_grad():
            net.stem.weight[:, 4] = 0  # the marker, which breaks the symmetry on purpose
        side = 6 if periodic else 5
        logits = net(Couplings(torch.ones(1, 6, side), torch.ones(1, side, 6), periodic))[0]
        assert torch.allclose(logits[0, 0], logits[3, 3]) == periodic


def test_a_shifted_torus_gets_shifted_logits():
    couplings = sample_couplings(2, 5, 6, periodic=True)
    net = MeanFieldNet(8, 4, periodic=True)
    with torch.no_grad():
        net.stem.weight[:, 4] = 0
    shifted = Couplings(couplings.right.roll(1, 2), couplings.down.roll(1, 2), True)
    torch.testing.assert_close(net(shifted), net(couplings).roll(1, 2))


def test_seeds_decide_the_weights_and_leave_torch_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    nets = [MeanFieldNet(4, 2, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.rand(3), expected)
    a, b, c = (net(sample_couplings(2, 4)) for net in nets)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_gradients_reach_every_weight_and_are_right():
    net = MeanFieldNet(4, 3, sent=1).double()
    couplings = sample_couplings(2, 4).to(torch.float64)
    net(couplings).square().sum().backward()
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in net.parameters())
    planes = coupling_planes(couplings)[:, :DIRECTIONS]
    fields = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: net.layers[0](x, planes), fields.requires_grad_())


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="couplings have periodic boundaries; this network is for free"):
        MeanFieldNet(4, 1)(sample_couplings(1, 4, periodic=True))
    for name in ("channels", "layers", "sent"):
        with pytest.raises(ValueError, match=f"{name} is 0"):
            MeanFieldNet(**{name: 0})
