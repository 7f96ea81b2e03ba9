"""A memory of keys: against a queue in plain Python, saved, resumed, in half precision, and what it refuses."""

from collections import deque

import keras
import numpy as np
import pytest
from keras import ops
from on_backend import BACKEND, array, one_in, only, strategies
from reference import loss_gradients, mean_loss, pairwise

import tripletloss as tl
from tripletloss import training
from tripletloss.training import CrossBatchMemory

RNG = np.random.default_rng(3)  # in the first batch, the first example is the only one of its class
ROWS, BATCH, SIZE = 18, 4, 10  # neither is a multiple of another
X = RNG.normal(size=(ROWS, 3)).astype("float32")
Y = RNG.integers(0, 4, size=ROWS)
WEIGHTS = RNG.normal(size=(3, 2)).astype("float32")
BATCHES = [slice(start, start + BATCH) for start in range(0, ROWS, BATCH)]
SETTINGS = {"distance": "euclidean", "margin": 1.0}


def embedder(**kwargs):
    """A linear map by `WEIGHTS`."""
    dense = keras.layers.Dense(2, use_bias=False, kernel_initializer=keras.initializers.Constant(WEIGHTS), **kwargs)
    return keras.Sequential([keras.Input((3,)), dense])


def memory_of(model=None, rate=0.0, loss=None, size=SIZE, run_eagerly=True, **kwargs):
    memory = CrossBatchMemory(embedder() if model is None else model, size, **kwargs)
    loss = tl.TripletLoss(**SETTINGS) if loss is None else loss
    memory.compile(keras.optimizers.SGD(rate), loss, run_eagerly=run_eagerly)
    return memory


def trained(memory, batches=BATCHES, x=X, y=Y, **kwargs):
    """The loss of each batch, in a step of training on it."""
    losses = []
    for rows in batches:
        memory.reset_metrics()
        of_batch = {name: value[rows] for name, value in kwargs.items()}
        losses.append(float(memory.train_on_batch(x[rows], y[rows], **of_batch)))
    return losses


class Losses(keras.callbacks.Callback):
    """The loss of each batch of `fit`, from the means that Keras shows."""

    def __init__(self):
        super().__init__()
        self.totals, self.seen = [0.0], [0]

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(min(self.seen[-1] + BATCH, ROWS))
        self.totals.append(float(logs["loss"]) * self.seen[-1])

    @property
    def values(self):
        return np.diff(self.totals) / np.diff(self.seen)


def fitted(memory, **kwargs):
    losses = Losses()
    memory.fit(X, Y, batch_size=BATCH, shuffle=False, verbose=0, callbacks=[losses], **kwargs)
    return losses.values


def queue_losses(embed, size=SIZE, warm_up=0, keys=None, labels=Y, **loss):
    """The same from the definition: `embed(step)` are the embeddings of that batch, `keys(step)` what is remembered of it."""
    memory, losses = deque(maxlen=size), []
    for step, rows in enumerate(BATCHES):
        x = embed(step)
        memory.extendleft(reversed(list(zip(labels[rows], x if keys is None else keys(step), strict=True))))
        held = list(memory)[: len(x)] if step < warm_up else list(memory)
        key_labels, key_rows = ([each[place] for each in held] for place in (0, 1))
        losses.append(mean_loss(labels[rows], x, key_labels, key_rows, remove_diagonal=True, name="euclidean", **loss))
    return losses


def linear(step):
    return X[BATCHES[step]] @ WEIGHTS


def close(losses, expected, tolerance=1e-5):
    np.testing.assert_allclose(losses, expected, rtol=tolerance, atol=tolerance)


# The losses.


STRATEGIES = ("hard", "semi-hard"), ("all", "hard"), ("easy", "all"), ("all", "semi-hard")


@pytest.mark.parametrize("pair, warm_up, numbers", one_in(5, STRATEGIES, (0, 2), (None, 2 * SIZE)))
def test_as_a_queue(pair, warm_up, numbers, block_size):
    """While it fills, when it is full, and with a last batch that is smaller; as one table and in blocks."""
    block_size(numbers)
    memory = memory_of(loss=tl.TripletLoss(**SETTINGS, **strategies(*pair)), warm_up=warm_up)
    close(trained(memory), queue_losses(linear, warm_up=warm_up, positive=pair[0], negative=pair[1]))


@pytest.mark.parametrize("pair, numbers", [(("hard", "semi-hard"), None), (("hard", "semi-hard"), 2 * SIZE), (("all", "all"), None)])
def test_a_first_batch_of_one_class(pair, numbers, block_size):
    """It has no negatives, whatever stands where the memory is not filled yet."""
    block_size(numbers)
    assert trained(memory_of(loss=tl.TripletLoss(**SETTINGS, **strategies(*pair))), BATCHES[:1], y=np.full(ROWS, 7)) == [0]


@pytest.mark.jit
@pytest.mark.parametrize("jit_compile", ["auto", pytest.param(True, marks=[only("tensorflow", "both ways of compiling"), pytest.mark.every])])
def test_compiled_in_fit(jit_compile):
    """TensorFlow's graph does not know how long a batch is; JAX keeps state outside of the step."""
    memory = CrossBatchMemory(embedder(), SIZE, warm_up=1)
    memory.compile(keras.optimizers.SGD(0.0), tl.TripletLoss(**SETTINGS), jit_compile=jit_compile)
    close(fitted(memory), queue_losses(linear, warm_up=1))
    assert int(memory.filled) == SIZE
    newest = np.concatenate([np.arange(16, 18), np.arange(12, 16), np.arange(8, 12)])
    np.testing.assert_array_equal(array(memory.labels), Y[newest])
    close(array(memory.embeddings), X[newest] @ WEIGHTS)


def test_embeddings_are_remembered_as_they_were():
    """The network moves on, the memory does not."""
    memory, seen = memory_of(rate=0.3), []
    losses = []
    for rows in BATCHES:
        seen.append(array(memory.model(X[rows])))
        losses += trained(memory, [rows])
    assert not np.allclose(seen[-1], linear(-1), atol=0.1)
    close(losses, queue_losses(lambda step: seen[step]))


def test_gradients_go_to_the_batch_alone():
    """As queries and as keys; the step of SGD with rate 1 shows them."""
    memory = memory_of()
    trained(memory, BATCHES[:2])
    memory.optimizer.learning_rate = 1.0
    rows, before = BATCHES[2], [4, 5, 6, 7, 0, 1]  # what else is in the memory
    trained(memory, [rows])
    x, keys, key_labels = linear(2), np.concatenate([linear(2), X[before] @ WEIGHTS]), np.concatenate([Y[rows], Y[before]])
    table = pairwise("euclidean", x, keys)
    slopes = (x[:, None] - keys[None]) / np.maximum(table, 1e-9)[:, :, None]
    weights = np.full(BATCH, 1.0)
    of_queries, of_keys = loss_gradients(Y[rows], table, (slopes, -slopes), key_labels, weights=weights, remove_diagonal=True)
    valid = [(key_labels == label).sum() > 1 and (key_labels != label).any() for label in Y[rows]]
    gradient = X[rows].T @ (of_queries + of_keys[:BATCH]) / sum(valid)
    assert np.abs(of_keys[BATCH:]).max() > 0
    close(WEIGHTS - array(memory.model.weights[0]), gradient)


# Labels.


@pytest.mark.parametrize("first", [2**24, pytest.param(2**53, marks=pytest.mark.skipif(BACKEND == "jax", reason="32 bits"))])
def test_labels_to_their_last_bit(first):
    labels = Y.astype("int64") + first
    memory = memory_of()
    close(trained(memory, y=labels), queue_losses(linear, labels=labels))
    assert set(array(memory.labels).tolist()) <= set(labels.tolist())


UINT64 = pytest.param("uint64", marks=pytest.mark.skipif(BACKEND == "torch", reason="Keras takes none in training"))


@pytest.mark.parametrize("dtype", ["uint8", "int32", "uint32", UINT64])
def test_labels_of_any_width(dtype):
    close(trained(memory_of(), y=Y.astype(dtype)[:, None]), queue_losses(linear))


# The slow network.


def test_keys_of_a_slow_network():
    """The first step copies the weights, each further one takes a quarter of the way."""
    memory, slow, seen, keys = memory_of(rate=0.3, momentum=0.75), None, [], []
    memory.build((None, 3))
    memory.model.set_weights([WEIGHTS[::-1]])  # as if it had been trained before
    losses = []
    for rows in BATCHES:
        weights = array(memory.model.weights[0])
        slow = weights if slow is None else 0.75 * slow + 0.25 * weights
        seen.append(X[rows] @ weights)
        keys.append(X[rows] @ slow)
        losses += trained(memory, [rows])
    close(losses, queue_losses(lambda step: seen[step], keys=lambda step: keys[step]))
    close(array(memory.key_model.weights[0]), slow)
    assert not np.allclose(slow, weights, atol=1e-2)


def test_the_slow_network_embeds_as_in_inference():
    """Without dropout, and with averages over batches that follow like the weights; both networks are saved."""
    layers = [keras.Input((3,)), keras.layers.BatchNormalization(momentum=0.5), keras.layers.Dropout(0.5), keras.layers.Dense(2)]
    memory = memory_of(keras.Sequential(layers), momentum=0.5)
    trained(memory, BATCHES[:2])
    close(array(memory.embeddings)[:BATCH], array(memory.key_model(X[BATCHES[1]], training=False)))
    assert not np.allclose(array(memory.key_model.layers[0].moving_mean), array(memory.model.layers[0].moving_mean))
    assert not memory.key_model.trainable_variables


# Life with Keras.


def test_saved_in_the_middle_of_an_epoch(tmp_path):
    memory = memory_of(rate=0.3, warm_up=3, momentum=0.5)
    trained(memory, BATCHES[:2])
    memory.save(tmp_path / "memory.keras")
    loaded = keras.models.load_model(tmp_path / "memory.keras")
    assert loaded.loss.get_config() == memory.loss.get_config()
    assert (loaded.size, loaded.warm_up, loaded.momentum, int(loaded.steps), int(loaded.filled)) == (SIZE, 3, 0.5, 2, 8)
    close(trained(loaded, BATCHES[2:]), trained(memory, BATCHES[2:]), 1e-6)
    for one, other in zip(loaded.variables, memory.variables, strict=True):
        np.testing.assert_allclose(array(one), array(other), rtol=1e-6)


def test_evaluate_leaves_the_memory_alone():
    memory = memory_of()
    trained(memory)
    before = [array(variable) for variable in memory.non_trainable_variables]
    value = memory.evaluate(X, Y, batch_size=ROWS, verbose=0)
    close(value, mean_loss(Y, X @ WEIGHTS, name="euclidean"))
    for variable, old in zip(memory.non_trainable_variables, before, strict=True):
        np.testing.assert_array_equal(array(variable), old)
    close(memory.predict(X, verbose=0), X @ WEIGHTS)


def test_weights_and_penalties():
    """As without a memory, which the first batch does not need."""

    def model():
        return embedder(kernel_regularizer=keras.regularizers.L2(0.1))

    plain, memory = model(), memory_of(model())
    plain.compile(keras.optimizers.SGD(0.0), tl.TripletLoss(**SETTINGS), run_eagerly=True)
    weight = np.array([1.0, 2.0, 0.5, 0.0])
    rows = slice(0, BATCH)
    expected = plain.train_on_batch(X[rows], Y[rows], sample_weight=weight)
    close(trained(memory, [rows], sample_weight=weight), [expected])


class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(2, use_bias=False, kernel_initializer=keras.initializers.Constant(WEIGHTS))

    def call(self, inputs):
        return self.dense(inputs["features"] if isinstance(inputs, dict) else inputs)


@pytest.mark.parametrize("momentum", [None, 0.5])
@pytest.mark.parametrize("kind", ["subclassed", "without an input"])
def test_models_that_are_built_by_the_first_batch(kind, momentum):
    model = Subclassed() if kind == "subclassed" else keras.Sequential(embedder().layers)
    close(trained(memory_of(model, momentum=momentum)), queue_losses(linear))


def test_inputs_in_a_dictionary():
    memory = memory_of(Subclassed())
    memory.fit({"features": X}, Y, batch_size=ROWS // 2, verbose=0)
    assert memory.embeddings.shape == (SIZE, 2)


def test_half_precision():
    """Embeddings in half precision are remembered in 32 bits, and the loss is scaled as Keras does."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        memory = memory_of(momentum=0.5)
        assert type(memory.optimizer).__name__ == "LossScaleOptimizer"
        close(trained(memory), queue_losses(linear), 1e-2)
        assert keras.backend.standardize_dtype(memory.embeddings.dtype) == "float32"
    finally:
        keras.config.set_dtype_policy("float32")


# Errors.


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"size": 0}, "size must be an integer of at least 1; received 0"),
        ({"size": 1.5}, "size must be an integer of at least 1; received 1.5"),
        ({"warm_up": -1}, "warm_up must be an integer of at least 0; received -1"),
        ({"momentum": 1.0}, "momentum must be None or a number between 0 and 1, both excluded; received 1.0"),
        ({"momentum": "slow"}, "momentum must be None or a number between 0 and 1, both excluded; received 'slow'"),
        ({"model": "mine"}, "model must be a keras.Model; received 'mine'"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        CrossBatchMemory(**{"model": embedder(), "size": SIZE, **arguments})


def test_what_is_no_embedding():
    with pytest.raises(ValueError, match=r"model must return embeddings of shape \(n, d\); .* is \(None, 3, 2\)"):
        CrossBatchMemory(keras.Sequential([keras.Input((3, 3)), keras.layers.Dense(2)]), SIZE)
    with pytest.raises(ValueError, match=r"model must return embeddings of shape \(n, d\); .* is \(4, 3, 2\)"):
        memory_of(keras.Sequential([keras.layers.Dense(2)])).train_on_batch(np.zeros((4, 3, 3), "float32"), Y[:4])


def test_losses_that_take_no_keys():
    memory = CrossBatchMemory(embedder(), SIZE)
    for loss in ("mse", None, tl.MetricLoss(lambda labels, x: x[:, 0])):
        with pytest.raises(ValueError, match=r"loss must be a tripletloss\.TripletLoss, since others take no keys; received"):
            memory.compile("sgd", loss)
    with pytest.raises(ValueError, match="loss must have the relation 'equal', since the memory keeps one label a row; received 'any'"):
        memory.compile("sgd", tl.TripletLoss(relation="any"))
    with pytest.raises(ValueError, match=r"loss_weights must be None: there is one loss; received \[2\]"):
        memory.compile("sgd", tl.TripletLoss(), loss_weights=[2])


@pytest.mark.parametrize("run_eagerly", [True, False])
def test_a_batch_larger_than_the_memory(run_eagerly):
    """A graph of TensorFlow's finds it when it runs."""
    error = ValueError
    if BACKEND == "tensorflow" and not run_eagerly:
        import tensorflow as tf

        error = tf.errors.InvalidArgumentError
    memory = memory_of(size=3, run_eagerly=run_eagerly)
    with pytest.raises(error, match="size must be at least the number of examples in a batch; received 3"):
        memory.fit(X, Y, batch_size=BATCH, verbose=0)


def test_several_replicas(monkeypatch):
    monkeypatch.setattr(training, "replicas", lambda: 2)
    with pytest.raises(ValueError, match="CrossBatchMemory works on one replica of the model; there are 2"):
        memory_of().train_on_batch(X[:4], Y[:4])


def test_weights_that_are_no_floats_are_copied():
    own, other = (keras.Variable(value, dtype="int32", trainable=False) for value in (0, 7))
    training.follow([own], [other], ops.convert_to_tensor(0.5))
    assert int(own.value) == 7
