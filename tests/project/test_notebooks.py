"""Every notebook is a test, and what its page shows is what its code gives: run anew, it gives the outputs it stores.

Words are compared as they are, numbers within a tolerance. A cell says by a directive where numbers differ more:
`#| trained` where they come from a training, which rounds otherwise on another processor; `#| measured` where they
depend on the clock or the machine. Pictures are drawn again and must be there.
"""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted(
    path.relative_to(ROOT).as_posix() for path in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts
)
RUN = "import sys; from execnb.shell import CaptureShell; CaptureShell().execute(*sys.argv[1:], exc_stop=True)"
NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?!\w)")
RELATIVE, ABSOLUTE = 1e-3, 2e-6
TRAINED = 0.15


def texts_and_pictures(outputs):
    """Texts of a cell's outputs, as one, and how many pictures there are."""
    texts, pictures = [], 0
    for output in outputs:
        data = output.get("data", {})
        pictures += "image/png" in data
        shown = output.get("text") or data.get("text/markdown") or ("" if "image/png" in data else data.get("text/plain", ""))
        texts.append("".join(shown))
    return "\n".join(texts), pictures


def words_and_numbers(text):
    """The text with a # for each number and single blanks, and the numbers; 15% is 0.15."""
    numbers = [
        float(match[0].replace(",", "")) / (100 if re.match(r"\s?%", text[match.end() :]) else 1) for match in NUMBER.finditer(text)
    ]
    return " ".join(NUMBER.sub("#", text).split()), numbers


def is_close(stored, fresh, trained):
    if trained:
        return abs(stored - fresh) <= TRAINED * max(1, abs(stored), abs(fresh))
    return math.isclose(stored, fresh, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def difference(cell, fresh):
    """In one line, what the stored outputs of a cell show and fresh ones don't; None where they agree."""
    directives = set(re.findall(r"^#\|\s*(\w+)", "".join(cell["source"]), re.M))
    (old, old_pictures), (new, new_pictures) = texts_and_pictures(cell["outputs"]), texts_and_pictures(fresh["outputs"])
    if old_pictures != new_pictures:
        return f"{old_pictures} pictures are stored, {new_pictures} were drawn"
    (old_words, old_numbers), (new_words, new_numbers) = words_and_numbers(old), words_and_numbers(new)
    if old_words != new_words:
        return f"the page says\n{old}\nand the code\n{new}"
    if "measured" in directives:
        return None
    for stored, now in zip(old_numbers, new_numbers, strict=True):
        if not is_close(stored, now, "trained" in directives):
            return f"the page says {stored:g} and the code {now:g}, in\n{new}"
    return None


def run_anew(notebook, target):
    """The notebook as `make notebooks` would store it."""
    environment = {
        "TF_CPP_MIN_LOG_LEVEL": "2",
        **os.environ,
        "MPLBACKEND": "agg",
        "PYTHONPATH": str(ROOT),
        "IN_TEST": "1",  # to nbdev: the last cell exports nothing
    }
    child = subprocess.run(
        [sys.executable, "-c", RUN, notebook.name, str(target)],
        cwd=notebook.parent,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, f"{notebook.name}:\n{child.stdout[-4000:]}\n{child.stderr[-4000:]}"
    return json.loads(target.read_text(encoding="utf-8"))["cells"]


def test_there_are_notebooks():
    assert NOTEBOOKS


def cell(text, directive="", pictures=0):
    outputs = [{"text": [text]}, *[{"data": {"image/png": "", "text/plain": "<Figure>"}}] * pictures]
    return {"source": [directive, "print()"], "outputs": outputs}


@pytest.mark.parametrize(
    ("stored", "fresh", "noticed"),
    [
        (cell("loss 0.5000"), cell("loss 0.5001"), None),
        (cell("loss 0.5"), cell("loss 0.51"), "the page says 0.5 and the code 0.51"),
        (cell("12,000 rows"), cell("13,000 rows"), "the page says 12000 and the code 13000"),
        (cell("-1e-3"), cell("1e-3"), "the page says -0.001 and the code 0.001"),
        (cell("a 1"), cell("b 1"), "the page says\na 1\n"),
        (cell("1 2"), cell("1"), "the page says\n1 2\n"),
        (cell("a   1.0"), cell("a 1"), None),  # another number of digits moves what is aligned
        (cell("shape (2, 3)"), cell("shape (2, 4)"), "the page says 3 and the code 4"),
        (cell("float32"), cell("float64"), "the page says\nfloat32\n"),
        (cell("", pictures=2), cell("", pictures=1), "2 pictures are stored, 1 were drawn"),
        (cell("loss 0.5", "#| trained\n"), cell("loss 0.6"), None),
        (cell("loss 0.5", "#| trained\n"), cell("loss 0.7"), "the page says 0.5 and the code 0.7"),
        (cell("8%", "#| trained\n"), cell("4%"), None),
        (cell("80%", "#| trained\n"), cell("40%"), "the page says 0.8 and the code 0.4"),
        (cell("3 s", "#| measured\n"), cell("9 s"), None),
        (cell("3 s", "#| measured\n"), cell("3 ms"), "the page says\n3 s\n"),
    ],
)
def test_a_difference_is_noticed(stored, fresh, noticed):
    found = difference(stored, fresh)
    assert found is None if noticed is None else found.startswith(noticed), found


@pytest.mark.parametrize("path", NOTEBOOKS)
def test_gives_what_its_page_shows(path, tmp_path):
    pytest.importorskip("execnb", reason="notebooks are run by execnb: pip install 'tripletloss[dev]'")
    stored = json.loads((ROOT / path).read_text(encoding="utf-8"))["cells"]
    fresh = run_anew(ROOT / path, tmp_path / "fresh.ipynb")
    found = {
        cell["id"]: difference(cell, again)
        for cell, again in zip(stored, fresh, strict=True)
        if cell["cell_type"] == "code"
    }
    wrong = "\n\n".join(f"{path}, cell {number}: {what}" for number, what in found.items() if what)
    assert not wrong, f"{wrong}\n\nRun `make notebooks`, look at the page, and commit it."
