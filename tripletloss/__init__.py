"""Keras 3 triplet losses with online mining."""

__version__ = "0.1.0"

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
