"""Balanced batches as row numbers: epochs, seeds, ranks, and the loaders that take them. (What is refused: test_misuse.py.)"""

import collections
import contextlib
import itertools
import pickle

import keras
import numpy as np
import pytest
from on_backend import BACKEND, only

from tripletloss.samplers import PKBatches, PKSampler

CLASSES, EACH = 6, 4
Y = np.repeat(np.arange(CLASSES) * 10, EACH)
X = np.arange(len(Y), dtype="float32")[:, None]  # each example carries its row number
P, K = 3, 2
NEAR = np.array([[10, 20, 30], [0, 20, 30], [0, 10, 50], [40, 50, 0], [30, 50, 10], [30, 40, 0]])  # by label


def sampler(**settings):
    return PKSampler(Y, P, K, **{"seed": 1, **settings})


def epochs(sampler, count):
    return [list(sampler) for _ in range(count)]


def test_batches_are_lists_of_p_classes_with_k_examples():
    batches = list(itertools.chain(*epochs(sampler(), 3)))
    assert len(sampler()) == len(Y) // (P * K) == 4 and len(batches) == 12
    for rows in batches:
        assert type(rows) is list and {type(row) for row in rows} == {int}
        assert len(set(rows)) == P * K
        assert list(collections.Counter(Y[rows].tolist()).values()) == [K] * P


def test_every_example_comes_once_an_epoch_where_that_can_be():
    """4 batches of 3 classes are 2 draws of each class, and 2 draws of 2 are the 4 examples that each class has."""
    for epoch in epochs(sampler(), 3):
        assert sorted(itertools.chain(*epoch)) == list(range(len(Y)))


def test_rounds_go_on_from_epoch_to_epoch():
    """With one batch in an epoch, each class still comes up equally often, and each of its examples."""
    drawn = list(itertools.chain(*itertools.chain(*epochs(sampler(batches_per_epoch=1), 8))))
    assert set(collections.Counter(drawn).values()) == {2}


def test_a_seed_fixes_every_epoch():
    first, second, other = (epochs(sampler(seed=seed), 3) for seed in (1, 1, 2))
    assert first == second != other
    assert first[0] != first[1] != first[2]
    unseeded = PKSampler(Y, P, K)
    assert epochs(unseeded, 2) == epochs(PKSampler(Y, P, K, unseeded.seed), 2)
    assert unseeded.seed != PKSampler(Y, P, K).seed


def test_epochs_in_any_order():
    in_order, one = epochs(sampler(), 5), sampler()
    for epoch in (3, 0, 4, 4, 1):
        one.set_epoch(epoch)
        assert [one[i] for i in range(len(one))] == in_order[epoch]
        assert list(one) == in_order[epoch] == [one[i] for i in range(len(one))]
    assert list(one) == in_order[2]
    one.set_epoch(np.int64(3))
    assert list(one) == in_order[3]


def test_a_loop_that_ends_early_has_begun_its_epoch():
    one = sampler()
    iter(one), iter(one)  # as a DataLoader with workers does before it asks for a batch
    assert [next(iter(one)) for _ in range(3)] == [epoch[0] for epoch in epochs(sampler(), 3)]
    assert list(one) == epochs(sampler(), 4)[3]
    with pytest.raises(IndexError):
        one[4]


def test_a_pickled_sampler_goes_on_where_it_was():
    one = sampler()
    list(one)
    other = pickle.loads(pickle.dumps(one))
    assert epochs(one, 3) == epochs(other, 3) == epochs(sampler(), 4)[1:]


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_each_epoch(world_size):
    """Equally many batches for each, no row on two, and in turn they are the batches of one that is alone."""
    alone = epochs(sampler(), 3)
    of_ranks = [epochs(sampler(rank=rank, world_size=world_size), 3) for rank in range(world_size)]
    for epoch, whole in enumerate(alone):
        own = [ranks[epoch] for ranks in of_ranks]
        assert [len(batches) for batches in own] == [4 // world_size] * world_size
        assert sorted(itertools.chain(*itertools.chain(*own))) == list(range(len(Y)))
        assert list(itertools.chain(*zip(*own, strict=True))) == whole


def test_each_rank_has_as_many_batches_as_are_asked_for():
    of_ranks = [sampler(rank=rank, world_size=3, batches_per_epoch=5) for rank in range(3)]
    assert [len(list(one)) for one in of_ranks] == [5, 5, 5]
    assert len(sampler(rank=4, world_size=5)) == 1  # which 24 rows do not fill


@pytest.mark.parametrize("settings", [
    {}, {"batches_per_epoch": 5}, {"class_neighbours": NEAR, "p_random": 0}, {"class_neighbours": NEAR, "batches_per_epoch": 7}
])  # fmt: skip
def test_the_batches_of_a_dataset_are_the_sampler_s(settings):
    dataset, one = PKBatches(X, Y, P, K, seed=1, **settings), sampler(**settings)
    for _ in range(3):
        assert len(dataset) == len(one)
        for (x, y), rows in zip(dataset, one, strict=True):
            assert x[:, 0].tolist() == rows and y.tolist() == Y[rows].tolist()
        dataset.on_epoch_end()


@pytest.mark.parametrize("relation", ["any", "all", "levels"])
def test_classes_of_another_relation(relation):
    """The two rows of a class share a label, all labels, or the path."""
    labels = np.array([[1, 0, 0], [1, 0, 1], [0, 1, 0], [0, 1, 1], [1, 0, 0], [0, 1, 0], [1, 0, 1], [0, 1, 1]])
    for rows in PKSampler(labels, 2, 2, seed=0, relation=relation, batches_per_epoch=12):
        for first, second in np.reshape(labels[rows], (2, 2, 3)):
            assert (first & second).any() if relation == "any" else (first == second).all()


def test_neighbours_may_be_set_at_any_time():
    """They count from this epoch's batches on, and stay when an epoch before it is asked for."""
    one = sampler(p_random=0)
    list(one)
    one.class_neighbours = NEAR[:, :2]
    for batches in ([one[i] for i in range(len(one))], *epochs(one, 2)):
        for rows in batches:
            first, *others = dict.fromkeys(Y[rows].tolist())
            assert set(others) == set(NEAR[first // 10, :2])
    one.set_epoch(0)
    assert list(one) == list(sampler(p_random=0, class_neighbours=NEAR[:, :2]))
    np.testing.assert_array_equal(one.class_neighbours, NEAR[:, :2])


@pytest.mark.parametrize("make", [lambda y: PKSampler(y, 2, 3, seed=0), lambda y: PKBatches(y, y, 2, 3, seed=0)])
def test_the_warning_of_small_classes_shows_the_line_that_made_it(make):
    with pytest.warns(UserWarning, match="1 of 3 classes .* repeat some within a batch: 2") as caught:
        made = make(np.array([0, 0, 0, 1, 1, 1, 2, 2]))
    assert [warning.filename for warning in caught] == [__file__] and len(made) == 1


# The loaders. Their packages are no requirements of this one.


def recorder():
    """A model and the list of the rows that `fit` hands to its loss, a list for each batch."""
    seen = []

    def record(y_true, y_pred):
        with contextlib.suppress(Exception):  # a tensor without values, by which Keras builds the loss
            seen.append(np.ravel(keras.ops.convert_to_numpy(y_true)).astype(int).tolist())
        return 0 * keras.ops.sum(y_pred, axis=1)

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", record, run_eagerly=True)
    return model, seen


def rows_in_fit(loader, one, count=2):
    """What `fit` trains on, of a loader whose labels are row numbers, and where a callback names the epochs."""
    model, seen = recorder()
    name_epoch = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: (seen.clear() if not epoch else None, one.set_epoch(epoch)))
    model.fit(loader, epochs=count, callbacks=[name_epoch], shuffle=False, verbose=0)
    return seen


def all_rows(count):
    return list(itertools.chain(*epochs(sampler(), count)))


def torch_loader(one, **settings):
    torch = pytest.importorskip("torch", reason="the DataLoader is PyTorch's, which is not installed")
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.arange(len(Y)))
    return torch.utils.data.DataLoader(dataset, batch_sampler=one, **settings)


@only("torch", "its DataLoader")
@pytest.mark.parametrize("settings", [
    {}, pytest.param({"num_workers": 2}, marks=pytest.mark.every),
    pytest.param({"num_workers": 2, "persistent_workers": True}, marks=pytest.mark.every),
])  # fmt: skip
def test_a_data_loader(settings):
    """Epoch after epoch, or those that are named; in a loop and in `fit`."""
    one, expected = sampler(), epochs(sampler(), 4)
    loader = torch_loader(one, **settings)
    assert len(loader) == len(one)
    assert [[rows.tolist() for _, rows in loader] for _ in range(3)] == expected[:3]
    one.set_epoch(1)
    for x, rows in loader:
        assert x[:, 0].tolist() == rows.tolist()
    assert [rows.tolist() for _, rows in loader] == expected[2]
    assert rows_in_fit(loader, one) == expected[0] + expected[1]


@only("tensorflow", "tf.data")
def test_tf_data():
    import tensorflow as tf

    signature, one = tf.TensorSpec([P * K], tf.int64), sampler()
    numbers = tf.data.Dataset.from_generator(lambda: one, output_signature=signature)
    assert [rows.tolist() for rows in numbers.repeat(3).as_numpy_iterator()] == all_rows(3)
    numbers = numbers.apply(tf.data.experimental.assert_cardinality(len(one)))
    loader = numbers.map(lambda rows: (tf.gather(X, rows), rows)).prefetch(1)
    assert rows_in_fit(loader, one) == all_rows(2)


def x_and_rows(rows):
    return X[rows], np.array(rows)


@only("jax", "what Grain reads is NumPy's on every backend")
def test_grain():
    grain = pytest.importorskip("grain", reason="Grain is not installed: pip install grain")
    one = sampler()
    source = grain.MapDataset.source(one)
    for epoch in (0, 1, 0):
        one.set_epoch(epoch)
        assert [list(rows) for rows in source.to_iter_dataset()] == epochs(sampler(), 2)[epoch]
    assert rows_in_fit(source.map(x_and_rows), one) == all_rows(2)


@pytest.mark.every
@only("jax", "one backend will do")
def test_grain_with_processes():
    """Each holds a copy of the sampler, as it was when the loop began."""
    grain = pytest.importorskip("grain", reason="Grain is not installed: pip install grain")
    pytest.importorskip("absl.flags").FLAGS.mark_as_parsed()  # or Grain's processes refuse to start outside of absl's app.run
    one = sampler()
    one.set_epoch(1)
    loader = grain.MapDataset.source(one).map(x_and_rows).to_iter_dataset()
    loader = loader.mp_prefetch(grain.MultiprocessingOptions(num_workers=2))
    assert [rows.tolist() for _, rows in loader] == epochs(sampler(), 2)[1]


@pytest.mark.every
def test_hugging_face_datasets():
    """As the function of `PKBatches`, and in a DataLoader, which asks for all rows of a batch at once."""
    datasets = pytest.importorskip("datasets", reason="Hugging Face's datasets are not installed: pip install datasets")
    data = datasets.Dataset.from_dict({"x": X, "label": Y}).with_format("numpy")
    batches = PKBatches(lambda rows: data[rows]["x"], data["label"][:], P, K, seed=1)
    assert [x[:, 0].astype(int).tolist() for x, _ in batches] == all_rows(1)
    if BACKEND == "torch":
        import torch

        loader = torch.utils.data.DataLoader(data.with_format("torch"), batch_sampler=PKSampler(data["label"][:], P, K, seed=1))
        assert [batch["x"][:, 0].int().tolist() for batch in loader] == all_rows(1)
