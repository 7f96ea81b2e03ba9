"""Keras 3 triplet losses with online mining, on TensorFlow, JAX and PyTorch.

`TripletLoss` is the loss for `keras.Model.compile`, with integer labels and with embeddings as the model's output. The
modules, each with its own `help`:

- `losses`: the loss for Keras and as functions
- `mining`: which triplets a batch or a data set has
- `distances`: what a loss, a search and a picture measure by
- `layers`: rows of length one as a model's last layer
- `samplers`: batches in which every anchor has a positive
- `metrics`: how good embeddings are, and what the loss sees
- `training`: larger batches, or more negatives, than fit into memory
- `search`: an index that finds the nearest, or says unknown
- `plots`: embeddings, triplets, distances and neighbours as pictures
- `distribution`: several devices, and how much memory the loss takes
- `tripletloss.demo`: a program that trains on digits or on your images

Examples
--------
>>> loss = tl.TripletLoss("euclidean", margin=0.5)
>>> float(loss([0, 0, 1], [[0.0], [1.0], [1.5]]))
0.5
"""

__version__ = "0.2.0"

from typing import TYPE_CHECKING

from tripletloss import distances, distribution, layers, losses, metrics, mining, samplers, search, training
from tripletloss.losses import MetricLoss, TripletLoss, triplet_loss, triplet_margin_loss
from tripletloss.mining import Triplets, mine_triplets

__all__ = [
    "MetricLoss",
    "TripletLoss",
    "Triplets",
    "distances",
    "distribution",
    "layers",
    "losses",
    "metrics",
    "mine_triplets",
    "mining",
    "plots",
    "samplers",
    "search",
    "training",
    "triplet_loss",
    "triplet_margin_loss",
]

if TYPE_CHECKING:  # to a checker, a module with a __getattr__ has every name
    from tripletloss import plots
else:

    def __getattr__(name: str) -> object:
        """`plots`, imported when it is asked for: it needs matplotlib, which an extra brings."""
        from importlib import import_module

        if name == "plots":
            try:
                return import_module("tripletloss.plots")
            except ModuleNotFoundError as error:
                raise ImportError("tripletloss.plots needs matplotlib and scikit-learn: pip install 'tripletloss[plots]'.") from error
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """What a user wants, and nothing else."""
    return sorted([*__all__, "__version__"])
