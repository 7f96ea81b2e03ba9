"""Two host devices of one process: the short cases on arrays that are cut over them, and a training with `fit`."""

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import keras
from devices.cases import CASES, EMBEDDINGS, SHORT, trained, write

keras.distribution.set_distribution(keras.distribution.DataParallel())
layout = keras.distribution.distribution().get_data_layout
where = []  # on how many devices the embeddings lay


def cut(x):
    """Half of the rows on one device, half on the other."""
    return keras.distribution.distribute_tensor(x, layout(x.shape))


def run(case):
    """The loss and the gradient of the whole batch."""
    batch = [None if x is None else cut(x) for x in case.inputs()]
    loss = case.make_loss(pooled=True)

    @jax.jit
    @jax.value_and_grad
    def loss_and_gradient(kernel, inputs, labels, weights):
        embeddings = inputs @ kernel
        jax.debug.inspect_array_sharding(embeddings, callback=lambda sharding: where.append(len(sharding.device_set)))
        return loss(labels, embeddings, weights)

    value, gradient = loss_and_gradient(EMBEDDINGS, *batch)
    return {"loss": float(value), "gradient": gradient.tolist()}


results = {name: run(CASES[name]) for name in SHORT}
fits = {"fit 16": trained(16, 8, pooled=True), "fit 16 in pieces": trained(16, 8, pooled=True, pieces=4)}
write({**results, **fits, "devices": where})
