"""`elf train`, `elf sample` and `elf evaluate`: a file of molecules in, a run, and molecules out."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from elf import cli, evaluation, springs, workflow
from elf.chemistry import read, write
from elf.chemistry.bonds import GEOM
from elf.data.molecules import Molecules, SmilesList
from elf.energy import AlignedHarmonic, HeightEnergy, PairEnergy
from elf.files import load_tensors
from elf.metrics import molecules as metrics
from elf.training import save_weights
from elf.training.checkpoint import FORMAT, WEIGHTS_FORMAT
from experiments.molecules.losses import LOSSES

SMILES = [
    *("CC(=O)Oc1ccccc1C(=O)O", "CC(=O)Nc1ccc(O)cc1", "NC(=O)c1cccnc1", "CC(N)Cc1ccccc1", "CNCCCl"),
    *("CS(=O)(=O)Nc1ccccc1", "C[NH2+]CC(=O)[O-]", "CN1CCCC1c1cccnc1", "CCO", "CC(O)CN"),
]
SMALL = {"channels": 16, "heads": 2, "layers": 1}
NETWORK = workflow.NETWORK


@pytest.fixture(scope="module")
def drugs(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("drugs") / "drugs.sdf"
    write.to_sdf(path, read.from_smiles(SMILES, conformers=2).molecules)
    return path


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(workflow, "NETWORK", SMALL)
    monkeypatch.setattr(workflow, "SAMPLER_STEPS", 5)


@pytest.fixture
def elf(capsys):
    """Runs the command line: exit status, lines of stdout, lines of stderr."""

    def run(*arguments):
        status = cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return status, out.splitlines(), err.splitlines()

    return run


def test_train_sample_and_evaluate_follow_each_other(elf, drugs, tmp_path):
    run = tmp_path / "run"
    status, out, err = elf("train", drugs, "--steps", 10, "--run", run)
    assert (status, err) == (0, [])
    assert out[0] == "20 molecules from drugs.sdf"
    assert out[1] == f"elements H, C, N, O, S, Cl; loss energy, 10 steps, in {run}"
    assert re.fullmatch(r"training energy: step 5/10, loss [0-9.]+, 0:0[0-9], 0:0[0-9] left", out[6])
    assert out[-1] == f"wrote {run / 'weights.safetensors'}; next: elf sample {run}"
    files = {path.name for path in run.iterdir() if not path.name.startswith(".lock")}
    assert files == {"run.json", "training.safetensors", "weights.safetensors"}

    status, out, err = elf("sample", run, "-n", 9, "-o", tmp_path / "out.sdf")
    assert (status, err) == (0, [])
    assert out[-2] == "sampling 9: step 5/5, 0:00 left"
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    drawn = read.from_sdf(tmp_path / "out.sdf", bonds=False)
    assert len(drawn.molecules) + sum(map(len, drawn.skipped.values())) == 9
    assert set(drawn.molecules.counts.tolist()) <= set(read.from_sdf(drugs).molecules.counts.tolist())

    status, out, err = elf("evaluate", tmp_path / "out.sdf", "--reference", drugs)
    assert (status, err) == (0, [])
    assert out[-2].startswith("reference drugs.sdf  ")
    assert out[-1].startswith("out.sdf              ")


def test_samples_are_written_by_their_ending_and_what_cannot_be_is_said_first(elf, drugs, tmp_path, monkeypatch):
    run = tmp_path / "run"
    elf("train", drugs, "--steps", 1, "--run", run)
    elf("sample", run, "-n", 3, "-o", tmp_path / "new.sdf")
    assert elf("sample", run, "-n", 3, "-o", tmp_path / "new.xyz")[0] == 0
    blocks = (tmp_path / "new.sdf").read_text().split("$$$$\n")[:-1]
    rows = [block.splitlines()[4 : 4 + int(block.splitlines()[3][:3])] for block in blocks]
    wanted = [(fields[3], [float(x) for x in fields[:3]]) for row in rows for line in row for fields in [line.split()]]
    lines = [line.split() for line in (tmp_path / "new.xyz").read_text().splitlines()]
    found = [(fields[0], [float(x) for x in fields[1:]]) for fields in lines if len(fields) == 4]
    assert [symbol for symbol, _ in found] == [symbol for symbol, _ in wanted]
    # SDF has four digits after the point.
    for (_, ours), (_, theirs) in zip(found, wanted, strict=True):
        assert ours == pytest.approx(theirs, abs=5.1e-5)
    monkeypatch.setattr(workflow, "sample_molecules", lambda *_, **__: pytest.fail("sampled in vain"))
    assert elf("sample", run, "-o", tmp_path / "new.sdf" / "x.sdf")[::2] == (
        1,
        [f"elf sample: cannot write {tmp_path}/new.sdf/x.sdf: file exists"],
    )


def test_the_terminal_hears_nothing_of_lightnings_guesses(tmp_path):
    (tmp_path / "srun").touch(mode=0o755)
    (tmp_path / "one.smi").write_text("CCO")
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    command = [sys.executable, "-m", "elf", "train", "one.smi", "--steps", "1"]
    options = {"cwd": tmp_path, "env": {**os.environ, "PATH": path}, "capture_output": True, "text": True}
    process = subprocess.run(command, check=True, timeout=240, **options)
    assert process.stderr == ""
    assert process.stdout.endswith("next: elf sample runs/one.energy\n")


def test_samples_repeat_with_their_seed(elf, drugs, tmp_path):
    elf("train", drugs, "--steps", 2, "--run", tmp_path)
    texts = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert elf("sample", tmp_path, "-n", 3, "--seed", seed, "-o", tmp_path / f"{name}.sdf")[0] == 0
        texts.append([line for line in (tmp_path / f"{name}.sdf").read_text().splitlines() if "RDKit" not in line])
    assert texts[0] == texts[1] != texts[2]


KILLED = f"""
import os, signal, sys
from elf import cli, workflow

class Killer(workflow.ProgressBar):
    def __call__(self, state):
        if state.step == 11:
            os.kill(os.getpid(), signal.SIGKILL)

workflow.NETWORK, workflow.ProgressBar = {SMALL}, Killer
cli.main(sys.argv[1:])
"""


def test_killed_and_started_again_a_training_ends_with_the_same_weights(elf, drugs, tmp_path):
    command = ["train", str(drugs), "--steps", "20", "--run"]
    killed = tmp_path / "killed"
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(workflow.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", KILLED, *command, str(killed)], env=env, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert load_tensors(killed / "training.safetensors", FORMAT)[1]["step"] == 10
    assert not (killed / "weights.safetensors").exists()
    assert elf("sample", killed)[0] == 1
    assert elf(*command, killed)[0] == 0
    assert elf(*command, tmp_path / "whole")[0] == 0
    ends = [load_tensors(run / "weights.safetensors", WEIGHTS_FORMAT) for run in (killed, tmp_path / "whole")]
    assert ends[0][1] == ends[1][1]
    assert all(torch.equal(ends[0][0][name], ends[1][0][name]) for name in ends[1][0])


def test_an_interrupted_training_says_how_to_go_on(elf, drugs, tmp_path, monkeypatch):
    class Interrupting(workflow.ProgressBar):
        def __call__(self, state):
            if state.step == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr(workflow, "ProgressBar", Interrupting)
    status, out, _ = elf("train", drugs, "--steps", 20, "--run", tmp_path)
    assert status == 130
    assert out[-1] == "stopped after step 3 of 20; the same command goes on from there"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--loss", "mse"], "holds a run with loss 'energy', not 'mse'; choose another folder by --run"),
        (["--steps", "3"], "holds a run with steps 2, not 3"),
        (["--seed", "1"], "holds a run with seed 0, not 1"),
    ],
)
def test_a_folder_of_another_run_is_refused(change, message, elf, drugs, tmp_path):
    command = ["train", drugs, "--run", tmp_path, "--steps", "2"]
    assert elf(*command)[0] == 0
    before = (tmp_path / "training.safetensors").read_bytes()
    status, _, err = elf(*command, *change)
    assert (status, len(err)) == (2, 1)
    assert message in err[0]
    assert (tmp_path / "training.safetensors").read_bytes() == before


def test_a_folder_of_other_data_is_refused(elf, drugs, tmp_path):
    other = tmp_path / "drugs.sdf"
    write.to_sdf(other, read.from_sdf(drugs).molecules[1:])
    assert elf("train", drugs, "--run", tmp_path / "run", "--steps", 2)[0] == 0
    status, _, err = elf("train", other, "--run", tmp_path / "run", "--steps", 2)
    assert status == 2
    assert "holds a run with data" in err[0]


@pytest.mark.parametrize("text", ["", "[]", '{"file": 1}'])
def test_a_damaged_record_of_a_run_is_one_line(text, elf, drugs, tmp_path):
    (tmp_path / "run.json").write_text(text)
    status, _, err = elf("train", drugs, "--run", tmp_path, "--steps", 2)
    assert status == 2
    assert err == [f"elf train: {tmp_path / 'run.json'} is damaged; choose another folder by --run"]


@pytest.mark.parametrize("loss", workflow.LOSSES)
def test_every_loss_trains(loss, elf, drugs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = elf("train", drugs, "--loss", loss, "--steps", 2)
    assert (status, err) == (0, [])
    assert out[-1].endswith(f"elf sample {Path('runs') / f'drugs.{loss}'}")


def test_the_network_is_one_that_throws_no_atom_in_long_trainings():
    about = {"size": 1.5, "elements": [1, 6], "seed": 0, "network": NETWORK}
    assert all(block.calm for block in workflow._denoiser(about).network.blocks)
    # The weights of older runs are of networks that were not, and say nothing of it.
    about["network"] = {name: value for name, value in NETWORK.items() if name != "calm"}
    assert not any(block.calm for block in workflow._denoiser(about).network.blocks)


def test_heights_are_the_pairs_and_the_heights_per_atom():
    molecules = read.from_smiles(["C[C@H](N)C(=O)O", "CCO"]).molecules
    target, mask = molecules.positions, molecules.mask
    prediction = target + 0.2 * torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    pairs, heights = PairEnergy(springs.Exponential(k=5.0)), HeightEnergy(k=0.1)
    wanted = (pairs(prediction, target, mask) + heights(prediction, target, mask)) / mask.sum(1)
    torch.testing.assert_close(workflow.LOSSES["heights"]()(prediction, target, mask), wanted)
    kabsch = AlignedHarmonic()(prediction, target, mask) / mask.sum(1)
    mended = workflow.LOSSES["mended"]()(prediction, target, mask)
    torch.testing.assert_close(mended, 0.435 * wanted + 0.5 * kabsch)
    torch.testing.assert_close(mended, LOSSES["half_heights"]()(prediction, target, mask))
    assert (workflow.LOSSES["heights"]()(-target, target, mask) > 0.1).all()
    assert (workflow.LOSSES["energy"]()(-target, target, mask) < 1e-6).all()


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        (["train", "nowhere.sdf"], 1, "cannot open nowhere.sdf: no such file or directory"),
        (["train", "mine.pdb"], 2, "mine.pdb ends in '.pdb'; it should end in .sdf, .sd, .mol, .xyz or .smi"),
        (["train", "empty.sdf"], 2, "empty.sdf holds no molecule; it is empty"),
        (["train", "empty.sdf", "--loss", "best"], 2, "loss is 'best'; it should be one of 'energy', 'mse'"),
        (["train", "empty.sdf", "--seed", "-1"], 2, "seed is -1"),
        (["sample", "nowhere"], 1, "nowhere/weights.safetensors is not there; a training that has ended"),
        (["sample", "."], 2, "weights of another kind"),
        (["sample", ".", "-o", "new.pdb"], 2, "the ending of --output is '.pdb'; it should be one of '.sdf', '.xyz'"),
        (["train", "one.smi", "--run", "empty.sdf"], 1, "cannot write empty.sdf: file exists"),
        (["evaluate", "nowhere.sdf"], 1, "cannot open nowhere.sdf: no such file or directory"),
        (["evaluate", "empty.sdf"], 2, "empty.sdf holds no molecule; it is empty"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_goes_wrong_is_one_line(command, status, message, elf, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("mine.pdb", "empty.sdf"):
        Path(name).touch()
    Path("one.smi").write_text("CCO")
    save_weights("weights.safetensors", torch.nn.Linear(1, 1), {})
    found, _, err = elf(*command)
    assert (found, len(err)) == (status, 1)
    assert message in err[0]


def test_what_is_skipped_is_said_before_the_training(elf, tmp_path):
    path = tmp_path / "mine.smi"
    path.write_text("CCO ethanol\n\nnonsense\nCCN\n[CH3] radical\n")
    status, out, _ = elf("train", path, "--steps", 1, "--run", tmp_path / "run")
    assert status == 0
    assert out[0] == "2 molecules from mine.smi; 2 skipped: 1 unreadable (2: nonsense); 1 radical (4: [CH3])"


def test_the_reference_is_scored_first_and_by_its_own_rules(elf, drugs, tmp_path):
    molecules = read.from_sdf(drugs).molecules
    moved = molecules.positions + 0.1 * torch.randn(
        molecules.positions.shape, generator=torch.Generator().manual_seed(0)
    )
    bare = Molecules(moved, molecules.numbers, SmilesList.from_strings([""] * len(moved)), molecules.index)
    write.to_sdf(tmp_path / "moved.sdf", bare)
    status, out, _ = elf("evaluate", tmp_path / "moved.sdf", "--reference", drugs)
    assert status == 0
    header, first, second = (re.split(r"\s{2,}", line.strip()) for line in out[-3:])
    assert header == list(evaluation.COLUMNS)
    for (name, *cells), positions in ((first, molecules.positions), (second, moved)):
        scores = metrics.evaluate(positions, molecules.numbers, rules=GEOM)
        assert cells[0] == f"{100 * scores['atom_stability']:.1f} %"
        assert cells[2] == f"{100 * scores['validity']:.1f} %"
        assert name.startswith("reference") == (positions is molecules.positions)
    assert first[1 + evaluation.COLUMNS.index("novelty")] == "0.0 %"
    status, out, _ = elf("evaluate", drugs)
    assert status == 0
    assert out[-1] == "without --reference nothing says how real molecules score in these columns"
    assert out[-3].startswith("drugs.sdf  ")


def test_elements_that_the_table_does_not_know_are_left_out_by_name(elf, tmp_path):
    write.to_sdf(tmp_path / "mixed.sdf", read.from_smiles(["C[Se]C", "CCO"]).molecules)
    status, out, _ = elf("evaluate", tmp_path / "mixed.sdf")
    assert status == 0
    assert out[0] == "1 molecule from mixed.sdf; 1 skipped: 1 without entries in the table of bonds (1: C[Se]C)"
    assert out[1] == "bonds by the table of QM9"
    write.to_sdf(tmp_path / "odd.sdf", read.from_smiles(["C[Se]C"]).molecules)
    status, _, err = elf("evaluate", tmp_path / "odd.sdf")
    assert status == 2
    assert err == ["elf evaluate: odd.sdf holds no molecule whose elements the table of bonds knows"]
