"""Samplers: Euler, Heun, multistep and ancestral, for any denoiser and any schedule; of point clouds, and of molecules.

The probability flow is dx = x_hat d alpha + eps_hat d sigma with eps_hat = (x - alpha x_hat) / sigma: no derivative of
the schedule, no division by alpha. Its Euler step is DDIM's alpha_s x_hat + sigma_s eps_hat (arXiv:2010.02502); for
`Straight` that is flow matching's x + (s - t) u, and for `Karras` Heun's step is the one of arXiv:2206.00364.

Every sampler starts from standard Gaussian noise times sigma at the schedule's first time and goes to its last time; if
noise is left there, it answers with x_hat. What it moves is a tensor (batch, points, numbers a point): a cloud, or the
state of a molecule, positions and features side by side (`elf.generative.molecules`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, pairwise
from typing import Literal, NamedTuple, SupportsIndex

import torch
from jaxtyping import Float, Int
from torch import Tensor

from elf.checks import require_bool, require_count, require_integer, require_number, require_one_of, require_seed
from elf.elements import ELEMENTS
from elf.generative.molecules import KarrasDenoiser, Mask, MoleculeDenoiser, State, Times, molecule_noise
from elf.generative.points import Denoiser
from elf.generative.schedules import Karras, Points, Schedule

Watcher = Callable[[Tensor, Tensor, Tensor], object]
"""Called as watch(t, x_t, x_hat) at every time visited."""
Draw = Callable[[], Tensor]
"""Gives standard Gaussian noise of the shape of the start."""

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
CHURN_ABOVE = 0.05
"""Angstrom (S_tmin of Alg. 2): below, fresh noise would only blur finished bonds."""
SETTLE_BELOW = 2.0
"""Angstrom. Types, one-hots of length 4, are nearly decided here, and bonds are not."""


class Level(NamedTuple):
    """One time of the sampler, with scalar tensors on the CPU, where looking at them costs nothing."""

    t: Tensor
    alpha: Tensor
    sigma: Tensor


Ask = Callable[[Tensor, Level], Tensor]
Step = Callable[[Tensor, Level, Level, Ask], Tensor]


def heun(
    denoiser: Denoiser,
    schedule: Schedule,
    noise: Points,
    steps: int,
    watch: Watcher | None = None,
    *,
    order: Literal[1, 2] = 2,
    churn: float = 0.0,
    draw: Draw | None = None,
    prepare: Callable[[Tensor, Level], Tensor] | None = None,
) -> Points:
    """Second-order (trapezoidal) steps of the probability flow, two evaluations each; a step to sigma = 0 is Euler's.

    Deterministic, given the noise, but for churn. Karras et al. 2022, arXiv:2206.00364: Alg. 1, or Alg. 2 with churn.

    Args:
        denoiser: x_hat(x_t, t).
        schedule: gives the times, alpha and sigma.
        noise: standard Gaussian start (`elf.generative.points.gaussian`), in the dtype and on the device of the run.
        steps: number of steps.
        watch: sees every state.
        order: 1 for Euler's method, one evaluation a step.
        churn: before each step the noise level is raised by this share with fresh noise (gamma of Alg. 2, at most
            sqrt(2) - 1), where it is above `CHURN_ABOVE`. Fresh noise lets later steps mend errors of earlier ones.
        draw: of the fresh noise.
        prepare: what is done to the state before each step.

    Raises:
        ValueError: steps is less than 1; churn out of range, without draw, or with another schedule than `Karras`.
    """
    if not 0 <= require_number("churn", churn) <= math.sqrt(2) - 1:
        raise ValueError(f"churn is {churn!r}; it should be between 0 and sqrt(2) - 1 = 0.414")
    if churn and (draw is None or not isinstance(schedule, Karras)):
        raise ValueError(f"churn is {churn!r}; it should be 0 without draw and for schedules other than Karras")

    def step(x: Tensor, now: Level, after: Level, ask: Ask) -> Tensor:
        if draw is not None and churn and now.sigma > CHURN_ABOVE:
            x = x + now.sigma * math.sqrt((1 + churn) ** 2 - 1) * draw()
            now = Level(now.t * (1 + churn), now.alpha, now.sigma * (1 + churn))
        if prepare is not None:
            x = prepare(x, now)
        x_hat = ask(x, now)
        eps = _noise(x, x_hat, now)
        trial = x + _flow(x_hat, eps, now, after)
        if after.sigma == 0 or order == 1:
            return trial
        x_hat_after = denoiser(trial, _time(after, trial))
        return x + _flow(x_hat + x_hat_after, eps + _noise(trial, x_hat_after, after), now, after) / 2

    return _run(step, denoiser, schedule, noise, steps, watch)


euler = partial(heun, order=1)


def ancestral(
    denoiser: Denoiser, schedule: Schedule, noise: Points, steps: int, draw: Draw, watch: Watcher | None = None
) -> Points:
    """Draws x_s from p(x_s | x_t, x = x_hat), step by step: the sampler of DDPM (Ho et al. 2020) and EDM.

    With a = alpha_t / alpha_s and v = sigma_t^2 - a^2 sigma_s^2, its mean is (a sigma_s^2 x_t + alpha_s v x_hat) /
    sigma_t^2 and its variance v sigma_s^2 / sigma_t^2. Exact at any number of steps where x_hat is certain. EDM
    (arXiv:2203.17003, Alg. 2) ends by adding noise of sigma_0 / alpha_0 = 0.003 angstrom; here x_hat is the answer.

    Args:
        draw: of the noise that each step adds.

    The other arguments are `heun`'s.
    """

    def step(x: Tensor, now: Level, after: Level, ask: Ask) -> Tensor:
        return _posterior(x, ask(x, now), now, after, draw)

    return _run(step, denoiser, schedule, noise, steps, watch)


def multistep(
    denoiser: Denoiser,
    schedule: Schedule,
    noise: Points,
    steps: int,
    watch: Watcher | None = None,
    *,
    draw: Draw | None = None,
    prepare: Callable[[Tensor, Level], Tensor] | None = None,
) -> Points:
    """DPM-Solver++(2M) of Lu et al. 2022 (arXiv:2211.01095, Alg. 2): second order at one evaluation a step.

    Euler's step, but with x_hat carried on to the middle of the step by the evaluation before, in lambda =
    log(alpha / sigma): x_hat + h / (2 h_before) (x_hat - x_hat_before). With `draw` it is the paper's SDE version:
    `ancestral`'s step with that. The first step, one to sigma = 0, and one whose state `prepare` changed take x_hat
    itself. The arguments are `heun`'s.
    """
    latest: list[tuple[Tensor, Tensor]] = []  # the evaluation before: lambda, x_hat

    def step(x: Tensor, now: Level, after: Level, ask: Ask) -> Tensor:
        ready = x if prepare is None else prepare(x, now)
        if ready is not x:
            latest.clear()
        x_hat, (here, there) = ask(ready, now), ((level.alpha / level.sigma).log() for level in (now, after))
        ahead = x_hat
        if latest and after.sigma > 0:
            before, x_hat_before = latest.pop()
            ahead = x_hat + (there - here) / (2 * (here - before)) * (x_hat - x_hat_before)
        latest[:] = [(here, x_hat)]
        if draw is not None:
            return _posterior(ready, ahead, now, after, draw)
        return ready + _flow(ahead, _noise(ready, ahead, now), now, after)

    return _run(step, denoiser, schedule, noise, steps, watch)


def _posterior(x: Tensor, x_hat: Tensor, now: Level, after: Level, draw: Draw) -> Tensor:
    """A draw from p(x_s | x_t, x = x_hat), see `ancestral`."""
    kick = draw()
    if after.sigma == 0:
        return x_hat
    ratio = now.alpha / after.alpha
    fresh = now.sigma.square() - (ratio * after.sigma).square()
    mean = (ratio * after.sigma.square() * x + after.alpha * fresh * x_hat) / now.sigma.square()
    return mean + fresh.sqrt() * after.sigma / now.sigma * kick


@torch.no_grad()
def _run(
    step: Step, denoiser: Denoiser, schedule: Schedule, noise: Tensor, steps: int, watch: Watcher | None
) -> Tensor:
    times = schedule.grid(require_count("steps", steps)).to(noise.dtype)
    levels = [Level(*level) for level in zip(times, schedule.alpha(times), schedule.sigma(times), strict=True)]

    def ask(x: Tensor, level: Level) -> Tensor:
        x_hat = denoiser(x, _time(level, x))
        if watch is not None:
            watch(level.t, x, x_hat)
        return x_hat

    x = levels[0].sigma * noise
    for now, after in pairwise(levels):
        x = step(x, now, after, ask)
    return ask(x, levels[-1]) if levels[-1].sigma > 0 else x


def _time(level: Level, x: Tensor) -> Float[Tensor, " batch"]:
    return level.t.to(x.device).expand(len(x))


def _noise(x: Tensor, x_hat: Tensor, level: Level) -> Tensor:
    return (x - level.alpha * x_hat) / level.sigma


def _flow(x_hat: Tensor, eps: Tensor, now: Level, after: Level) -> Tensor:
    return (after.alpha - now.alpha) * x_hat + (after.sigma - now.sigma) * eps


@dataclass(frozen=True)
class Samples:
    """Sampled molecules in the layout of `elf.data.qm9.Molecules`: angstrom, atomic numbers, zero-padded; and, where
    asked for, a trajectory: the denoised positions x_hat at some noise levels."""

    positions: Float[Tensor, "n atoms 3"]
    numbers: Int[Tensor, "n atoms"]
    trajectory: Float[Tensor, "levels n atoms 3"] | None = None


def sample_molecules(
    denoiser: MoleculeDenoiser,
    counts: Int[Tensor, "*n"],
    generator: torch.Generator,
    *,
    method: Literal["heun", "multistep", "ancestral"] = "heun",
    steps: int = 40,
    churn: float = 0.0,
    closed_shell: bool = False,
    batch_size: int = 128,
    frames: int = 0,
    device: torch.device | str | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Samples:
    """Molecules from noise. Those of similar size share a batch; the answer is in the order of `counts`.

    The same generator state gives the same molecules, for the same `batch_size`.

    Args:
        denoiser: a trained network with its schedule.
        counts: number of atoms of each molecule wanted (`draw_counts`).
        generator: of all noise.
        method: "heun", 2 steps - 1 evaluations of the network a molecule; "multistep", the SDE version of `multistep`;
            or "ancestral", the paper's, which takes 1000 steps. The latter two: steps + 1 evaluations (steps where the
            schedule ends without noise).
        steps: noise levels visited.
        churn: of `heun`.
        closed_shell: with a `KarrasDenoiser`, and not with "ancestral", see `ClosedShell`. One more evaluation.
        batch_size: molecules a batch.
        frames: keep x_hat at this many levels, evenly spread with the last among them, as `Samples.trajectory`.
        device: where to sample; default the generator's.
        progress: called with (steps done, steps in all) after each step; the steps of all batches count.

    Raises:
        TypeError: counts is no tensor of integers.
        ValueError: no molecules asked for, or one of fewer than one atom; a setting out of its range, or one that the
            method does not have.
    """
    if not isinstance(denoiser, MoleculeDenoiser):
        raise TypeError(f"denoiser is a {type(denoiser).__name__}; it should be a MoleculeDenoiser")
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator is a {type(generator).__name__}; it should be a torch.Generator")
    counts, steps = _require_counts(counts), require_count("steps", steps)
    require_one_of("method", method, ("heun", "multistep", "ancestral"))
    require_bool("closed_shell", closed_shell)
    if not 0 <= require_integer("frames", frames) <= steps:
        raise ValueError(f"frames is {frames}; it should be between 0 and steps={steps}")
    if closed_shell and (method == "ancestral" or not isinstance(denoiser, KarrasDenoiser)):
        raise ValueError(
            "closed_shell is True; it should be False for ancestral sampling, and without a KarrasDenoiser"
        )
    if churn and method != "heun":
        raise ValueError(f"churn is {churn!r}; it should be 0 for {method} sampling, where all noise is fresh")
    place = torch.device(device) if device is not None else generator.device
    parts = counts.argsort(stable=True).split(require_count("batch_size", batch_size))
    size, width, dtype = (len(counts), int(counts.max())), denoiser.featuriser.width, torch.float32
    if any(parameter.dtype == torch.float64 for parameter in denoiser.parameters()):
        dtype = torch.float64
    positions = torch.zeros(*size, 3, dtype=dtype, device=place)
    numbers = torch.zeros(size, dtype=torch.int64, device=place)
    path = torch.zeros(frames, *size, 3, dtype=dtype, device=place) if frames else None
    wanted = {(frame + 1) * steps // frames for frame in range(frames)}

    def descend(mask: Mask, batch: int) -> tuple[State, list[Tensor]]:
        # The orders of the draws are those of the samples that once were published.
        draw = partial(molecule_noise, mask, width, generator, dtype, features_first=method != "ancestral")
        kept, visited = [], count(1)

        def watch(t: Tensor, x: Tensor, x_hat: Tensor) -> None:
            if (done := next(visited)) in wanted:
                kept.append(x_hat[..., :3].clone())
            if progress is not None and done <= steps:  # where noise is left at the end, it is asked once more
                progress(batch * steps + done, len(parts) * steps)

        denoise, schedule = partial(denoiser.denoise, mask=mask), denoiser.schedule
        if method == "ancestral":
            return ancestral(denoise, schedule, draw(), steps, draw, watch), kept
        shell = ClosedShell(denoiser, mask, draw) if isinstance(denoiser, KarrasDenoiser) and closed_shell else None
        settle = None if shell is None else shell.settle
        solve = multistep if method == "multistep" else partial(heun, churn=churn)
        return solve(shell or denoise, schedule, draw(), steps, watch, draw=draw, prepare=settle), kept

    modes = [(module, module.training) for module in denoiser.modules()]
    denoiser.eval()
    try:
        for batch, rows in enumerate(parts):
            atoms = int(counts[rows].max())
            mask = (torch.arange(atoms, dtype=torch.int64, device="cpu") < counts[rows, None]).to(place)
            x, kept = descend(mask, batch)
            rows = rows.to(place)
            positions[rows, :atoms] = x[..., :3]
            numbers[rows, :atoms] = denoiser.featuriser.decode(x[..., 3:], mask)
            if path is not None:
                path[:, rows, :atoms] = torch.stack(kept)
    finally:
        for module, mode in modes:
            module.training = mode
    return Samples(positions, numbers, path)


def draw_counts(counts: Int[Tensor, " n"], samples: SupportsIndex, seed: SupportsIndex) -> Int[Tensor, " samples"]:
    """Sizes of `samples` molecules, drawn with replacement from those of a data set."""
    counts, samples = _require_counts(counts), require_count("samples", samples)
    generator = torch.Generator("cpu").manual_seed(require_seed("seed", seed))
    return counts[torch.randint(len(counts), (samples,), generator=generator, dtype=torch.int64, device="cpu")]


class ClosedShell:
    """A `KarrasDenoiser` for one batch, whose types are settled at once when the noise falls below `SETTLE_BELOW`.

    They become those of `closed_shell_types`, and stay: an odd number of electrons leaves one unpaired wherever the
    atoms go. `settle` is what `heun` is to do before each step.
    """

    def __init__(self, denoiser: KarrasDenoiser, mask: Mask, draw: Draw) -> None:
        self.denoiser, self.mask, self.draw = denoiser, mask, draw
        self.types: Tensor | None = None

    def __call__(self, x_t: State, t: Times) -> State:
        """x_hat, with the types that are settled."""
        x_hat = self.denoiser.denoise(x_t, t, self.mask)
        return x_hat if self.types is None else torch.cat([x_hat[..., :3], self.types], dim=-1)

    def settle(self, x_t: State, now: Level) -> State:
        """The state as it is, but where it is time to settle: with noisy types as if all along they had been those."""
        if self.types is not None or now.sigma > SETTLE_BELOW:
            return x_t
        logits = self.denoiser(x_t, _time(now, x_t), self.mask)[..., 3:]
        featuriser = self.denoiser.featuriser
        self.types = featuriser.type_scale * closed_shell_types(logits, self.mask, featuriser.elements)
        return torch.cat([x_t[..., :3], self.types + now.sigma * self.draw()[..., 3:]], dim=-1)


def closed_shell_types(
    logits: Float[Tensor, "batch atoms elements"], mask: Mask, elements: Sequence[int] = ELEMENTS
) -> Float[Tensor, "batch atoms elements"]:
    """The likeliest types whose atomic numbers have an even sum in every molecule, as one-hots; zero where masked.

    Where the likeliest type of each atom gives an odd sum, the one change that costs least in probability and turns it
    even is made: H, N or F to C or O, or the other way round. A neutral molecule without unpaired electrons has an even
    number of them, whichever its elements are.
    """
    odd = torch.tensor([z % 2 == 1 for z in elements], dtype=torch.bool, device=logits.device)
    best = logits.argmax(dim=-1)
    top = logits.gather(-1, best[..., None])
    # The likeliest type of the other parity, and what it costs.
    other = logits.masked_fill(odd == odd[best][..., None], -torch.inf)
    cost = (top[..., 0] - other.amax(dim=-1)).masked_fill(~mask, torch.inf)
    wrong = (odd[best] & mask).sum(dim=1) % 2 == 1
    places = torch.arange(mask.shape[1], dtype=torch.int64, device=mask.device)
    changed = (cost.argmin(dim=1)[:, None] == places) & wrong[:, None]
    chosen = torch.where(changed, other.argmax(dim=-1), best)
    return torch.nn.functional.one_hot(chosen, len(elements)).to(logits.dtype) * mask[..., None]


def _require_counts(counts: object) -> Int[Tensor, " n"]:
    if not isinstance(counts, Tensor) or counts.dtype not in INTEGERS:
        found = counts.dtype if isinstance(counts, Tensor) else type(counts).__name__
        raise TypeError(f"counts is a {found}; it should be a tensor of integers")
    if counts.ndim != 1 or not len(counts) or int(counts.min()) < 1:
        raise ValueError(f"counts has shape {tuple(counts.shape)}; it should be (n,) with n >= 1 and entries >= 1")
    return counts.cpu()
