"""What the properties found and is not mended yet, by its smallest example."""

import numpy as np
import pytest
from on_backend import BACKEND, array
from reference import AVERAGES, STRATEGIES, triplet_losses

import tripletloss as tl

# JAX compiles each way through the code anew: it gets some of each kind.
EVERY = slice(None) if BACKEND != "jax" else slice(None, None, 5)


@pytest.mark.parametrize("window", [1, 16])
@pytest.mark.parametrize("positive, negative", STRATEGIES[EVERY])
def test_64_bits_stay_64(positive, negative, window, monkeypatch, float64):
    """Outside TensorFlow, Keras's maximum and mean make float32 of float64, and on PyTorch its segment_sum does."""
    for module in (tl.mining, tl.losses):
        monkeypatch.setattr(module, "WINDOW", window)
    rng = np.random.default_rng(0)
    labels, x = np.array([0, 0, 0, 1, 1, 1, 2]), rng.normal(size=(7, 3))
    for average in AVERAGES:
        strategies = {"positive_mining_strategy": positive, "negative_mining_strategy": negative}
        losses = tl.triplet_loss(labels, x, soft_margin=True, average=average, **strategies)
        expected, _ = triplet_losses(labels, x, soft_margin=True, average=average, positive=positive, negative=negative)
        np.testing.assert_allclose(array(losses), expected, rtol=1e-13)
