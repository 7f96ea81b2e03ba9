"""Two profiles: "quick", the same at every run, for `make test`; and "long", for `make fuzz`, which draws anew each time."""

import gc

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
settings.register_profile("quick", derandomize=True, max_examples={"torch": 20, "tensorflow": 6, "jax": 1}[keras.backend.backend()], **COMMON)
settings.register_profile("long", max_examples=200, **COMMON)
settings.load_profile("quick")


@pytest.fixture(scope="session", autouse=True)
def kept(kept_compilations):
    """Every test compiles only what none has compiled before.

    Hypothesis collects garbage when it begins: all graphs of the tests before it would be searched, for half a minute.
    """
    gc.freeze()
