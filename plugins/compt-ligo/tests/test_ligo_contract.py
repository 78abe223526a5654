"""compt's own contract, with trained maps and with untrained ones."""

from compt.testing import GrowerContract


class TestUntrained(GrowerContract):
    """Maps as they start."""

    grower = dict(type="ligo", steps=0)


class TestTrained(GrowerContract):
    """Maps trained on the contract's objective."""

    grower = dict(type="ligo", steps=5)
