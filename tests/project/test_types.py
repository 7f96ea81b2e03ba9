"""What a type checker makes of a user's program: mypy sees the installed package's signatures.

Keras says nothing of its types, so that to mypy a tensor is Any; all other parameters and results have a type of their own.
"""

import os
import re
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.xdist_group("types")  # what is installed and checked once is so by one process

SETTINGS = """
[mypy]
strict = True
[mypy-keras.*]
ignore_missing_imports = True
[mypy-matplotlib.*]
follow_imports = skip
"""
START = "import numpy as np\nimport tripletloss as tl\n\nx, y = np.zeros((4, 3), 'float32'), np.array([0, 0, 1, 1])\n"
RIGHT = """
from typing import Any

import keras

loss = tl.TripletLoss("euclidean", "all", "semi-hard", margin=0.5, average="triplets")
number = float(loss(y, x))
model = keras.Sequential([keras.Input((3,)), tl.layers.L2Embedding(2)])
model.compile("sgd", loss, metrics=[tl.metrics.TripletMetrics(loss)])
batches = tl.samplers.PKBatches(x, y, 2, examples_per_class=2, augment=lambda rows, generator: rows, seed=0)
rows, labels = batches[0]
classes = labels.max() + len(batches)
model.fit(batches, callbacks=[tl.metrics.RetrievalCallback(x, y, k=(1, 2))])
found = tl.metrics.retrieval_metrics(x, y, k=1)
recall = round(found["recall_at_1"], 3)
each = tl.triplet_loss(y, x, distance=tl.distances.get("l2"))
first = each.shape, each[0], tl.triplet_margin_loss(x, x, x).shape
triplets = tl.mine_triplets(y, x)
chosen = triplets.positive[triplets.valid]
tl.plots.plot_distances(x, y, title="far")


class Halved(tl.distances.Distance):
    def call(self, query: Any, key: Any) -> Any:
        return tl.distances.get("cosine").pairwise(query, key) / 2


tl.TripletLoss(Halved("halved"))
"""
REVEALED = {
    "tl.TripletLoss": [
        "(distance: str | dict[Any, Any] | tripletloss.distances.Distance =",
        "soft_margin: bool =, margin: float =, name: str | None =, *, average: str =",
        "-> tripletloss.losses.TripletLoss",
    ],
    "tl.TripletLoss()": ["tripletloss.losses.TripletLoss"],
    "tl.metrics.retrieval_metrics": ["k: int | typing.Iterable[int] =", "progress: bool =", "-> dict[str, float | int]"],
    "tl.samplers.PKBatches": [
        "classes_per_batch: int =, examples_per_class: int =, *, batches_per_epoch: int | None =",
        "-> tripletloss.samplers.PKBatches",
    ],
    "tl.samplers.PKBatches(x, y)[0]": ["tuple[Any, numpy.ndarray["],
    "tl.mine_triplets(y, x)": ["tripletloss.mining.Triplets"],
    "tl.plots.plot_distances": ["def (embeddings: ", "margin: float | None ="],
    "tl.__version__": ["str"],
}
WRONG = {
    'tl.TripletLoss(margin="wide")': 'Argument "margin" to "TripletLoss" has incompatible type "str"; expected "float"',
    "tl.TripletLoss(border=1.0)": 'Unexpected keyword argument "border" for "TripletLoss"',
    "tl.TripletLos()": 'Module has no attribute "TripletLos"',
    'tl.samplers.PKBatches(x, y, classes_per_batch="8")': 'Argument "classes_per_batch" to "PKBatches" has incompatible type "str"',
    'tl.metrics.retrieval_metrics(x, y, k="1")': 'Argument "k" to "retrieval_metrics" has incompatible type "str"',
    "tl.metrics.retrieval_metrics(x, y)[1]": 'Invalid index type "int" for "dict[str, float | int]"',
    "tl.plots.plot_histories({})": 'Module has no attribute "plot_histories"',
}


@pytest.fixture(scope="module")
def checked(root, tmp_path_factory):
    """A function: what mypy says of user's programs, by file and line, with the package as pip installs it."""
    pytest.importorskip("mypy", reason="pip install 'tripletloss[dev]'")
    there = tmp_path_factory.mktemp("types")
    source, site = there / "source", there / "site"
    shutil.copytree(root / "tripletloss", source / "tripletloss", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "settings.ini", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(root / name, source)
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", "--no-build-isolation"]
    child = run([*pip, "--target", str(site), "."], source)
    assert child.returncode == 0, child.stdout + child.stderr
    (there / "mypy.ini").write_text(SETTINGS)

    def check(programs, **environment):
        for name, program in programs.items():
            (there / name).write_text(START + program)
        command = ["-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", "cache", *programs]
        child = run(command, there, PYTHONPATH=str(site), **environment)
        assert child.returncode in (0, 1), child.stdout + child.stderr  # 2: it could not check
        said = {}
        for name, line, message in re.findall(r"^([\w.]+):(\d+): (error: .*|note: Revealed .*)$", child.stdout, re.M):
            said.setdefault((name, int(line)), []).append(message)
        return said

    return check


@pytest.fixture(scope="module")
def said(checked):
    revealed = "\n".join(f"reveal_type({one})" for one in REVEALED)
    return checked({"right.py": RIGHT, "revealed.py": revealed, "wrong.py": "\n".join(WRONG)})


def run(command, where, **environment):
    return subprocess.run([sys.executable, *command], cwd=where, env={**os.environ, **environment}, capture_output=True, text=True)


def line_of(place):
    return START.count("\n") + 1 + place


def test_correct_use_passes(said):
    assert not {place: messages for place, messages in said.items() if place[0] == "right.py"}


@pytest.mark.parametrize("expression", REVEALED)
def test_signatures_are_seen(said, expression):
    (message,) = said["revealed.py", line_of(list(REVEALED).index(expression))]
    assert [part for part in REVEALED[expression] if part not in message] == [], message


@pytest.mark.parametrize("statement", WRONG)
def test_wrong_use_is_reported_by_name(said, statement):
    (message,) = said["wrong.py", line_of(list(WRONG).index(statement))]
    assert message.startswith("error: " + WRONG[statement])


# Not Keras 3.15, of which mypy asks for no types, but what it finds with --follow-untyped-imports, or Pyright by itself.
KERAS = """
from typing import Any
class KerasTensor: ...
def __getattr__(name: str) -> Any: ...
"""


def test_arrays_of_every_kind_are_tensors_where_the_types_of_keras_are_known(checked, tmp_path):
    (tmp_path / "keras").mkdir()
    (tmp_path / "keras" / "__init__.pyi").write_text(KERAS)
    assert checked({"right.py": RIGHT}, MYPYPATH=str(tmp_path)) == {}
