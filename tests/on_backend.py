"""What the tests need from the backend in use, beyond `keras.ops`."""

import functools
import itertools

import keras
import numpy as np
import pytest
from keras import ops

BACKEND = keras.backend.backend()


def only(backend, why):
    """Marks a test of what one backend alone has."""
    return pytest.mark.skipif(backend != BACKEND, reason=f"{backend} only: {why}")


WAYS = ("one table", "blocks")  # through the engine


def numbers_in_a_block(way, n):
    """What `set_block_size` is to be for two blocks of n rows, of which the last is padded, or for one table of all."""
    return None if way == "one table" else (n // 2 + 1) * n


def one_in(number, *axes):
    """The combinations of these axes, of which `make test` runs one in so many, and `make test-every` all.

    Where the number has no divisor in common with the lengths of the axes, what runs meets every value of each, in turn.
    """
    return [
        pytest.param(*case, marks=[] if place % number == 0 else pytest.mark.every)
        for place, case in enumerate(itertools.product(*axes))
    ]


def strategies(positive, negative):
    """The two arguments of that name."""
    return {"positive_mining_strategy": positive, "negative_mining_strategy": negative}


def grad(fn, x):
    """Gradient, as an array no narrower than float32, of the number `fn(x)` at `x`."""
    gradient = array(ops.convert_to_tensor(raw_grad(fn, x)))
    return gradient if gradient.dtype in ("float32", "float64") else gradient.astype("float32")


def raw_grad(fn, x):
    """The same, as the backend returns it."""
    return raw_values_and_grad(fn, x)[1]


def values_and_grad(fn, x):
    """What `fn(x)` is, and the gradient of its sum at `x`, as arrays."""
    return tuple(array(ops.convert_to_tensor(y)) for y in raw_values_and_grad(fn, x))


def compiled_values_and_grad(fn, x):
    """The same, compiled as a training step would be."""
    if BACKEND == "torch":  # forward is compiled, and backward follows from it
        return values_and_grad(compiled(fn), x)
    return tuple(array(y) for y in compiled(lambda x: raw_values_and_grad(fn, x))(ops.convert_to_tensor(x)))


def raw_values_and_grad(fn, x):
    """The same, as the backend returns it; an error where there is no gradient, as a training step would raise one."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        x = tf.convert_to_tensor(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = fn(x)
        gradient = tape.gradient(y, x)
        assert gradient is not None, "no gradient: the loss is not connected with the embeddings"
        return y, tf.convert_to_tensor(gradient)
    if BACKEND == "jax":
        import jax

        def total(x):
            y = fn(x)
            return ops.sum(y), y

        gradient, y = jax.grad(total, has_aux=True)(ops.convert_to_tensor(x))
        return y, gradient
    x = ops.convert_to_tensor(x).detach().clone().requires_grad_(True)
    y = fn(x)
    y.sum().backward()
    assert x.grad is not None, "no gradient: the loss is not connected with the embeddings"
    return y.detach(), x.grad


def compiled(fn):
    """`fn` as this backend compiles it; on torch traced only, since what follows there takes a C++ compiler."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(fn, jit_compile=True)
    if BACKEND == "jax":
        import jax

        jitted = jax.jit(fn)

        @functools.wraps(fn)
        def with_jit(*arguments):
            with jax.disable_jit(False):
                return jitted(*arguments)

        return with_jit
    import torch

    return torch.compile(fn, backend="eager")


def array(x):
    return ops.convert_to_numpy(x)


def tensor(x, dtype):
    """`x` as a tensor of any dtype, those that numpy lacks among them."""
    wide = x if dtype == "float64" else np.asarray(x, "float32")
    return ops.cast(ops.convert_to_tensor(wide), dtype)
