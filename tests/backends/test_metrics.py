"""Retrieval measures and statistics of a loss's triplets against plain loops; the callback and the metric in `fit`."""

import keras
import numpy as np
import pytest
from keras import ops
from on_backend import BACKEND, tensor
from reference import DISTANCES, STRATEGIES, loss_of_triplet, pairwise, triplets_of

import tripletloss as tl
from tripletloss.distances import Distance
from tripletloss.metrics import STATISTICS, RetrievalCallback, TripletMetrics, nearest_keys, retrieval_metrics

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
        return ops.sum(ops.abs(query[:, None] - key[None]) * ops.arange(1.0, 5.0), axis=-1)


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
