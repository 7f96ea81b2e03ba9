"""Triplets of a whole data set against plain loops: ranks, margins, lots, candidates, tiles, and who is left out."""

import warnings

import numpy as np
import pytest
from keras import ops
from on_backend import one_in, tensor
from reference import DISTANCES, dataset_triplets, pairwise

import tripletloss as tl
from tripletloss import mining
from tripletloss.distances import Distance
from tripletloss.mining import mine_dataset

N = 24
X = np.random.default_rng(0).normal(size=(N, 4)).astype("float32")
Y = np.array([7, 7, 7, 7, 7, 7, 7, 7, -1, -1, -1, -1, -1, 2**30, 2**30, 2**30, 5, 5, 5, 4, 4, 3, 2, 1])  # down to single ones
RULES = {
    "nearest": {},
    "ranks": {"range_min": 2, "range_max": 6},
    "absolute": {"absolute_margin": 0.05},
    "relative": {"relative_margin": 0.1},
    "all": {"range_min": 1, "range_max": 15, "absolute_margin": 0.02, "relative_margin": 0.05},
}


@pytest.fixture(params=["one tile", "tiles"])
def tiles(request, monkeypatch, block_size):
    """The whole table at once; or some queries and ten keys."""
    if request.param == "tiles":
        monkeypatch.setattr(mining, "TILE_KEYS", 10)
        block_size(400)


def quietly(*arguments, **settings):
    """Each triplet as three numbers."""
    with warnings.catch_warnings(action="ignore"):
        mined = mine_dataset(*arguments, **{"positive_mining_strategy": "hard"} | settings)
    assert all(column.dtype == "int64" for column in mined)
    return list(zip(*(column.tolist() for column in mined), strict=True))


@pytest.mark.parametrize("distance, rule, strategy", one_in(7, DISTANCES, RULES, ["hard", "easy"]))
def test_equals_the_loops(distance, rule, strategy, tiles):
    settings = RULES[rule] | {"positive_mining_strategy": strategy}
    expected = dataset_triplets(Y, pairwise(distance, X, X), 3, name=distance, **settings)
    assert quietly(X, Y, 3, distance=distance, **settings) == expected


def test_ties_go_to_the_lowest_index(tiles):
    """A grid of whole numbers, in float32 as exact as in the loop."""
    x, y = np.indices((5, 4)).reshape(2, -1).T.astype("float32"), np.arange(20) % 3
    for strategy in ("hard", "easy"):
        found = quietly(x, y, 2, distance="squared_euclidean", positive_mining_strategy=strategy, range_max=20, absolute_margin=0)
        expected = dataset_triplets(y, pairwise("squared_euclidean", x, x), 2, absolute_margin=0, positive_mining_strategy=strategy)
        assert found == expected


def test_by_lot():
    """What may be drawn comes up about equally often, nothing else does, and a seed fixes it all."""
    rule = {"range_min": 1, "range_max": 6, "absolute_margin": 0.01, "positive_mining_strategy": "easy"}
    settings, seeds = {"sampling": "random", "distance": "euclidean"} | rule, range(15)
    allowed = dataset_triplets(Y, pairwise("euclidean", X, X), N, name="euclidean", **rule)
    times = dict.fromkeys(allowed, 0)
    for triplet in (triplet for seed in seeds for triplet in quietly(X, Y, 2, **settings, seed=seed)):
        times[triplet] += 1  # a KeyError for what is not allowed
    choice = {i: sum(a == i for a, *_ in allowed) for i, *_ in allowed}
    assert sum(times.values()) == len(seeds) * sum(min(2, n) for n in choice.values())
    assert np.mean([times[t] > 0 for t in allowed]) > 0.95
    assert quietly(X, Y, 2, **settings, seed=3) == quietly(X, Y, 2, **settings, seed=3) != quietly(X, Y, 2, **settings, seed=4)


def test_blocks_change_no_lot(block_size, monkeypatch):
    settings = {"sampling": "random", "positive_mining_strategy": "random", "seed": 5}
    whole = quietly(X, Y, 3, **settings)
    monkeypatch.setattr(mining, "TILE_KEYS", 10)
    block_size(1000)
    assert quietly(X, Y, 3, **settings) == whole


def test_random_positives_are_of_the_class_and_not_the_anchor():
    seen = {(i, p) for seed in range(20) for i, p, _ in quietly(X, Y, positive_mining_strategy="random", seed=seed)}
    expected = {(i, p) for i in range(N) for p in range(N) if Y[i] == Y[p] and i != p}
    assert seen <= expected and len(seen) > 0.8 * len(expected)


class Weighted(Distance):
    """One without rows for products; it keeps count of how large its tables are."""

    def __init__(self):
        super().__init__()
        self.tables = []

    def call(self, query, key):
        if query.shape[0] not in (None, 1):
            self.tables.append(query.shape[0] * key.shape[0])
        return ops.sum(ops.abs(query[:, None] - key[None]) * ops.arange(1.0, 5.0), axis=-1)


def test_a_distance_of_ones_own_and_no_table_larger_than_a_block(block_size):
    block_size(60)
    distance, weighted, labels = Weighted(), X[:12] * np.arange(1, 5, dtype="float32"), Y[3:15]
    expected = dataset_triplets(labels, pairwise("manhattan", weighted, weighted), 2, relative_margin=0.1, range_max=3)
    assert quietly(X[:12], labels, 2, distance=distance, relative_margin=0.1, range_max=3) == expected
    assert max(distance.tables, default=0) <= 60


@pytest.mark.parametrize("rule", ["nearest", "ranks", "all"])
def test_candidates_of_an_index(rule, tiles):
    """In any order, with the row itself, its class and gaps among them; ranks are those among what was handed over."""
    rng, table = np.random.default_rng(1), pairwise("euclidean", X, X)
    keys = np.argsort(rng.random((N, N)), axis=1)
    settings = {"distance": "euclidean"} | RULES[rule]
    assert quietly(X, Y, 2, candidates=keys, **settings) == quietly(X, Y, 2, **settings)
    keys = np.where(rng.random((N, N)) < 0.4, -1, keys)[:, :15]
    handed = [[j in keys[i] for j in range(N)] for i in range(N)]
    expected = dataset_triplets(Y, table, 2, name="euclidean", among=handed, **RULES[rule])
    assert quietly(X, Y, 2, candidates=keys.tolist(), **settings) == expected
    assert quietly(X, Y, 2, candidates=ops.convert_to_tensor(keys.astype("int32")), **settings) == expected


def test_margins_of_tight_classes_are_exact():
    """The distances of a table have lost what these are about: classes with a spread of 1e-4, at 1e-3 from each other."""
    rng = np.random.default_rng(0)
    center = rng.normal(size=16)
    x = (center + 1e-3 * rng.normal(size=(8, 16)).repeat(4, axis=0) + 1e-4 * rng.normal(size=(32, 16))).astype("float32")
    y, settings = np.arange(32) // 4, {"relative_margin": 5, "range_max": 32}
    expected = dataset_triplets(y, pairwise("euclidean", x, x), 3, name="euclidean", **settings)
    assert quietly(x, y, 3, distance="euclidean", **settings) == expected


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_tensors_of_the_backend_and_columns_of_labels(dtype):
    x = tensor(np.array([[1.0, 0], [1, 0.5], [0, 1], [0.25, 1]]), dtype)
    assert quietly(x, ops.convert_to_tensor([[0], [0], [1], [1]])) == [(0, 1, 3), (1, 0, 3), (2, 3, 1), (3, 2, 1)]


def test_labels_are_compared_exactly():
    x = np.array([[0.0], [1], [3], [4]], "float32")
    assert {i for i, *_ in quietly(x, 2**60 + np.array([0, 0, 1, 2]), distance="euclidean")} == {0, 1}


def test_the_warning_says_who_is_left_out():
    x, y = np.array([[0.0], [1], [3], [4], [20]], "float32"), np.array([0, 0, 1, 1, 2])
    with pytest.warns(UserWarning) as caught:
        mined = mine_dataset(x, y, 2, distance="euclidean", absolute_margin=1.5, range_max=2)
    # Ranks 0 and 1 of anchor 0: 3 and 4, both far enough; of 1: 2 and 3, of which 3; of 2: 2 and 3, of which 3; of 3: 3 and 4.
    assert list(zip(*(c.tolist() for c in mined), strict=True)) == [(0, 1, 2), (0, 1, 3), (1, 0, 3), (2, 3, 0), (3, 2, 1), (3, 2, 0)]
    (words,) = (str(warning.message) for warning in caught if warning.category is UserWarning)
    assert "1 of 5 anchors" in words and "1 without a positive" in words and "0 without a negative" in words
    assert "2 others have fewer than negatives_per_anchor=2" in words
    with pytest.warns(UserWarning, match="5 of 5 anchors .* 4 without a negative"):
        assert not len(mine_dataset(x, y, absolute_margin=50, distance="euclidean").anchor)


def test_no_warning_where_nobody_is():
    with warnings.catch_warnings(action="error", category=UserWarning):
        mine_dataset(X[:8], Y[8:16] // 2**30, distance="euclidean")


def test_fewer_keys_than_are_asked_for():
    table = pairwise("euclidean", X[:4], X[:4])
    for candidates in (None, [[0, 1], [2, 3], [0, 1], [0, 1]]):
        among = candidates and [[j in row for j in range(4)] for row in candidates]
        expected = dataset_triplets([0, 0, 1, 1], table, 9, name="euclidean", among=among)
        assert quietly(X[:4], [0, 0, 1, 1], 9, distance="euclidean", candidates=candidates) == expected


@pytest.mark.parametrize("few", [0, 1, 2])
def test_no_rows_one_row_one_class(few):
    assert quietly(X[:few], Y[:few]) == []


def test_triplets_go_into_the_loss_of_triplets():
    mined = mine_dataset(X, np.arange(N) % 4, 2, distance="euclidean")
    losses = tl.triplet_margin_loss(*(X[column] for column in mined), distance="euclidean", margin=0.5)
    table = pairwise("euclidean", X, X)
    expected = [max(0, table[i][p] - table[i][n] + 0.5) for i, p, n in zip(*mined, strict=True)]
    np.testing.assert_allclose(ops.convert_to_numpy(losses), expected, atol=1e-5)


def test_the_bar_comes_to_its_end(capsys):
    mine_dataset(X, np.arange(N) % 4, progress=True)
    assert f"{N}/{N}" in capsys.readouterr().out
