import keras
import pytest

if keras.backend.backend() == "jax":
    import jax

    # Hundreds of small programs, each run once: compiling them less well saves half of the time.
    jax.config.update("jax_disable_most_optimizations", True)


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
