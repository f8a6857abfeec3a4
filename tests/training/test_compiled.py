"""Compiled trainings are those without: same weights, same names in files, two graphs for molecules of all sizes.

In fresh processes, as the run-time type checks of this one cannot be traced. The backend runs the traced graphs as they
are, so that no compiler is needed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BEGIN = """
import dataclasses, functools, sys, torch
torch.set_num_threads(1)
graphs = []
def backend(graph, inputs):
    graphs.append(graph)
    return graph.forward
torch.compile = functools.partial(torch.compile, backend=backend)
from elf.training import FitSettings, fabric_options, fit
"""
RECIPE = """
from experiments.molecules import gifts, small
def recipe(network, **changes):
    return dataclasses.replace(gifts.recipe_of(gifts.settings_of("two_gifts", "smoke"), network), **changes)
"""
NETWORKS = """
generator = torch.Generator().manual_seed(0)
random = functools.partial(torch.randn, generator=generator)
for network, calm, fullgraph in CASES:
    model = small.make_denoiser(recipe(network, calm=calm, layers=2), 0)
    for parameter in model.parameters():
        parameter.data += 0.05 * random(parameter.shape)  # some begin as zero, and would hide the others' gradients
    torch.compiler.reset()
    graphs.clear()
    compiled = torch.compile(model, fullgraph=fullgraph, dynamic=True)
    for atoms in (20, 12, 29, 5):
        mask = torch.arange(atoms) < torch.tensor([[atoms], [atoms - 1], [2], [atoms]])
        inputs = random(4, atoms, 8) * mask[..., None], random(4).exp(), mask
        values = [call(*inputs) for call in (model, compiled)]
        torch.testing.assert_close(*values)
        right, ours = (torch.autograd.grad(value.square().sum(), model.parameters()) for value in values)
        for a, b in zip(right, ours):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(a.abs().max()))
    print(len(graphs))
"""
TRAININGS = """
from elf.generative.molecules import KarrasDenoiser
from experiments.molecules.losses import LOSSES
def train(network, precision, compile, name, *callbacks):
    graphs.clear()
    with fabric_options(accelerator="cpu", precision=precision, compile=compile):
        file = f"{sys.argv[1]}/{network} {name}"
        energy = LOSSES["energy"]()
        return small.train(recipe(network), energy, steps=20, seed=0, checkpoint=file, callbacks=callbacks)
def states(record):
    assert type(record.model) is type(record.ema_model) is KarrasDenoiser
    return record.model.state_dict() | {f"ema.{key}": value for key, value in record.ema_model.state_dict().items()}
def stop(state):
    if state.step == 11:
        state.stop()
for case in (("plain", "32-true"), ("equivariant", "bf16-mixed")):
    eager = states(train(*case, False, "eager"))
    assert not graphs
    whole = states(train(*case, True, "whole"))
    print(*case, len(graphs))
    assert list(eager) == list(whole)
    for name, value in eager.items():
        torch.testing.assert_close(whole[name], value, rtol=1e-3, atol=1e-5)
    assert train(*case, True, "half", stop).steps == 11
    resumed = states(train(*case, True, "half"))
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
"""
MANY = """
for width in range(1, 11):
    graphs.clear()
    fit(
        torch.nn.Linear(1, width),
        lambda model, batch, generator: model(batch).square().mean(),
        lambda step: torch.ones(3, 1),
        FitSettings(steps=2, learning_rate=0.1, accelerator="cpu", compile=True),
    )
    print(len(graphs))
"""


def run(code: str, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BEGIN + code, *arguments],
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_networks_trace_in_one_graph_and_in_another_below_16_atoms():
    plain, equivariant = "plain", "equivariant"
    cases = [(plain, False, True), (plain, False, False), (equivariant, False, True), (equivariant, True, False)]
    assert run(RECIPE + f"CASES = {cases}" + NETWORKS) == ["2"] * len(cases)


def test_a_compiled_training_is_the_one_without_and_resumes(tmp_path):
    assert run(RECIPE + TRAININGS, str(tmp_path)) == ["plain 32-true 2", "equivariant bf16-mixed 2"]


def test_a_tenth_training_compiles_as_the_first():
    """torch compiles a function eight times, and from then on runs it as it is, with no more than a line in the log."""
    assert run(MANY) == ["1"] * 10
