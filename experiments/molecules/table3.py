"""Table 3's figures (completeness, FCD, MMD of bonds, angles, dihedrals) for the models that are here.

The paper's Table 3 puts the energy into JODO, which diffuses the molecular graph together with the coordinates. JODO is
not part of this package: its rows are printed as the paper has them, under its name, and are no target for ours.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from experiments.framework.tables import text_table
from experiments.molecules.paper import experiment
from experiments.molecules.paper_settings import scales

REFERENCE = {"smoke": (20, 4), "live": (200, 50), "laptop": (2000, 200), "paper": (10_000, 1000)}
SETTINGS = {
    scale: replace(settings, reference=REFERENCE[scale][0], checked=REFERENCE[scale][1])
    for scale, settings in scales(
        ("gdm-aug", "edm"), ("mse", "inverse", "energy"), smoke=(("edm",), ("energy",))
    ).items()
}
NAMES = (
    "atom_stability",
    "molecule_stability",
    "validity",
    "completeness",
    "fcd",
    "mmd_bond",
    "mmd_angle",
    "mmd_dihedral",
)
JODO = {
    "JODO as published": ("99.2", "93.4", "-", "-", "0.885", "0.1475", "0.0121", "6.29e-4"),
    "JODO rerun": ("99.2", "92.8", "95.6", "95.5", "0.854", "0.1218", "0.0110", "5.91e-4"),
    "JODO + energy (inverse)": ("99.4", "94.3", "97.1", "97.0", "0.892", "0.1125", "0.0046", "4.95e-4"),
    "JODO + energy (exponential)": ("99.6", "96.6", "98.4", "98.4", "1.495", "0.0928", "0.0142", "4.97e-3"),
}
_TABLE = experiment("table3", "QM9: distributions of bonds, angles, dihedrals and of molecules (Table 3)", SETTINGS, {})


def table(result: dict[str, Any]) -> str:
    """Ours (mean over seeds), the data's own figures by the same measure, then the paper's rows for JODO."""
    lines = []
    for row in result["summary"]:
        line = {"model": f"{row['model']}, {row['loss']}" if row["model"] != "data" else "data (train against test)"}
        for name in NAMES:
            percent = name in NAMES[:4]
            value = row[name]["mean"] * (100 if percent else 1) if name in row else None
            line[name] = "-" if value is None else f"{value:.1f}" if percent else f"{value:.3g}"
        lines.append(line)
    lines += [{"model": f"paper: {name}", **dict(zip(NAMES, figures, strict=True))} for name, figures in JODO.items()]
    return (
        f"{text_table(lines)}\nours: {result['scale']} scale, {result['settings']['samples']} molecules a seed "
        "(FCD and MMD fall with their number); paper: JODO, another kind of model, with 10,000 molecules"
    )


EXPERIMENT = replace(_TABLE, table=table)
