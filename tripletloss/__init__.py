__version__ = "0.1.0"

from tripletloss import distances, distribution, layers, losses, mining, samplers
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
    "mine_triplets",
    "mining",
    "samplers",
    "triplet_loss",
    "triplet_margin_loss",
]
