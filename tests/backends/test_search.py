"""The index of embeddings against plain loops, on each of its backends; ids, labels, thresholds, and what is saved."""

import json
import math
import re
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from checkout import run_python
from keras import ops
from on_backend import only, tensor
from reference import DISTANCES, pairwise

import tripletloss as tl
from tripletloss import search as search_module
from tripletloss.distances import Distance
from tripletloss.search import EmbeddingIndex

LACKS = {"exact": set(), "usearch": {"manhattan"}, "faiss": set()}
BACKENDS = list(LACKS)
each_backend = pytest.mark.parametrize("backend", BACKENDS)
ROOT = Path(__file__).resolve().parents[2]


def index_of(distance="euclidean", backend="exact"):
    """An empty index; a skip where what it needs is not installed."""
    pytest.importorskip({"exact": "sklearn"}.get(backend, backend), reason=f"{backend} comes with an extra")
    return EmbeddingIndex(distance, backend)


def rows(n, width=6, seed=0):
    return np.random.default_rng(seed).normal(size=(n, width)).astype("float32")


class Weighted(Distance):
    """A distance that no library has."""

    def call(self, query, key):
        return ops.sum(ops.abs(query[:, None] - key[None]) * ops.arange(1.0, 7.0), axis=-1)


def nearest_by_loops(table, k):
    """Numbers of the k nearest keys in each row of distances, the first of equals first."""
    return [sorted(range(len(row)), key=lambda j: (row[j], j))[:k] for row in table]


# Searching.


@pytest.mark.parametrize("distance", DISTANCES)
@each_backend
def test_search_against_loops(backend, distance):
    if distance in LACKS[backend]:
        with pytest.raises(ValueError, match=r"distance must be one of .*'inner_product'.*received 'manhattan'"):
            index_of(distance, backend)
        return
    # A graph of so few keys joins each with each, and misses none; in a larger one, which it misses is chance.
    index, x, q = index_of(distance, backend), rows(60 if backend == "exact" else 12), rows(9, seed=1)
    index.add(x)
    ids, distances, labels = index.search(q, 4)
    table = pairwise(distance, q, x)
    expected = nearest_by_loops(table, 4)
    assert ids.tolist() == expected and labels is None
    np.testing.assert_allclose(distances, np.take_along_axis(table, np.array(expected), 1), rtol=1e-5, atol=1e-5)


def test_search_by_a_distance_of_ones_own_against_loops():
    index, x, q = index_of(Weighted()), rows(30), rows(5, seed=1)
    index.add(x)
    weights = np.arange(1, 7, dtype="float32")
    table = pairwise("manhattan", weights * q, weights * x)
    found = index.search(q, 3)
    assert found.ids.tolist() == nearest_by_loops(table, 3)
    np.testing.assert_allclose(found.distances, np.sort(table, axis=1)[:, :3], rtol=1e-5)


@pytest.mark.parametrize("distance", ["cosine", "manhattan", "inner_product", Weighted()], ids=["cosine", "manhattan", "inner_product", "own"])
def test_blocks_change_nothing(distance, block_size):
    whole, pieces = index_of(distance), index_of(distance)
    x, q = rows(40), rows(9, seed=1)
    whole.add(x)
    expected = whole.search(q, 5)
    block_size(20)  # tables of 4 queries with 5 keys
    pieces.add(x)
    found = pieces.search(q, 5)
    assert found.ids.tolist() == expected.ids.tolist()
    np.testing.assert_allclose(found.distances, expected.distances, rtol=1e-6, atol=1e-6)


@each_backend
def test_distances_of_close_keys_far_from_the_origin(backend):
    """By the expansion of the square all digits would be lost: the squares are 60,000, the distances 0.001."""
    x = np.float32(100 + 1e-3 * rows(20))
    index = index_of("euclidean", backend)
    index.add(x)
    found = index.search(x[:3], 5)
    for row, (ids, distances) in enumerate(zip(found.ids, found.distances, strict=True)):
        assert distances == pytest.approx([math.dist(x[row].tolist(), x[j].tolist()) for j in ids], rel=1e-5)
        assert (np.diff(distances) >= 0).all()


@each_backend
def test_fewer_keys_than_asked_for(backend):
    index = index_of("cosine", backend)
    assert [x if x is None else x.shape for x in index.search(rows(2), 3)] == [(2, 0), (2, 0), None]
    index.add(rows(2))
    assert index.search(rows(3), 5).ids.shape == (3, 2)
    assert index.search(rows(1), 5).ids.shape == (1, 2)
    assert index.search(rows(0), 5).ids.shape == (0, 2)


@each_backend
def test_equal_keys_come_in_the_order_of_adding(backend):
    index = index_of("euclidean", backend)
    index.add(np.ones((5, 2), "float32"), ids=list("edcba"))
    assert index.search(np.zeros((1, 2)), 5).ids.tolist() == [list("edcba")]


@each_backend
def test_a_row_of_zeros_is_a_right_angle_from_everything(backend):
    index = index_of("cosine", backend)
    index.add(np.array([[1.0, 0], [0, 0], [-1, 0]], "float32"))
    found = index.search(np.array([[2.0, 0], [0, 0]], "float32"), 3)
    assert found.ids[0].tolist() == [0, 1, 2]
    np.testing.assert_allclose(found.distances, [[0, 1, 2], [1, 1, 1]], atol=1e-6)


@each_backend
def test_where_a_graph_finds_too_few_all_keys_are_searched(backend, monkeypatch):
    index, x = index_of("euclidean", backend), rows(12)
    index.add(x)
    expected = index.search(x, 3).ids.tolist()
    if backend != "exact":
        search = index._graph.search

        def lossy(*arguments):
            found = search(*arguments)
            found[::2, 1:] = -1
            return found

        monkeypatch.setattr(index._graph, "search", lossy)
    assert index.search(x, 3).ids.tolist() == expected == nearest_by_loops(pairwise("euclidean", x, x), 3)


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_a_graph_finds_nearly_all_also_after_removals(backend):
    x, q = rows(1500, 16), rows(100, 16, seed=1)
    index = index_of("euclidean", backend)
    index.add(x)
    index.remove(range(0, 1500, 2))
    expected = 2 * np.argsort(((q[:, None] - x[None, 1::2]) ** 2).sum(axis=2), axis=1)[:, :10] + 1
    found = index.search(q, 10).ids
    assert not (found % 2 == 0).any()
    assert np.mean([len({*a} & {*b}) / 10 for a, b in zip(found.tolist(), expected.tolist(), strict=True)]) > 0.95


# Ids and labels.


@each_backend
def test_adding_in_pieces_and_removing_is_adding_the_rest_at_once(backend):
    x, q = rows(15), rows(5, seed=1)
    pieces, whole = index_of("cosine", backend), index_of("cosine", backend)
    for start in range(0, 15, 7):
        pieces.add(x[start : start + 7], labels=list(range(start, min(start + 7, 15))))
        pieces.search(q, 1)
    pieces.remove([0, 3, 14])
    left = [j for j in range(15) if j not in (0, 3, 14)]
    whole.add(x[left], labels=left, ids=left)
    assert len(pieces) == len(whole) == 12
    for found, expected in zip(pieces.search(q, 4), whole.search(q, 4), strict=True):
        assert found.tolist() == expected.tolist()
    assert pieces.add(x[:2], labels=[0, 1]).tolist() == [15, 16], "a number is not given twice"


@each_backend
def test_all_removed_and_begun_anew(backend):
    index = index_of("cosine", backend)
    index.add(rows(4), labels=[1, 2, 3, 4])
    index.remove([3, 1, 0, 2])
    assert len(index) == 0 and index.search(rows(1), 2).ids.shape == (1, 0)
    index.add(rows(3), ids=["a", "b", "c"])
    assert index.search(rows(3), 1).ids.tolist() == [["a"], ["b"], ["c"]]


@pytest.mark.parametrize("ids", [[7, -2, 2**62], ["x", "", "ü\0"], np.array([3, 1, 2], "uint8"), np.array(["a", "bb", "c"])])
def test_ids_and_labels_come_back_as_they_were(ids, tmp_path):
    index = index_of()
    expected = list(ids) if isinstance(ids, list) else ids.tolist()
    assert index.add(rows(3), labels=ids, ids=ids).tolist() == expected
    index.save(tmp_path)
    for one in (index, EmbeddingIndex.load(tmp_path)):
        found = one.search(rows(3), 1)
        assert found.ids[:, 0].tolist() == found.labels[:, 0].tolist() == expected


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_tensors_of_the_backend(dtype):
    index = index_of()
    index.add(tensor(np.array([[0.0, 1], [2, 3]]), dtype), labels=ops.convert_to_tensor([[5], [6]]), ids=ops.convert_to_tensor([8, 9]))
    found = index.search(tensor(np.array([[2.0, 2]]), dtype), 2)
    assert [x.tolist() for x in found] == [[[9, 8]], [[1, pytest.approx(5**0.5)]], [[6, 5]]]


def test_what_is_added_is_a_copy():
    index, x = index_of("euclidean"), rows(3)
    index.add(x)
    x[:] = 0
    assert index.search(rows(3), 1).distances.tolist() == [[0], [0], [0]]


# Matching.


def labelled(backend="exact"):
    """An index of two classes on a line."""
    index = index_of("euclidean", backend)
    index.add(np.array([[0.0], [1], [4], [6]], "float32"), labels=["Ana", "Ana", "Ben", "Ben"])
    return index


@each_backend
def test_match_by_hand(backend):
    found = labelled(backend).match(np.array([[0.25], [2.25], [4.5], [8]], "float32"), threshold=1.25)
    assert found.labels.tolist() == ["Ana", "Ana", "Ben", None]
    assert found.ids.tolist() == [0, 1, 2, 3] and found.distances.tolist() == [0.25, 1.25, 0.5, 2]
    assert found.known.tolist() == [True, True, True, False], "the threshold itself is accepted"


def test_a_threshold_is_not_rounded():
    index = index_of("euclidean")
    index.add(np.zeros((1, 1)), labels=[3])
    distance = float(np.float32(0.1))
    assert index.match(np.array([[0.1]]), np.nextafter(distance, 0)).labels.tolist() == [None]
    assert index.match(np.array([[0.1]]), distance).labels.tolist() == [3]
    assert index.match(np.array([[1e9]]), math.inf).labels.tolist() == [3]


def calibrated_by_loops(distances, nearest, labels, there, target, rate):
    """Of all distances as thresholds the largest that meets the target, with its rates."""
    best = None
    for threshold in sorted(distances):
        accepted = [i for i, d in enumerate(distances) if d <= threshold]
        right = [i for i in accepted if nearest[i] == labels[i]]
        known = [i for i, label in enumerate(labels) if label in there]
        strangers = [i for i in accepted if i not in known]
        rates = len(right) / len(accepted), len(right) / len(known), len(strangers) / (len(labels) - len(known))
        if rates[0] >= target if rate == "precision" else rates[2] <= target:
            best = accepted, rates
    return best


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rate, target", [("precision", 0.6), ("precision", 0.0), ("false_accept_rate", 0.25), ("false_accept_rate", 1.0)])
def test_calibrate_against_loops(rate, target, seed):
    generator = np.random.default_rng(seed)
    centers = generator.normal(size=(6, 4))
    x, labels = np.repeat(centers[:4], 5, axis=0) + 0.7 * generator.normal(size=(20, 4)), np.repeat(np.arange(4), 5)
    q, asked = np.repeat(centers, 6, axis=0) + 0.7 * generator.normal(size=(36, 4)), np.repeat(np.arange(6), 6)
    index = index_of("euclidean")
    index.add(x, labels=labels)
    table = pairwise("euclidean", q.astype("float32"), x.astype("float32"))
    nearest = [row[0] for row in nearest_by_loops(table, 1)]
    best = calibrated_by_loops(table.min(axis=1), labels[nearest], asked, {0, 1, 2, 3}, target, rate)
    if best is None:
        with pytest.raises(ValueError, match=r"target must be a precision that some threshold reaches; received 0.6, and the best is 0.5"):
            index.calibrate(q, asked, target, rate)
        return
    accepted, rates = best
    found = index.calibrate(q, asked, target, rate)
    assert found[1:] == pytest.approx(rates)
    assert index.threshold == found.threshold
    assert np.flatnonzero(index.match(q).known).tolist() == accepted, "what was calibrated is what is matched"


def test_calibrate_without_strangers_and_without_anybody_known():
    index = labelled()
    found = index.calibrate(np.array([[0.5], [7.0]]), ["Ana", "Ben"])
    assert found[:3] == (1.0, 1.0, 1.0) and math.isnan(found.false_accept_rate)
    found = index.calibrate(np.array([[0.5], [8.0]]), ["Eve", "Eve"], target=0.5, rate="false_accept_rate")
    assert found.threshold == 1.25 and found.precision == 0 and math.isnan(found.recall)


def test_equal_distances_are_accepted_together():
    """A right and a wrong label, both at distance 1: no threshold is between them."""
    index, q, labels = labelled(), np.array([[-1.0], [7.0]]), ["Ana", "Ana"]
    assert index.calibrate(q, labels, target=0.5)[:3] == (1.0, 0.5, 0.5)
    with pytest.raises(ValueError, match=r"received 0.6, and the best is 0.5"):
        index.calibrate(q, labels, target=0.6)


# With a model.


def test_what_the_model_takes():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3, 2)), keras.layers.Flatten(), tl.layers.L2Embedding(4)])
    x, q = rows(12).reshape(12, 3, 2), rows(5, seed=1).reshape(5, 3, 2)
    raw, embedded = EmbeddingIndex.from_model(model, batch_size=5), EmbeddingIndex()
    raw.add(x, labels=np.arange(12) % 3)
    embedded.add(model.predict(x, verbose=0), labels=np.arange(12) % 3)
    for found, expected in zip(raw.search(q, 3), embedded.search(model.predict(q, verbose=0), 3), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert raw.calibrate(q, [0, 1, 2, 0, 1], 0).threshold == pytest.approx(embedded.calibrate(model.predict(q, verbose=0), [0, 1, 2, 0, 1], 0).threshold)


@pytest.mark.parametrize("shape, words", [
    ((1, 12, 8, 3), "queries must have the shape (None, 8, 8, 3) that the model takes; received shape (1, 12, 8, 3)."),
    ((8, 8, 3), "received shape (8, 8, 3). A single one is x[None]."),
])  # fmt: skip
def test_images_of_another_size_are_refused(shape, words):
    """A convolutional model would answer them."""
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3), keras.layers.GlobalMaxPooling2D()])
    index = EmbeddingIndex.from_model(model)
    index.add(np.ones((2, 8, 8, 3)), labels=[0, 1])
    with pytest.raises(ValueError) as caught:
        index.match(np.ones(shape), threshold=1)
    assert words in str(caught.value)
    assert index.match(tensor(np.ones((1, 8, 8, 3)), "float32"), threshold=1).known.all()


def test_inputs_of_any_size_or_structure():
    """Only what the model says about its input is checked: here nothing of the lengths, or two arrays."""
    any_length = keras.Sequential([keras.Input((None, 2)), keras.layers.GlobalMaxPooling1D()])
    assert EmbeddingIndex.from_model(any_length).add(np.ones((4, 3, 2))).tolist() == [0, 1, 2, 3]
    pair = [keras.Input((2,)), keras.Input((3,))]
    both = keras.Model(pair, keras.layers.Concatenate()(pair))
    assert EmbeddingIndex.from_model(both).add([np.ones((4, 2)), np.ones((4, 3))]).tolist() == [0, 1, 2, 3]


# Away and back.


@each_backend
def test_saved_and_loaded(backend, tmp_path):
    x, q = rows(16), rows(5, seed=1)
    index = index_of("cosine", backend)
    index.add(x, labels=[f"class {j % 4}" for j in range(16)], ids=[f"id {j}" for j in range(16)])
    index.remove(["id 7", "id 11"])
    index.calibrate(q, ["class 0", "class 1", "class 2", "class 3", "another"], 1, "false_accept_rate")
    index.save(tmp_path / "new" / "folder")
    files = {path.name for path in (tmp_path / "new" / "folder").iterdir()}
    assert files == {"index.json", "keys.npz"} | ({f"graph.{backend}"} if backend != "exact" else set())
    loaded = EmbeddingIndex.load(tmp_path / "new" / "folder")
    for found, expected in zip([*loaded.search(q, 6), *loaded.match(q)], [*index.search(q, 6), *index.match(q)], strict=True):
        assert found.tolist() == expected.tolist()
    with pytest.raises(ValueError, match="received 'id 8' again"):
        loaded.add(x[:1], labels=["class 0"], ids=["id 8"])
    loaded.add(x[7:8], labels=["class 3"], ids=["id 7"])
    loaded.remove(["id 12"])
    assert len(loaded) == 14 and loaded.search(x[7:8], 1).ids.tolist() == [["id 7"]]


@each_backend
def test_an_empty_index_is_saved_too(backend, tmp_path):
    index = index_of("snr", backend)
    assert index.add(rows(0)).tolist() == [] and index.remove([]) is None and index.library is None
    index.threshold = np.float32(0.5)
    index.save(tmp_path)
    loaded = EmbeddingIndex.load(tmp_path)
    assert len(loaded) == 0 and loaded.distance.name == "snr" and loaded.threshold == 0.5
    assert loaded.add(rows(2)).tolist() == [0, 1]


@only("torch", "a file is the same for every backend")
@pytest.mark.every
def test_a_fresh_process_gives_the_same_answers(tmp_path):
    q, expected = rows(5, seed=1), {}
    np.save(tmp_path / "queries.npy", q)
    for backend in BACKENDS:
        index = index_of("snr", backend)
        index.add(rows(40), labels=np.arange(40) % 3)
        index.threshold = 1.5
        index.save(tmp_path / backend)
        expected[backend] = [x.tolist() for x in (*index.search(q, 4), *index.match(q))]
    program = """
import json, numpy as np, tripletloss as tl
q, found = np.load("queries.npy"), {}
for backend in ("exact", "usearch", "faiss"):
    index = tl.search.EmbeddingIndex.load(backend)
    found[backend] = [x.tolist() for x in (*index.search(q, 4), *index.match(q))]
print("FOUND", json.dumps(found))
"""
    said = run_python(["-c", program], tmp_path, PYTHONPATH=str(ROOT))
    assert json.loads(re.search(r"^FOUND (.*)$", said, re.M)[1]) == expected


def test_a_folder_that_is_no_index(tmp_path):
    with pytest.raises(ValueError, match=r"folder must be one that EmbeddingIndex.save wrote; received .*, which has no index.json"):
        EmbeddingIndex.load(tmp_path)
    index_of().save(tmp_path)
    settings = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps(settings | {"ids": [1, 2]}))
    with pytest.raises(ValueError, match="ids and embeddings must have the same length n; received 2 and 0"):
        EmbeddingIndex.load(tmp_path)
    (tmp_path / "index.json").write_text(json.dumps(settings | {"format": 2}))
    with pytest.raises(ValueError, match="folder must hold an index in format 1; received format 2"):
        EmbeddingIndex.load(tmp_path)


def test_saved_with_a_model_and_loaded_with_it(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
    index = EmbeddingIndex.from_model(model)
    index.add(rows(4, 3))
    index.save(tmp_path)
    assert EmbeddingIndex.load(tmp_path, model).search(rows(4, 3), 1).ids[:, 0].tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="width d = 4"):
        EmbeddingIndex.load(tmp_path).search(rows(4, 3), 1)


# What is refused.

X = rows(2)


@pytest.mark.parametrize("call, words", [
    (lambda index: EmbeddingIndex("cosin"), "Did you mean 'cosine'"),
    (lambda index: EmbeddingIndex(backend="faise"), "backend must be one of 'exact', 'usearch', 'faiss'; received 'faise'. Did you mean 'faiss'"),
    (lambda index: EmbeddingIndex.from_model("model"), "model must be a keras.Model; received 'model'"),
    (lambda index: index.add(X[0]), "embeddings must be floats of shape (n, d); received shape (6,)"),
    (lambda index: index.add(X > 0), "embeddings must be floats"),
    (lambda index: index.add(np.full((1, 6), np.nan)), "embeddings must be finite"),
    (lambda index: index.add(np.full((1, 6), 1e39)), "embeddings must be finite"),
    (lambda index: index.add(rows(2, 5), [1, 2]), "embeddings must have the width d = 6 of those in the index; received shape (2, 5)"),
    (lambda index: index.search(rows(2, 5), 1), "queries must have the width d = 6"),
    (lambda index: index.add(X, [1]), "labels and embeddings must have the same length n; received 1 and 2"),
    (lambda index: index.add(X, [1, 2], [5]), "ids and embeddings must have the same length n; received 1 and 2"),
    (lambda index: index.add(X, [1, 2], [5, 5]), "ids must each be given once; received 5 again"),
    (lambda index: index.add(X, [1, 2], [9, 0]), "ids must each be given once; received 0 again"),
    (lambda index: index.add(X, [1, 2], ["a", "b"]), "ids must be integers, as those in the index; received strings"),
    (lambda index: index.add(X, ["a", "b"]), "labels must be integers, as those in the index; received strings"),
    (lambda index: index.add(X), "labels must be given for all keys or for none; the index has labels, and received labels=None"),
    (lambda index: index.add(X, [1.5, 2]), "labels must be integers of 64 bits or strings, of shape (n,); received 1.5 among them"),
    (lambda index: index.add(X, np.eye(2, dtype=int)), "labels must be integers of 64 bits or strings, of shape (n,); received shape (2, 2)"),
    (lambda index: index.remove(["a"]), "ids must be in the index; received 'a'"),
    (lambda index: index.remove([0, 7]), "ids must be in the index; received 7"),
    (lambda index: index.remove(0), "ids must be integers of 64 bits or strings, of shape (n,); received shape ()"),
    (lambda index: index.search(X, 0), "k must be an integer of at least 1; received 0"),
    (lambda index: index.match(X), "threshold must be a number; received None. calibrate(embeddings, labels) finds one"),
    (lambda index: index.match(X, "0.5"), "threshold must be a number; received '0.5'"),
    (lambda index: index.match(X, math.nan), "threshold must be a number; received nan"),
    (lambda index: EmbeddingIndex().match(X, 1), "match needs keys with labels: add(embeddings, labels); the index has no keys"),
    (lambda index: index.calibrate(X, [1, 2], 1.5), "target must be a number from 0 to 1; received 1.5"),
    (lambda index: index.calibrate(X, [1, 2], rate="recall"), "rate must be one of 'precision', 'false_accept_rate'; received 'recall'"),
    (lambda index: index.calibrate(X, [0, 1], 0.1, "false_accept_rate"), "labels that the index does not have, such as classes held out"),
    (lambda index: index.calibrate(X, [1, 0]), "target must be a precision that some threshold reaches; received 0.99, and the best is 0. match(queries, math.inf) tells"),
    (lambda index: index.calibrate(X, [7, 7]), "rate='precision' needs queries with labels that the index has; received none among 2"),
    (lambda index: index.calibrate(X, [7, 7], 0.1, "false_accept_rate"), "must be a false_accept_rate that some threshold reaches; received 0.1, and"),
    (lambda index: index.calibrate(X, ["a", "b"]), "labels must be integers, as those in the index; received strings"),
    (lambda index: index.calibrate(rows(0), []), "received none among 0"),
])  # fmt: skip
def test_refused_and_nothing_changed(call, words):
    index = index_of("euclidean")
    index.add(X, labels=[0, 1])
    with pytest.raises(ValueError) as caught:
        call(index)
    assert words in str(caught.value)
    assert (len(index), index.threshold, index.search(X, 3).ids.tolist()) == (2, None, [[0, 1], [1, 0]])


def test_labels_are_missed_where_there_are_keys():
    index = index_of()
    index.add(X)
    with pytest.raises(ValueError, match=r"calibrate needs keys with labels.*the index has keys without labels"):
        index.calibrate(X, [0, 1])
    with pytest.raises(ValueError, match="the index has no labels, and received some"):
        index.add(X, [0, 1])


@pytest.mark.parametrize("backend, module", [("usearch", "usearch.index"), ("faiss", "faiss")])
def test_a_missing_library_is_named_with_its_extra(backend, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"backend='{backend}' needs another package: pip install 'tripletloss\[{backend}\]'"):
        EmbeddingIndex(backend=backend)


def test_names_of_the_module():
    assert tl.search is search_module
    assert set(search_module.__all__) == {"Calibration", "EmbeddingIndex", "Matches", "SearchResult"}
