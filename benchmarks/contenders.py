"""What is measured: for each backend, functions of embeddings and labels that wait until their result is there.

Every contender is a builder `(distance, strategy) -> step(x, y)`, which makes the loss and its gradient. A TensorFlow
graph is traced for a batch of unknown size, as `fit` traces it, unless its name says "known size". `EAGER` has the steps
without any compilation. The floor is the product of the embeddings with themselves, whole and in blocks whose results
are dropped. Libraries are imported inside the builders, since no environment has them all.
"""

from collections.abc import Callable

import numpy as np

Step = Callable[[object, object], object]
BLOCK = 256  # rows of the blocked floor
STRATEGIES = {  # positive and negative
    "semi-hard": ("hard", "semi-hard"),
    "hard": ("hard", "hard"),
    "all/semi-hard": ("all", "semi-hard"),
    "all/hard": ("all", "hard"),
    "all/all": ("all", "all"),
}


def embeddings_and_labels(n: int, d: int, members: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """n random rows of length 1, and labels of so many rows each: an untrained network's balanced batch."""
    x = np.random.default_rng(0).normal(size=(n, d)).astype("float32")
    return x / np.linalg.norm(x, axis=1, keepdims=True), (np.arange(n) // members).astype("int32")


def own_loss(distance: str, strategy: str) -> Callable:
    """The package's loss; all triplets are averaged as the peers do."""
    import tripletloss

    return tripletloss.TripletLoss(distance, *STRATEGIES[strategy], average="active" if strategy == "all/all" else "anchors")


# TensorFlow


def tensorflow_loss_and_gradient(loss: Callable) -> Callable:
    """A function of embeddings and labels from a loss of labels and embeddings."""
    import tensorflow as tf

    def loss_and_gradient(x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(y, x)
        return value, tape.gradient(value, x)

    return loss_and_gradient


def tensorflow_step(loss: Callable, jit_compile: bool = False, known_size: bool = False) -> Step:
    """Loss and gradient as a graph, which is traced in the first step; for any batch size, unless that is to be known."""
    import tensorflow as tf

    graphs = []

    def step(x: tf.Tensor, y: tf.Tensor) -> list[np.ndarray]:
        if not graphs:
            signature = None if known_size else [tf.TensorSpec((None, *part.shape[1:]), part.dtype) for part in (x, y)]
            graphs.append(tf.function(tensorflow_loss_and_gradient(loss), signature, jit_compile=jit_compile))
        return [result.numpy() for result in graphs[0](x, y)]

    return step


def tensorflow_eager(loss: Callable) -> Step:
    """Loss and gradient, operation by operation."""
    loss_and_gradient = tensorflow_loss_and_gradient(loss)
    return lambda x, y: [result.numpy() for result in loss_and_gradient(x, y)]


def tensorflow_floors() -> dict[str, Step]:
    """The bare product, whole and in blocks."""
    import tensorflow as tf

    @tf.function
    def whole(x: tf.Tensor) -> tf.Tensor:
        return tf.matmul(x, x, transpose_b=True)[:1, :1]

    @tf.function
    def blocked(x: tf.Tensor) -> tf.Tensor:
        blocks = tf.reshape(x, (-1, min(BLOCK, x.shape[0]), x.shape[1]))
        return tf.map_fn(lambda block: tf.matmul(block, x, transpose_b=True)[:1, :1], blocks)

    return {"whole": lambda x, y: whole(x).numpy(), "blocked": lambda x, y: blocked(x).numpy()}


def tensorflow_similarity(distance: str, strategy: str) -> Callable:
    """TensorFlow Similarity's loss, on Keras 2."""
    from tensorflow_similarity.losses import TripletLoss

    return TripletLoss(distance, *STRATEGIES[strategy], margin=1.0)


def tensorflow_addons(distance: str, strategy: str) -> Callable:
    """TensorFlow Addons' loss; its semi-hard loss takes all positives. Its cosine is called angular."""
    import tensorflow_addons

    kind = tensorflow_addons.losses.TripletHardLoss if strategy == "hard" else tensorflow_addons.losses.TripletSemiHardLoss
    return kind(margin=1.0, distance_metric={"cosine": "angular"}[distance])


# JAX


def jax_step(loss: Callable) -> Step:
    """Loss and gradient under jit."""
    import jax

    both = jax.jit(jax.value_and_grad(lambda x, y: loss(y, x)))
    return lambda x, y: jax.block_until_ready(both(x, y))


def jax_eager(loss: Callable) -> Step:
    """Loss and gradient, operation by operation."""
    import jax

    both = jax.value_and_grad(lambda x, y: loss(y, x))
    return lambda x, y: jax.block_until_ready(both(x, y))


def jax_floors() -> dict[str, Step]:
    """The bare product, whole and in blocks; the barrier keeps the compiler from making only what is returned."""
    import jax

    def product(rows: jax.Array, x: jax.Array) -> jax.Array:
        return jax.lax.optimization_barrier(rows @ x.T)[0, 0]

    whole = jax.jit(lambda x: jax.lax.optimization_barrier(x @ x.T))
    blocked = jax.jit(lambda x: jax.lax.map(lambda rows: product(rows, x), x.reshape(-1, min(BLOCK, len(x)), x.shape[1])))
    return {
        "whole": lambda x, y: jax.block_until_ready(whole(x)),
        "blocked": lambda x, y: jax.block_until_ready(blocked(x)),
    }


# PyTorch


def torch_wait() -> None:
    """Wait for the GPU, if there is one."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def torch_step(loss: Callable) -> Step:
    """Loss and gradient, eagerly."""

    def step(x: object, y: object) -> object:
        x = x.detach().requires_grad_()
        value = loss(y, x)
        value.backward()
        torch_wait()
        return value.detach(), x.grad

    return step


def torch_floors() -> dict[str, Step]:
    """The bare product, whole and in blocks."""

    def whole(x: object, y: object) -> None:
        x @ x.T
        torch_wait()

    def blocked(x: object, y: object) -> None:
        for rows in x.split(BLOCK):
            rows @ x.T
        torch_wait()

    return {"whole": whole, "blocked": blocked}


def metric_learning(distance: str, strategy: str) -> Callable:
    """pytorch-metric-learning's loss with the miner that makes the same choice, or without one for all triplets."""
    from pytorch_metric_learning import distances, losses, miners, reducers

    measure = {"cosine": distances.CosineSimilarity, "euclidean": distances.LpDistance}[distance]()
    if strategy == "all/all":
        every = losses.TripletMarginLoss(1.0, distance=measure)
        return lambda y, x: every(x, y)
    positive, negative = STRATEGIES[strategy]
    miner = miners.BatchEasyHardMiner(positive, negative.replace("-", ""), distance=measure)
    loss = losses.TripletMarginLoss(1.0, distance=measure, reducer=reducers.MeanReducer())
    return lambda y, x: loss(x, y, miner(x, y))


def sentence_transformers(distance: str, strategy: str) -> Callable:
    """sentence-transformers' loss; its semi-hard loss takes all positives."""
    from sentence_transformers import losses

    measures = losses.BatchHardTripletLossDistanceFunction
    measure = {"cosine": measures.cosine_distance, "euclidean": measures.eucledian_distance}[distance]
    semi_hard = losses.BatchSemiHardTripletLoss
    kinds = {"hard": losses.BatchHardTripletLoss, "semi-hard": semi_hard, "all/semi-hard": semi_hard, "all/all": losses.BatchAllTripletLoss}
    loss = kinds[strategy](model=None, distance_metric=measure, margin=1.0)
    return lambda y, x: loss.compute_loss_from_embeddings([x], y)


# Who lacks a strategy is not asked for it.
LACKING = {
    "TensorFlow Similarity": ("all/semi-hard", "all/hard", "all/all"),
    "TensorFlow Similarity, jit": ("all/semi-hard", "all/hard", "all/all"),
    "TensorFlow Addons": ("all/hard", "all/all"),
    "TensorFlow Addons, jit": ("all/hard", "all/all"),
    "pytorch-metric-learning": ("all/semi-hard",),  # its miner leaves out the pairs that want the fallback
    "sentence-transformers": ("all/hard",),
}
OWN, KNOWN, OWN_JIT = "tripletloss", "tripletloss, known size", "tripletloss, jit"
BUILDERS = {
    "tensorflow": {
        OWN: lambda *which: tensorflow_step(own_loss(*which)),
        KNOWN: lambda *which: tensorflow_step(own_loss(*which), known_size=True),
        OWN_JIT: lambda *which: tensorflow_step(own_loss(*which), jit_compile=True),
        "TensorFlow Similarity": lambda *which: tensorflow_step(tensorflow_similarity(*which)),
        "TensorFlow Similarity, jit": lambda *which: tensorflow_step(tensorflow_similarity(*which), jit_compile=True),
    },
    "addons": {
        "TensorFlow Addons": lambda *which: tensorflow_step(tensorflow_addons(*which)),
        "TensorFlow Addons, jit": lambda *which: tensorflow_step(tensorflow_addons(*which), jit_compile=True),
    },
    "jax": {OWN_JIT: lambda *which: jax_step(own_loss(*which))},
    "torch": {
        OWN: lambda *which: torch_step(own_loss(*which)),
        "pytorch-metric-learning": lambda *which: torch_step(metric_learning(*which)),
        "sentence-transformers": lambda *which: torch_step(sentence_transformers(*which)),
    },
}
EAGER = {
    "tensorflow": {
        OWN: lambda *which: tensorflow_eager(own_loss(*which)),
        "TensorFlow Similarity": lambda *which: tensorflow_eager(tensorflow_similarity(*which)),
    },
    "addons": {"TensorFlow Addons": lambda *which: tensorflow_eager(tensorflow_addons(*which))},
    "jax": {OWN_JIT: lambda *which: jax_eager(own_loss(*which))},
    "torch": BUILDERS["torch"],
}
FLOORS = {"tensorflow": tensorflow_floors, "addons": tensorflow_floors, "jax": jax_floors, "torch": torch_floors}


def as_tensors(backend: str, x: np.ndarray, y: np.ndarray, dtype: str) -> tuple[object, object]:
    """The arrays as the backend has them, on its GPU if there is one, the embeddings in `dtype` (tf32: float32)."""
    dtype = "float32" if dtype == "tf32" else dtype
    if backend in ("tensorflow", "addons"):
        import tensorflow as tf

        return tf.cast(x, dtype), tf.constant(y)
    if backend == "jax":
        import jax.numpy as jnp

        return jnp.asarray(x, dtype), jnp.asarray(y)
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.as_tensor(x, dtype=getattr(torch, dtype), device=device), torch.as_tensor(y, device=device)
