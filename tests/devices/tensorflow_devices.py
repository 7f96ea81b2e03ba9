"""Logical devices of one process: each case under MirroredStrategy, and a training with `fit`."""

import sys

import tensorflow as tf

PROCESSOR = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(PROCESSOR, [tf.config.LogicalDeviceConfiguration()] * 3)

from devices.cases import CASES, CYCLE, EMBEDDINGS, SHORT, trained, write  # noqa: E402

import tripletloss as tl  # noqa: E402

# One strategy for each number: two with collective operations would mix up the numbers of these.
TWO = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
THREE = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1", "CPU:2"], cross_device_ops=tf.distribute.ReductionToOneDevice())
STRATEGIES = {2: TWO, 3: THREE}


def run(case):
    """The sum of the replicas' losses, and of their gradients."""
    replicas = len(case.sizes)
    strategy, loss = STRATEGIES[replicas], case.make_loss(pooled=True)
    with strategy.scope():
        kernel = tf.Variable(EMBEDDINGS)

    def on_each(inputs, labels, weights):
        with tf.GradientTape() as tape:
            share = loss(labels, inputs @ kernel, weights)
        return tf.distribute.get_replica_context().all_reduce("sum", [share, tape.gradient(share, kernel)])

    def distributed(arrays):
        if arrays[0] is None:
            return None
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(arrays[context.replica_id_in_sync_group])
        )

    parts = zip(*map(case.inputs, range(replicas)), strict=True)
    summed = strategy.run(on_each, [distributed(arrays) for arrays in parts])
    loss, gradient = (strategy.experimental_local_results(value)[0] for value in summed)
    return {"loss": float(loss), "gradient": gradient.numpy().tolist()}


results = {name: run(CASES[name]) for name in (CASES if sys.argv[2:] == ["every"] else SHORT)}
with TWO.scope():
    for n in (16, 19):  # batches of 8 are cut into 4 + 4 rows, the last of 19 into 2 + 1
        results[f"fit {n}"] = trained(n, 8, pooled=True)
    results["fit 16 in pieces"] = trained(16, 8, pooled=True, pieces=3)  # of 4 rows a device, 1 + 3
    # A graph where one piece of code runs for all replicas looks like Keras asking for shapes, but wants a number.
    summed = tf.function(tl.TripletLoss("euclidean", "hard", "hard", reduction="sum"))
    results["below the scope"] = float(summed(tf.constant(CYCLE), tf.constant(EMBEDDINGS)))
write(results)
