from collections import Counter

import keras
import pytest
from on_backend import BACKEND, WAYS, numbers_in_a_block

# From the simple to the special, so that the first test that fails says the most.
ORDER = [f"test_{name}" for name in (
    "distances", "semantics", "mining", "strategies", "losses", "metrics", "samplers", "pk_sampler", "layers", "keras", "distribution"
)]  # fmt: skip
# Files of which TensorFlow runs a part, and JAX a small one.
TABLES = [f"test_{name}" for name in (
    "distances", "distribution", "edges", "keras", "losses", "memory", "metrics", "mining", "mining_dataset", "regressions", "relations",
    "samplers", "search", "semantics", "strategies", "trained", "training"
)]  # fmt: skip
# What only TensorFlow or JAX run, these tests reach; PyTorch counts all other lines, and counting makes the rest twice as slow.
LABELS = ["test_widths_of_labels", "labels_are_compared", "labels_of_any_type"]
COVERED = ["test_distribution", "test_compilations", "test_misuse", "test_compiled_in_fit", "larger_than_the_memory", *LABELS]

ON_JAX = ["loops", "test_keras", "test_semantics", *COVERED]


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
    yet made for that shape, or, compiled, seconds for every case. So JAX runs the tests marked `jit`, which compile the main
    cases as users do, one case of each test beside the loops, worked numbers, and the contract with Keras.
    """
    items.sort(key=lambda item: ORDER.index(item.path.stem) if item.path.stem in ORDER else len(ORDER))
    if BACKEND == "torch":
        return
    for item in items:
        if not any(name in item.nodeid for name in COVERED):
            item.add_marker(pytest.mark.no_cover)
    seen = Counter()
    for item in items:
        if item.path.stem not in TABLES or item.get_closest_marker("every") or item.get_closest_marker("jit"):
            continue
        test = item.nodeid.partition("[")[0]
        if any(name in test for name in LABELS):
            continue
        if seen[test] % {"tensorflow": 5, "jax": 31}[BACKEND] or (BACKEND == "jax" and not any(name in test for name in ON_JAX)):
            item.add_marker(pytest.mark.every)
        seen[test] += 1


@pytest.fixture(scope="session", autouse=True)
def kept(kept_compilations):
    """Every test compiles only what none has compiled before."""


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)
