import keras
import pytest
from on_backend import WAYS, numbers_in_a_block


@pytest.fixture(params=WAYS)
def way(request, block_size):
    """Both ways through the engine, whatever the size of the batch: as one table of masks, and in blocks."""
    block_size(numbers_in_a_block(request.param, 12))
    return request.param


@pytest.fixture(params=WAYS)
def cut(request, block_size):
    """The same for larger batches: a function that has a batch of n rows cut in two, or not."""
    return lambda n: block_size(numbers_in_a_block(request.param, n))


@pytest.fixture(scope="session", autouse=True)
def kept(kept_compilations):
    """Every test compiles only what none has compiled before."""


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)
