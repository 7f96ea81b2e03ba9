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
EXAMPLES = {"torch": 25, "tensorflow": 12, "jax": 2}[keras.backend.backend()]
settings.register_profile("quick", derandomize=True, max_examples=EXAMPLES, **COMMON)
settings.register_profile("long", max_examples=400, **COMMON)
settings.load_profile("quick")


@pytest.fixture(scope="session", autouse=True)
def compiled(compiled_once):
    """Every test compiles only what none has compiled before."""


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
