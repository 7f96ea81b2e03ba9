"""A copy of the repository to try things in."""

import os
import shutil
import subprocess
import sys

import pytest


def files_of(root):
    """Paths of what git tracks, or would if asked to."""
    if not (root / ".git").exists():
        pytest.skip("not a git checkout: no telling the sources from what was built")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=root, capture_output=True, check=True
    )
    return sorted({path for path in listed.stdout.decode().split("\0") if path and (root / path).exists()})


def copy_of(root, target):
    """The repository's files, without git and without anything built."""
    for path in files_of(root):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / path, target / path, follow_symlinks=False)
    return target


def run_python(arguments, where):
    """What Python said, on both streams, in a process of its own."""
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ, "PYTHONPATH": str(where), "PYTHONDONTWRITEBYTECODE": "1"}
    child = subprocess.run([sys.executable, *arguments], cwd=where, env=environment, capture_output=True, text=True)
    assert child.returncode == 0, child.stdout + child.stderr
    return child.stdout + child.stderr
