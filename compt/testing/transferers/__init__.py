"""The contract that every transferer is held to."""

from compt.testing.transferers.contract import TransfererContract

__all__ = ["TransfererContract"]
