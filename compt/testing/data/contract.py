"""The contract of sources of data."""

from __future__ import annotations

from compt.testing.data.identity import IdentityTests
from compt.testing.data.options import OptionTests
from compt.testing.data.processes import ProcessTests
from compt.testing.data.reading import ReadingTests


class DataSourceContract(OptionTests, ReadingTests, ProcessTests, IdentityTests):
    """Tests that a source gives the same samples at every reading and in every process.

    Usage, in a plug-in's own tests::

        class TestMine(compt.testing.DataSourceContract):
            source = dict(type="mine", train="train.csv", val="val.csv")

    A fixture that writes the data may set ``self.source`` instead.
    """
