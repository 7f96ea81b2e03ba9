"""What a type checker makes of a user's program: mypy sees the installed package's signatures.

Keras says nothing of its types, so that to mypy a tensor is Any; all other parameters and results have a type of their own.
"""

import re

import pytest
from checkout import run_python

pytestmark = pytest.mark.xdist_group("package")  # what is built once is built by one process

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
        "soft_margin: bool =, margin: float | typing.Sequence[float] =, name: str | None =, *, average: str =",
        "-> tripletloss.losses.TripletLoss",
    ],
    "tl.TripletLoss()": ["tripletloss.losses.TripletLoss"],
    "tl.metrics.retrieval_metrics": ["k: int | typing.Iterable[int] =", "progress: bool =", "-> dict[str, float | int]"],
    "tl.samplers.PKBatches": [
        "classes_per_batch: int =, examples_per_class: int =, *, batches_per_epoch: int | None =",
        "-> tripletloss.samplers.PKBatches",
    ],
    "tl.samplers.PKBatches(x, y)[0]": ["tuple[Any, numpy.ndarray["],
    "[rows for rows in tl.samplers.PKSampler(y, 2, 2, seed=0)]": ["list[list[int]]"],
    "tl.mine_triplets(y, x)": ["tripletloss.mining.Triplets"],
    "tl.plots.plot_distances": ["def (embeddings: ", "margin: float | None ="],
    "tl.__version__": ["str"],
}
WRONG = {
    'tl.TripletLoss(margin="wide")': 'Argument "margin" to "TripletLoss" has incompatible type "str"; expected "float | Sequence[float]"',
    "tl.TripletLoss(border=1.0)": 'Unexpected keyword argument "border" for "TripletLoss"',
    "tl.TripletLos()": 'Module has no attribute "TripletLos"',
    'tl.samplers.PKBatches(x, y, classes_per_batch="8")': 'Argument "classes_per_batch" to "PKBatches" has incompatible type "str"',
    'tl.metrics.retrieval_metrics(x, y, k="1")': 'Argument "k" to "retrieval_metrics" has incompatible type "str"',
    "tl.metrics.retrieval_metrics(x, y)[1]": 'Invalid index type "int" for "dict[str, float | int]"',
    "tl.plots.plot_histories({})": 'Module has no attribute "plot_histories"',
}


@pytest.fixture(scope="module")
def checked(installed, tmp_path_factory):
    """A function: what mypy says of users' programs, by file and the text of the line, with the package as pip installs it."""
    pytest.importorskip("mypy", reason="types are checked by mypy: pip install 'tripletloss[dev]'")
    there = tmp_path_factory.mktemp("types")
    (there / "mypy.ini").write_text(SETTINGS)

    def check(programs, **environment):
        for name, program in programs.items():
            (there / name).write_text(START + program)
        command = ["-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", "cache", *programs]
        # 1: there are errors; 2: it could not check.
        output = run_python(command, there, ends_with=(0, 1), PYTHONPATH=str(installed), **environment)
        found = re.findall(r"^([\w.]+):(\d+): (error: .*|note: Revealed .*)$", output, re.M)
        return [(name, (START + programs[name]).splitlines()[int(line) - 1], message) for name, line, message in found]

    return check


@pytest.fixture(scope="module")
def said(checked):
    """Of each file, the messages by the line that they belong to."""
    revealed = "\n".join(f"reveal_type({one})" for one in REVEALED)
    found = {"right.py": {}, "revealed.py": {}, "wrong.py": {}}
    for name, line, message in checked({"right.py": RIGHT, "revealed.py": revealed, "wrong.py": "\n".join(WRONG)}):
        found[name].setdefault(line, []).append(message)
    return found


def test_correct_use_passes(said):
    assert said["right.py"] == {}


@pytest.mark.parametrize("expression", REVEALED)
def test_signatures_are_seen(said, expression):
    (message,) = said["revealed.py"][f"reveal_type({expression})"]
    assert [part for part in REVEALED[expression] if part not in message] == [], message


@pytest.mark.parametrize("statement", WRONG)
def test_wrong_use_is_reported_by_name(said, statement):
    (message,) = said["wrong.py"][statement]
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
    assert checked({"right.py": RIGHT}, MYPYPATH=str(tmp_path)) == []
