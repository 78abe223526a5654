"""The contract that every layout is held to."""

from compt.testing.layouts.contract import LayoutContract

__all__ = ["LayoutContract"]
