"""Same by another rule: `relation=` against loops over tables of positives and negatives, which are made pair by pair."""

import functools
import json
import math

import keras
import numpy as np
import pytest
from keras import ops
from on_backend import (
    BACKEND,
    WAYS,
    array,
    compiled_values_and_grad,
    grad,
    numbers_in_a_block,
    one_in,
    only,
    raw_values_and_grad,
    strategies,
    values_and_grad,
)
from reference import (
    STRATEGIES,
    WITH_ALL,
    distance_gradients,
    factors,
    farthest,
    loss_of_triplet,
    nearest,
    pairwise,
    slope_of_triplet,
)

import tripletloss as tl
from tripletloss.metrics import RetrievalCallback, TripletMetrics, retrieval_metrics
from tripletloss.samplers import PKBatches

N, M = 12, 9


@keras.saving.register_keras_serializable(package="own")
def within_two(query_labels, key_labels):
    """Positive within 1, negative beyond 2, neither between; a query never means itself by it."""
    apart = ops.abs(query_labels[:, None] - key_labels)
    return (apart <= 1) & (apart > 0), apart > 2


@keras.saving.register_keras_serializable(package="own")
class Within:
    """The same for any distance: an object that can be called."""

    def __init__(self, most):
        self.most = most

    def __call__(self, query_labels, key_labels):
        apart = ops.abs(query_labels[:, None] - key_labels)
        return apart <= self.most, apart > self.most

    def get_config(self):
        return {"most": self.most}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def related(relation, a, b, level=None):
    """What b is to a: 1 a positive, -1 a negative, 0 neither."""
    if relation == "any":
        return 1 if set(np.flatnonzero(a)) & set(np.flatnonzero(b)) else -1
    if relation == "all":
        return 1 if set(np.flatnonzero(a)) == set(np.flatnonzero(b)) else -1
    if relation == "levels":
        return 1 if tuple(a[: level + 1]) == tuple(b[: level + 1]) else -1
    apart = abs(float(a) - float(b))
    return 1 if 0 < apart <= 1 else -1 if apart > 2 else 0


RELATIONS = {"any": "any", "all": "all", "levels": "levels", "function": within_two}


# More columns than bits in an integer: the first two differ in the last column alone, the third is no label at all.
SETS = np.array([[1] * 35, [1] * 34 + [0], [0] * 35, [0, 1] * 17 + [1]], "int32")


def labels_of(name, n, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "any": lambda: (rng.random((n, 4)) < 0.3).astype("int32"),  # some rows have no label
        "all": lambda: SETS[rng.integers(0, len(SETS), n)],
        "levels": lambda: rng.integers(0, 3, (n, 2)).astype("int32"),
        "function": lambda: rng.integers(0, 6, n).astype("int32"),
    }[name]()


def levels_of(name, labels):
    return range(labels.shape[1]) if name == "levels" else (None,)


def triplets_of(name, level, labels, table, key_labels=None, positive="hard", negative="semi-hard"):
    """For each query all its pairs of positive and negative, as key indices."""
    triplets, keys = [], labels if key_labels is None else key_labels
    for i, d in enumerate(table):
        to = [
            0 if key_labels is None and i == j else related(RELATIONS[name], labels[i], key, level)
            for j, key in enumerate(keys)
        ]
        same, other = ([j for j, kind in enumerate(to) if kind == wanted] for wanted in (1, -1))
        pairs = []
        if same and other:
            for p in same if positive == "all" else [{"hard": farthest, "easy": nearest}[positive](d, same)]:
                threshold = d[p] if positive == "all" else d[farthest(d, same)]
                beyond = [j for j in other if d[j] > threshold]
                semi_hard = [nearest(d, beyond) if beyond else farthest(d, other)]
                mined = {
                    "hard": [nearest(d, other)],
                    "easy": [farthest(d, other)],
                    "semi-hard": semi_hard,
                    "all": other,
                }
                pairs += [(p, n) for n in mined[negative]]
        triplets.append(pairs)
    return triplets


def by_loops(
    name,
    labels,
    table,
    key_labels=None,
    soft_margin=False,
    margin=1.0,
    average="anchors",
    positive="hard",
    negative="semi-hard",
):
    """Losses (n,), which of them are valid, and their sum's derivative by each distance (n, m): level after level."""
    values, slopes, of_levels = np.zeros(len(table)), np.zeros_like(table), []
    for level in levels_of(name, labels):
        of_levels.append(triplets_of(name, level, labels, table, key_labels, positive, negative))
    valid = np.array([any(map(bool, of_query)) for of_query in zip(*of_levels, strict=True)])
    margins = margin if isinstance(margin, list) else [margin] * len(of_levels)
    for triplets, alpha in zip(of_levels, margins, strict=True):
        losses = [
            [loss_of_triplet(table[i][p], table[i][n], soft_margin, alpha) for p, n in pairs]
            for i, pairs in enumerate(triplets)
        ]
        factor = factors(losses, average)
        if average != "anchors":  # the mean is over what is valid at any level
            factor = factor * valid.sum() / max(sum(map(bool, losses)), 1)
        values += factor * [sum(of_query) for of_query in losses]
        for i, pairs in enumerate(triplets):
            for p, n in pairs:
                slope = factor[i] * slope_of_triplet(table[i][p], table[i][n], soft_margin, alpha)
                slopes[i, p] += slope
                slopes[i, n] -= slope
    return values, valid, slopes


@functools.cache
def rows(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 3))


@functools.cache
def known(distance, with_keys):
    x, keys = rows(N), rows(M, 1) if with_keys else rows(N)
    return pairwise(distance, x, keys), distance_gradients(distance, x, keys)


MARGINS = {"hinge": {}, "soft": {"soft_margin": True}}
AVERAGES = ("anchors", "triplets", "active")
FEW = 13 if BACKEND != "jax" else 29  # where every operation is compiled for each new shape


@pytest.mark.parametrize(
    "name, pair, way, margin, average", one_in(FEW, RELATIONS, STRATEGIES, WAYS, MARGINS, AVERAGES), ids=str
)
def test_equals_the_loops(name, pair, way, margin, average, block_size, float64):
    block_size(numbers_in_a_block(way, N))
    labels, x = labels_of(name, N), rows(N)
    settings = {**MARGINS[margin], "average": average}
    if name == "levels" and margin == "hinge":
        settings["margin"] = [1.5, 0.5]
    loss = tl.TripletLoss("euclidean", *pair, relation=RELATIONS[name], **settings, dtype="float64", reduction="none")
    values, gradient = values_and_grad(lambda x: loss(labels, x), x)
    table, (by_query, by_key) = known("euclidean", False)
    expected, valid, slopes = by_loops(name, labels, table, positive=pair[0], negative=pair[1], **settings)
    assert valid.any()
    np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(
        gradient, np.einsum("nm,nmd->nd", slopes, by_query) + np.einsum("nm,nmd->md", slopes, by_key), atol=1e-6
    )


@pytest.mark.parametrize("name, pair, way", one_in(FEW, RELATIONS, STRATEGIES, WAYS), ids=str)
def test_other_keys(name, pair, way, block_size, float64):
    block_size(numbers_in_a_block(way, M))
    labels, key_labels = labels_of(name, N), labels_of(name, M, 1)
    both, settings = np.concatenate([rows(N), rows(M, 1)]), {"relation": RELATIONS[name], **strategies(*pair)}
    values, gradient = values_and_grad(
        lambda x: tl.triplet_loss(labels, x[:N], key_labels, x[N:], "squared_euclidean", **settings), both
    )
    table, (by_query, by_key) = known("squared_euclidean", True)
    expected, _, slopes = by_loops(name, labels, table, key_labels, positive=pair[0], negative=pair[1])
    np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-11)
    wanted = np.concatenate([np.einsum("nm,nmd->nd", slopes, by_query), np.einsum("nm,nmd->md", slopes, by_key)])
    np.testing.assert_allclose(gradient, wanted, atol=1e-6)


@pytest.mark.parametrize(
    "name, way, distance",
    one_in(3, RELATIONS, WAYS, ["euclidean", "manhattan", "snr", "inner_product", "cosine"]),
    ids=str,
)
def test_mined_triplets(name, way, distance, block_size):
    """In 32 bits; also that the query itself is neither, whatever the function says of it."""
    block_size(numbers_in_a_block(way, N))
    labels, x = labels_of(name, N), rows(N).astype("float32")
    relation = RELATIONS[name]
    mined = tl.mine_triplets(labels, x, distance=distance, relation=relation)
    positive, negative, valid = (np.reshape(array(each), (N, -1)) for each in mined)
    assert positive.shape == (N, len(levels_of(name, labels)))
    table = pairwise(distance, x, x)
    for column, level in enumerate(levels_of(name, labels)):
        triplets = triplets_of(name, level, labels, table)
        np.testing.assert_array_equal(valid[:, column], [bool(pairs) for pairs in triplets])
        found = [
            [(p, n)] if ok else []
            for p, n, ok in zip(positive[:, column], negative[:, column], valid[:, column], strict=True)
        ]
        assert found == triplets


REDUCTIONS = {
    "sum": lambda losses, valid: losses.sum(),
    "sum_over_batch_size": lambda losses, valid: losses.sum() / valid.sum(),
    "mean_with_sample_weight": lambda losses, valid: losses.sum() / valid.sum(),
}


@pytest.mark.parametrize("name", RELATIONS)
def test_reductions_and_what_the_metric_sees(name):
    labels, x = labels_of(name, N), rows(N).astype("float32")
    table, _ = known("euclidean", False)
    expected, valid, _ = by_loops(name, labels, table)
    for reduction, reduced in REDUCTIONS.items():
        loss = tl.TripletLoss("euclidean", relation=RELATIONS[name], reduction=reduction)
        assert float(loss(labels, x)) == pytest.approx(reduced(expected, valid), rel=1e-5)
    metric = TripletMetrics(loss)
    metric.update_state(labels, x)
    found = {key: float(value) for key, value in metric.result().items()}
    pairs = [
        (i, p)
        for level in levels_of(name, labels)
        for i, pairs in enumerate(triplets_of(name, level, labels, table))
        for p, _ in pairs
    ]
    assert found["valid_share"] == pytest.approx(valid.mean())
    assert found["positive_distance"] == pytest.approx(np.mean([table[pair] for pair in pairs]), rel=1e-5)


CLASSES = np.random.default_rng(2).integers(0, 4, N)
EQUALITIES = {
    "a function": (CLASSES, Within(0)),
    "a function of floats": (CLASSES[:, None] / 1, Within(0.5)),
    "sets of one": (np.eye(4, dtype="int32")[CLASSES], "any"),
    "equal sets of one": (np.eye(4)[CLASSES] == 1, "all"),
    "one level": (CLASSES[:, None], "levels"),
}


@pytest.mark.parametrize("name", EQUALITIES)
@pytest.mark.parametrize("strategy", ["all", "hard"])
def test_equality_in_other_words(name, strategy, block_size):
    """What says the same as the default gives the same."""
    block_size(7 * N)
    labels, relation = EQUALITIES[name]
    x, settings = rows(N).astype("float32"), {"distance": "euclidean", **strategies(strategy, "semi-hard")}
    expected = array(tl.triplet_loss(CLASSES, x, **settings))
    found = array(tl.triplet_loss(labels, x, relation=relation, **settings))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pair", [("all", "semi-hard"), ("hard", "semi-hard"), ("all", "all")], ids=str)
def test_tight_spots_keep_their_digits(pair, block_size):
    """Spots of a spread of a ten-thousandth, far apart, of rows that share a label and of rows that do not."""
    block_size(7 * N)
    rng = np.random.default_rng(4)
    x = (np.repeat(rng.normal(size=(3, 3)), 4, axis=0) + 1e-4 * rng.normal(size=(N, 3))).astype("float32")
    labels = (rng.random((N, 4)) < 0.4).astype("int32")
    gradient = grad(
        lambda x: ops.sum(tl.triplet_loss(labels, x, distance="euclidean", relation="any", **strategies(*pair))), x
    )
    wide = x.astype("float64")
    table = np.linalg.norm(wide[:, None] - wide, axis=2)
    _, _, slopes = by_loops("any", labels, table, positive=pair[0], negative=pair[1])
    towards = (wide[:, None] - wide) / np.where(table, table, 1)[:, :, None]
    expected = np.einsum("nm,nmd->nd", slopes, towards) - np.einsum("nm,nmd->md", slopes, towards)
    np.testing.assert_allclose(gradient, expected, atol=3e-3 * np.abs(expected).max())


@pytest.mark.parametrize("dtype", ["uint8", "uint32", "int64"])
def test_paths_of_labels_of_any_type(dtype):
    """Equal paths are equal in every type of integer, and only they."""
    labels = labels_of("levels", N).astype(dtype)
    mined = tl.mine_triplets(labels, rows(N).astype("float32"), distance="euclidean", relation="levels")
    table = known("euclidean", False)[0]
    for level in range(2):
        chosen = zip(*(array(column)[:, level] for column in mined), strict=True)
        of_loops = triplets_of("levels", level, labels, table)
        assert [[(p, n)] if valid else [] for p, n, valid in chosen] == of_loops


def test_a_key_is_not_both_and_a_query_is_neither():
    """0, 1 and 3, the first two of one class, and a relation that calls every key a negative, the query itself too."""
    x = np.array([[0.0], [1.0], [3.0]], "float32")
    mined = tl.mine_triplets([0, 0, 1], x, distance="euclidean", negative_mining_strategy="hard", relation=all_are_negatives)
    assert array(mined.positive)[:2].tolist() == [1, 0]
    assert array(mined.negative)[:2].tolist() == [2, 2]
    assert array(mined.valid).tolist() == [True, True, False]


def all_are_negatives(labels, keys):
    same = labels[:, None] == keys
    return same, same | True


@pytest.mark.parametrize("positive, negative", WITH_ALL)
def test_without_a_negative_there_is_no_triplet(positive, negative):
    """All share a label."""
    x = np.array([[0.0], [1.0], [3.0]], "float32")
    losses = tl.triplet_loss([[1], [1], [1]], x, distance="euclidean", relation="any", **strategies(positive, negative))
    assert array(losses).tolist() == [0, 0, 0]


def test_a_level_counts_those_above_it():
    """Classes that agree in the finer label alone have nothing in common: here two, which sorted stand side by side."""
    mined = tl.mine_triplets([[0, 5], [1, 5], [1, 5], [0, 5]], np.arange(4.0)[:, None], distance="euclidean", relation="levels")
    assert array(mined.valid)[:, 1].tolist() == [True] * 4
    assert array(mined.positive)[:, 1].tolist() == [3, 2, 1, 0]


SLOWLY = [pytest.mark.every] if BACKEND == "torch" else []  # its compiler takes half a minute for each


@pytest.mark.jit
@pytest.mark.parametrize(
    "name, pair",
    [
        pytest.param("any", ("all", "semi-hard"), marks=SLOWLY),
        pytest.param("function", ("hard", "semi-hard"), marks=[*SLOWLY, pytest.mark.every]),
    ],
    ids=str,
)
def test_compiled(name, pair, block_size):
    block_size(7 * N)
    labels, x = labels_of(name, N), rows(N).astype("float32")
    loss = tl.TripletLoss("euclidean", *pair, relation=RELATIONS[name], average="active", reduction="none")
    fixed = ops.convert_to_tensor(labels)
    values, gradient = compiled_values_and_grad(lambda x: loss(fixed, x), x)
    table, (by_query, by_key) = known("euclidean", False)
    expected, _, slopes = by_loops(name, labels, table, positive=pair[0], negative=pair[1], average="active")
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        gradient, np.einsum("nm,nmd->nd", slopes, by_query) + np.einsum("nm,nmd->md", slopes, by_key), atol=1e-4
    )


@only("tensorflow", "traces a function without knowing the batch size")
@pytest.mark.parametrize(
    "name, pair",
    [
        ("any", ("hard", "hard")),
        ("all", ("all", "all")),
        ("levels", ("hard", "hard")),
        ("function", ("all", "all")),
    ],
    ids=str,
)
def test_unknown_batch_size(name, pair, block_size):
    import tensorflow as tf

    block_size(7 * N)
    labels, x = labels_of(name, N), rows(N).astype("float32")
    loss = tl.TripletLoss("euclidean", *pair, relation=RELATIONS[name], reduction="none")

    @tf.function(input_signature=[tf.TensorSpec((None, *labels.shape[1:]), tf.int32), tf.TensorSpec((None, 3))])
    def both(labels, x):
        return raw_values_and_grad(lambda x: loss(labels, x), x)

    for n in (0, 5, N):
        values, gradient = both(labels[:n], x[:n])
        expected, *_ = by_loops(
            name, labels[:n], known("euclidean", False)[0][:n, :n], positive=pair[0], negative=pair[1]
        )
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
        assert gradient.shape == (n, 3)


class Watched(tl.distances.Euclidean):
    """A distance that writes down of how many queries and keys tables are asked for."""

    def __init__(self):
        super().__init__()
        self.tables = set()

    def table(self, query, key, around=None):
        self.tables.add((query.shape[0], key.shape[0]))
        return super().table(query, key, around)


@pytest.mark.parametrize("pair", [("hard", "semi-hard"), ("all", "semi-hard"), ("all", "all")], ids=str)
def test_no_table_is_larger_than_a_block(pair, block_size):
    """Nor are the masks: the function is asked for as many rows at once."""
    block_size(7 * N)
    asked, distance = set(), Watched()

    def relation(query_labels, key_labels):
        asked.add((query_labels.shape[0], key_labels.shape[0]))
        return within_two(query_labels, key_labels)

    loss = tl.TripletLoss(distance, *pair, relation=relation)
    assert grad(lambda x: loss(labels_of("function", N), x), rows(N).astype("float32")).any()
    assert {*distance.tables, *asked} == {(7, N)}


# Retrieval


def loop_measures(name, level, labels, table, k):
    """Recall, precision, R-precision and MAP@R of each query that has a positive, each of the others asking in turn."""
    found = []
    for i, d in enumerate(table):
        to = [related(RELATIONS[name], labels[i], key, level) for key in labels]
        in_turn = [to[j] > 0 for j in np.argsort(d) if j != i and to[j]]
        r = sum(in_turn)
        if r:
            precise = sum(sum(in_turn[: place + 1]) / (place + 1) for place in range(r) if in_turn[place])
            found.append((any(in_turn[:k]), sum(in_turn[:k]) / k, sum(in_turn[:r]) / r, precise / r))
    return np.mean(found, axis=0), len(table) - len(found)


@pytest.mark.parametrize("name", RELATIONS)
@pytest.mark.parametrize("numbers", [None, 30])
def test_retrieval(name, numbers, block_size):
    block_size(numbers)
    labels, x = labels_of(name, N), rows(N)
    found = retrieval_metrics(x, labels, k=3, distance="euclidean", relation=RELATIONS[name])
    again = retrieval_metrics(x, labels, 3, x[:4], labels[:4], "euclidean", relation=RELATIONS[name])
    for level in levels_of(name, labels):
        end = "" if level is None else f"_level_{level}"
        means, without = loop_measures(name, level, labels, known("euclidean", False)[0], 3)
        names = [measure + end for measure in ("recall_at_3", "precision_at_3", "r_precision", "map_at_r")]
        np.testing.assert_allclose([found[measure] for measure in names], means, rtol=1e-9)
        assert found["queries_without_match" + end] == without
        assert 0 <= again["recall_at_3" + end] <= 1


def test_retrieval_of_nothing():
    found = retrieval_metrics(np.zeros((0, 2)), np.zeros((0, 3), int), k=1, relation="any")
    assert math.isnan(found["recall_at_1"]) and found["queries_without_match"] == 0


# Batches


def test_batches_of_several_labels():
    labels = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1], [1, 0, 1]])
    batches = PKBatches(np.arange(6.0), labels, 2, 2, relation="any", seed=0)
    assert len(batches) == 2  # eight pairs of a row and a label
    for x, y in batches:
        np.testing.assert_array_equal(y, labels[x.astype(int)])
        assert all((y[place] & y[place + 1]).any() for place in (0, 2))  # of one class, next to each other


@pytest.mark.parametrize("relation", ["all", "levels"])
def test_batches_of_sets_and_paths(relation):
    labels = np.repeat([[0, 1], [1, 1], [1, 0]], 3, axis=0)
    x, y = PKBatches(np.arange(9.0), labels, 2, 3, relation=relation, seed=0)[0]
    np.testing.assert_array_equal(y, labels[x.astype(int)])
    assert [len(np.unique(part, axis=0)) for part in (y[:3], y[3:], y)] == [1, 1, 2]


# The contract with Keras


@pytest.mark.jit
@pytest.mark.parametrize("name", one_in(1 if BACKEND == "torch" else 3, RELATIONS))
def test_fit_save_and_load(name, tmp_path):
    labels, x = labels_of(name, N), rows(N).astype("float32")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    loss = tl.TripletLoss("euclidean", relation=RELATIONS[name], margin=[2.0, 1.0] if name == "levels" else 1.0)
    model.compile(keras.optimizers.SGD(0.05), loss, metrics=[TripletMetrics(loss)])
    watch = RetrievalCallback(x, labels, distance="euclidean", relation=RELATIONS[name])
    table = pairwise("euclidean", *(model.predict(x, verbose=0),) * 2)
    losses, valid, _ = by_loops(name, labels, table, margin=[2.0, 1.0] if name == "levels" else 1.0)
    history = model.fit(x, labels, batch_size=N, epochs=2, callbacks=[watch], verbose=0).history
    assert history["loss"][0] == pytest.approx(losses.sum() / valid.sum(), rel=1e-4) != history["loss"][1]
    assert "val_recall_at_1" + ("_level_1" if name == "levels" else "") in history and not any(
        "queries" in key for key in history
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.loss.get_config() == loss.get_config()
    assert loaded.evaluate(x, labels, batch_size=N, verbose=0)[0] == pytest.approx(
        model.evaluate(x, labels, batch_size=N, verbose=0)[0]
    )


def test_configurations():
    for relation, margin in (
        ("any", 1.0),
        ("levels", (1.0, 0.5)),
        ("levels", 0.5),
        (within_two, 1.0),
        (Within(3), 1.0),
    ):
        config = tl.TripletLoss(relation=relation, margin=margin).get_config()
        again = tl.TripletLoss.from_config(json.loads(json.dumps(config)))
        assert again.get_config() == config and again.margin == margin
        assert type(again.relation) is type(relation) and getattr(again.relation, "most", 3) == 3
    assert tl.TripletLoss().relation == "equal"


X, MULTI_HOT = rows(4).astype("float32"), np.array([[1, 0], [0, 1], [1, 1], [0, 0]])
REFUSED = {
    "multi-hot without the relation": (
        "equal",
        MULTI_HOT,
        {},
        ["must be integers of shape (n,) or (n, 1)", "relation="],
    ),
    "no such relation": (
        "some",
        MULTI_HOT,
        {},
        ["relation must be one of 'equal', 'any', 'all', 'levels'; received 'some'"],
    ),
    "None": (None, MULTI_HOT, {}, ["relation must be one of", "None"]),
    "classes for sets": (
        "any",
        np.arange(4),
        {},
        ["integers 0 and 1, or booleans, of shape (n, c)", "relation='any'", "(4,)"],
    ),
    "paths for sets": ("all", MULTI_HOT + 1, {}, ["integers 0 and 1", "relation='all'", "received 2 among them"]),
    "floats for sets": ("any", MULTI_HOT / 1, {}, ["relation='any'", "float"]),
    "floats for paths": ("levels", MULTI_HOT / 1, {}, ["integers of shape (n, levels)", "relation='levels'", "float"]),
    "booleans for paths": ("levels", MULTI_HOT == 1, {}, ["relation='levels'", "bool"]),
    "no label": (within_two, np.array(3), {}, ["an array with a row for each example", "()"]),
    "another length": ("any", MULTI_HOT[:3], {}, ["same length", "(3, 2)", "(4, 3)"]),
    "floats": (
        lambda q, k: (1.0 * ops.cast(q[:, None] == k, "float32"),) * 2,
        np.arange(4),
        {},
        ["relation must return two tables of booleans", "float32"],
    ),
    "nothing": (lambda q, k: None, np.arange(4), {}, ["what relation returns must be two tables of booleans", "None"]),
    "one table": (
        lambda q, k: q[:, None] == k,
        np.arange(4),
        {},
        ["relation must return two tables", "received bool of shape (4, 4)."],
    ),
    "another shape": (
        lambda q, k: (ops.equal(q, q),) * 2,
        np.arange(4),
        {},
        ["relation must return", "of shape (4, 4)", "received bool of shape (4,)"],
    ),
    "margins without levels": (
        "any",
        MULTI_HOT,
        {"margin": [1.0, 2.0]},
        ["margin must be one number >= 0", "relation='levels'", "[1.0, 2.0]"],
    ),
    "margins for other levels": (
        "levels",
        MULTI_HOT,
        {"margin": [1.0, 0.5, 0.2]},
        ["margin", "each of the 2 levels", "(1.0, 0.5, 0.2)"],
    ),
    "soft margins": ("levels", MULTI_HOT, {"margin": [1.0, 0.5], "soft_margin": True}, ["margin must stay at 1.0"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case):
    relation, labels, settings, words = REFUSED[case]
    calls = [
        lambda: tl.triplet_loss(labels, X, relation=relation, **settings),
        lambda: tl.TripletLoss(relation=relation, **settings)(labels, X),
    ]
    if not settings:
        calls.append(lambda: tl.mine_triplets(labels, X, relation=relation))
    for call in calls:
        with pytest.raises(ValueError) as caught:
            call()
        assert not [word for word in words if word not in str(caught.value)], caught.value


def test_refuses_elsewhere():
    for call, message in (
        (
            lambda: tl.triplet_loss(MULTI_HOT, X, MULTI_HOT[:, :1], X, relation="any"),
            "must have the same columns with relation='any'",
        ),
        (lambda: tl.triplet_loss(np.arange(4), X, np.arange(4) / 2, X, relation=within_two), "must have one dtype"),
        (lambda: retrieval_metrics(X, np.arange(4), relation="any"), "labels must be integers 0 and 1"),
        (lambda: retrieval_metrics(X, MULTI_HOT, relation="some"), "relation must be one of"),
        (lambda: PKBatches(X, MULTI_HOT, 2, 2, relation=within_two), "relation must be a name here"),
        (lambda: PKBatches(X, MULTI_HOT, 2, 2, relation="some"), "relation must be one of"),
        (lambda: PKBatches(X, MULTI_HOT * 2, 2, 2, relation="any"), "received 2 among them"),
    ):
        with pytest.raises(ValueError, match=message.replace("(", r"\(")):
            call()
