"""One of several processes: the short cases under MultiWorkerMirroredStrategy, with a step of training."""

import json
import os
import sys

worker, ports = int(sys.argv[2]), sys.argv[3:]
os.environ["TF_CONFIG"] = json.dumps(
    {"cluster": {"worker": [f"127.0.0.1:{port}" for port in ports]}, "task": {"type": "worker", "index": worker}}
)

import tensorflow as tf  # noqa: E402

strategy = tf.distribute.MultiWorkerMirroredStrategy()  # before any other use of TensorFlow

import keras  # noqa: E402
from devices.cases import CASES, EMBEDDINGS, SHORT, N, write  # noqa: E402


def run(case):
    """The sum of the replicas' losses and of their gradients, and what a step of an optimizer makes of the embeddings."""
    loss = case.make_loss(pooled=True)
    with strategy.scope():
        model = keras.Sequential([keras.Input((N,)), keras.layers.Dense(3, use_bias=False)])
        optimizer = keras.optimizers.SGD(1.0)
        optimizer.build(model.trainable_variables)
    model.set_weights([EMBEDDINGS])

    @tf.function
    def train_step(*batch):
        def on_each(inputs, labels, weights=None):
            with tf.GradientTape() as tape:
                share = loss(labels, model(inputs, training=True), weights)
            gradients = tape.gradient(share, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            return tf.distribute.get_replica_context().all_reduce("sum", [share, gradients[0]])

        return strategy.run(on_each, batch)

    loss_sum, gradient = train_step(*(tf.constant(x) for x in case.inputs(worker) if x is not None))
    stepped = model.get_weights()[0]
    return {"loss": float(loss_sum), "gradient": gradient.numpy().tolist(), "stepped": stepped.tolist()}


results = {name: run(CASES[name]) for name in SHORT}
if worker == 0:
    write(results)
