"""What the tests need from the backend in use, beyond `keras.ops`."""

import keras
import numpy as np
from keras import ops

BACKEND = keras.backend.backend()


def grad(fn, x):
    """Gradient, as an array no narrower than float32, of the number `fn(x)` at `x`."""
    gradient = array(ops.convert_to_tensor(raw_grad(fn, x)))
    return gradient if gradient.dtype in ("float32", "float64") else gradient.astype("float32")


def raw_grad(fn, x):
    """The same, as the backend returns it; an error where there is none, as a training step would raise one."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        x = tf.convert_to_tensor(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = fn(x)
        gradient = tape.gradient(y, x)
        assert gradient is not None, "no gradient: the loss is not connected with the embeddings"
        return tf.convert_to_tensor(gradient)
    if BACKEND == "jax":
        import jax

        return jax.grad(fn)(ops.convert_to_tensor(x))
    x = ops.convert_to_tensor(x).detach().clone().requires_grad_(True)
    fn(x).backward()
    assert x.grad is not None, "no gradient: the loss is not connected with the embeddings"
    return x.grad


def compiled(fn):
    """`fn` as this backend compiles it; on torch traced only, since what follows there takes a C++ compiler."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(fn, jit_compile=True)
    if BACKEND == "jax":
        import jax

        return jax.jit(fn)
    import torch

    return torch.compile(fn, backend="eager")


def array(x):
    return ops.convert_to_numpy(x)


def tensor(x, dtype):
    """`x` as a tensor of any dtype, those that numpy lacks among them."""
    wide = x if dtype == "float64" else np.asarray(x, "float32")
    return ops.cast(ops.convert_to_tensor(wide), dtype)
