"""The contract that every paradigm is held to."""

from compt.testing.paradigms.contract import ParadigmContract

__all__ = ["ParadigmContract"]
