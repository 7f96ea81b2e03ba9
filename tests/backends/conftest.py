import itertools

import keras
import pytest


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
    """Outside jit, JAX compiles every loop and condition at each call; what it compiled once need not be made again."""
    if keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


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


@pytest.fixture
def float64():
    """64 bits on every backend: JAX narrows all numbers to 32 unless told otherwise."""
    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)
