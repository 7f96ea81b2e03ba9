"""How the tests call the package: once for the losses and their gradient, with its sizes set as a test wants them."""

import contextlib
from unittest import mock

import numpy as np
from keras import ops
from on_backend import BACKEND, array, compiled

import tripletloss as tl
from tripletloss import _blocks, _sums, _tables, distribution


@contextlib.contextmanager
def machine(limits, m, dtype="float32"):
    """The package with these limits for m keys; on JAX with 64 bits where the dtype asks for them."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(_tables, "TILE", limits.tile))
        for module in (_tables, _blocks, _sums):
            stack.enter_context(mock.patch.object(module, "MAX_LISTED_POSITIVES", limits.listed))
        distribution.set_block_size(limits.numbers(m))
        stack.callback(distribution.set_block_size, None)
        if BACKEND == "jax":  # what is compiled knows of the block size, but not of the constants
            distribution._jitted.cache_clear()
            stack.callback(distribution._jitted.cache_clear)
        if BACKEND == "jax" and dtype == "float64":
            import jax

            jax.config.update("jax_enable_x64", True)
            stack.callback(jax.config.update, "jax_enable_x64", False)
        yield


def total_of(losses, weights):
    """The weighted sum; what weighs nothing is left out, even if it is NaN."""
    return ops.sum(ops.where(ops.convert_to_tensor(weights != 0), losses, 0) * ops.convert_to_tensor(weights))


def losses_and_gradient(fn, weights, x):
    """The losses (n,) that `fn` makes of x, and the gradient by x of their weighted sum."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        x = tf.convert_to_tensor(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            losses = fn(x)
            total = total_of(losses, weights)
        return array(losses), array(tf.convert_to_tensor(tape.gradient(total, x)))
    if BACKEND == "jax":
        import jax

        def total(x):
            losses = fn(x)
            return total_of(losses, weights), losses

        gradient, losses = jax.grad(total, has_aux=True)(ops.convert_to_tensor(x))
        return array(losses), array(gradient)
    x = ops.convert_to_tensor(x).detach().clone().requires_grad_(True)
    losses = fn(x)
    total_of(losses, weights).backward()
    return array(losses), array(x.grad)


def loss_of(batch, settings, weights):
    """What `triplet_loss` makes of a batch: losses (n,), gradients by queries (n, d) and keys (m, d) of the weighted sum."""
    n = len(batch.x)
    if batch.keys is None:
        losses, gradient = losses_and_gradient(
            lambda x: tl.triplet_loss(batch.labels, x, remove_diagonal=batch.remove_diagonal, **settings.arguments), weights, batch.x
        )
        return losses, gradient, None

    def fn(x):
        keys = batch.key_labels, x[n:]
        return tl.triplet_loss(batch.labels, x[:n], *keys, remove_diagonal=batch.remove_diagonal, **settings.arguments)

    losses, gradient = losses_and_gradient(fn, weights, np.concatenate([batch.x, batch.keys]))
    return losses, gradient[:n], gradient[n:]


def mined(batch, settings):
    """What `mine_triplets` chooses: for each query a positive and a negative, or None."""
    found = tl.mine_triplets(*batch.arguments, remove_diagonal=batch.remove_diagonal, **settings.mining)
    positive, negative, valid = (array(x) for x in found)
    assert positive.shape == negative.shape == valid.shape == batch.labels.shape
    return [(int(p), int(n)) if v else None for p, n, v in zip(positive, negative, valid, strict=True)]


def ask_compiled(batch, settings, unknown):
    """The losses by a compiled function; where `unknown`, by a TensorFlow graph that does not know how many rows there are."""

    def fn(*arrays):
        return tl.triplet_loss(*arrays, remove_diagonal=batch.remove_diagonal, **settings.arguments)

    arrays = [ops.convert_to_tensor(x) for x in batch.arguments]
    if BACKEND == "jax":
        import jax

        with jax.disable_jit(False):
            return array(jax.jit(fn)(*arrays))
    if BACKEND == "tensorflow" and unknown:
        import tensorflow as tf

        signature = [tf.TensorSpec((None, *x.shape[1:]), x.dtype) for x in arrays]
        return array(tf.function(fn, input_signature=signature)(*arrays))
    return array(compiled(fn)(*arrays))
