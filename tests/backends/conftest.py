import os
import random
from collections import defaultdict

import keras
import pytest


def most_cases(name):
    """How many cases of a test are run: JAX compiles each way through the code anew, and tracing takes PyTorch long."""
    if "refuse" in name:  # what is refused is not compiled
        return None
    return {"jax": 2, "tensorflow": 16, "torch": 1 if "compil" in name else None}[keras.backend.backend()]


def pytest_collection_modifyitems(config, items):
    """Of a test's many cases some, drawn by lot, the same each time; with EVERY_CASE=1 in the environment all."""
    if os.environ.get("EVERY_CASE"):
        return
    tests = defaultdict(list)
    for item in items:
        tests[item.nodeid.partition("[")[0]].append(item)
    left_out = set()
    for name, cases in tests.items():
        if (most := most_cases(name)) and len(cases) > most:
            left_out |= {*cases} - {*random.Random(name).sample(cases, most)}
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=list(left_out))


@pytest.fixture(scope="session", autouse=True)
def compiled(compiled_once):
    """Every test compiles only what none has compiled before."""


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)
