import matplotlib.pyplot as plt
import pytest
import torch

import elf
from elf.viz.report_card import FLOOR, draw_stiffness


def test_free_modes_stand_on_the_lowest_line(generator: torch.Generator) -> None:
    y = torch.randn(3, 5, 3, generator=generator)
    cards = {"mse": elf.report_card(elf.Harmonic(), y), "energy": elf.report_card(elf.PairEnergy(), y)}
    fig, ax = plt.subplots()
    draw_stiffness(ax, cards)
    heights = [dots.get_offsets()[:, 1] for dots in ax.collections]
    assert (heights[0] > 0.9).all()
    assert (heights[1] <= FLOOR * 1.01).sum() == 3 * 6
    assert "no free mode" in ax.texts[0].get_text()
    plt.close(fig)


def test_no_card() -> None:
    with pytest.raises(ValueError, match="cards is empty; it should hold at least one"):
        draw_stiffness(plt.figure().add_subplot(), {})
    plt.close("all")
