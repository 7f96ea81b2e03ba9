"""The guides: their form is that of keras.io's tutobooks, and what they compute holds. No data set is downloaded."""

import ast
import datetime
import importlib
import re
import runpy
from pathlib import Path

import keras
import numpy as np
import pytest
from checkout import run_python

plt = pytest.importorskip("matplotlib.pyplot", reason="the guides draw with matplotlib: pip install 'tripletloss[plots]'")
datasets = pytest.importorskip("sklearn.datasets", reason="the digits come with scikit-learn: pip install 'tripletloss[metrics]'")

ROOT = Path(__file__).resolve().parent.parent.parent
GUIDES = sorted((ROOT / "guides").glob("*.py"))
METRIC_LEARNING = ROOT / "guides" / "metric_learning_with_tripletloss.py"
FIELDS = ["Title", "Author", "Date created", "Last modified", "Description", "Accelerator"]


def cells_of(text):
    """Of each cell of a tutobook: "markdown", "shell" or "code", and its lines. A fence is three quotes that begin a line."""
    cells, kind = [], "code"
    for line in text.splitlines():
        if kind != "code" and line == '"""':
            kind = "code"
            cells.append((kind, []))
        elif kind == "code" and line.startswith('"""'):
            kind = line[3:] or "markdown"
            cells.append((kind, []))
        else:
            cells[-1][1].append(line)
    return [(kind, lines) for kind, lines in cells if kind != "code" or any(lines)]


def test_cells_are_told_apart():
    text = '"""\nTitle: A\n"""\n\n"""\nWords\n"""\n\n"""shell\npip\n"""\n\nx = 1\n\n"""\nEnd\n"""\n'
    assert [kind for kind, _ in cells_of(text)] == ["markdown", "markdown", "shell", "code", "markdown"]


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.stem)
def test_form_is_that_of_keras_io(path):
    """What its `tutobooks.py` refuses: another header, long descriptions, unknown cells, too much code, spaces at line ends."""
    text = path.read_text(encoding="utf-8")
    (kind, header), *cells = cells_of(text)
    fields = dict(line.split(": ", 1) for line in header)
    assert text.startswith('"""\n') and kind == "markdown" and list(fields) == FIELDS
    created, modified = (datetime.datetime.strptime(fields[name], "%Y/%m/%d") for name in ("Date created", "Last modified"))
    assert created <= modified
    assert re.fullmatch(r"[A-Z].{1,98}\.", fields["Description"]) and fields["Accelerator"] in {"GPU", "TPU", "None"}
    kinds = [kind for kind, _ in cells]
    assert set(kinds) <= {"markdown", "shell", "code"} and kinds[-1] == "markdown"
    assert "markdown markdown" not in " ".join(kinds[1:])  # behind the introduction, words lead to code
    assert cells[0][1][0].startswith("## ")
    assert sum(bool(line) for kind, lines in cells if kind == "code" for line in lines) <= 300
    assert "arxiv.org/pdf" not in text and "\t" not in text
    long = [line for line in text.splitlines() if len(line) > 90 and "](https://" not in line]
    assert long == [] and not re.search(r" $", text, re.M)


def test_code_is_formatted_as_black_does():
    """By ruff, whose formatter keeps to black's style, in black's length of a line."""
    pytest.importorskip("ruff", reason="formatting is checked by ruff: pip install 'tripletloss[dev]'")
    run_python(["-m", "ruff", "format", "--isolated", "--line-length", "88", "--diff", *GUIDES], ROOT)


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.stem)
def test_names_of_the_package_are_public(path):
    """Whatever a guide takes from `tl` stands in an `__all__`, so that a rename does not leave it behind."""
    names = {ast.unparse(node) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Attribute)}
    used = {name for name in names if re.match(r"tl\.(\w+\.)?[A-Z\w]+$", name)}
    assert used
    for name in used:
        *module, last = name.split(".")[1:]
        assert last in importlib.import_module(".".join(["tripletloss", *module])).__all__, name


def digits():
    """In place of CIFAR-10, in its form: digits at random spots of black images."""
    x, y = datasets.load_digits(return_X_y=True)
    spots = np.random.default_rng(0).integers(0, 17, (len(x), 2))
    images = np.zeros((len(x), 32, 32, 3), "uint8")
    for image, digit, (top, left) in zip(images, x.reshape(-1, 8, 8, 1), spots, strict=True):
        image[top : top + 16, left : left + 16] = np.kron(digit, np.ones((2, 2, 1))) * 255 / 16
    test = np.arange(len(x)) % 4 == 0
    labels = y.astype("uint8")[:, None]
    return (images[~test], labels[~test]), (images[test], labels[test])


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """Digits, few epochs, and a folder for what is saved; returns how many figures each `plt.show()` has shown."""
    shown = []

    def show():
        shown.append(len(plt.get_fignums()))
        plt.close("all")

    plt.switch_backend("agg")
    plt.close("all")  # of other tests
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", digits)
    monkeypatch.setattr(plt, "show", show)
    keras.config.set_max_epochs(6)
    yield shown
    keras.config.set_max_epochs(None)
    plt.close("all")


@pytest.mark.jit
def test_metric_learning_finds_what_it_was_not_trained_on(offline, capsys):
    run = runpy.run_path(str(METRIC_LEARNING))
    assert f"Backend: {keras.backend.backend()}\n" in capsys.readouterr().out
    assert offline == [1, 1]
    assert not set(run["y_seen"]) & set(run["y_unseen"]) and set(run["callback"].y) == set(run["y_unseen"])
    assert np.bincount(run["labels"]).tolist() == [8] * 7

    # The search: of three classes, a random neighbour is right once in three.
    rows, labels = run["embeddings"], run["y_unseen"]
    products = rows @ rows.T - 2 * np.eye(len(rows))
    nearest = labels[products.argmax(axis=1)] == labels
    found = run["retrieval"]
    assert found["embeddings"]["recall_at_1"] == pytest.approx(nearest.mean(), abs=0.02)  # but for ties
    assert found["embeddings"]["recall_at_1"] > 0.5 and found["embeddings"]["recall_at_1"] > found["pixels"]["recall_at_1"]
    assert found["embeddings"]["map_at_r"] > found["pixels"]["map_at_r"]
    assert run["verification"]["roc_auc"] > 0.55 and run["verification"]["equal_error_rate"] < 0.45

    # The index: horses are the strangers of the calibration, and known images were not among its keys.
    index, x, y, half = (run[name] for name in ("index", "x_test", "y_test", "half"))
    calibration = run["calibration"]
    assert 0 < calibration.recall <= 1 and 0 <= calibration.false_accept_rate <= 0.1 and index.threshold == calibration.threshold
    answered = run["result"].distances
    assert answered.shape == (1, 3) and (np.diff(answered) >= 0).all()
    right = run["right"][run["known_matches"].known]
    assert right.mean() > 2 / 7
    assert np.mean(run["strangers"].known) < np.mean(run["known_matches"].known)
    ships = index.search(x[~half & (y == 8)], k=1).labels[:, 0] == "ship"
    assert ships.mean() > 2 / 8
    assert run["loaded"].match(x).labels.tolist() == index.match(x).labels.tolist()


@pytest.mark.every
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_metric_learning_on_each_backend(backend):
    pytest.importorskip(backend, reason="this backend is not installed")
    this = f"{__file__}::{test_metric_learning_finds_what_it_was_not_trained_on.__name__}"
    assert "1 passed" in run_python(["-m", "pytest", "-p", "no:cacheprovider", this], ROOT, KERAS_BACKEND=backend)
