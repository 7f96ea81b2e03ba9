"""A call with shapes that are known compiles nothing and leaves nothing behind; a graph is traced once, and stays small."""

import contextlib
import gc
import itertools
import traceback
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from on_backend import only, raw_grad, strategies
from reference import DISTANCES, STRATEGIES, mean_loss

import tripletloss as tl

pytestmark = pytest.mark.jit
N = 12
X = np.random.default_rng(0).normal(size=(N, 4)).astype("float32")
LABELS = np.arange(N, dtype="int32") % 3
MAPS = Path("/proc/self/maps")  # how many pieces of memory the process has: each program of JAX's is one or more

# Two pairs of strategies as one table, and each in blocks of 100 numbers.
QUICK = [("hard", "semi-hard", None), ("all", "all", None), ("hard", "semi-hard", 100), ("all", "semi-hard", 100)]
CALLED = QUICK + [pytest.param(*pair, 100, marks=pytest.mark.every) for pair in STRATEGIES if (*pair, 100) not in QUICK]

on_jax = only("jax", "programs outside a graph")
on_tensorflow = only("tensorflow", "graphs")


def steps(positive, negative):
    """What is called again and again: functions of labels and embeddings."""
    settings = {"distance": "euclidean", **strategies(positive, negative)}
    loss, metric = tl.TripletLoss(**settings), tl.metrics.TripletMetrics(tl.TripletLoss(**settings))
    found = [
        lambda labels, x: tl.triplet_loss(labels, x, **settings),
        lambda labels, x: raw_grad(lambda x: ops.sum(tl.triplet_loss(labels, x, **settings)), x),
        lambda labels, x: raw_grad(lambda x: loss(labels, x), x),
        metric.update_state,
    ]
    return found if "all" in (positive, negative) else [*found, lambda labels, x: tl.mine_triplets(labels, x, **settings)]


@contextlib.contextmanager
def counted_compilations():
    """A list that grows with each program that JAX compiles."""
    import jax

    compiled, counting = [], True

    def listen(event, duration, **_):
        if counting and "backend_compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)  # for good: JAX documents no way to end it
    yield compiled
    counting = False


@on_jax
def test_the_count_counts():
    """A program that is new is noticed, one that is known is not."""
    import jax

    with counted_compilations() as compiled:
        double = jax.jit(lambda x: 2.125 * x + x[:, :1])
        double(ops.convert_to_tensor(X))
        assert compiled
        before = len(compiled)
        double(ops.convert_to_tensor(X))
        assert len(compiled) == before


@on_jax
@pytest.mark.parametrize("positive, negative, numbers", CALLED)
def test_repeated_calls_compile_nothing_and_leave_nothing(positive, negative, numbers, block_size):
    """Once there were two hundred pieces of memory more with each call, and after some hundreds of calls an abort."""
    block_size(numbers)
    labels = ops.convert_to_tensor(LABELS)
    rows = [ops.convert_to_tensor(X + shift) for shift in range(5)]
    called = steps(positive, negative)

    def call(times):
        for step, x in itertools.product(called, times * rows):
            step(labels, x)
        gc.collect()
        return len(MAPS.read_text().splitlines()) if MAPS.exists() else 0

    before = call(times=1)
    with counted_compilations() as compiled:
        left = call(times=6) - before
    assert not compiled, f"{len(compiled)} programs are compiled in 30 calls"
    assert left <= 8, f"{left} pieces of memory are left after 30 calls"


@on_jax
def test_a_distance_by_any_name_is_compiled_once():
    """Two losses with equal arguments share what is compiled, and so do two names of one distance."""
    labels, x = ops.convert_to_tensor(LABELS), ops.convert_to_tensor(X)
    loss = tl.TripletLoss("l2", margin=0.375)(labels, x)
    with counted_compilations() as compiled:
        again = tl.TripletLoss(tl.distances.Euclidean(), margin=0.375)(labels, x)
    assert float(loss) == float(again)
    assert not compiled


@on_jax
def test_another_block_size_is_noticed(block_size):
    """What was compiled for one block size is not taken for another."""
    import jax

    def loops():
        return str(jax.make_jaxpr(lambda x: tl.mine_triplets(LABELS, x, distance="euclidean"))(X)).count("while")

    whole = loops()
    block_size(50)
    blocks = loops()
    block_size(None)
    assert (loops(), whole < blocks) == (whole, True)


# Graphs. Their number and their size are the time that the first steps take.


class Traced(tl.TripletLoss):
    """A loss that notes for which shapes it is called, or traced."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.traces = []

    def call(self, y_true, y_pred):
        self.traces.append(tuple(y_pred.shape))
        return super().call(y_true, y_pred)


@on_tensorflow
@pytest.mark.parametrize("distance", [name for name in DISTANCES if name != "euclidean"])  # which test_strategies.py has
def test_one_trace_for_all_batch_sizes(distance):
    import tensorflow as tf

    loss = Traced(distance)

    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.int32), tf.TensorSpec([None, 4], tf.float32)])
    def value_and_gradient(y, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(y, x)
        return value, tape.gradient(value, x)

    for n in (N, 5, 1, 0, N):
        value, gradient = value_and_gradient(LABELS[:n, None], X[:n])
        assert float(value) == pytest.approx(mean_loss(LABELS[:n], X[:n], name=distance), rel=1e-4, abs=1e-6)
        assert gradient.shape == (n, 4)
    assert loss.traces == [(None, 4)]


@on_tensorflow
def test_fit_does_not_trace_each_size_of_a_batch_anew():
    loss = Traced("euclidean")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile("sgd", loss)
    model.fit(X, LABELS, batch_size=5, epochs=2, verbose=0)  # batches of 5, 5 and 2
    assert len(loss.traces) <= 2  # the symbolic build, and fit


@on_tensorflow
@pytest.mark.parametrize("n", [64, None])
def test_the_graph_of_the_default_loss_and_its_gradient_is_small(n, record_property):
    """About 600 operations, of which TensorFlow 2.18 takes two more. Where the batch size is not known, both ways of mining are functions beside the graph."""
    import tensorflow as tf

    loss = tl.TripletLoss()

    @tf.function(input_signature=[tf.TensorSpec([n], tf.int64), tf.TensorSpec([n, 16], tf.float32)])
    def value_and_gradient(labels, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(labels, x)
        return value, tape.gradient(value, x)

    graph = value_and_gradient.get_concrete_function().graph.as_graph_def()
    of_functions = sum(len(function.node_def) for function in graph.library.function)  # of conditions and loops
    record_property("operations", (len(graph.node), of_functions))
    assert len(graph.node) <= 602
    assert n is None or not of_functions


@on_jax
def test_a_derived_distance_is_not_taken_for_its_parent():
    """What is compiled once is found by the name of a distance, which a derived one has too."""

    class Doubled(tl.distances.Manhattan):
        def call(self, query, key):
            return 2 * super().call(query, key)

        def call_paired(self, query, key):
            return 2 * super().call_paired(query, key)

    single, doubled = (float(tl.TripletLoss(distance, "hard", "hard", margin=0.0)(LABELS, X)) for distance in ("manhattan", Doubled()))
    assert single > 0 and doubled == pytest.approx(2 * single, rel=1e-5)


@on_tensorflow
def test_a_function_of_ones_own_does_not_rewrite_the_engine():
    """From the loss on, the source itself runs: rewriting it would take most of the first step."""
    import tensorflow as tf

    files = []

    class Watched(tl.distances.Euclidean):
        name = "watched"

        def prepare(self, x):
            files[:] = [Path(frame.filename).name for frame in traceback.extract_stack()]
            return super().prepare(x)

    loss = tl.TripletLoss(Watched())

    @tf.function
    def step(labels, x):
        return loss(labels, x)

    step(tf.constant(LABELS), tf.constant(X))
    within = files[files.index("losses.py") :]
    assert "_tables.py" in within
    assert not any("autograph" in name for name in within)
