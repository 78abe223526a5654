"""The contract that every grower is held to."""

from compt.testing.growers.contract import GrowerContract

__all__ = ["GrowerContract"]
