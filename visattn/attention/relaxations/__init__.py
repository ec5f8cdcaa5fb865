"""Relaxations: derivatives for the places that hard attention samples, instead of REINFORCE."""

from visattn.attention.relaxations.contract import Relaxation, Relaxed
from visattn.attention.relaxations.gumbel import GumbelSoftmax, StraightThroughGumbel
from visattn.attention.relaxations.reinmax import ReinMax
from visattn.attention.relaxations.straight_through import StraightThrough

__all__ = ["GumbelSoftmax", "ReinMax", "Relaxation", "Relaxed", "StraightThrough", "StraightThroughGumbel"]
