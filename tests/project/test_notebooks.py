"""Every notebook is a test, and what its page shows is what its code gives: run anew, it gives the outputs it stores.

Words are compared as they are, numbers within a tolerance. A cell says by a directive where numbers differ more:
`#| trained` where they come from a training, which rounds otherwise on another processor; `#| measured` where they
depend on the clock or the machine. Pictures are drawn again and must be there.

Each notebook runs in a process of its own, so that no seed, setting or name goes from one to the next. These processes
are forked from one that has imported Keras, and what else takes seconds, and has run nothing yet.
"""

import importlib.util
import json
import math
import multiprocessing
import os
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("execnb", reason="notebooks are run by execnb: pip install 'tripletloss[dev]'")

ROOT = Path(__file__).resolve().parents[2]
# Backwards, so that the tutorials, whose trainings take longest, are not what the other processes wait for in the end.
NOTEBOOKS = sorted(
    (path.relative_to(ROOT).as_posix() for path in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts),
    reverse=True,
)
# A quarter of a minute to a minute each, and only one of the many checks of the code that they use: `make test-all` runs them.
SLOW = [
    "04_samplers", "05_metrics", "06_plots", "07_distribution", "08_demo", "09_training", "10_search", "batches_that_work",
    "bigger_batches", "coming_from_another_library", "distance_and_margin", "is_it_any_good", "more_negatives",
    "one_place_every_language", "stuck_at_the_margin", "ten_minutes", "which_triplets",
    "your_backbone",
]  # fmt: skip
# What a page shows beside the requirements of this project, and its tests do without.
SHOWN = {"batches_that_work": ["datasets", "grain", "torch"], "one_place_every_language": ["anyascii", "babel", "rapidfuzz"],
         "your_backbone": ["ai_edge_litert", "onnxruntime"]}
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["keras", "matplotlib.pyplot", "sklearn.datasets", "execnb.shell", "nbdev.showdoc"])
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


def execute(notebook, target, log):
    """The notebook as `make notebooks` would store it, in `target`; in a process of its own, which says in `log` what fails."""
    from execnb.shell import CaptureShell

    for stream in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    os.environ |= {"MPLBACKEND": "agg", "PYTHONPATH": str(ROOT), "IN_TEST": "1"}  # the last: nbdev exports nothing
    os.chdir(notebook.parent)
    shell = CaptureShell()
    try:
        shell.execute(notebook.name, target, exc_stop=True)
    except Exception:
        sys.exit(shell.prettytb())  # names the cell


def run_anew(notebook, folder):
    child = FORKED.Process(target=execute, args=(notebook, folder / "fresh.ipynb", folder / "log"))
    child.start()
    child.join()
    assert child.exitcode == 0, f"{notebook.name} ends with {child.exitcode}:\n{(folder / 'log').read_text()[-8000:]}"
    return json.loads((folder / "fresh.ipynb").read_text(encoding="utf-8"))["cells"]


def test_there_are_notebooks():
    assert NOTEBOOKS


def cell(text, directive="", pictures=0):
    outputs = [{"text": [text]}, *[{"data": {"image/png": "", "text/plain": "<Figure>"}}] * pictures]
    return {"source": [f"#| {directive}\n", "print()"], "outputs": outputs}


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
        (cell("float32"), cell("float64"), "the page says\nfloat32\n"),
        (cell("", pictures=2), cell("", pictures=1), "2 pictures are stored, 1 were drawn"),
        (cell("loss 0.5", "trained"), cell("loss 0.6"), None),
        (cell("loss 0.5", "trained"), cell("loss 0.7"), "the page says 0.5 and the code 0.7"),
        (cell("80%", "trained"), cell("40%"), "the page says 0.8 and the code 0.4"),
        (cell("8%", "trained"), cell("4%"), None),
        (cell("3 s", "measured"), cell("9 s"), None),
        (cell("3 s", "measured"), cell("3 ms"), "the page says\n3 s\n"),
    ],
)
def test_a_difference_is_noticed(stored, fresh, noticed):
    found = difference(stored, fresh)
    assert found is None if noticed is None else found.startswith(noticed), found


@pytest.mark.parametrize(
    "path", [pytest.param(path, marks=[pytest.mark.every] if Path(path).stem in SLOW else []) for path in NOTEBOOKS]
)
def test_gives_what_its_page_shows(path, tmp_path):
    missing = [name for name in SHOWN.get(Path(path).stem, []) if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"the page shows {' and '.join(missing)}, not installed")
    stored = json.loads((ROOT / path).read_text(encoding="utf-8"))["cells"]
    fresh = run_anew(ROOT / path, tmp_path)
    found = {
        cell["id"]: difference(cell, again)
        for cell, again in zip(stored, fresh, strict=True)
        if cell["cell_type"] == "code"
    }
    wrong = "\n\n".join(f"{path}, cell {number}: {what}" for number, what in found.items() if what)
    assert not wrong, f"{wrong}\n\nRun `make notebooks`, look at the page, and commit it."
