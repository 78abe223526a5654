"""The fresh environment in which packages of plug-ins are tested."""

from tests.plugins.conftest import environment

__all__ = ["environment"]
