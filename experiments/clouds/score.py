"""What the energy loss does to the score, measured where the score is known exactly (Prop. 4.4 and 4.5, A.7).

Planar triangles at random angles, a little blurred (`exact`, beside this file). Part "score": the minimiser of the mean
pair energy against the true score, over the noise level, for four kinds of springs. Part "estimator": bias and variance
of both losses' answers from n samples of the posterior. Part "sampling": what ideal denoisers generate. Part "flow":
networks trained by flow matching with three losses, their samples and their scores. Lengths in angstrom.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from elf import springs
from elf.energy import AlignedHarmonic, Energy, Harmonic, PairEnergy
from elf.generative.points import PATH, Denoiser, VelocityNetwork, denoising_loss, gaussian
from elf.generative.samplers import heun
from elf.generative.schedules import Karras, add_noise, noise_of
from elf.geometry.alignment import center
from elf.scales import nearest
from elf.training import FitSettings, TrainRecord, fit, shuffled_batches
from experiments.clouds.exact import RotationAveraged, energy_denoiser, energy_minimiser, exact_denoiser
from experiments.clouds.minimiser import mean_network, minimise, nearest_pose, pair_distances, remove_rigid
from experiments.framework.experiment import Callbacks, Cell, Experiment
from experiments.framework.tables import format_mean, summarise_by, text_table

SIDES = ((1.0, 1.2, 1.4), (1.0, 1.2, 1.95))
"""Two "isomers": the distances 1-2, 1-3 and 2-3."""
WEIGHTS = (0.7, 0.3)
SPRINGS: dict[str, Callable[[Tensor], Tensor] | None] = {
    "constant": None,
    "balanced": lambda d: d.rsqrt(),
    "inverse": torch.reciprocal,
    "exponential": lambda d: torch.exp(-d),
}
""""balanced" is d^(-(D-1)/2) for D = 2: the springs without a bias at leading order (notebook 06)."""
LOSSES: dict[str, Callable[[], Energy]] = {
    "mse": partial(Harmonic, normalize="atoms"),
    "kabsch": partial(AlignedHarmonic, normalize="atoms"),
    "energy": lambda: PairEnergy(springs.Constant(), normalize="atoms"),
}
DIFFUSION = Karras(sigma_data=0.5, sigma_min=0.005, sigma_max=5.0)
TEST_SEED = 1_000_000


@dataclass(frozen=True)
class Settings:
    """One scale of the experiment.

    Attributes:
        sigmas: noise levels (angstrom) of parts "score" and "estimator", the latter taking every other one.
        blurs: tau, angstrom.
        clouds: noisy clouds a noise level in part "score".
        samples: n of the estimators.
        repeats: independent estimates for each of `estimated` clouds.
        generated: clouds sampled in parts "sampling" and "flow".
        levels: steps of the samplers.
        steps, batch_size, examples, hidden: of the training.
    """

    sigmas: tuple[float, ...] = (0.003, 0.006, 0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
    blurs: tuple[float, ...] = (0.0, 0.02, 0.1)
    clouds: int = 100
    samples: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    estimated: int = 8
    repeats: int = 60
    generated: int = 1000
    levels: int = 30
    steps: int = 4000
    batch_size: int = 256
    examples: int = 20_000
    hidden: tuple[int, ...] = (128, 128, 128)
    learning_rate: float = 6e-3
    trained_blur: float = 0.05


SETTINGS = {
    "smoke": Settings(
        sigmas=(0.01, 0.1, 1.0), blurs=(0.0, 0.1), clouds=4, samples=(1, 2), estimated=2, repeats=4, generated=16,
        levels=3, steps=3, batch_size=8, examples=32, hidden=(16,),
    ),
    "live": Settings(clouds=40, samples=(1, 4, 16), repeats=30, generated=300, levels=20, steps=1500),
    "laptop": Settings(),
    "paper": Settings(clouds=1000, repeats=1000, generated=10_000, levels=100, steps=50_000, examples=100_000),
}  # fmt: skip


def triangle(d12: float, d13: float, d23: float) -> Float[Tensor, "3 2"]:
    """The triangle with these distances, counter-clockwise, float64.

    Raises:
        ValueError: no proper triangle has them.
    """
    along = (d12**2 + d13**2 - d23**2) / (2 * d12)
    if not d13**2 - along**2 > 0:
        raise ValueError(f"d12, d13, d23 are {d12}, {d13}, {d23}; each should be below the sum of the others")
    return torch.tensor([[0, 0], [d12, 0], [along, math.sqrt(d13**2 - along**2)]], dtype=torch.float64)


def isomers(blur: float, shapes: int = 2, dtype: torch.dtype = torch.float64) -> RotationAveraged:
    """The first, or both, of the triangles `SIDES`, with `WEIGHTS`, at random angles and blurred."""
    corners = torch.stack([triangle(*sides) for sides in SIDES[:shapes]]).to(dtype)
    return RotationAveraged(corners, torch.tensor(WEIGHTS[:shapes], dtype=dtype), blur)


def cells(settings: Settings, seeds: int) -> list[dict[str, Any]]:
    """All parts of seed 0, then of seed 1, and so on."""
    cases: list[tuple[str, str]] = [("score", f"{blur:g}") for blur in settings.blurs]
    cases += [("estimator", f"{blur:g}") for blur in settings.blurs if blur > 0]
    cases += [("sampling", name) for name in ("mse", "energy", "one_hand")] + [("flow", loss) for loss in LOSSES]
    return [{"part": part, "case": case, "seed": seed} for seed in range(seeds) for part, case in cases]


def noisy_clouds(
    system: RotationAveraged, sigma: float, n: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """x_t = x + sigma eps, (n, points, 2), with alpha = 1 and sigma, each (n,)."""
    x = system.sample(n, generator)
    level = x.new_full((n,), sigma)
    return x + sigma * gaussian((n, x.shape[1], 2), generator, x.dtype), torch.ones_like(level), level


def score_errors(settings: Settings, blur: float, seed: int) -> dict[str, Any]:
    """For each kind of springs and noise level, in root mean squares: |s_hat - s| relative to |s|, |eps_hat - eps*| a
    degree of freedom, and |x_hat| relative to |E[x | x_t]|."""
    system = isomers(blur, 1)
    out: dict[str, Any] = {"sigma": list(settings.sigmas)}
    names = ("relative", "noise", "size")
    out.update({f"{name}_{kind}": [] for kind in SPRINGS for name in names})
    for index, sigma in enumerate(settings.sigmas):
        # Other clouds for every level, or errors at different levels would share their luck.
        generator = torch.Generator().manual_seed(1000 * seed + index)
        x_t, alpha, level = noisy_clouds(system, sigma, settings.clouds, generator)
        true, mean = system.score(x_t, alpha, level), system.posterior_mean(x_t, alpha, level)
        for kind, springs_of in SPRINGS.items():
            best = energy_minimiser(system, x_t, alpha, level, springs_of)
            error = (best - mean).square().sum().sqrt() / sigma**2
            values = (
                error / true.square().sum().sqrt(),
                sigma * error / math.sqrt(x_t.shape[1] * 2 - 2) / math.sqrt(len(x_t)),
                best.norm() / mean.norm(),
            )
            for name, value in zip(names, values, strict=True):
                out[f"{name}_{kind}"].append(_round(value))
    for kind in SPRINGS:
        out[f"rate_{kind}"] = fitted_rate(settings.sigmas, out[f"relative_{kind}"])
    return out


def fitted_rate(sigmas: Sequence[float], errors: Sequence[float], below: float = 0.03) -> float:
    """Slope of log error against log sigma by least squares, over levels under `below` (the two lowest at least)."""
    small = max(2, sum(sigma < below for sigma in sigmas))
    x = torch.tensor(sigmas[:small], dtype=torch.float64).log()
    y = torch.tensor(errors[:small], dtype=torch.float64).log()
    x = x - x.mean()
    return _round((x * y).sum() / x.square().sum())


def estimates(
    system: RotationAveraged, sigma: float, n: int, clouds: int, repeats: int, generator: torch.Generator
) -> dict[str, dict[str, float]]:
    """Squared bias and variance of the score estimated from n posterior samples, both over the mean squared true score.

    "mse": the samples' mean. "energy": the minimiser of their mean pair energy (constant springs), in the pose nearest
    to x_t. The squared bias is corrected for the finite number of repeats.
    """
    x_t, alpha, level = noisy_clouds(system, sigma, clouds, generator)
    true = system.score(x_t, alpha, level)
    many = [value.repeat_interleave(repeats, 0) for value in (x_t, alpha, level)]
    x = system.posterior_sample(many[0], many[1], many[2], n, generator)
    answers = {"mse": x.mean(1), "energy": nearest_pose(minimise(mean_network(x), x[:, 0], 15), many[0])}
    out = {}
    for name, answer in answers.items():
        scores = ((answer - many[0]) / sigma**2).unflatten(0, (clouds, repeats))
        variance = scores.var(1).sum() / true.square().sum()
        bias = (scores.mean(1) - true).square().sum() / true.square().sum() - variance / repeats
        out[name] = {"bias": _round(bias), "variance": _round(variance)}
    return out


def estimator_errors(settings: Settings, blur: float, seed: int) -> dict[str, Any]:
    """`estimates` for every n and every other noise level: lists over noise levels of lists over n."""
    system, sigmas = isomers(blur, 1), settings.sigmas[::2]
    out: dict[str, Any] = {"sigma": list(sigmas), "n": list(settings.samples)}
    table = []
    for index, sigma in enumerate(sigmas):
        generator = torch.Generator().manual_seed(1000 * seed + index)
        table.append(
            [estimates(system, sigma, n, settings.estimated, settings.repeats, generator) for n in settings.samples]
        )
    for loss in ("mse", "energy"):
        for what in ("bias", "variance"):
            out[f"{what}_{loss}"] = [[entry[loss][what] for entry in row] for row in table]
    ratios = [[entry["energy"]["variance"] / entry["mse"]["variance"] for entry in row] for row in table]
    out["ratio"] = [_round(sum(row) / len(row)) for row in ratios]
    return out


def quality(x: Float[Tensor, "n 3 2"], system: RotationAveraged) -> dict[str, float]:
    """How generated triangles compare with the distribution they should come from.

    w1: mean over pairs of the Wasserstein-1 distance of its lengths (angstrom), floor: the same for two true samples.
    first: share of the first isomer. wrong_hand: share of clockwise triangles, of which there are none in the data.
    broken: share with a distance more than three standard deviations away from both isomers'.
    """
    generator = torch.Generator().manual_seed(TEST_SEED)
    true, other = (pair_distances(system.sample(len(x), generator)).sort(0).values for _ in range(2))
    found, sides = pair_distances(x), pair_distances(system.shapes)
    width = math.sqrt(2) * system.blur
    edge1, edge2 = x[:, 1] - x[:, 0], x[:, 2] - x[:, 0]
    area = edge1[:, 0] * edge2[:, 1] - edge1[:, 1] * edge2[:, 0]
    off = (found[:, None] - sides).abs().amax(-1).amin(-1)
    return {
        "w1": _round((found.sort(0).values - true).abs().mean()),
        "floor": _round((other - true).abs().mean()),
        "first": _round((found[:, 2] < sides[:, 2].mean()).to(x.dtype).mean()),
        "wrong_hand": _round((area < 0).to(x.dtype).mean()),
        "broken": _round((off > 3 * width).to(x.dtype).mean()),
    }


def ideal_denoiser(loss: str, system: RotationAveraged) -> Denoiser:
    """What a loss would learn with endless data: "mse"; "energy" (constant springs), of two mirror images the one
    nearer to x_t; or "one_hand", the same but of the posterior mean's hand."""
    if loss == "mse":
        return exact_denoiser(system, DIFFUSION)
    return energy_denoiser(system, DIFFUSION, allow_reflection=loss == "energy")


def train(
    settings: Settings,
    loss: str,
    seed: int,
    *,
    checkpoint: Path | None = None,
    callbacks: Callbacks = (),
) -> TrainRecord:
    """A `VelocityNetwork` trained by flow matching on `examples` triangles at random angles (A.7)."""
    system = isomers(settings.trained_blur, dtype=torch.float32)
    data = system.sample(settings.examples, torch.Generator().manual_seed(seed))
    rows, energy = shuffled_batches(settings.examples, settings.batch_size, seed), LOSSES[loss]()

    def mean_loss(model: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        return denoising_loss(model, energy, batch, PATH, generator).mean()

    how = FitSettings(
        steps=settings.steps, learning_rate=settings.learning_rate, seed=seed, checkpoint_every=10_000,
        gradient_clip=5.0,
    )  # fmt: skip
    model = VelocityNetwork(3, hidden=settings.hidden, seed=seed)
    return fit(model, mean_loss, lambda step: data[rows(step)], how, checkpoint=checkpoint, callbacks=callbacks)


@torch.no_grad()
def evaluate(model: nn.Module, settings: Settings, seed: int) -> dict[str, Any]:
    """Samples' `quality`; over t, the score's relative error as it is and in the pose nearest to x_t, and which part of
    the noise's error moves the cloud rigidly (Prop. 4.4's v)."""
    system = isomers(settings.trained_blur, dtype=torch.float32)
    model = model.cpu()
    generator = torch.Generator().manual_seed(TEST_SEED + 1 + seed)
    noise = gaussian((settings.generated, 3, 2), generator)
    out: dict[str, Any] = dict(
        quality(heun(model, PATH, noise, settings.levels).double(), isomers(settings.trained_blur))
    )
    out |= {"t": [0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9], "relative": [], "posed": [], "rigid": []}
    for time in out["t"]:
        t = torch.full((settings.generated,), time)
        x = center(system.sample(len(t), generator))
        x_t = add_noise(x, gaussian(x.shape, generator), t, PATH)
        mean = system.posterior_mean(x_t, PATH.alpha(t), PATH.sigma(t))
        true = system.score(x_t, PATH.alpha(t), PATH.sigma(t))
        x_hat = model(x_t, t)
        factor = (1 - time) / time**2 / true.norm()
        out["relative"].append(_round(factor * (x_hat - mean).norm()))
        out["posed"].append(_round(factor * (nearest_pose(x_hat, x_t) - mean).norm()))
        error = noise_of(x_t, x_hat, t, PATH) - noise_of(x_t, mean, t, PATH)
        out["rigid"].append(_round(1 - remove_rigid(error, x_t).square().sum() / error.square().sum()))
    return out


def run_cell(settings: Settings, cell: Cell, workdir: Path, callbacks: Callbacks) -> dict[str, Any]:
    """One part, one case, one seed."""
    part, case, seed = cell["part"], cell["case"], cell["seed"]
    if part == "score":
        return score_errors(settings, float(case), seed)
    if part == "estimator":
        return estimator_errors(settings, float(case), seed)
    if part == "sampling":
        system = isomers(settings.trained_blur)
        noise = gaussian((settings.generated, 3, 2), torch.Generator().manual_seed(seed), torch.float64)
        return quality(heun(ideal_denoiser(case, system), DIFFUSION, noise, settings.levels), system)
    record = train(settings, case, seed, checkpoint=workdir / "training.safetensors", callbacks=callbacks)
    return evaluate(record.model, settings, seed)


def table(result: dict[str, Any]) -> str:
    """Rates of Prop. 4.4 and the quality of samples, mean ± standard deviation over seeds (number of seeds)."""
    rates = [
        {"blur": row["case"], **{kind: format_mean(row, f"rate_{kind}", 2) for kind in SPRINGS}}
        for row in result["summary"]
        if row["part"] == "score"
    ]
    samples = [
        {
            "part": row["part"],
            "loss": row["case"],
            **{name: format_mean(row, name, 3) for name in ("w1", "first", "wrong_hand", "broken")},
        }
        for row in result["summary"]
        if row["part"] in ("sampling", "flow")
    ]
    return f"{text_table(rates)}\n\n{text_table(samples)}"


def _round(value: Tensor | float) -> float:
    return float(f"{float(value):.6g}")


EXPERIMENT = Experiment(
    name="score",
    title="The energy loss against an exactly known score (Prop. 4.4, 4.5, A.7)",
    settings=partial(nearest, SETTINGS),
    cells=cells,
    run_cell=run_cell,
    summarise=lambda rows: summarise_by(rows, "part", "case"),
    table=table,
)
