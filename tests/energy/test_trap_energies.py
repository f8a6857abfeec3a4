"""Harmonic and Absolute against loops; AlignedHarmonic's reference is scipy, in tests/geometry/test_alignment.py."""

import torch

import elf


def test_match_a_loop(dtype: torch.dtype, rtol: float, generator: torch.Generator) -> None:
    prediction, target = torch.randn(2, 3, 4, 2, dtype=dtype, generator=generator)
    differences = [
        [p - t for pa, ta in zip(ps, ts, strict=True) for p, t in zip(pa, ta, strict=True)]
        for ps, ts in zip(prediction.tolist(), target.tolist(), strict=True)
    ]
    squares = torch.tensor([sum(d * d for d in sample) for sample in differences], dtype=dtype)
    magnitudes = torch.tensor([sum(abs(d) for d in sample) for sample in differences], dtype=dtype)
    torch.testing.assert_close(elf.Harmonic()(prediction, target), squares, rtol=rtol, atol=0)
    torch.testing.assert_close(elf.Absolute()(prediction, target), magnitudes, rtol=rtol, atol=0)


def test_forces(dtype: torch.dtype, generator: torch.Generator) -> None:
    prediction, target = torch.randn(2, 3, 4, 2, dtype=dtype, generator=generator)
    prediction.requires_grad_()
    pull = torch.autograd.grad(elf.Harmonic()(prediction, target).sum(), prediction)[0]
    torch.testing.assert_close(pull, 2 * (prediction - target))
    push = torch.autograd.grad(elf.Absolute()(prediction, target).sum(), prediction)[0]
    torch.testing.assert_close(push, (prediction - target).sign())


def test_mse_is_the_harmonic_energy_and_mae_the_absolute(generator: torch.Generator) -> None:
    prediction, target = torch.randn(2, 3, 4, 2, generator=generator)
    mse = torch.nn.functional.mse_loss(prediction, target)
    torch.testing.assert_close(elf.Harmonic(normalize="atoms")(prediction, target).mean() / 2, mse)
    mae = torch.nn.functional.l1_loss(prediction, target)
    torch.testing.assert_close(elf.Absolute(normalize="atoms")(prediction, target).mean() / 2, mae)


def test_repr_tells_the_settings() -> None:
    assert repr(elf.Harmonic("atoms")) == "Harmonic(normalize='atoms')"
    assert repr(elf.AlignedHarmonic()) == "AlignedHarmonic(normalize='sum', allow_reflection=False)"
