"""Retrieval measures and statistics of a loss's triplets against plain loops; the callback and the metric in `fit`."""

import math

import keras
import numpy as np
import pytest
from keras import ops
from on_backend import BACKEND, tensor
from reference import DISTANCES, STRATEGIES, loss_of_triplet, pairwise, triplets_of

import tripletloss as tl
from tripletloss.distances import Distance
from tripletloss.metrics import STATISTICS, RetrievalCallback, TripletMetrics, nearest_keys, retrieval_metrics
from tripletloss.metrics import verification_metrics as verify

K = (1, 3, 10)


def batch(n, classes, seed=0):
    """Rows and labels, of several to a single example each."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 4)).astype("float32"), rng.integers(-3, classes - 3, n)


def retrieval_by_loops(table, query_labels, key_labels, k, own):
    """Each measure, from the distances of all queries to all keys; and how many queries have no match."""
    found, without_match = [], 0
    for i, row in enumerate(table):
        order = sorted((j for j in range(len(row)) if not (own and j == i)), key=lambda j: row[j])
        hits = [key_labels[j] == query_labels[i] for j in order]
        R = sum(hits)
        if not R:
            without_match += 1
            continue
        precisions = [sum(hits[: place + 1]) / (place + 1) for place in range(R)]
        found.append(
            [float(any(hits[:n])) for n in k]
            + [sum(hits[:n]) / n for n in k]
            + [sum(hits[:R]) / R, sum(p for p, hit in zip(precisions, hits, strict=False) if hit) / R]
        )
    return [*np.mean(found, axis=0), without_match]


class Weighted(Distance):
    """A distance that scikit-learn does not have."""

    def call(self, query, key):
        return ops.sum(ops.abs(query[:, None] - key[None]) * ops.cast(ops.arange(1.0, 5.0), query.dtype), axis=-1)


@pytest.mark.parametrize("name", [*DISTANCES, "of one's own"])
@pytest.mark.parametrize("own", [True, False], ids=["among themselves", "queries"])
def test_retrieval_against_loops(name, own, way):
    (x, y), (query, query_labels) = batch(50, 12), batch(30, 15, seed=1)
    distance = name if name in DISTANCES else Weighted()
    weights = np.ones(4, "float32") if name in DISTANCES else np.arange(1, 5, dtype="float32")
    table = pairwise(name if name in DISTANCES else "manhattan", weights * (x if own else query), weights * x)
    found = retrieval_metrics(x, y, K, *(() if own else (query, query_labels)), distance=distance)
    names = [f"{m}_at_{n}" for m in ("recall", "precision") for n in K] + ["r_precision", "map_at_r", "queries_without_match"]
    assert list(found) == names
    expected = retrieval_by_loops(table, y if own else query_labels, y, K, own)
    assert found == pytest.approx(dict(zip(names, expected, strict=True)), abs=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_retrieval_takes_tensors_of_the_backend(dtype):
    x = tensor(np.array([[1.0, 0], [1, 0.5], [0, 1], [0.25, 1]]), dtype)
    assert retrieval_metrics(x, ops.convert_to_tensor([[0], [0], [1], [1]]), 1)["recall_at_1"] == 1.0
    assert nearest_keys(x, 1).tolist() == [[1], [0], [3], [2]]


def test_a_row_of_zeros_is_a_right_angle_from_everything():
    x = np.array([[1.0, 0], [0, 0], [-1, 0], [0.1, 1], [-0.1, 1]], "float32")
    assert nearest_keys(x, 4)[0].tolist() == [3, 1, 4, 2]


@pytest.mark.parametrize("again", [lambda x: x, np.copy], ids=["the same array", "a copy"])
def test_whether_queries_are_keys_is_what_the_argument_says(again):
    """0 and 1 are of one class, 3 and 7 of another: each finds itself, or the others."""
    x, y = np.array([[0.0], [1.0], [3.0], [7.0]]), np.array([0, 0, 1, 1])
    queries = {"query_embeddings": again(x), "query_labels": again(y)}

    def recall(**arguments):
        return retrieval_metrics(x, y, k=1, distance="euclidean", **arguments)["recall_at_1"]

    assert [recall(), recall(**queries), recall(**queries, remove_diagonal=True), recall(remove_diagonal=False)] == [0.75, 1, 0.75, 1]
    others = nearest_keys(x, 1, again(x), "euclidean", remove_diagonal=True)
    assert others.tolist() == nearest_keys(x, 1, distance="euclidean").tolist() == [[1], [0], [1], [2]]
    assert nearest_keys(x, 1, again(x[:2]), "euclidean", remove_diagonal=True).tolist() == [[1], [0]]
    assert nearest_keys(x, 1, again(x), "euclidean").tolist() == [[0], [1], [2], [3]]


def whole_list_by_loops(table, query_labels, key_labels, k, own):
    """By class: MAP, MRR and NDCG@k of each query, from all keys in order."""
    found = {}
    for i, row in enumerate(table):
        order = sorted((j for j in range(len(row)) if not (own and j == i)), key=lambda j: row[j])
        places = [place for place, j in enumerate(order, 1) if key_labels[j] == query_labels[i]]
        if places:
            average_precision = sum(hits / place for hits, place in enumerate(places, 1)) / len(places)
            ideal = [sum(1 / np.log2(1 + place) for place in range(1, min(n, len(places)) + 1)) for n in k]
            ndcg = [sum(1 / np.log2(1 + place) for place in places if place <= n) / best for n, best in zip(k, ideal, strict=True)]
            found.setdefault(int(query_labels[i]), []).append([average_precision, 1 / places[0], *ndcg])
    return list(found.values())


@pytest.mark.parametrize("name", ["euclidean", "inner_product"])
@pytest.mark.parametrize("own", [True, False], ids=["among themselves", "queries"])
def test_whole_lists_and_means_by_class_against_loops(name, own, way):
    (x, y), (query, query_labels) = batch(50, 12), batch(30, 15, seed=1)
    queries = (x, y) if own else (query, query_labels)
    table = pairwise(name, queries[0], x)
    classes = whole_list_by_loops(table, queries[1], y, K, own)
    expected = {"query": np.mean(np.concatenate(classes), axis=0), "class": np.mean([np.mean(each, axis=0) for each in classes], axis=0)}
    for average, means in expected.items():
        found = retrieval_metrics(x, y, K, *(() if own else queries), distance=name, average=average, all_ranks=True)
        assert list(found)[-6:-1] == ["map", "mrr", *(f"ndcg_at_{n}" for n in K)]
        np.testing.assert_allclose(list(found.values())[-6:-1], means, rtol=1e-5)
        plain = retrieval_metrics(x, y, K, *(() if own else queries), distance=name, average=average)
        assert plain == pytest.approx({measure: found[measure] for measure in plain})
    by_class = [np.mean([row.argmin() in np.flatnonzero(y == label) for row in nearest_first(table, own)[queries[1] == label]]) for label in known(queries[1], y, own)]
    assert plain["recall_at_1"] == pytest.approx(np.mean(by_class))


def nearest_first(table, own):
    """The table, in which nothing is nearest to itself."""
    return table + np.diag(np.full(len(table), np.inf)) if own else table


def known(query_labels, key_labels, own):
    """The classes of queries that have something to find."""
    return [label for label in np.unique(query_labels) if np.sum(key_labels == label) > own]


def test_whole_lists_of_a_relation():
    """0 shares a label with 2 and 3, 1 with 2; what is neither is left out of the list."""
    x, several = np.array([[0.0], [1.0], [2.5], [3.0]]), np.array([[1, 0], [0, 1], [1, 1], [1, 0]])
    found = retrieval_metrics(x, several, 1, distance="euclidean", relation="any", all_ranks=True, average="class")
    # Reciprocal ranks: 0 finds 2 second, 1 finds 2 second, 2 finds 3 and 3 finds 2 first; 0 and 3 are of one class.
    assert found["mrr"] == pytest.approx(np.mean([(1 / 2 + 1) / 2, 1 / 2, 1]))
    close = lambda query, key: (abs(query[:, None] - key) <= 1, abs(query[:, None] - key) > 2)  # noqa: E731
    found = retrieval_metrics(x, np.array([0, 2, 1, 5]), 1, distance="euclidean", relation=close, all_ranks=True)
    # 0 passes over 1, which is neither, and finds 2 first; 1 finds 2 first; 2 finds 3, 1 and 0, of which it wants two.
    assert [found["map"], found["mrr"]] == pytest.approx([(1 + 1 + (1 / 2 + 2 / 3) / 2) / 3, (1 + 1 + 1 / 2) / 3])


# Verification.


def pair_kinds(table, query_labels, key_labels, own):
    """Distances of pairs of one class, and of two."""
    pairs = [(i, j) for i in range(len(query_labels)) for j in range(len(key_labels)) if not (own and i == j)]
    return tuple([table[i][j] for i, j in pairs if (query_labels[i] == key_labels[j]) == same] for same in (True, False))


def verification_by_loops(positive, negative, rates):
    """From the distances of both kinds of pairs: the area as a probability, the rest one threshold after the other."""
    positive, negative = np.asarray(positive), np.asarray(negative)
    table = positive[:, None] - negative
    found = {"roc_auc": np.mean((table < 0) + (table == 0) / 2)}
    thresholds = [-np.inf, *np.unique([*positive, *negative])]
    curve = [(np.mean(positive <= t), np.mean(negative <= t)) for t in thresholds]
    after = next(b for b, (tar, far) in enumerate(curve) if far >= 1 - tar)
    (tar0, far0), (tar1, far1) = curve[after - 1 : after + 1]
    share = (1 - tar0 - far0) / ((1 - tar0 - far0) + (far1 + tar1 - 1))
    found["equal_error_rate"] = far0 + share * (far1 - far0)
    found["threshold_at_equal_error_rate"] = thresholds[after if far1 + tar1 - 1 <= 1 - tar0 - far0 else after - 1]
    for rate in rates:
        best = max(b for b, (_, far) in enumerate(curve) if far <= rate)
        found |= {f"true_accept_rate_at_{rate:g}": curve[best][0], f"threshold_at_{rate:g}": thresholds[best]}
    return found


RATES = (0.0, 0.02, 0.3)


@pytest.mark.parametrize("name", [*DISTANCES, "of one's own"])
@pytest.mark.parametrize("own", [True, False], ids=["among themselves", "queries"])
def test_verification_against_loops(name, own, way, float64):
    (x, y), (query, query_labels) = batch(24, 6), batch(15, 8, seed=1)
    x, query = x.astype("float64"), query.astype("float64")
    weights = np.arange(1.0, 5.0) if name not in DISTANCES else 1.0
    table = pairwise(name if name in DISTANCES else "manhattan", weights * (x if own else query), weights * x)
    positive, negative = pair_kinds(table, y if own else query_labels, y, own)
    if name != "snr":  # d(i, j) and d(j, i) are one number
        positive, negative = (np.round(each, 12) for each in (positive, negative))
    distance = name if name in DISTANCES else Weighted()
    found = verify(x, y, RATES, *(() if own else (query, query_labels)), distance=distance)
    expected = verification_by_loops(positive, negative, RATES) | {"positive_pairs": len(positive), "negative_pairs": len(negative)}
    assert list(found) == list(expected)
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", ["manhattan", "squared_euclidean"])
def test_ties_and_scikit_learn(name, way):
    """Whole numbers, few of them: most pairs are tied with others of both kinds."""
    from sklearn.metrics import roc_auc_score, roc_curve

    rng = np.random.default_rng(5)
    x, y = rng.integers(0, 3, size=(30, 2)).astype("float32"), rng.integers(0, 5, 30)
    positive, negative = pair_kinds(pairwise(name, x, x), y, y, own=True)
    answers, scores = [1] * len(positive) + [0] * len(negative), -np.array(positive + negative)
    found = verify(x, y, RATES, distance=name)
    assert found["roc_auc"] == pytest.approx(roc_auc_score(answers, scores), abs=1e-9)
    far, tar, thresholds = roc_curve(answers, scores, drop_intermediate=False)
    for rate in RATES:
        best = np.flatnonzero(far <= rate)[-1]
        assert [found[f"true_accept_rate_at_{rate:g}"], found[f"threshold_at_{rate:g}"]] == pytest.approx([tar[best], -thresholds[best]], abs=1e-9)
    assert found["equal_error_rate"] == pytest.approx(np.interp(0, far + tar - 1, far), abs=1e-9)


def end_of_bin(distance):
    """The largest float32 with the same first 14 binary digits; of those below 0, the one nearest to 0."""
    fraction, exponent = math.frexp(np.float32(distance))
    digits = math.floor(fraction * 2**14)
    return math.ldexp((digits + 1 - 2**-10 if fraction > 0 else digits + 1) / 2**14, exponent)


@pytest.mark.parametrize("name", ["cosine", "euclidean", "inner_product"])
@pytest.mark.parametrize("own", [True, False], ids=["among themselves", "queries"])
def test_more_pairs_than_are_listed(name, own, way, monkeypatch, float64):
    """They are as if each distance were the largest of its bin; intervals are those of some pairs."""
    monkeypatch.setattr(tl.metrics, "LISTED_PAIRS", 100)
    (x, y), (query, query_labels) = batch(40, 6), batch(15, 8, seed=1)
    x, query = x.astype("float64"), query.astype("float64")
    positive, negative = pair_kinds(pairwise(name, x if own else query, x), y if own else query_labels, y, own)
    found = verify(x, y, RATES, *(() if own else (query, query_labels)), distance=name)
    expected = verification_by_loops(*([end_of_bin(d) for d in each] for each in (positive, negative)), RATES)
    assert found == pytest.approx(expected | {"positive_pairs": len(positive), "negative_pairs": len(negative)}, abs=1e-9)
    single = verification_by_loops(positive, negative, RATES)
    assert found["roc_auc"] == pytest.approx(single["roc_auc"], abs=1e-3)
    assert found["threshold_at_0.3"] == pytest.approx(single["threshold_at_0.3"], rel=2**-7)
    resampled = verify(x, y, RATES, *(() if own else (query, query_labels)), distance=name, resamples=20)
    assert resampled["roc_auc_low"] <= resampled["roc_auc"] <= resampled["roc_auc_high"]


@pytest.mark.parametrize("own", [True, False], ids=["among themselves", "queries"])
def test_intervals_are_those_of_data_sets_of_drawn_classes(own):
    """Each resample made as a data set: a class that is drawn twice is there twice, under two labels."""
    (x, y), (query, query_labels) = batch(18, 5), batch(12, 5, seed=1)
    keys, queries = (x, y), (x, y) if own else (query, query_labels)
    labels, generator, aucs = np.unique([*y, *queries[1]]), np.random.default_rng(7), []
    for _ in range(30):
        drawn = labels[generator.integers(len(labels), size=len(labels))]
        rows = [[(number, label, i) for number, label in enumerate(drawn) for i in np.flatnonzero(of[1] == label)] for of in (queries, keys)]
        kinds = [[], []]
        for (a, label_a, i) in rows[0]:
            for (b, label_b, j) in rows[1]:
                if (a == b and not (own and i == j)) or label_a != label_b:
                    kinds[int(a != b)].append(np.abs(queries[0][i] - keys[0][j]).sum(dtype="float64"))
        if kinds[0] and kinds[1]:
            aucs.append(verification_by_loops(np.round(kinds[0], 5), np.round(kinds[1], 5), ())["roc_auc"])
    found = verify(x, y, (), *(() if own else (query, query_labels)), distance="manhattan", resamples=30, seed=7)
    assert [found["roc_auc_low"], found["roc_auc_high"]] == pytest.approx(np.quantile(aucs, [0.025, 0.975]), abs=1e-6)
    assert "threshold_at_equal_error_rate_low" not in found


@pytest.mark.parametrize("n, classes", [(0, 1), (1, 1), (4, 1), (4, 4)])
def test_without_pairs_of_both_kinds_nothing_is_verified(n, classes):
    found = verify(np.ones((n, 2)), np.arange(n) % classes, resamples=2)
    same = n * (n - 1) if classes == 1 else 0
    assert (found["positive_pairs"], found["negative_pairs"]) == (same, n * (n - 1) - same)
    assert all(np.isnan(value) for name, value in found.items() if not name.endswith("pairs"))


def test_infinite_distances_are_refused(monkeypatch):
    x = np.array([[3e38], [-3e38], [0.0]], "float32")
    for listed in (100, 0):
        monkeypatch.setattr(tl.metrics, "LISTED_PAIRS", listed)
        with pytest.raises(ValueError, match="embeddings must have finite distances; received some whose squared_euclidean"):
            verify(x, [0, 0, 1], distance="squared_euclidean")


@pytest.mark.parametrize("again", [lambda x: x, np.copy], ids=["the same array", "a copy"])
def test_whether_queries_are_keys_of_a_pair_is_what_the_argument_says(again):
    """Of one class are 0 and 1, 3 and 7; with themselves as keys each makes a pair at distance 0, too."""
    x, y = np.array([[0.0], [1.0], [3.0], [7.0]]), np.array([0, 0, 1, 1])
    queries = {"query_embeddings": again(x), "query_labels": again(y)}

    def pairs(**arguments):
        found = verify(x, y, 0.25, distance="euclidean", **arguments)
        return found["positive_pairs"], found["threshold_at_0.25"], found["roc_auc"]

    assert [pairs(), pairs(**queries, remove_diagonal=True)] == [(4, 2.0, 6 / 8)] * 2
    assert [pairs(**queries), pairs(remove_diagonal=False)] == [(8, 2.0, 14 / 16)] * 2


def test_labels_are_compared_exactly():
    """As floats two of these classes would be one."""
    x, labels = np.array([[0.0], [1], [3], [4]], "float32"), np.array([0, 0, 1, 2])
    assert retrieval_metrics(x, 2**53 + labels, 1, distance="euclidean")["queries_without_match"] == 2
    metric = TripletMetrics(tl.TripletLoss("euclidean"))
    metric.update_state(2**24 + labels, ops.convert_to_tensor(x))
    assert float(metric.result()["valid_share"]) == 0.5


def test_precision_counts_places_that_no_key_takes():
    """Of five places only two are taken, one of them rightly."""
    found = retrieval_metrics(np.array([[0.0], [1.0], [5.0]]), [0, 0, 1], k=5, distance="euclidean")
    assert found["precision_at_5"] == 1 / 5


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_to_search(n):
    found = retrieval_metrics(np.ones((n, 2)), np.zeros(n, "int64"))
    assert found["queries_without_match"] == n
    assert np.isnan(found["recall_at_1"])
    assert tl.metrics.nearest_keys(np.ones((n, 2)), 3).shape == (n, 0)


def test_progress_counts_queries(capsys):
    retrieval_metrics(np.eye(5), np.arange(5) % 2, progress=True)
    assert "5/5" in capsys.readouterr().out


# Statistics of a loss's triplets.


def statistics_by_loops(labels, x, name, positive="hard", negative="semi-hard", soft=False):
    """The six numbers, from the triplets of the loops."""
    table = pairwise(name, x, x)
    pairs = triplets_of(labels, table, positive=positive, negative=negative)
    triplets = np.array([(table[i][p], table[i][n]) for i, of_query in enumerate(pairs) for p, n in of_query])
    active = np.mean([loss_of_triplet(p, n, soft) > 0 for p, n in triplets])
    wide = np.asarray(x, "float64")
    spread = np.square(wide - wide.mean(axis=0)).sum() / np.square(wide).sum()
    valid = np.mean([bool(of_query) for of_query in pairs])
    return [active, valid, *triplets.mean(axis=0), np.linalg.norm(wide, axis=1).mean(), spread]


@pytest.mark.parametrize("positive, negative", STRATEGIES)
@pytest.mark.parametrize("classes, numbers, soft", [(9, None, False), (2, 400, True)], ids=["one table", "blocks, soft"])
def test_statistics(positive, negative, classes, numbers, soft, block_size):
    """As one table; and in four blocks, with more positives than are listed. (Counts of both: test_strategies.py.)"""
    block_size(numbers)
    x, y = batch(40, classes)
    y[0] = 99
    metric = TripletMetrics(tl.TripletLoss("euclidean", positive, negative, soft))
    metric.update_state(y, ops.convert_to_tensor(x))
    expected = statistics_by_loops(y, x, "euclidean", positive, negative, soft)
    np.testing.assert_allclose([float(value) for value in metric.result().values()], expected, rtol=1e-4)


def test_batches_count_by_their_triplets():
    x, y = batch(48, 3)
    metric, parts = TripletMetrics(tl.TripletLoss("manhattan")), [(y[:8], x[:8]), (y[8:], x[8:])]
    for labels, rows in parts:
        metric.update_state(labels, ops.convert_to_tensor(rows))
    small, large = (statistics_by_loops(*part, "manhattan") for part in parts)
    expected = np.average([small[2], large[2]], weights=[8 * small[1], 40 * large[1]])
    assert float(metric.result()["positive_distance"]) == pytest.approx(expected, rel=1e-5)
    metric.reset_state()
    assert np.isnan(float(metric.result()["positive_distance"]))


@pytest.mark.parametrize("negative", ["semi-hard", "all"])
def test_nan_shows(negative):
    x, y = batch(8, 2)
    x[2] = np.nan
    metric = TripletMetrics(tl.TripletLoss(negative_mining_strategy=negative))
    metric.update_state(y, ops.convert_to_tensor(x))
    assert all(np.isnan(float(value)) for name, value in metric.result().items() if name != "valid_share")


class Counted(Distance):
    """A euclidean distance that counts its tables."""

    def __init__(self):
        super().__init__()
        self.tables = 0

    def call(self, query, key):
        self.tables += 1
        return ops.sqrt(ops.sum(ops.square(query[:, None] - key[None]), axis=-1))

    def call_paired(self, query, key):
        return ops.sqrt(ops.sum(ops.square(query - key), axis=1))


def test_one_pass_of_mining():
    """All six numbers together make as many tables as the mining alone."""
    (x, y), mining, metric = batch(40, 9), Counted(), Counted()
    tl.mine_triplets(y, x, distance=mining)
    TripletMetrics(tl.TripletLoss(metric)).update_state(y, ops.convert_to_tensor(x))
    assert metric.tables == mining.tables > 0


def test_sums_of_half_precision_do_not_overflow():
    """These classes have 100 * 9 * 90 triplets, and float16 can count to 65504."""
    x = np.random.default_rng(0).normal(size=(100, 4)).astype("float16")
    metric = TripletMetrics(tl.TripletLoss("euclidean", "all", "all", dtype="float16"))
    metric.update_state(np.arange(100) % 10, ops.convert_to_tensor(x))
    found = {name: float(value) for name, value in metric.result().items()}
    assert found["valid_share"] == 1.0 and np.isfinite(list(found.values())).all()
    assert found["embedding_norm"] == pytest.approx(np.linalg.norm(x.astype("float64"), axis=1).mean(), rel=1e-3)


# In fit.


def data(n=64, seed=0):
    rng, labels = np.random.default_rng(seed), np.arange(n) % 4
    x = rng.normal(size=(n, 6)).astype("float32")
    x[:, :2] += 2.0 * np.stack([labels % 2, labels // 2], axis=1)
    return x, labels


HELD_OUT = data(32, seed=1)


def network(loss, **arguments):
    """In steps that run as they are written, unless asked for otherwise."""
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(16, "relu"), tl.layers.L2Embedding(4)])
    model.compile(keras.optimizers.Adam(0.01), loss, **{"run_eagerly": True, **arguments})
    return model


def fit(callbacks, epochs=2, **arguments):
    """The model and the history of a training beside callbacks."""
    keras.utils.set_random_seed(0)
    model = network(tl.TripletLoss())
    history = model.fit(*data(), epochs=epochs, shuffle=False, callbacks=callbacks, **{"verbose": 0, **arguments})
    return model, history.history


def test_callback_drives_early_stopping(tmp_path):
    watch = RetrievalCallback(*HELD_OUT, k=(1, 2))
    stop = keras.callbacks.EarlyStopping("val_recall_at_1", mode="max", patience=1, min_delta=1.0)  # never enough
    keep = keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", "val_map_at_r", mode="max", save_best_only=True)
    model, history = fit([watch, stop, keep], epochs=9)
    assert stop.stopped_epoch == 1 and (tmp_path / "best.keras").exists()
    names = [f"val_{name}" for name in watch.result if name != "queries_without_match"]
    assert set(history) == {"loss", *names}
    table = pairwise("cosine", *[model.predict(HELD_OUT[0], verbose=0)] * 2)
    expected = retrieval_by_loops(table, HELD_OUT[1], HELD_OUT[1], (1, 2), own=True)[:-1]
    assert {len(history[name]) for name in names} == {2}
    np.testing.assert_allclose([history[name][-1] for name in names], expected, atol=1e-6)


def test_callbacks_behind_it_get_its_numbers(capsys):
    """Other callbacks, and the progress bar, which Keras puts last."""
    found, before = [], []
    watch = RetrievalCallback(*HELD_OUT)
    behind = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: found.append(logs["val_recall_at_1"]))
    in_front = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: before.append("val_recall_at_1" in logs))
    fit([in_front, watch, behind], verbose=2)
    assert found[-1] == watch.result["recall_at_1"] and before == [False, False]
    assert f"val_recall_at_1: {found[-1]:.4f}" in capsys.readouterr().out


def test_a_callback_that_needs_its_numbers_warns_of_epochs_without():
    stop = keras.callbacks.EarlyStopping("val_recall_at_1", mode="max", patience=5)
    with pytest.warns(UserWarning, match="val_recall_at_1.*not available"):
        fit([RetrievalCallback(*HELD_OUT, every=2), stop])


def test_training_is_the_same_beside_the_callback():
    alone, beside = (fit(callbacks)[0].get_weights() for callbacks in ([], [RetrievalCallback(*HELD_OUT)]))
    for one, other in zip(alone, beside, strict=True):
        np.testing.assert_array_equal(one, other)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        x, y = HELD_OUT
        return x[12 * index : 12 * index + 12], y[12 * index : 12 * index + 12, None]


def datasets():
    if BACKEND == "tensorflow":
        import tensorflow as tf

        yield tf.data.Dataset.from_tensor_slices(HELD_OUT).batch(12)
    if BACKEND == "torch":
        import torch

        yield torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*map(torch.tensor, HELD_OUT)), batch_size=12)
    yield Batches()
    yield [Batches()[0], Batches()[1], Batches()[2]]


def test_callback_reads_datasets():
    kinds = {f"{type(dataset).__name__}_": dataset for dataset in datasets()}
    watch = [RetrievalCallback(dataset, every=2, prefix=kind) for kind, dataset in kinds.items()]
    history = fit([*watch, RetrievalCallback(*HELD_OUT)], epochs=4)[1]
    for kind in kinds:
        assert history[f"{kind}recall_at_1"] == history["val_recall_at_1"][1::2]
        assert history[f"{kind}map_at_r"] == pytest.approx(history["val_map_at_r"][1::2], abs=1e-6)


def test_callback_with_one_of_several_outputs():
    x, y = data()
    inputs = keras.Input((6,))
    embedding = tl.layers.L2Embedding(4, name="embedding")(inputs)
    both = keras.Model(inputs, {"embedding": embedding, "color": keras.layers.Dense(3, name="color")(inputs)})
    statistics = {"embedding": [TripletMetrics(tl.TripletLoss(), prefix="embedding_")]}
    both.compile("sgd", {"embedding": tl.TripletLoss(), "color": "mse"}, metrics=statistics, run_eagerly=True)
    watch = RetrievalCallback(x, y, embedder=keras.Model(inputs, embedding))
    targets = {"embedding": y, "color": np.zeros((64, 3), "float32")}
    history = both.fit(x, targets, epochs=2, verbose=0, callbacks=[watch]).history
    after = both.predict(x, verbose=0)["embedding"]
    assert history["val_recall_at_1"][-1] == retrieval_metrics(after, y, 1)["recall_at_1"]
    assert len(history["embedding_active_share"]) == 2


@pytest.mark.parametrize("strategies", [pytest.param(("hard", "semi-hard"), marks=pytest.mark.jit), ("all", "all")])
def test_metric_in_fit_and_evaluate(strategies):
    """Traced and, on JAX, compiled; in the second case as written. Saved with a model: the fixtures of test_life_cycle.py."""
    (x, y), loss = data(40), tl.TripletLoss("euclidean", *strategies)
    model = network(loss, metrics=[TripletMetrics(loss)], run_eagerly="all" in strategies)
    before = statistics_by_loops(y, model.predict(x, verbose=0), "euclidean", *strategies)
    evaluated = model.evaluate(x, y, batch_size=40, verbose=0, return_dict=True)
    np.testing.assert_allclose([evaluated[name] for name in STATISTICS], before, rtol=1e-4)
    history = model.fit(x, y, batch_size=40, epochs=1, validation_data=(x, y), validation_batch_size=40, verbose=0).history
    np.testing.assert_allclose([history[name][0] for name in STATISTICS], before, rtol=1e-4)
    after = statistics_by_loops(y, model.predict(x, verbose=0), "euclidean", *strategies)
    np.testing.assert_allclose([history[f"val_{name}"][0] for name in STATISTICS], after, rtol=1e-4)
