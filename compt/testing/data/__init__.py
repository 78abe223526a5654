"""The contract that every source of data is held to."""

from compt.testing.data.contract import DataSourceContract

__all__ = ["DataSourceContract"]
