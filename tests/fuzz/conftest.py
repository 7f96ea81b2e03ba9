"""Two profiles: "quick", the same at every run, for `make test`; and "long", for `make fuzz`, which draws anew each time."""

import keras
import pytest
from hypothesis import HealthCheck, settings

COMMON = {
    "database": None,
    "deadline": None,
    "print_blob": True,
    # Drawing rows is cheap, but one call of an eager backend is not.
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
}
EXAMPLES = {"torch": 25, "tensorflow": 12, "jax": 4}[keras.backend.backend()]
settings.register_profile("quick", derandomize=True, max_examples=EXAMPLES, **COMMON)
settings.register_profile("long", max_examples=400, **COMMON)
settings.load_profile("quick")


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
    """JAX compiles each operation for each shape; what it compiled once need not be made again."""
    if keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(scope="module", autouse=True)
def without_jit():
    """JAX would compile every loop and condition at each call: without jit it runs them, and compiles single operations."""
    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    with jax.disable_jit():
        yield
    jax.clear_caches()


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
