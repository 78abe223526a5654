"""LiGO for compt, a grower that learns maps from a small model's weights to a larger one's."""

from compt_ligo.grower import Ligo

__all__ = ["Ligo"]
