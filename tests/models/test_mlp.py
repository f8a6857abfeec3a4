import pytest
import torch
from torch import nn

from elf.models.mlp import MLP


def test_is_the_composition_of_its_layers(dtype, rtol, generator):
    model = MLP(2, (3, 2), hidden=(5, 4), seed=1).to(dtype)
    x = torch.randn(7, 2, generator=generator, dtype=dtype)
    first, second, last = (layer for layer in model.layers if isinstance(layer, nn.Linear))
    hidden = (x @ first.weight.T + first.bias).clamp(min=0)
    hidden = (hidden @ second.weight.T + second.bias).clamp(min=0)
    wanted = (hidden @ last.weight.T + last.bias).reshape(7, 3, 2)
    torch.testing.assert_close(model(x), wanted, rtol=rtol, atol=rtol)


def test_the_papers_network_has_two_hidden_layers_of_64():
    count = sum(p.numel() for p in MLP(1, (20, 2)).parameters())
    assert count == (1 + 1) * 64 + (64 + 1) * 64 + (64 + 1) * 40


def test_seed_decides_the_weights_and_leaves_torch_alone():
    state = torch.get_rng_state()
    first, again, other = (MLP(1, (4,), seed=seed).layers[0].weight for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())


def test_activation_and_no_hidden_layer():
    smooth = MLP(1, (2,), activation=nn.SiLU)
    assert sum(isinstance(layer, nn.SiLU) for layer in smooth.layers) == 2
    assert isinstance(smooth.layers[-1], nn.Linear)
    linear = MLP(1, (2,), hidden=())
    x = torch.tensor([[1.0], [2.0], [3.0]])
    torch.testing.assert_close(linear(x).diff(n=2, dim=0), torch.zeros(1, 2), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((0, (2,)), "inputs is 0"), ((1, (2, 0)), "output_shape is 0"), ((1, (2,), (64, 0)), "hidden is 0")],
)
def test_bad_widths_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        MLP(*arguments)
