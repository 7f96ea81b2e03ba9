import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# So that an `import tripletloss` in these tests means this repository, whatever is installed.
sys.path.insert(0, str(ROOT))


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture
def float64():
    """64 bits on every backend: JAX narrows all numbers to 32 unless told otherwise."""
    import keras

    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture
def block_size():
    """`set_block_size`, for one test: fewer numbers than a batch has make it go the way of a large one."""
    from tripletloss.distribution import set_block_size

    yield set_block_size
    set_block_size(None)


@pytest.fixture(scope="session")
def kept_compilations():
    """What JAX compiles is kept in build/, for the other processes and for the next run."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_compilation_cache_dir", str(ROOT / "build" / "compiled-by-jax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(autouse=True)
def jit(request):
    """JAX runs operation by operation, but for tests marked `jit`: a hundredth of a second where compiling takes seconds.

    `on_backend.compiled` compiles in any case.
    """
    if "jax" not in sys.modules or request.node.get_closest_marker("jit"):
        yield
        return
    import jax

    jax.config.update("jax_disable_most_optimizations", True)  # nor does XLA think long about a single operation
    with jax.disable_jit():
        yield
    jax.config.update("jax_disable_most_optimizations", False)
