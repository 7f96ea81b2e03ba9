from collections import Counter

import keras
import pytest
from on_backend import BACKEND, WAYS, numbers_in_a_block

# From the simple to the special, so that the first test that fails says the most.
ORDER = [f"test_{name}" for name in (
    "distances", "semantics", "mining", "strategies", "losses", "metrics", "samplers", "layers", "keras", "distribution"
)]  # fmt: skip
# Files whose tests are tables of many cases.
TABLES = [f"test_{name}" for name in (
    "distances", "distribution", "edges", "keras", "losses", "memory", "metrics", "mining", "mining_dataset", "regressions", "relations", "semantics", "strategies", "trained"
)]  # fmt: skip
# Of these files JAX runs what is compiled, or beside the loops: as written, it would take seconds for each test.
SHORT_ON_JAX = ["test_memory", "test_mining_dataset", "test_relations", "test_training"]
# What only TensorFlow or JAX run, these tests reach; PyTorch counts all other lines, and counting makes the rest twice as slow.
COVERED = ["test_distribution", "test_compilations", "test_misuse", "test_widths_of_labels", "labels_are_compared", "labels_of_any_type"]


@pytest.fixture(params=WAYS)
def way(request, block_size):
    """Both ways through the engine, whatever the size of the batch: as one table of masks, and in blocks."""
    block_size(numbers_in_a_block(request.param, 12))
    return request.param


@pytest.fixture(params=WAYS)
def cut(request, block_size):
    """The same for larger batches: a function that has a batch of n rows cut in two, or not."""
    return lambda n: block_size(numbers_in_a_block(request.param, n))


@pytest.hookimpl(tryfirst=True)  # before what is marked so is left out
def pytest_collection_modifyitems(items):
    """Simple files first; and of a test's many cases one in so many, the others in `make test-every`.

    PyTorch runs all. TensorFlow takes three times as long; and JAX a fiftieth of a second for every operation that it has not
    yet made for that shape, or, compiled, seconds for every case. The tests marked `jit` compile the main cases, as users do.
    """
    items.sort(key=lambda item: ORDER.index(item.path.stem) if item.path.stem in ORDER else len(ORDER))
    if BACKEND == "torch":
        return
    for item in items:
        if not any(name in item.nodeid for name in COVERED):
            item.add_marker(pytest.mark.no_cover)
    one_in = {"tensorflow": 5, "jax": 31}[BACKEND]
    seen = Counter()
    for item in items:
        if BACKEND == "jax" and item.path.stem in SHORT_ON_JAX and not item.get_closest_marker("jit") and "_the_loops" not in item.nodeid:
            item.add_marker(pytest.mark.every)
        test = item.nodeid.partition("[")[0]
        if item.path.stem in TABLES and not item.get_closest_marker("every") and not item.get_closest_marker("jit"):
            if seen[test] % one_in:
                item.add_marker(pytest.mark.every)
            seen[test] += 1


@pytest.fixture(scope="session", autouse=True)
def kept(kept_compilations):
    """Every test compiles only what none has compiled before."""


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)
