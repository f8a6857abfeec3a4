import numpy as np
import pytest
import torch

from elf.data.spin_glass import sample_couplings
from elf.spins import Couplings, local_fields
from experiments.spins.resnet import ResidualBlock, SpinResNet, coupling_planes


@pytest.mark.parametrize("periodic", [False, True])
def test_planes_are_the_bonds_around_each_site(periodic):
    couplings = sample_couplings(2, 3, 4, seed=1, periodic=periodic)
    planes = coupling_planes(couplings)
    assert planes.shape == (2, 5, 3, 4)
    up = torch.ones(2, 3, 4)
    torch.testing.assert_close(planes[:, :4].sum(1), local_fields(up, couplings))
    assert planes[:, 4].sum() == 2
    assert (planes[:, 4, 0, 0] == 1).all()
    assert torch.equal(planes[0, 0, 1, 2], couplings.right[0, 1, 2])
    assert torch.equal(planes[0, 1, 1, 2], couplings.right[0, 1, 1])
    assert torch.equal(planes[0, 2, 1, 2], couplings.down[0, 1, 2])
    assert torch.equal(planes[0, 3, 1, 2], couplings.down[0, 0, 2])


@pytest.mark.parametrize("dilations", [(1,), (1, 2)])
def test_any_size_and_no_nans(dilations):
    model = SpinResNet(8, 3, dilations)
    for height, width in ((1, 1), (2, 5), (16, 16)):
        assert model(sample_couplings(3, height, width)).shape == (3, height, width)


def test_a_block_adds_to_what_it_gets():
    """Its last convolution starts without weights: what is added is that one's bias."""
    block, x = ResidualBlock(4, 1, "zeros"), torch.randn(1, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(block(x), x + block.second.bias[:, None, None])


def test_seeds_decide_the_weights_and_leave_torch_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    a, b, c = SpinResNet(8, 2, seed=1), SpinResNet(8, 2, seed=1), SpinResNet(8, 2, seed=2)
    assert torch.equal(torch.rand(3), expected)
    couplings = sample_couplings(2, 4)
    assert torch.equal(a(couplings), b(couplings))
    assert not torch.equal(a(couplings), c(couplings))


def trained_a_little(periodic: bool) -> SpinResNet:
    """Random weights everywhere, so that no block is the identity any more."""
    model = SpinResNet(8, 2, periodic=periodic)
    with torch.no_grad():
        for k, parameter in enumerate(model.parameters()):
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(k)))
    return model


def shifted(couplings: Couplings) -> Couplings:
    return Couplings(couplings.right.roll(1, 2), couplings.down.roll(1, 2), True)


def test_periodic_networks_see_no_boundary():
    """But for the marker, a shifted periodic lattice gets shifted logits; cut open, it does not."""
    couplings = sample_couplings(2, 5, 6, periodic=True)
    model = trained_a_little(True)
    with torch.no_grad():
        model.stem.weight[:, 4] = 0
        torch.testing.assert_close(model(shifted(couplings)), model(couplings).roll(1, 2))
        open_model = trained_a_little(False)
        open_model.stem.weight[:, 4] = 0
        ones = Couplings(torch.ones(1, 6, 5), torch.ones(1, 5, 6))
        logits = open_model(ones)[0]
        assert not torch.allclose(logits[0, 0], logits[3, 3])


def test_the_marker_tells_a_configuration_from_its_flip():
    model = trained_a_little(False)
    couplings = sample_couplings(1, 5)
    with torch.no_grad():
        before = model(couplings)
        model.stem.weight[:, 4] = 0
        assert not torch.allclose(before, model(couplings))


def test_gradients_reach_every_weight():
    model = trained_a_little(False)
    model(sample_couplings(4, 6)).square().sum().backward()
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in model.parameters())


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="couplings have periodic boundaries; this network is for free"):
        SpinResNet(4, 1)(sample_couplings(1, 4, periodic=True))
    with pytest.raises(ValueError, match="channels is 0"):
        SpinResNet(0)
    with pytest.raises(ValueError, match="dilations is empty"):
        SpinResNet(4, 1, ())
    with pytest.raises(ValueError, match="dilations is 0"):
        SpinResNet(4, 1, (0,))


def test_numpy_scalars_are_numbers():
    one, two = SpinResNet(np.int64(8), np.int8(2), (np.int64(1),), seed=np.int64(3)), SpinResNet(8, 2, (1,), seed=3)
    assert torch.equal(one.head.weight, two.head.weight)
    for arguments, name in (({"channels": 2.0}, "channels"), ({"seed": -1}, "seed"), ({"dilations": ()}, "dilations")):
        with pytest.raises((TypeError, ValueError), match=name):
            SpinResNet(**arguments)
    with pytest.raises(TypeError, match="couplings"):
        one(torch.zeros(1, 3, 3))
