import itertools
import os
import random
from collections import defaultdict

import keras
import pytest

CASES = 12  # of one test, on JAX


def pytest_collection_modifyitems(config, items):
    """JAX compiles each way through the code anew: of a test's many cases it gets a dozen, drawn by lot, the same each time.

    With EVERY_CASE=1 in the environment it gets all.
    """
    if keras.backend.backend() != "jax" or os.environ.get("EVERY_CASE"):
        return
    tests = defaultdict(list)
    for item in items:
        tests[item.nodeid.partition("[")[0]].append(item)
    left_out = set()
    for name, cases in tests.items():
        if len(cases) > CASES and "refuse" not in name:  # what is refused is not compiled
            left_out |= {*cases} - {*random.Random(name).sample(cases, CASES)}
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=list(left_out))


@pytest.fixture(scope="session", autouse=True)
def compiled(compiled_once):
    """Every test compiles only what none has compiled before."""


TESTS = itertools.count(1)


@pytest.fixture(autouse=True)
def compiled_is_dropped():
    """What JAX compiled is kept in memory, and some hundreds of tests ended in an abort: now and then it is dropped."""
    yield
    if keras.backend.backend() == "jax" and next(TESTS) % 40 == 0:
        import jax

        jax.clear_caches()


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)
