"""JupyterLab in a real browser: open 00, run all cells, drag in the playground, and Python knows the new place."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import nbformat
import pytest
from browser import settle, until

ROOT = Path(__file__).resolve().parents[2]
TOKEN = secrets.token_hex(16)
START = "00_start_here.ipynb"
CONNECTED = """() => {
  const session = window.jupyterapp?.shell.currentWidget?.sessionContext?.session;
  return session?.kernel?.connectionStatus === "connected" && session.kernel.status === "idle";
}"""
ASK = """async (code) => {
  const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  let text = "";
  const future = kernel.requestExecute({ code });
  future.onIOPub = (message) => { text += message.content.text ?? message.content.evalue ?? ""; };
  await future.done;
  return text;
}"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[str]:
    """JupyterLab as `elf lab` starts it, on a copy of the first notebook without outputs, with its own settings."""
    from elf.viz.molecules import LABEXTENSIONS

    folder = tmp_path_factory.mktemp("lab")
    notebook = nbformat.read(ROOT / "notebooks" / START, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    notebook.metadata.pop("widgets", None)
    nbformat.write(notebook, folder / START)

    homes = ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {
        **os.environ,
        **{name: str(folder / name) for name in homes},
        "ELF_SCALE": "smoke",
        "PYTHONPATH": path,
    }
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.root_dir={folder}"]
    command += ["--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    command += [f"--IdentityProvider.token={TOKEN}", "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None"]
    command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    command += [f"--LabApp.extra_labextensions_path={LABEXTENSIONS}"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(f"{address}/api?token={TOKEN}", server, folder / "log")
            yield address
        finally:
            server.terminate()
            server.wait(timeout=60)


def _wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    end = monotonic() + 300
    while monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(address):
                return
        except (urllib.error.URLError, ConnectionError):
            sleep(0.2)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()}")


def test_what_is_dragged_in_the_browser_arrives_in_python(lab, open_page):
    page = open_page(f"{lab}/lab/tree/{START}?token={TOKEN}&reset", width=1400, height=900)
    page.set_default_timeout(180_000)
    page.wait_for_function(CONNECTED)
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    playground = page.locator(".elf-playground").first
    playground.wait_for()
    # Answered after all cells: the kernel works through its queue in order.
    assert page.evaluate(ASK, "print(float(energy) < 1e-9 < 1 < float(error))").strip() == "True"

    playground.scroll_into_view_if_needed()
    before = float(playground.get_attribute("data-elf-mse"))
    particle = playground.locator('[data-elf-panel="mse"] [data-elf-particle="0"]')
    particle.hover()  # waits until outputs that still arrive have stopped pushing it about
    box = particle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 30, y + 20, steps=5)
    page.mouse.up()
    settle(page)
    shown = float(playground.get_attribute("data-elf-mse"))
    assert abs(shown - before) > 1e-3

    # The widget sends its state at most ten times a second.
    in_python = "print(playground.energies()['mse'])"
    until(lambda: float(page.evaluate(ASK, in_python)) == pytest.approx(shown, abs=1e-6))


TRAINING = """
import time
import torch
from elf.training import FitSettings, fit
from course.widgets import Dashboard

class Shape(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.x = torch.nn.Parameter(torch.arange(6.0).view(3, 2))

def loss(model, batch, generator):
    time.sleep(0.02)
    return model.x.square().sum()

settings = FitSettings(steps=5000, learning_rate=1e-3, accelerator="cpu")
watch = Dashboard("shape", samples=lambda state: state.model.x[None])
record = fit(Shape(), loss, lambda step: None, settings, callbacks=[watch])
"""


def _put(address: str, name: str, *cells: str) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    body = json.dumps({"type": "notebook", "format": "json", "content": notebook}).encode()
    request = urllib.request.Request(f"{address}/api/contents/{name}?token={TOKEN}", body, method="PUT")
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 201


def test_the_stop_button_ends_a_training_and_the_notebook_goes_on(lab, open_page):
    _put(lab, "training.ipynb", TRAINING, "print('went on')")
    page = open_page(f"{lab}/lab/tree/training.ipynb?token={TOKEN}&reset", width=1400, height=900)
    page.set_default_timeout(180_000)
    page.wait_for_function(CONNECTED)
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    dashboard = page.locator(".elf-dashboard").first
    dashboard.wait_for()
    page.wait_for_function("() => Number(document.querySelector('.elf-dashboard').dataset.elfStep) > 5")
    dashboard.get_by_role("button", name="Stop").click()
    page.wait_for_function("() => document.querySelector('.elf-dashboard').dataset.elfPhase === 'stopped'")
    said = page.evaluate(ASK, "print(5 < record.steps < 5000, watch.view.phase, watch.view.step == record.steps)")
    assert said.strip() == "True stopped True"
    page.get_by_text("went on", exact=True).wait_for()
    assert dashboard.get_by_role("button").count() == 0
    assert dashboard.locator("polyline").count() == 1
