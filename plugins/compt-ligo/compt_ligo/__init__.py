"""LiGO for compt: the grower ``ligo``, whose maps from a small model's weights to a larger one's
are learned.
"""

from compt_ligo.grower import Ligo

__all__ = ["Ligo"]
