import pytest
import torch
from matplotlib.colors import same_color
from matplotlib.figure import Figure

from course import spins as viz
from elf.data.spin_glass import sample_couplings
from elf.metrics.spins import domain_walls
from elf.spins import frustrated_plaquettes, ground_state, unsatisfied_bonds


@pytest.fixture
def lattice(generator):
    couplings = sample_couplings(1, 4, 5, seed=3)
    return couplings, torch.randint(2, couplings.shape, generator=generator) * 2 - 1


def axes():
    return Figure().subplots()


def test_bonds_are_coloured_by_whether_they_are_satisfied(lattice):
    couplings, spins = lattice
    ax = axes()
    viz.plot_lattice(ax, couplings, spins)
    (lines,) = [c for c in ax.collections if type(c).__name__ == "LineCollection"]
    broken = torch.cat([x.flatten() for x in unsatisfied_bonds(spins, couplings)]).tolist()
    assert 0 < sum(broken) < len(broken)
    colors = lines.get_colors()
    assert [same_color(color, viz.BROKEN) for color in colors] == broken
    assert [same_color(color, viz.SATISFIED) for color in colors] == [not b for b in broken]
    first, second = lines.get_segments()[7]
    width = couplings.shape[2]
    assert [first[0] + width * first[1], second[0] + width * second[1]] == couplings.edges[:, 7].tolist()
    widest = torch.tensor(lines.get_linewidths()).argmax()
    assert int(widest) == int(couplings.values[0].abs().argmax())
    assert len(ax.patches) == int(frustrated_plaquettes(couplings).sum())


def test_the_matching_pairs_frustrated_plaquettes(lattice):
    """At each plaquette inside, the number of drawn path ends is odd exactly where it is frustrated."""
    couplings, _ = lattice
    ax = axes()
    viz.plot_matching(ax, couplings, ground_state(couplings).spins)
    ends = [tuple(point) for segment in ax.collections[0].get_segments() for point in segment.tolist()]
    for row in range(3):
        for column in range(4):
            odd = ends.count((column + 0.5, row + 0.5)) % 2
            assert odd == int(frustrated_plaquettes(couplings)[0, row, column])


def test_walls_are_drawn_where_they_are(lattice):
    couplings, spins = lattice
    target = ground_state(couplings).spins
    ax = axes()
    viz.plot_walls(ax, couplings, spins, target)
    right, down = domain_walls(spins, target, couplings)
    assert len(ax.collections[0].get_segments()) == int(right.sum() + down.sum())


def test_bad_input_is_named(lattice):
    couplings, spins = lattice
    with pytest.raises(ValueError, match="couplings holds 2 lattices with free boundaries"):
        viz.plot_bonds(axes(), sample_couplings(2, 3))
    with pytest.raises(ValueError, match="1 lattices with periodic boundaries"):
        viz.plot_frustration(axes(), sample_couplings(1, 3, periodic=True))
    with pytest.raises(ValueError, match=r"spins has shape \(1, 5, 4\)"):
        viz.plot_lattice(axes(), couplings, spins.mT)
