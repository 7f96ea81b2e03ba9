"""The worked numbers, each checked by hand, and every input that must be refused."""

import numpy as np
import pytest
from keras import ops
from on_backend import array, compiled
from reference import mean_loss, triplet_losses

import tripletloss as tl


def line(*x):
    return np.array(x, "float32")[:, None]


A = line(*range(9)), np.array([0, 0, 1, 1, 0, 2, 1, 1, 1])
B = line(0, 1, 4, 2, 6, 9), np.array([0, 0, 0, 1, 1, 1])
C = np.array([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]], "float32")
D = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0, 1], [1, 0]], "float32"), np.array([0, 0, 0, 1, 1, 1])

BATCH = [
    (*A, "euclidean", "hard", "hard", False, 33 / 8),
    (*A, "euclidean", "hard", "semi-hard", False, 1.0),
    (*B, "euclidean", "hard", "semi-hard", False, 1.0),
    (*B, "euclidean", "easy", "semi-hard", False, 0.5),
    (C, [0, 0, 1, 1], "euclidean", "hard", "hard", False, 1.708146),
    (C, [0, 0, 1, 1], "euclidean", "hard", "semi-hard", False, 1.024374),
    (C, [0, 1, 2, 3], "euclidean", "hard", "hard", False, 0.0),
    (C, [0, 1, 2, 3], "euclidean", "hard", "semi-hard", False, 0.0),
    (C, [0, 0, 0, 0], "euclidean", "hard", "hard", False, 0.0),
    (C, [0, 0, 0, 0], "euclidean", "hard", "semi-hard", False, 0.0),
    (C, [0, 0, 1, 2], "euclidean", "hard", "hard", False, 1.650772),
    (C, [0, 0, 1, 2], "euclidean", "hard", "semi-hard", False, 0.707107),
    (*D, "cosine", "easy", "easy", False, 2 / 6),
    (*D, "cosine", "hard", "hard", False, 2.0),
    (*D, "cosine", "easy", "hard", False, 8 / 6),
    (*D, "cosine", "hard", "hard", True, 1.313262),
    (*D, "cosine", "hard", "semi-hard", True, 0.693147),
]
# With "all", and what is averaged.
FAMILY = [
    (*A, "all", "semi-hard", "triplets", 16 / 26),
    (*A, "all", "all", "active", 165 / 57),
    (*A, "all", "all", "triplets", 165 / 116),
    (*B, "all", "semi-hard", "triplets", 0.75),
    (*B, "all", "all", "active", 3.375),
    (C, [0, 0, 1, 1], "all", "all", "active", 1.366260),
    (C, [0, 1, 2, 3], "all", "all", "active", 0.0),
    (C, [0, 0, 0, 0], "all", "all", "active", 0.0),
    (C, [0, 0, 1, 2], "all", "all", "active", 1.178939),
]
ANCHORS = [
    (*A, "euclidean", "hard", "semi-hard", [0, 0, 4, 3, 1, 0, 0, 0, 0]),
    (*D, "cosine", "easy", "easy", [0, 0, 1, 0, 0, 1]),
    (*D, "cosine", "easy", "hard", [1, 1, 2, 1, 1, 2]),
]


@pytest.mark.parametrize("x, y, distance, positive, negative, soft, expected", BATCH)
def test_worked_numbers_of_a_batch(x, y, distance, positive, negative, soft, expected):
    y = np.array(y)
    assert mean_loss(y, x, name=distance, positive=positive, negative=negative, soft_margin=soft) == pytest.approx(
        expected, abs=1e-6
    )
    loss = tl.TripletLoss(distance, positive, negative, soft_margin=soft)
    assert float(loss(y, x)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("x, y, distance, positive, negative, soft, expected", BATCH)
def test_worked_numbers_of_a_batch_compiled(x, y, distance, positive, negative, soft, expected):
    loss, y = tl.TripletLoss(distance, positive, negative, soft_margin=soft), np.array(y)
    fast = compiled(lambda x: loss(y, x))
    assert float(fast(ops.convert_to_tensor(x, "float32"))) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("x, y, positive, negative, average, expected", FAMILY)
def test_worked_numbers_of_all_triplets(x, y, positive, negative, average, expected):
    y = np.array(y)
    losses, valid = triplet_losses(y, x, name="euclidean", positive=positive, negative=negative, average=average)
    assert losses.sum() / max(valid.sum(), 1) == pytest.approx(expected, abs=1e-6)
    loss = tl.TripletLoss("euclidean", positive, negative, average=average)
    assert float(loss(y, x)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("x, y, positive, negative, average, expected", FAMILY)
def test_worked_numbers_of_all_triplets_compiled(x, y, positive, negative, average, expected):
    loss, y = tl.TripletLoss("euclidean", positive, negative, average=average), np.array(y)
    fast = compiled(lambda x: loss(y, x))
    assert float(fast(ops.convert_to_tensor(x, "float32"))) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("x, y, distance, positive, negative, expected", ANCHORS)
def test_worked_numbers_of_each_anchor(x, y, distance, positive, negative, expected):
    losses, _ = triplet_losses(y, x, name=distance, positive=positive, negative=negative)
    np.testing.assert_allclose(losses, expected, atol=1e-6)
    losses = tl.triplet_loss(
        y, x, distance=distance, positive_mining_strategy=positive, negative_mining_strategy=negative
    )
    np.testing.assert_allclose(array(losses), expected, atol=1e-6)


def test_anchor_5_of_batch_a_is_the_one_that_does_not_count():
    x, y = A
    valid = array(tl.mine_triplets(y, x, distance="euclidean").valid)
    np.testing.assert_array_equal(valid, np.arange(9) != 5)


def test_arguments_by_position_are_the_defaults():
    by_position = tl.TripletLoss("cosine", "hard", "semi-hard", False, 1.0, None)
    default = tl.TripletLoss()
    x, y = D
    assert float(default(y, x)) == float(by_position(y, x))
    assert {**default.get_config(), "name": None} == {**by_position.get_config(), "name": None}


def by_function(labels, embeddings, **settings):
    return tl.triplet_loss(labels, embeddings, **settings)


def by_class(labels, embeddings, **settings):
    return tl.TripletLoss(**settings)(labels, embeddings)


def mined(labels, embeddings, **settings):
    return tl.mine_triplets(labels, embeddings, **settings)


GOOD_Y, GOOD_X = np.array([0, 0, 1, 1]), np.eye(4, 3, dtype="float32")

# What is wrong, labels, embeddings, and what the message must hold: the argument, what came, what is expected.
BAD_INPUTS = [
    ("one-hot", np.eye(4, 2, dtype="int32"), GOOD_X, ["label", "(4, 2)", "(n,)"]),
    ("square one-hot", np.eye(4, dtype="int32"), GOOD_X, ["label", "(4, 4)", "(n,)"]),
    ("float one-hot", np.eye(4, dtype="float32"), GOOD_X, ["label", "(4, 4)", "float32", "int"]),
    ("float labels", GOOD_Y.astype("float32"), GOOD_X, ["label", "float32", "int"]),
    ("bool labels", GOOD_Y.astype("bool"), GOOD_X, ["label", "bool", "int"]),
    ("labels of rank 0", np.array(1), GOOD_X, ["label", "()", "(n,)"]),
    ("labels of rank 3", GOOD_Y[:, None, None], GOOD_X, ["label", "(4, 1, 1)", "(n,)"]),
    ("strings", np.array(list("aabb")), GOOD_X, ["label", "int"]),
    ("embeddings of rank 1", GOOD_Y, GOOD_X[:, 0], ["embedding", "(4,)", "(n, d)"]),
    ("embeddings of rank 3", GOOD_Y, GOOD_X[:, None], ["embedding", "(4, 1, 3)", "(n, d)"]),
    ("integer embeddings", GOOD_Y, GOOD_X.astype("int32"), ["embedding", "int32", "float"]),
    ("more labels", np.array([0, 0, 1, 1, 2]), GOOD_X, ["label", "embedding", "(5,)", "(4, 3)"]),
    ("fewer labels", np.array([[0], [0], [1]]), GOOD_X, ["label", "embedding", "(4, 3)", "same length"]),
]
BAD_SETTINGS = [
    ("distance", {"distance": "euclidian"}, ["distance", "'euclidian'", "Did you mean 'euclidean'"]),
    ("alias", {"distance": "taxicap"}, ["distance", "'taxicap'", "Did you mean 'taxicab'"]),
    ("no distance", {"distance": 3}, ["distance", "3"]),
    ("None as distance", {"distance": None}, ["distance", "None"]),
    ("positive", {"positive_mining_strategy": "hrad"}, ["positive_mining_strategy", "'hrad'", "'hard'", "'easy'"]),
    ("semi-hard positive", {"positive_mining_strategy": "semi-hard"}, ["positive_mining_strategy", "'semi-hard'"]),
    (
        "negative",
        {"negative_mining_strategy": "semihard"},
        ["negative_mining_strategy", "'semihard'", "Did you mean 'semi-hard'"],
    ),
    ("None as strategy", {"negative_mining_strategy": None}, ["negative_mining_strategy", "None"]),
]
# What chooses several keys is no strategy for mine_triplets, which returns one.
BAD_MINING = [
    ("all positives", {"positive_mining_strategy": "all"}, ["positive_mining_strategy", "'all'", "'easy'"]),
    ("all negatives", {"negative_mining_strategy": "all"}, ["negative_mining_strategy", "'all'", "'easy'"]),
]
BAD_AVERAGES = [
    ("average", {"average": "anchor"}, ["average", "'anchor'", "Did you mean 'anchors'", "'triplets'"]),
    ("no average", {"average": None}, ["average", "None"]),
]
BAD_MARGINS = [
    ("negative margin", {"margin": -0.5}, ["margin", "-0.5"]),
    ("NaN margin", {"margin": float("nan")}, ["margin", "nan"]),
    ("no margin", {"margin": None}, ["margin", "None", "soft_margin=True"]),
    ("both margins", {"soft_margin": True, "margin": 0.5}, ["margin", "soft_margin", "0.5"]),
    ("soft and none", {"soft_margin": True, "margin": None}, ["margin", "None"]),
    ("string", {"margin": "big"}, ["margin", "big"]),
]


def ids(cases):
    return [case[0] for case in cases]


def assert_refuses(call, words):
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    missing = [word for word in words if word not in message]
    assert not missing, f"the message lacks {missing}: {message}"


def as_the_class_calls_them(words):
    """A Keras loss's arguments are y_true and y_pred."""
    return [{"label": "y_true", "embedding": "y_pred"}.get(word, word) for word in words]


@pytest.mark.parametrize("through", [by_function, by_class, mined])
@pytest.mark.parametrize("_, labels, embeddings, words", BAD_INPUTS, ids=ids(BAD_INPUTS))
def test_refuses_inputs(_, labels, embeddings, words, through):
    words = as_the_class_calls_them(words) if through is by_class else words
    assert_refuses(lambda: through(labels, embeddings), words)


@pytest.mark.parametrize("through", [by_function, by_class, mined])
@pytest.mark.parametrize("_, settings, words", BAD_SETTINGS, ids=ids(BAD_SETTINGS))
def test_refuses_settings(_, settings, words, through):
    assert_refuses(lambda: through(GOOD_Y, GOOD_X, **settings), words)


@pytest.mark.parametrize("_, settings, words", BAD_MINING, ids=ids(BAD_MINING))
def test_mining_refuses_all(_, settings, words):
    assert_refuses(lambda: mined(GOOD_Y, GOOD_X, **settings), words)


def test_the_class_refuses_what_is_no_bool():
    assert_refuses(lambda: tl.TripletLoss(gather_across_devices="yes"), ["gather_across_devices", "'yes'", "True or False"])


@pytest.mark.parametrize("through", [by_function, by_class])
@pytest.mark.parametrize("_, settings, words", BAD_MARGINS + BAD_AVERAGES, ids=ids(BAD_MARGINS + BAD_AVERAGES))
def test_refuses_margins_and_averages(_, settings, words, through):
    assert_refuses(lambda: through(GOOD_Y, GOOD_X, **settings), words)


@pytest.mark.parametrize("_, settings, words", BAD_MARGINS, ids=ids(BAD_MARGINS))
def test_refuses_margins_of_explicit_triplets(_, settings, words):
    assert_refuses(lambda: tl.triplet_margin_loss(GOOD_X, GOOD_X, GOOD_X, **settings), words)


@pytest.mark.parametrize(
    "settings",
    [case[1] for case in BAD_SETTINGS + BAD_MARGINS + BAD_AVERAGES],
    ids=ids(BAD_SETTINGS + BAD_MARGINS + BAD_AVERAGES),
)
def test_the_class_refuses_when_it_is_made(settings):
    with pytest.raises(ValueError):
        tl.TripletLoss(**settings)


def test_the_class_refuses_an_unknown_reduction():
    with pytest.raises(ValueError, match="reduction"):
        tl.TripletLoss(reduction="average")


KEYS = [
    ("labels without keys", {"key_labels": GOOD_Y}, ["key_embeddings", "key_labels"]),
    ("keys without labels", {"key_embeddings": GOOD_X}, ["key_embeddings", "key_labels"]),
    (
        "another width",
        {"key_labels": GOOD_Y, "key_embeddings": GOOD_X[:, :2]},
        ["query_embeddings", "key_embeddings", "(4, 3)", "(4, 2)"],
    ),
    (
        "another length",
        {"key_labels": GOOD_Y[:3], "key_embeddings": GOOD_X},
        ["key_labels", "key_embeddings", "(3,)", "(4, 3)"],
    ),
    (
        "one-hot keys",
        {"key_labels": np.eye(4, dtype="int32"), "key_embeddings": GOOD_X},
        ["key_labels", "(4, 4)"],
    ),
    (
        "float key labels",
        {"key_labels": GOOD_Y.astype("float32"), "key_embeddings": GOOD_X},
        ["key_labels", "float32"],
    ),
    (
        "keys of rank 1",
        {"key_labels": GOOD_Y, "key_embeddings": GOOD_X[:, 0]},
        ["key_embeddings", "(4,)", "(n, d)"],
    ),
]


@pytest.mark.parametrize("through", [by_function, mined])
@pytest.mark.parametrize("_, settings, words", KEYS, ids=ids(KEYS))
def test_refuses_keys(_, settings, words, through):
    assert_refuses(lambda: through(GOOD_Y, GOOD_X, **settings), words)


TRIPLETS = [
    ("lengths", (GOOD_X, GOOD_X[:3], GOOD_X), ["positive", "(4, 3)", "(3, 3)"]),
    ("widths", (GOOD_X, GOOD_X, GOOD_X[:, :2]), ["negative", "(4, 3)", "(4, 2)"]),
    ("rank", (GOOD_X[0], GOOD_X, GOOD_X), ["anchor", "(3,)", "(n, d)"]),
    ("integers", (GOOD_X, GOOD_X, GOOD_X.astype("int32")), ["negative", "int32", "float"]),
]


@pytest.mark.parametrize("_, triplets, words", TRIPLETS, ids=ids(TRIPLETS))
def test_refuses_explicit_triplets(_, triplets, words):
    assert_refuses(lambda: tl.triplet_margin_loss(*triplets), words)
