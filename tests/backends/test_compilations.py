"""A call with shapes that are known compiles nothing and leaves nothing behind; a graph stays small."""

import contextlib
import gc
import traceback
from pathlib import Path

import numpy as np
import pytest
from keras import ops
from on_backend import BACKEND, raw_grad
from reference import STRATEGIES

import tripletloss as tl

N = 12
LABELS = np.arange(N) % 3
X = np.random.default_rng(0).normal(size=(N, 4)).astype("float32")
BELOW_AND_ABOVE = {"small": None, "several blocks": 50}  # numbers in a block


@pytest.fixture(params=BELOW_AND_ABOVE)
def way(request, block_size):
    """One table of masks, and blocks."""
    block_size(BELOW_AND_ABOVE[request.param])
    return request.param


def strategies(positive, negative):
    return {"distance": "euclidean", "positive_mining_strategy": positive, "negative_mining_strategy": negative}


def steps(positive, negative):
    """What is called again and again, by name: functions of labels and embeddings."""
    settings = strategies(positive, negative)
    loss, metric = tl.TripletLoss(**settings), tl.metrics.TripletMetrics(tl.TripletLoss(**settings))

    def function_and_gradient(labels, x):
        return raw_grad(lambda x: ops.sum(tl.triplet_loss(labels, x, **settings)), x)

    found = {
        "triplet_loss": lambda labels, x: tl.triplet_loss(labels, x, **settings),
        "triplet_loss and gradient": function_and_gradient,
        "TripletLoss and gradient": lambda labels, x: raw_grad(lambda x: loss(labels, x), x),
        "TripletMetrics": metric.update_state,
    }
    if "all" not in (positive, negative):
        found["mine_triplets"] = lambda labels, x: tl.mine_triplets(labels, x, **settings)
    return found


@contextlib.contextmanager
def counted_compilations():
    """A list that grows with each program that JAX compiles."""
    import jax

    durations = []

    def listen(event, duration, **_):
        if "backend_compile" in event:
            durations.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield durations
    finally:
        jax._src.monitoring.unregister_event_duration_listener(listen)


def maps():
    """How many pieces of memory the process has: each program of JAX's is one or more."""
    return len(Path("/proc/self/maps").read_text().splitlines())


@pytest.mark.skipif(BACKEND != "jax", reason="the others compile nothing outside a graph")
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



@pytest.mark.skipif(BACKEND != "jax", reason="only JAX compiles outside a graph")
@pytest.mark.parametrize("positive, negative", STRATEGIES)
def test_repeated_calls_compile_nothing(positive, negative, way):
    labels, x = ops.convert_to_tensor(LABELS.astype("int32")), ops.convert_to_tensor(X)
    for name, step in steps(positive, negative).items():
        for _ in range(2):
            step(labels, x)
        with counted_compilations() as compiled:
            for shift in range(10):
                step(labels, x + shift)
        assert not compiled[1:], f"{name} compiles {len(compiled)} programs in ten calls"  # one may be that of x + shift


@pytest.mark.skipif(BACKEND != "jax" or not Path("/proc/self/maps").exists(), reason="JAX maps what it compiles, and Linux tells")
@pytest.mark.parametrize("positive, negative", STRATEGIES)
def test_repeated_calls_leave_nothing(positive, negative, way):
    """Once there were two hundred pieces of memory more with each call, and after some hundreds of calls an abort."""
    labels, x = ops.convert_to_tensor(LABELS.astype("int32")), ops.convert_to_tensor(X)
    for name, step in steps(positive, negative).items():
        for _ in range(3):
            step(labels, x)
        gc.collect()
        before = maps()
        for _ in range(100):
            step(labels, x)
        gc.collect()
        assert maps() - before <= 8, f"{name} leaves {maps() - before} pieces of memory after a hundred calls"


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX compiles outside a graph")
def test_a_distance_by_any_name_is_compiled_once():
    """Two losses with equal arguments share what is compiled, and so do two names of one distance."""
    labels, x = ops.convert_to_tensor(LABELS.astype("int32")), ops.convert_to_tensor(X)
    array = tl.TripletLoss("l2", margin=0.375)(labels, x)
    with counted_compilations() as compiled:
        again = tl.TripletLoss(tl.distances.Euclidean(), margin=0.375)(labels, x)
    assert float(array) == float(again)
    assert not compiled


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX compiles outside a graph")
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


def counted_traces(tf, step):
    """The step as a function of TensorFlow's, which counts its traces itself."""

    @tf.function
    def traced(labels, x):
        step(labels, x)
        return x

    return traced


@pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow's functions")
@pytest.mark.parametrize("positive, negative", STRATEGIES)
def test_one_trace_for_calls_of_one_shape(positive, negative, way):
    import tensorflow as tf

    labels, x = tf.constant(LABELS), tf.constant(X)
    for name, step in steps(positive, negative).items():
        traced = counted_traces(tf, step)
        for shift in range(5):
            traced(labels, x + float(shift))
        assert traced.experimental_get_tracing_count() == 1, name


@pytest.mark.skipif(BACKEND != "torch", reason="PyTorch's compiler")
@pytest.mark.parametrize("positive, negative", STRATEGIES)
def test_torch_compiles_nothing(positive, negative, way):
    import torch

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    for step in steps(positive, negative).values():
        for _ in range(2):
            step(torch.tensor(LABELS), torch.tensor(X))
    assert not torch._dynamo.utils.counters["stats"]


# The size of a graph is the time that the first step takes.


def operations(graph):
    """How many operations a TensorFlow graph has, and how many the functions that it calls, of conditions and loops."""
    definition = graph.as_graph_def()
    return len(definition.node), sum(len(function.node_def) for function in definition.library.function)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow's graphs")
@pytest.mark.parametrize("n", [64, None])
def test_the_graph_of_the_default_loss_and_its_gradient_is_small(n, record_property):
    """600 operations at most. Where the batch size is not known, both ways of mining are functions beside the graph."""
    import tensorflow as tf

    loss = tl.TripletLoss()

    @tf.function(input_signature=[tf.TensorSpec([n], tf.int64), tf.TensorSpec([n, 16], tf.float32)])
    def value_and_gradient(labels, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(labels, x)
        return value, tape.gradient(value, x)

    of_graph, of_functions = operations(value_and_gradient.get_concrete_function().graph)
    record_property("operations", (of_graph, of_functions))
    print(f"{of_graph} operations for a batch of {n}, and {of_functions} in functions")
    assert of_graph <= 600
    assert n is None or not of_functions


@pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow's rewriting of source")
def test_a_function_of_ones_own_does_not_rewrite_the_engine():
    """From the loss on, the source itself runs: rewriting it would take most of the first step."""
    import tensorflow as tf

    files = []

    class Watched(tl.distances.Euclidean):
        name = "watched"

        def prepare(self, x):
            files[:] = [frame.filename for frame in traceback.extract_stack()]
            return super().prepare(x)

    loss = tl.TripletLoss(Watched())

    @tf.function
    def step(labels, x):
        return loss(labels, x)

    step(tf.constant(LABELS), tf.constant(X))
    within = [Path(file).name for file in files]
    within = within[within.index("losses.py") :]
    assert "_tables.py" in within
    assert not any("autograph" in name for name in within)
