"""Every input that must be refused, with words that help; the same mistakes in `fit`; and what only looks like a mistake."""

import keras
import numpy as np
import pytest
from keras import ops
from on_backend import BACKEND, only
from reference import DISTANCES, mean_loss

import tripletloss as tl
from tripletloss.distribution import set_block_size
from tripletloss.metrics import RetrievalCallback, TripletMetrics, retrieval_metrics, verification_metrics
from tripletloss.mining import mine_dataset
from tripletloss.samplers import EpochShuffler, PKBatches, PKSampler, RenewNeighbours, nearest_classes

X = np.random.default_rng(5).normal(size=(6, 3)).astype("float32")
Y = np.array([0, 0, 1, 1, 2, 2])
ONES = np.ones((3, 2), "float32")


def assert_refuses(call, words):
    """A ValueError whose message has each of the words: the argument, what came, what is expected."""
    with pytest.raises(ValueError) as caught:
        call()
    missing = [word for word in words if word not in str(caught.value)]
    assert not missing, f"the message lacks {missing}: {caught.value}"


def refused(*rows):
    """A table as parameters: what is wrong names the case."""
    return pytest.mark.parametrize("case", [pytest.param(row[1:], id=row[0]) for row in rows])


def by_class(labels, embeddings, **settings):
    return tl.TripletLoss(**settings)(labels, embeddings)


# Labels and embeddings: what is wrong, the two, and what the message must hold.


@pytest.mark.parametrize("through", [tl.triplet_loss, by_class, tl.mine_triplets])
@refused(
    ("one-hot", np.eye(6, 3, dtype="int32"), X, ["labels", "(6, 3)", "(n,)", "argmax"]),
    ("as many one-hot columns as rows", np.eye(6, dtype="int32"), X, ["labels", "(6, 6)", "(n,)", "argmax"]),
    ("float one-hot", np.eye(6, dtype="float32"), X, ["labels", "(6, 6)", "float32", "integers"]),
    ("float labels", Y.astype("float32"), X, ["labels", "float32", "integers"]),
    ("bool labels", Y.astype("bool"), X, ["labels", "bool", "integers"]),
    ("labels of rank 0", np.array(1), X, ["labels", "()", "(n,)"]),
    ("labels of rank 3", Y[:, None, None], X, ["labels", "(6, 1, 1)", "(n,)"]),
    ("a list of words", list("aabbcc"), X, ["labels", "integers"]),
    ("words", np.array(list("aabbcc")), X, ["labels", "integers"]),
    ("objects", np.array(list("aabbcc"), dtype=object), X, ["labels", "integers", "(6,)"]),
    ("no labels", None, X, ["labels", "integers", "None"]),
    ("swapped", X, Y, ["labels", "float32", "Labels come first"]),
    ("more labels", np.arange(7), X, ["labels", "embeddings", "(7,)", "(6, 3)", "same length"]),
    ("fewer labels", Y[:4, None], X, ["labels", "embeddings", "(4,)", "(6, 3)", "same length n"]),
    ("embeddings of rank 1", Y, X[:, 0], ["embeddings", "(6,)", "(n, d)"]),
    ("embeddings of rank 3", Y, X[:, None], ["embeddings", "(6, 1, 3)", "(n, d)"]),
    ("a list of embeddings", Y, [X, X], ["embeddings", "(2, 6, 3)"]),
    ("a dictionary", Y, {"embedding": X}, ["embeddings", "floats", "embedding"]),
    ("rows of several lengths", Y, [[1.0], [1.0, 2.0], [1.0], [1.0], [1.0], [1.0]], ["embeddings", "floats"]),
    ("no columns", Y, X[:, :0], ["embeddings", "(6, 0)"]),
    ("no embeddings", Y, None, ["embeddings", "floats", "None"]),
    ("integer embeddings", Y, X.astype("int32"), ["embeddings", "int32", "floats"]),
    ("bool embeddings", Y, X > 0, ["embeddings", "floats", "bool"]),
    ("complex embeddings", Y, X.astype("complex64"), ["embeddings", "floats", "complex64"]),
)
def test_refuses_inputs(case, through):
    labels, embeddings, words = case
    if through is by_class:  # a Keras loss calls them y_true and y_pred
        words = [{"labels": "y_true", "embeddings": "y_pred"}.get(word, word) for word in words]
    assert_refuses(lambda: through(labels, embeddings), words)


@pytest.mark.parametrize("through", [tl.triplet_loss, tl.mine_triplets])
@refused(
    ("labels without keys", {"key_labels": Y}, ["key_embeddings", "key_labels"]),
    ("keys without labels", {"key_embeddings": X}, ["key_embeddings", "key_labels"]),
    ("another width", {"key_labels": Y, "key_embeddings": X[:, :2]}, ["query_embeddings", "key_embeddings", "(6, 3)", "(6, 2)"]),
    ("another length", {"key_labels": Y[:3], "key_embeddings": X}, ["key_labels", "key_embeddings", "(3,)", "(6, 3)"]),
    ("one-hot keys", {"key_labels": np.eye(6, dtype="int32"), "key_embeddings": X}, ["key_labels", "(6, 6)"]),
    ("float key labels", {"key_labels": Y.astype("float32"), "key_embeddings": X}, ["key_labels", "float32"]),
    ("keys of rank 1", {"key_labels": Y, "key_embeddings": X[:, 0]}, ["key_embeddings", "(6,)", "(n, d)"]),
)
def test_refuses_keys(case, through):
    settings, words = case
    assert_refuses(lambda: through(Y, X, **settings), words)


def sparse(x):
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.sparse.from_dense(x)
    if BACKEND == "jax":
        from jax.experimental import sparse

        return sparse.BCOO.fromdense(x)
    import torch

    return torch.tensor(x).to_sparse()


def ragged(rows):
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.ragged.constant(rows)
    import torch

    return torch.nested.nested_tensor([torch.tensor(row) for row in rows])


@pytest.mark.parametrize("through", [tl.triplet_loss, by_class, tl.mine_triplets])
def test_sparse_and_ragged_are_refused(through):
    """Filled up with zeros they would give numbers that look right."""
    cases = [(Y, sparse(X)), (sparse(Y), X)]
    if BACKEND != "jax":  # which has no ragged arrays
        cases.append((Y, ragged([[1.0], [1.0, 2.0], [3.0], [4.0], [0.0], [1.0]])))
    for labels, embeddings in cases:
        with pytest.raises(ValueError, match=r"must be .*, dense; received a sparse or ragged \w+"):
            through(labels, embeddings)


def test_uint64_is_refused_where_the_backend_does_not_have_it():
    labels = Y.astype("uint64")
    if BACKEND == "torch":
        words = ["y_true must be integers", "received shape", "dtype uint64, which is no tensor of this backend"]
        assert_refuses(lambda: tl.TripletLoss()(labels, X), words)
    else:
        assert float(tl.TripletLoss("euclidean")(labels, X)) == pytest.approx(mean_loss(Y, X, name="euclidean"), rel=1e-5)


# Settings: what is wrong, the arguments, and words. Each is refused when a loss is made, before it is called.


def everywhere(**settings):
    """A loss by its class and by its function, and mining."""
    return [lambda: tl.TripletLoss(**settings), lambda: tl.triplet_loss(Y, X, **settings), lambda: tl.mine_triplets(Y, X, **settings)]


def in_losses(**settings):
    return everywhere(**settings)[:2]


def in_margins(**settings):
    return [*in_losses(**settings), lambda: tl.triplet_margin_loss(X, X, X, **settings)]


@refused(
    ("distance", everywhere(distance="euclidian"), ["distance", "'euclidian'", "Did you mean 'euclidean'"]),
    ("alias", everywhere(distance="taxicap"), ["distance", "'taxicap'", "Did you mean 'taxicab'"]),
    ("a number as distance", everywhere(distance=3), ["distance", "3"]),
    ("None as distance", everywhere(distance=None), ["distance", "None"]),
    ("positive", everywhere(positive_mining_strategy="hrad"), ["positive_mining_strategy", "'hrad'", "Did you mean 'hard'", "'easy'"]),
    ("semi-hard positive", everywhere(positive_mining_strategy="semi-hard"), ["positive_mining_strategy", "'semi-hard'"]),
    ("negative", everywhere(negative_mining_strategy="semihard"), ["negative_mining_strategy", "'semihard'", "Did you mean 'semi-hard'"]),
    ("None as strategy", everywhere(negative_mining_strategy=None), ["negative_mining_strategy", "None"]),
    # What chooses several keys is no strategy for mine_triplets, which returns one.
    ("all positives", everywhere(positive_mining_strategy="all")[2:], ["positive_mining_strategy", "'all'", "'easy'"]),
    ("all negatives", everywhere(negative_mining_strategy="all")[2:], ["negative_mining_strategy", "'all'", "'easy'"]),
    ("average", in_losses(average="anchor"), ["average", "'anchor'", "Did you mean 'anchors'", "'triplets'"]),
    ("no average", in_losses(average=None), ["average", "None"]),
    ("negative margin", in_margins(margin=-0.5), ["margin", "-0.5"]),
    ("NaN margin", in_margins(margin=float("nan")), ["margin", "nan"]),
    ("infinite margin", in_margins(margin=float("inf")), ["margin", "inf"]),
    ("no margin", in_margins(margin=None), ["margin", "None", "soft_margin=True"]),
    ("both margins", in_margins(soft_margin=True, margin=0.5), ["margin", "soft_margin", "0.5"]),
    ("soft and none", in_margins(soft_margin=True, margin=None), ["margin", "None"]),
    ("string", in_margins(margin="big"), ["margin", "big"]),
    ("a list as margin", in_margins(margin=[1.0]), ["margin", "[1.0]"]),
    ("reduction", in_losses(reduction="average")[:1], ["reduction"]),
    ("no bool", in_losses(gather_across_devices="yes")[:1], ["gather_across_devices", "'yes'", "True or False"]),
)
def test_refuses_settings(case):
    calls, words = case
    for call in calls:
        assert_refuses(call, words)


# Everything else: what is wrong, a function and its arguments, and words.


def weigh(shape):
    tl.TripletLoss("euclidean")(Y, X, sample_weight=np.ones(shape, "float32"))


def watch(examples):
    network().fit(X, Y, verbose=0, callbacks=[RetrievalCallback(examples)])


OTHERS = [
    ("more weights than rows", [weigh, 7], ["sample_weight", "(7,)"]),
    ("weights in columns", [weigh, (6, 2)], ["sample_weight", "(6, 2)"]),
    ("weights in a row", [weigh, (1, 6)], ["sample_weight", "(1, 6)"]),
    ("weights of rank 3", [weigh, (6, 1, 1)], ["sample_weight", "(6, 1, 1)"]),
    ("triplets of several lengths", [tl.triplet_margin_loss, X, X[:3], X], ["positive", "(6, 3)", "(3, 3)"]),
    ("triplets of several widths", [tl.triplet_margin_loss, X, X, X[:, :2]], ["negative", "(6, 3)", "(6, 2)"]),
    ("anchors of rank 1", [tl.triplet_margin_loss, X[0], X, X], ["anchor", "(3,)", "(n, d)"]),
    ("integer negatives", [tl.triplet_margin_loss, X, X, X.astype("int32")], ["negative", "int32", "float"]),
    ("search among integers", [retrieval_metrics, np.ones((3, 2), "int64"), [0, 0, 1]], ["embeddings must be floats"]),
    ("search among numbers", [retrieval_metrics, np.ones(3), [0, 0, 1]], ["received shape (3,)"]),
    ("search among infinities", [retrieval_metrics, np.array([[1.0], [np.inf]]), [0, 0]], ["in 1 of 2 rows, the first of them row 1"]),
    ("more queries than keys", [retrieval_metrics, X, Y, 1, X[[0] * 7], Y[[0] * 7]], {"remove_diagonal": True}, ["remove_diagonal", "7 queries", "6 keys"]),
    ("queries of other classes", [retrieval_metrics, X, Y, 1, X, 1 - Y], {"remove_diagonal": True}, ["remove_diagonal", "query_labels"]),
    ("a diagonal of words", [retrieval_metrics, X, Y], {"remove_diagonal": "yes"}, ["remove_diagonal must be True or False; received 'yes'"]),
    ("float labels of a search", [retrieval_metrics, ONES, [0.0, 1.0, 2.0]], ["labels must be integer labels; received dtype float"]),
    ("the place 0", [retrieval_metrics, ONES, [0, 0, 1], 0], ["k must be an integer of at least 1; received 0"]),
    ("no place", [retrieval_metrics, ONES, [0, 0, 1], ()], ["k must name at least one place"]),
    ("a word as place", [retrieval_metrics, ONES, [0, 0, 1], "1"], ["k must be an integer"]),
    ("queries of another width", [retrieval_metrics, ONES, [0, 0, 1], 1, np.ones((2, 3)), [0, 0]], ["the same width d"]),
    ("queries without labels", [retrieval_metrics, ONES, [0, 0, 1], 1, np.ones((2, 2))], ["query_labels must be given together"]),
    ("distance of a search", [retrieval_metrics, ONES, [0, 0, 1], 1, None, None, "cosin"], ["Did you mean 'cosine'"]),
    ("labels beyond int64", [retrieval_metrics, ONES[:2], np.array([1, 2**63], "uint64")], ["must fit into int64"]),
    ("an average of a search", [retrieval_metrics, ONES, [0, 0, 1]], {"average": "classes"}, ["average", "Did you mean 'class'"]),
    ("ranks in words", [retrieval_metrics, ONES, [0, 0, 1]], {"all_ranks": "yes"}, ["all_ranks must be True or False; received 'yes'"]),
    ("verified integers", [verification_metrics, np.ones((3, 2), "int64"), [0, 0, 1]], ["embeddings must be floats"]),
    ("verified float labels", [verification_metrics, ONES, [0.0, 1.0, 2.0]], ["labels must be integer labels; received dtype float"]),
    ("a rate above 1", [verification_metrics, ONES, [0, 0, 1], (0.1, 1.5)], ["false_accept_rates must be a number from 0 to 1; received 1.5"]),
    ("a rate in words", [verification_metrics, ONES, [0, 0, 1], "0.1"], ["false_accept_rates must be a number from 0 to 1; received '0.1'"]),
    ("half a resample", [verification_metrics, ONES, [0, 0, 1]], {"resamples": 0.5}, ["resamples must be an integer of at least 0"]),
    ("a negative seed", [verification_metrics, ONES, [0, 0, 1]], {"seed": -1}, ["seed must be an integer of at least 0"]),
    ("verified without labels", [verification_metrics, ONES, [0, 0, 1], 0.1, ONES], ["query_labels must be given together"]),
    ("verified of another width", [verification_metrics, ONES, [0, 0, 1], 0.1, np.ones((2, 3)), [0, 0]], ["the same width d"]),
    ("distance of pairs", [verification_metrics, ONES, [0, 0, 1]], {"distance": "cosin"}, ["Did you mean 'cosine'"]),
    ("a metric of another loss", [TripletMetrics, keras.losses.MeanSquaredError()], ["loss must be a TripletLoss"]),
    ("a weighted metric", [TripletMetrics(tl.TripletLoss()).update_state, Y, X, np.ones(6)], ["not weighted_metrics"]),
    ("examples that come once", [watch, iter([])], ["again and again"]),
    ("no examples", [watch, []], ["without any"]),
    ("examples without labels", [watch, [ONES]], ["batches of ndarray"]),
    ("more classes than there are", [PKBatches, X, Y, 4, 2], ["classes_per_batch", "4", "3"]),
    ("a single example of each class", [PKBatches, X, Y, 3, 1], ["examples_per_class", "1"]),
    ("a single class", [PKBatches, X, Y, 1, 2], ["classes_per_batch", "1"]),
    ("more labels than examples", [PKBatches, X[:-1], Y, 3, 2], ["5", "6"]),
    ("nothing to draw from", [EpochShuffler, [], None], ["items must hold at least one"]),
    ("a layer without units", [tl.layers.L2Embedding, 0], ["units", "0", "None"]),
    ("float labels of batches", [PKBatches, X, Y.astype("float32"), 3, 2], ["y", "float32"]),
    ("one-hot labels of batches", [PKBatches, X, np.eye(6, dtype=int), 3, 2], ["y", "(6, 6)"]),
    ("neighbours for some classes", [PKBatches, X, Y, 2, 2], {"class_neighbours": [[1], [0]]}, ["class_neighbours", "(3, c)", "(2, 1)"]),
    ("neighbours that do not exist", [PKBatches, X, Y, 2, 2], {"class_neighbours": [[1], [0], [9]]}, ["class_neighbours must be among the labels; received 9"]),
    ("a class as its own neighbour", [PKBatches, X, Y, 2, 2], {"class_neighbours": [[1], [1], [0]]}, ["other classes", "[1] for class 1"]),
    ("a neighbour twice", [PKBatches, X, Y, 2, 2], {"class_neighbours": [[1, 1], [0, 2], [0, 1]]}, ["each once", "[1, 1] for class 0"]),
    ("floats as neighbours", [PKBatches, X, Y, 2, 2], {"class_neighbours": [[1.0], [0.0], [0.0]]}, ["class_neighbours", "float64"]),
    ("more than all at random", [PKBatches, X, Y, 2, 2], {"p_random": 1.1}, ["p_random must be a number from 0 to 1; received 1.1"]),
    ("a rank beyond the world", [PKSampler, Y, 2, 2, 0, 2, 2], ["rank must be below world_size, 2; received 2"]),
    ("a rank below 0", [PKSampler, Y, 2, 2, 0, -1, 2], ["rank must be an integer of at least 0; received -1"]),
    ("a world without processes", [PKSampler, Y, 2, 2, 0, 0, 0], ["world_size must be an integer of at least 1; received 0"]),
    ("ranks without a seed", [PKSampler, Y, 2, 2, None, 0, 2], ["seed must be given if world_size is above 1, the same for each rank"]),
    ("a seed of batches below 0", [PKSampler, Y, 2, 2, -1], ["seed must be an integer of at least 0; received -1"]),
    ("more classes than a sampler has", [PKSampler, Y, 4, 2], ["classes_per_batch must be at most the number of classes, 3; received 4"]),
    ("float labels of a sampler", [PKSampler, Y / 2, 2, 2], ["labels must be integer labels; received dtype float64"]),
    ("names as labels of a sampler", [PKSampler, ["a", "a", "b", "b"], 2, 2], ["labels must be integer labels", "np.unique(labels, return_inverse=True)"]),
    ("an epoch without batches", [PKSampler, Y, 2, 2], {"batches_per_epoch": 0}, ["batches_per_epoch must be an integer of at least 1; received 0"]),
    ("an epoch before the first", [PKSampler(Y, 2, 2).set_epoch, -1], ["epoch must be an integer of at least 0; received -1"]),
    ("half an epoch", [PKSampler(Y, 2, 2).set_epoch, 0.5], ["epoch must be an integer of at least 0; received 0.5"]),
    ("neighbours of something else", [RenewNeighbours, X], ["batches must be PKBatches"]),
    ("renewal never", [RenewNeighbours, PKBatches(X, Y, 2, 2), 0], ["every must be an integer of at least 1; received 0"]),
    ("rows without labels", [RenewNeighbours, PKBatches(X, Y, 2, 2)], {"x": X}, ["y must be given together with x"]),
    ("more neighbours than classes", [nearest_classes, X, Y, 3], ["count must be at most the number of other classes, 2; received 3"]),
    ("neighbours of too few rows", [nearest_classes, X[:5], Y, 1], ["same length n", "(6,)", "(5, 3)"]),
    ("no negatives", [mine_dataset, X, Y, 0], ["negatives_per_anchor must be an integer of at least 1; received 0"]),
    ("ranks that end before they begin", [mine_dataset, X, Y], {"range_min": 5, "range_max": 5}, ["range_max", "at least 6; received 5"]),
    ("more negatives than ranks", [mine_dataset, X, Y, 4], {"range_min": 1, "range_max": 4}, ["negatives_per_anchor must be at most range_max - range_min, 3"]),
    ("a negative margin of a data set", [mine_dataset, X, Y], {"absolute_margin": -0.1}, ["absolute_margin must be a finite number >= 0"]),
    ("a relative margin of NaN", [mine_dataset, X, Y], {"relative_margin": np.nan}, ["relative_margin must be a finite number >= 0"]),
    ("another sampling", [mine_dataset, X, Y], {"sampling": "rand"}, ["sampling must be one of 'top', 'random'", "Did you mean 'random'?"]),
    ("positives of a data set", [mine_dataset, X, Y], {"positive_mining_strategy": "all"}, ["positive_mining_strategy", "'hard', 'easy', 'random'"]),
    ("a seed below 0", [mine_dataset, X, Y], {"seed": -1}, ["seed must be an integer of at least 0; received -1"]),
    ("a data set with infinities", [mine_dataset, np.where(X > 0, np.inf, X), Y], ["embeddings must be finite"]),
    ("one-hot labels of a data set", [mine_dataset, X, np.eye(6, dtype=int)], ["labels must be integer labels", "(6, 6)"]),
    ("candidates for some rows", [mine_dataset, X, Y], {"candidates": np.zeros((5, 2), int)}, ["candidates", "(6, c)", "(5, 2)"]),
    ("candidates beyond the rows", [mine_dataset, X, Y], {"candidates": [[6]] * 6}, ["candidates must be row numbers from 0 to 5"]),
    ("distances as candidates", [mine_dataset, X, Y], {"candidates": np.ones((6, 2))}, ["candidates must be integers", "float64"]),
    ("blocks of 8 GB", [set_block_size, 2**31], ["numbers must be below 2^31; received 2147483648"]),
    *((f"blocks of {x!r}", [set_block_size, x], ["numbers must be an integer of at least 1; received"]) for x in (0, -1, 1.5, True, "7")),
]
if BACKEND == "jax":  # compiled, `fit` would hand the loss what is left of them, and the loss could not tell
    OTHERS.append(("labels of 64 bits", [PKBatches, X, Y * 2**32, 3, 2], ["y of dtype int64 do not fit", "np.unique"]))
if BACKEND == "tensorflow":
    import tensorflow as tf

    endless = tf.data.Dataset.from_tensor_slices((X, Y)).batch(2).repeat()
    OTHERS.append(("examples without end", [watch, endless], ["repeats for ever"]))


@refused(*OTHERS)
def test_refuses(case):
    (function, *arguments), *keywords, words = case
    assert_refuses(lambda: function(*arguments, **(keywords or [{}])[0]), words)


# How Keras runs a step: as it is written, traced, or compiled too.

MODES = {"eager": {"run_eagerly": True}, "traced": {"jit_compile": False}, "compiled": {"jit_compile": True}}
if BACKEND == "torch":
    del MODES["compiled"]  # takes a C++ compiler


def network(*layers, mode="eager"):
    model = keras.Sequential([keras.Input((3,)), *(layers or [keras.layers.Dense(3)])])
    model.compile("sgd", tl.TripletLoss("euclidean"), **MODES[mode])
    return model


def mapped(fn, shape):
    return [keras.layers.Lambda(fn, output_shape=shape)]


# What is wrong, the layers, x, y, and words.
IN_FIT = [
    ("one-hot labels", [], X, np.eye(3, dtype="int32")[Y], ["y_true", "(n,) or (n, 1)", "3) and dtype int32", "argmax"]),
    ("as many one-hot columns as rows", [], X, np.eye(6, dtype="int64"), ["y_true", "6) and dtype int", "argmax"]),
    ("float labels", [], X, Y.astype("float32"), ["y_true", "integers", "dtype float32"]),
    ("swapped", [], np.repeat(Y[:, None], 3, axis=1), X, ["y_true", "dtype float32", "Labels come first"]),
    ("no labels", [], X, None, ["y_true", "integers", "None"]),
    ("fewer labels", [], X, Y[:4], []),  # Keras itself counts
    ("a map for each row", [keras.layers.Reshape((3, 1))], X, Y, ["y_pred", "(n, d)", "3, 1)"]),
    ("one number for each row", mapped(lambda x: x[:, 0], ()), X, Y, ["y_pred", "(n, d)"]),
    ("classes for embeddings", mapped(lambda x: ops.cast(x, "int32"), (3,)), X, Y, ["y_pred", "floats", "int32"]),
    # Keras would only take weight from the hidden rows, and they would go on as positives and negatives of others.
    ("a mask", [keras.layers.Masking(-1.0)], X, Y, ["y_pred must have no Keras mask; received one of shape ("]),
]


@pytest.mark.jit
@pytest.mark.parametrize("mode", MODES)
@refused(*IN_FIT)
def test_fit_refuses(case, mode):
    layers, x, y, words = case
    assert_refuses(lambda: network(*layers, mode=mode).fit(x, y, batch_size=6, verbose=0), words)


@only("tensorflow", "functions that do not know a shape")
def test_no_wrong_number_where_a_graph_does_not_know_the_shapes():
    """Columns of labels that only show at run time: one for each row is right, more are an error, in whatever words."""
    loss, columns = tl.TripletLoss("euclidean"), tf.TensorSpec([None, None], tf.int64)
    step = tf.function(loss, input_signature=[columns, tf.TensorSpec([None, 3], tf.float32)])
    assert float(step(Y[:, None], X)) == pytest.approx(mean_loss(Y, X, name="euclidean"), rel=1e-5)
    for labels in (np.eye(6, dtype="int64"), np.eye(6, 3, dtype="int64"), Y[:4, None]):
        with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
            step(labels, X)
    unknown = tf.function(loss, input_signature=[columns, tf.TensorSpec([None, None])])
    assert_refuses(lambda: unknown(Y[:, None], X), ["y_pred must be floats of shape (n, d); received shape (None, None)"])


# What looks like a mistake, and is none.


@pytest.mark.parametrize("distance", DISTANCES)
def test_rows_that_are_not_normalised(distance):
    """Every distance takes rows as they are; cosine normalises them by itself, where a peer gave the margin and no gradient."""
    scaled = (X * np.array([[1e-3], [1], [10], [100], [5], [0.1]])).astype("float32")
    loss = float(tl.TripletLoss(distance)(Y, scaled))
    assert loss == pytest.approx(mean_loss(Y, scaled, name=distance), rel=1e-4)
    if distance == "cosine":
        assert loss == pytest.approx(mean_loss(Y, X, name="cosine"), rel=1e-4)


@pytest.mark.parametrize("margin", [0.0, 1e-30, 1e-6, 1e6, 1e30])
def test_extreme_margins(margin):
    loss = float(tl.TripletLoss("euclidean", margin=margin)(Y, X))
    assert loss == pytest.approx(mean_loss(Y, X, name="euclidean", margin=margin), rel=1e-5)
