"""Contract tests for plug-in authors: subclass one, name your plug-in, and run pytest."""

from compt.testing.contracts import (
    GrowerContract,
    LayoutContract,
    ParadigmContract,
    TransfererContract,
)

__all__ = ["GrowerContract", "LayoutContract", "ParadigmContract", "TransfererContract"]
