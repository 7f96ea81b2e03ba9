"""Every notebook is a test: it runs from top to bottom, each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
RUN = """
import sys
from pathlib import Path
import nbdev.test
root = Path(sys.argv[2])
passed, seconds = nbdev.test.test_nb(Path(sys.argv[1]), basepath=root)
sys.exit(0 if passed else 1)
"""


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_runs(notebook):
    pytest.importorskip("nbdev", reason="notebooks are run by nbdev: pip install 'tripletloss[dev]'")
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ, "MPLBACKEND": "agg", "PYTHONPATH": str(ROOT)}
    path = ROOT / notebook
    child = subprocess.run(
        [sys.executable, "-c", RUN, str(path), str(ROOT)],
        cwd=path.parent,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, f"{notebook}:\n{child.stdout[-4000:]}\n{child.stderr[-4000:]}"
