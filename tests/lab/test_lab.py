"""JupyterLab in a real browser: what is dragged, slid and clicked arrives in Python, and what Python sets is shown.

Also where a widget's module comes later than anywidget is patient: two seconds, which a slow machine may need.
"""

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
from browser import drag, until

pytestmark = pytest.mark.live

ROOT = Path(__file__).resolve().parents[2]
TOKEN = secrets.token_hex(16)
START = "00_start_here.ipynb"
CONNECTED = """() => {
  const session = window.jupyterapp?.shell.currentWidget?.sessionContext?.session;
  return session?.kernel?.connectionStatus === "connected" && session.kernel.status === "idle";
}"""
# Modules of widgets take longer than anywidget is patient, however fast the machine is.
LATE = """() => {
  const make = URL.createObjectURL;
  URL.createObjectURL = (blob) => {
    const late = ["await new Promise((come) => setTimeout(come, 2500));\\n", blob];
    return make.call(URL, blob.type === "text/javascript" ? new Blob(late, { type: blob.type }) : blob);
  };
}"""
OPEN = """async (path) => {
  await window.jupyterapp.restored;
  const { context } = await window.jupyterapp.commands.execute("docmanager:open", { path });
  await context.ready;
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


def _run_all(page, name: str) -> None:
    page.evaluate(OPEN, name)
    page.wait_for_function(CONNECTED)
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")


def _ask(page, expression: str) -> object:
    """What the notebook's Python says, after all cells that it is asked to run: its kernel keeps the order."""
    said = page.evaluate(ASK, f"import json; print(json.dumps({expression}))")
    try:
        return json.loads(said)
    except json.JSONDecodeError:
        pytest.fail(f"{expression}: {said}")


def _do(page, statement: str) -> None:
    assert page.evaluate(ASK, statement) == ""


FIGURES = """
import torch
from course.widgets import Dashboard, FrameSlider, SpinBoard, Trajectory
from elf.data.spin_glass import sample_couplings
from elf.viz import style
from matplotlib.figure import Figure

pictures = FrameSlider([Figure(figsize=(2, 1), facecolor=tone) for tone in ("w", "r", "k")], list("abc"), list("abc"))
motion = Trajectory(torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0)))
board = SpinBoard(sample_couplings(1, 3))
"""
TRAINING = """
import time
from elf.training import FitSettings, fit

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


def test_what_is_done_in_the_browser_arrives_in_python_and_back(lab, open_page):
    _put(lab, "figures.ipynb", FIGURES, "pictures", "motion", "board", TRAINING, "print('went on')")
    # On a machine that is slow enough any module is late: anywidget says so, and the figures shall not mind.
    late = r"\[anywidget\] Failed to initialize model"
    page = open_page(f"{lab}/lab?token={TOKEN}&reset", width=1400, height=2400, allow=late)
    page.wait_for_function("() => window.jupyterapp")
    _run_all(page, START)
    _drag_in_the_playground(page)

    page.evaluate(LATE)
    _run_all(page, "figures.ipynb")
    _watch_and_stop_the_training(page)
    _slide(page, "pictures", page.locator(".elf-frames"))
    _slide(page, "motion", page.locator(".elf-trajectory"))
    _flip_a_spin(page)


def _drag_in_the_playground(page) -> None:
    playground = page.locator(".elf-playground").first
    playground.wait_for()
    assert _ask(page, "bool(float(energy) < 1e-9 < 1 < float(error))")

    playground.scroll_into_view_if_needed()
    before = float(playground.get_attribute("data-elf-mse"))
    drag(page, playground.locator('[data-elf-panel="mse"] [data-elf-particle="0"]'), 30, 20)
    shown = float(playground.get_attribute("data-elf-mse"))
    assert abs(shown - before) > 1e-3
    # The widget sends its state at most ten times a second.
    until(lambda: _ask(page, "playground.energies()['mse']") == pytest.approx(shown, abs=1e-6))

    _do(page, "playground.prediction = playground.target")
    page.wait_for_function("(figure) => Number(figure.dataset.elfMse) < 1e-9", arg=playground.element_handle())


def _watch_and_stop_the_training(page) -> None:
    dashboard = page.locator(".elf-dashboard").first
    dashboard.wait_for()
    page.wait_for_function("() => Number(document.querySelector('.elf-dashboard').dataset.elfStep) > 5")
    dashboard.get_by_role("button", name="Stop").click()
    page.wait_for_function("() => document.querySelector('.elf-dashboard').dataset.elfPhase === 'stopped'")
    steps, phase, step = _ask(page, "[record.steps, watch.view.phase, watch.view.step]")
    assert 5 < steps == step < 5000
    assert phase == "stopped"
    page.get_by_text("went on", exact=True).wait_for()
    assert dashboard.get_by_role("button").count() == 0
    assert dashboard.locator("polyline").count() == 1


def _slide(page, name: str, figure) -> None:
    handle, first = figure.element_handle(), int(figure.get_attribute("data-elf-frame"))
    figure.get_by_role("slider").press("ArrowLeft" if first else "ArrowRight")
    page.wait_for_function("([figure, first]) => figure.dataset.elfFrame != first", arg=[handle, first])
    until(lambda: _ask(page, f"{name}.frame") == int(figure.get_attribute("data-elf-frame")))
    _do(page, f"{name}.frame = {first}")
    page.wait_for_function("([figure, first]) => figure.dataset.elfFrame == first", arg=[handle, first])


def _flip_a_spin(page) -> None:
    figure = page.locator(".elf-board")
    before = _ask(page, "board.spins")
    figure.locator('[data-elf-site="0,0"]').click()
    until(lambda: _ask(page, "board.spins") == [[-before[0][0], *before[0][1:]], *before[1:]])
    _do(page, "board.spins = board.ground")
    page.wait_for_function("(figure) => Math.abs(figure.dataset.elfExcess) < 1e-9", arg=figure.element_handle())
