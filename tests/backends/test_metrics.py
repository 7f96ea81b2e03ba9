"""Retrieval measures and statistics of a loss's triplets against plain loops; the callback and the metric in `fit`."""

import json

import keras
import numpy as np
import pytest
from keras import ops
from on_backend import BACKEND, array, tensor
from reference import DISTANCES, STRATEGIES, loss_of_triplet, pairwise, triplets_of

import tripletloss as tl
from tripletloss import metrics
from tripletloss.distances import Distance

K = (1, 3, 10)


def retrieval_by_loops(table, query_labels, key_labels, k, own):
    """Each measure, from the distances of all queries to all keys; None where no query has a match."""
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
    return (np.mean(found, axis=0) if found else None), without_match


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("own", [True, False])
def test_retrieval_against_loops(name, own):
    rng = np.random.default_rng(len(name))
    x, y = rng.normal(size=(70, 4)).astype("float32"), rng.integers(-3, 12, 70)
    query, query_labels = (None, None) if own else (rng.normal(size=(30, 4)).astype("float32"), rng.integers(-5, 12, 30))
    table = pairwise(name, x if own else query, x)
    expected, without_match = retrieval_by_loops(table, y if own else query_labels, y, K, own)
    found = tl.metrics.retrieval_metrics(x, y, K, query, query_labels, distance=name)
    assert found.pop("queries_without_match") == without_match
    assert list(found) == [f"{m}_at_{n}" for m in ("recall", "precision") for n in K] + ["r_precision", "map_at_r"]
    np.testing.assert_allclose(list(found.values()), expected, atol=1e-6)


class Weighted(Distance):
    """A distance that scikit-learn does not have."""

    def call(self, query, key):
        return ops.sum(ops.abs(query[:, None] - key[None]) * ops.arange(1.0, 5.0), axis=-1)


def test_retrieval_with_a_custom_distance():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 4)).astype("float32"), rng.integers(0, 6, 40)
    table = np.abs(x[:, None] - x[None]).astype("float64") @ [1, 2, 3, 4]
    found = tl.metrics.retrieval_metrics(x, y, K, distance=Weighted())
    np.testing.assert_allclose(list(found.values())[:-1], retrieval_by_loops(table, y, y, K, own=True)[0], atol=1e-6)


def test_retrieval_in_many_blocks(block_size):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(90, 4)).astype("float32"), rng.integers(0, 9, 90)
    block_size(200)
    for name in ("euclidean", "inner_product"):
        expected, _ = retrieval_by_loops(pairwise(name, x, x), y, y, K, own=True)
        found = list(tl.metrics.retrieval_metrics(x, y, K, distance=name).values())
        np.testing.assert_allclose(found[:-1], expected, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_retrieval_takes_tensors_of_the_backend(dtype):
    x = tensor(np.array([[1.0, 0], [1, 0.5], [0, 1], [0.25, 1]]), dtype)
    found = tl.metrics.retrieval_metrics(x, ops.convert_to_tensor([[0], [0], [1], [1]]), 1)
    assert found["recall_at_1"] == 1.0
    assert tl.metrics.nearest_keys(x, 1).tolist() == [[1], [0], [3], [2]]


def test_a_row_of_zeros_is_a_right_angle_from_everything():
    x = np.array([[1.0, 0], [0, 0], [-1, 0], [0.1, 1], [-0.1, 1]], "float32")
    assert tl.metrics.nearest_keys(x, 4)[0].tolist() == [3, 1, 4, 2]


def test_labels_are_compared_exactly():
    big = 2**53
    x = np.array([[0.0], [1], [3], [4]], "float32")
    found = tl.metrics.retrieval_metrics(x, np.array([big, big, big + 1, big + 2]), 1, distance="euclidean")
    assert found["queries_without_match"] == 2


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((np.ones((3, 2), "int64"), [0, 0, 1]), "embeddings must be floats"),
        ((np.ones(3), [0, 0, 1]), r"received shape \(3,\)"),
        ((np.array([[1.0], [np.inf]]), [0, 0]), "in 1 of 2 rows, the first of them row 1"),
        ((np.ones((3, 2)), [0.0, 1.0, 2.0]), "labels must be integer labels; received dtype float"),
        ((np.ones((3, 2)), [0, 0, 1], 0), "k must be an integer of at least 1; received 0"),
        ((np.ones((3, 2)), [0, 0, 1], ()), "k must name at least one place"),
        ((np.ones((3, 2)), [0, 0, 1], "1"), "k must be an integer"),
        ((np.ones((3, 2)), [0, 0, 1], 1, np.ones((2, 3)), [0, 0]), "the same width d"),
        ((np.ones((3, 2)), [0, 0, 1], 1, np.ones((2, 2))), "query_labels must be given together"),
        ((np.ones((3, 2)), [0, 0, 1], 1, None, None, "cosin"), "Did you mean 'cosine'"),
        ((np.ones((2, 2)), np.array([1, 2**63], "uint64")), "must fit into int64"),
    ],
)
def test_retrieval_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        tl.metrics.retrieval_metrics(*arguments)


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_to_search(n):
    found = tl.metrics.retrieval_metrics(np.ones((n, 2)), np.zeros(n, "int64"))
    assert found["queries_without_match"] == n
    assert np.isnan(found["recall_at_1"])


# Statistics of a loss's triplets.


def statistics_by_loops(labels, x, name, positive, negative, soft):
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
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("classes", [2, 9])  # more positives than are listed, and fewer
@pytest.mark.parametrize("numbers", [None, 300])  # in a block: one table, and several blocks
def test_statistics(positive, negative, soft, classes, numbers, block_size):
    block_size(numbers)
    rng = np.random.default_rng(classes)
    x, y = rng.normal(size=(45, 4)).astype("float32"), rng.integers(0, classes, 45)
    y[0] = 99
    metric = metrics.TripletMetrics(tl.TripletLoss("euclidean", positive, negative, soft))
    metric.update_state(y, ops.convert_to_tensor(x))
    expected = statistics_by_loops(y, x, "euclidean", positive, negative, soft)
    np.testing.assert_allclose([float(value) for value in metric.result().values()], expected, rtol=1e-4)


def test_batches_count_by_their_triplets():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 4)).astype("float32"), rng.integers(0, 3, 30)
    metric = metrics.TripletMetrics(tl.TripletLoss("manhattan"))
    parts = [(y[:6], x[:6]), (y[6:], x[6:])]
    for labels, rows in parts:
        metric.update_state(labels, ops.convert_to_tensor(rows))
    small, large = (statistics_by_loops(*part, "manhattan", "hard", "semi-hard", False) for part in parts)
    weights = [len(labels) * numbers[1] for (labels, _), numbers in zip(parts, (small, large), strict=True)]
    expected = np.average([small[2], large[2]], weights=weights)
    assert float(metric.result()["positive_distance"]) == pytest.approx(expected, rel=1e-5)
    metric.reset_state()
    assert np.isnan(float(metric.result()["positive_distance"]))


@pytest.mark.parametrize("negative", ["semi-hard", "all"])
def test_nan_shows(negative):
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    x[2] = np.nan
    metric = metrics.TripletMetrics(tl.TripletLoss(negative_mining_strategy=negative))
    metric.update_state(np.arange(8) % 2, ops.convert_to_tensor(x))
    assert all(np.isnan(float(value)) for name, value in metric.result().items() if name != "valid_share")


class Counted(Distance):
    """A euclidean distance that counts its calls."""

    tables = 0

    def call(self, query, key):
        Counted.tables += 1
        return ops.sqrt(ops.sum(ops.square(query[:, None] - key[None]), axis=-1))

    def call_paired(self, query, key):
        return ops.sqrt(ops.sum(ops.square(query - key), axis=1))


def test_one_pass_of_mining(monkeypatch):
    """All six numbers together make as many tables as the mining alone."""
    x, y = ops.convert_to_tensor(np.random.default_rng(0).normal(size=(30, 4)).astype("float32")), np.arange(30) % 5
    loss, calls = tl.TripletLoss(Counted()), []
    metric = metrics.TripletMetrics(loss)
    for run in (lambda: tl.mine_triplets(y, x, distance=Counted()), lambda: metric.update_state(y, x)):
        monkeypatch.setattr(Counted, "tables", 0)
        run()
        calls.append(Counted.tables)
    assert calls[0] == calls[1] > 0


def test_sums_of_half_precision_do_not_overflow():
    """600 rows in two classes have more than 65504 triplets, the most that float16 can count to."""
    x = np.random.default_rng(0).normal(size=(600, 4)).astype("float16")
    metric = metrics.TripletMetrics(tl.TripletLoss("euclidean", "all", "semi-hard", dtype="float16"))
    metric.update_state(np.arange(600) % 2, ops.convert_to_tensor(x))
    assert float(metric.result()["valid_share"]) == 1.0
    assert float(metric.result()["embedding_norm"]) == pytest.approx(np.linalg.norm(x.astype("float64"), axis=1).mean(), rel=1e-3)
    assert np.isfinite([float(value) for value in metric.result().values()]).all()


def test_weights_are_refused():
    with pytest.raises(ValueError, match="not weighted_metrics"):
        metrics.TripletMetrics(tl.TripletLoss()).update_state([0, 0, 1], np.ones((3, 2), "float32"), np.ones(3))


def test_metric_round_trip():
    metric = metrics.TripletMetrics(tl.TripletLoss("snr", "all", margin=0.25), prefix="a_", name="b")
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(metric)))
    copy = keras.saving.deserialize_keras_object(config)
    assert (copy.prefix, copy.name, copy.loss.get_config()) == ("a_", "b", metric.loss.get_config())


# In fit.


def data(n=64, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 4
    x = rng.normal(size=(n, 6)).astype("float32")
    x[:, 0] += 2.0 * (labels % 2)
    x[:, 1] += 2.0 * (labels // 2)
    return x, labels


def network():
    return keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(16, "relu"), tl.layers.L2Embedding(4)])


def compiled_network(loss, **arguments):
    model = network()
    jit = {"jit_compile": False} if BACKEND == "torch" else {}
    model.compile(keras.optimizers.Adam(0.01), loss=loss, **arguments, **jit)
    return model


def test_callback_drives_early_stopping(tmp_path):
    (x, y), (test_x, test_y) = data(), data(40, seed=1)
    model = compiled_network(tl.TripletLoss())
    watch = tl.metrics.RetrievalCallback(test_x, test_y, k=(1, 2))
    stop = keras.callbacks.EarlyStopping("val_recall_at_1", mode="max", patience=1, min_delta=1.0)  # never enough
    keep = keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", "val_map_at_r", mode="max", save_best_only=True)
    history = model.fit(x, y, batch_size=32, epochs=9, verbose=0, callbacks=[watch, stop, keep]).history
    assert len(history["val_recall_at_1"]) == 2 and stop.stopped_epoch == 1
    assert set(history) == {"loss"} | {f"val_{name}" for name in watch.result if name != "queries_without_match"}
    table = pairwise("cosine", *[model.predict(test_x, verbose=0)] * 2)
    expected, _ = retrieval_by_loops(table, test_y, test_y, (1, 2), own=True)
    np.testing.assert_allclose([history[f"val_{name}"][-1] for name in list(watch.result)[:-1]], expected, atol=1e-6)
    assert (tmp_path / "best.keras").exists()


def test_callbacks_behind_it_get_its_numbers(capsys):
    """Other callbacks, and the progress bar, which Keras puts last."""
    found, before = [], []
    watch = tl.metrics.RetrievalCallback(*data(40, seed=1))
    behind = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: found.append(logs["val_recall_at_1"]))
    in_front = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: before.append("val_recall_at_1" in logs))
    compiled_network(tl.TripletLoss()).fit(*data(), epochs=2, verbose=2, callbacks=[in_front, watch, behind])
    assert found[-1] == watch.result["recall_at_1"] and before == [False, False]
    assert f"val_recall_at_1: {found[-1]:.4f}" in capsys.readouterr().out


def test_a_callback_that_needs_its_numbers_warns_of_epochs_without():
    watch = tl.metrics.RetrievalCallback(*data(40, seed=1), every=2)
    stop = keras.callbacks.EarlyStopping("val_recall_at_1", mode="max", patience=5)
    with pytest.warns(UserWarning, match="val_recall_at_1.*not available"):
        compiled_network(tl.TripletLoss()).fit(*data(), epochs=2, verbose=0, callbacks=[watch, stop])


def test_training_is_the_same_beside_the_callback():
    (x, y), weights = data(), []
    for callbacks in ([], [tl.metrics.RetrievalCallback(*data(40, seed=1))]):
        keras.utils.set_random_seed(0)
        model = compiled_network(tl.TripletLoss())
        model.fit(x, y, batch_size=32, epochs=3, shuffle=False, verbose=0, callbacks=callbacks)
        weights.append(model.get_weights())
    for alone, beside in zip(*weights, strict=True):
        np.testing.assert_array_equal(alone, beside)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        x, y = data(40, seed=1)
        return x[16 * index : 16 * index + 16], y[16 * index : 16 * index + 16, None]


def datasets():
    if BACKEND == "tensorflow":
        import tensorflow as tf

        yield tf.data.Dataset.from_tensor_slices(data(40, seed=1)).batch(16)
    if BACKEND == "torch":
        import torch

        yield torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*map(torch.tensor, data(40, seed=1))), batch_size=16)
    yield Batches()
    yield [Batches()[0], Batches()[1], Batches()[2]]


@pytest.mark.parametrize("dataset", datasets(), ids=lambda dataset: type(dataset).__name__)
def test_callback_reads_datasets(dataset):
    model = compiled_network(tl.TripletLoss())
    watch, same = tl.metrics.RetrievalCallback(dataset, every=2, prefix="x_"), tl.metrics.RetrievalCallback(*data(40, seed=1))
    history = model.fit(*data(), batch_size=32, epochs=4, verbose=0, callbacks=[watch, same]).history
    assert history["x_recall_at_1"] == history["val_recall_at_1"][1::2]
    assert history["x_map_at_r"] == pytest.approx(history["val_map_at_r"][1::2], abs=1e-6)


def test_callback_with_one_of_several_outputs():
    inputs = keras.Input((6,))
    embedding = tl.layers.L2Embedding(4, name="embedding")(inputs)
    both = keras.Model(inputs, {"embedding": embedding, "color": keras.layers.Dense(3, name="color")(inputs)})
    x, y = data()
    both.compile("sgd", loss={"embedding": tl.TripletLoss(), "color": keras.losses.MeanSquaredError()},
                 metrics={"embedding": [metrics.TripletMetrics(tl.TripletLoss(), prefix="embedding_")]})  # fmt: skip
    watch = tl.metrics.RetrievalCallback(x, y, embedder=keras.Model(inputs, embedding))
    targets = {"embedding": y, "color": np.zeros((64, 3), "float32")}
    history = both.fit(x, targets, epochs=2, verbose=0, callbacks=[watch]).history
    after = both.predict(x, verbose=0)["embedding"]
    assert history["val_recall_at_1"][-1] == tl.metrics.retrieval_metrics(after, y, 1)["recall_at_1"]
    assert len(history["embedding_active_share"]) == 2


@pytest.mark.parametrize("x, message", [(iter([]), "again and again"), ([], "without any"), ([np.ones((3, 2))], "batches of ndarray")])
def test_callback_refuses(x, message):
    with pytest.raises(ValueError, match=message):
        compiled_network(tl.TripletLoss()).fit(*data(), verbose=0, callbacks=[tl.metrics.RetrievalCallback(x)])


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.data")
def test_callback_refuses_an_endless_dataset():
    import tensorflow as tf

    with pytest.raises(ValueError, match="repeats for ever"):
        tl.metrics.RetrievalCallback(tf.data.Dataset.from_tensor_slices(data()).batch(8).repeat())


@pytest.mark.parametrize("strategies", [("hard", "semi-hard"), ("all", "all")])
def test_metric_in_fit_and_evaluate(strategies):
    x, y = data(40)
    loss = tl.TripletLoss("euclidean", *strategies)
    model = compiled_network(loss, metrics=[metrics.TripletMetrics(loss)])
    before = statistics_by_loops(y, model.predict(x, verbose=0), "euclidean", *strategies, False)
    evaluated = model.evaluate(x, y, batch_size=40, verbose=0, return_dict=True)
    np.testing.assert_allclose([evaluated[name] for name in metrics.STATISTICS], before, rtol=1e-4)
    history = model.fit(x, y, batch_size=40, epochs=1, validation_data=(x, y), validation_batch_size=40, verbose=0).history
    np.testing.assert_allclose([history[name][0] for name in metrics.STATISTICS], before, rtol=1e-4)
    after = statistics_by_loops(y, model.predict(x, verbose=0), "euclidean", *strategies, False)
    np.testing.assert_allclose([history[f"val_{name}"][0] for name in metrics.STATISTICS], after, rtol=1e-4)


def test_metric_is_saved_with_the_model(tmp_path):
    loss = tl.TripletLoss(margin=0.5)
    model = compiled_network(loss, metrics=[metrics.TripletMetrics(loss)])
    x, y = data()
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    numbers = [m.evaluate(x, y, verbose=0, return_dict=True)["positive_distance"] for m in (model, loaded)]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-6)


def test_metric_compares_labels_exactly():
    """In float32 these two classes would be one."""
    metric = metrics.TripletMetrics(tl.TripletLoss())
    metric.update_state(np.array([2**24, 2**24, 2**24 + 1, 2**24 + 1]), ops.convert_to_tensor(np.eye(4, dtype="float32")))
    assert float(metric.result()["valid_share"]) == 1.0
    assert array(metric.result()["active_share"]) == 1.0
