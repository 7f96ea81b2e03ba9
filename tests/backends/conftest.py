import itertools

import keras
import pytest


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
