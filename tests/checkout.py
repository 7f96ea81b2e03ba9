"""A copy of the repository to try things in, and Python in a process of its own."""

import os
import shutil
import subprocess
import sys

import pytest


def files_of(root):
    """Paths of what git tracks, or would if asked to."""
    if not (root / ".git").exists():
        pytest.skip("not a git checkout, where git tells the sources from what was built")
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


def run_python(arguments, where, ends_with=(0,), **environment):
    """What Python said, on both streams, in a process of its own that must end with one of these codes."""
    settings = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ, "PYTHONPATH": str(where), "PYTHONDONTWRITEBYTECODE": "1"}
    settings |= {"MPLBACKEND": "agg", **environment}
    command = [sys.executable, *map(str, arguments)]
    child = subprocess.run(command, cwd=where, env=settings, capture_output=True, text=True)
    said = child.stdout + child.stderr
    shown = " ".join(command[1:]).strip()[:80]
    assert child.returncode in ends_with, f"python {shown!r} ended with {child.returncode}:\n{said[-8000:]}"
    return said
