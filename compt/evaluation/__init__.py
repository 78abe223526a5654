"""Evaluate the members of chains with benchmarks, built in or of other tools.

``evaluate`` is what `compt eval` does; the suites beside it are plug-ins like anyone's. May import:
paradigms and below.
"""
