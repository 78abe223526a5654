"""Turn a checked config into sizes, budgets and compute, without weights or data.

May import: config, growth, registry, interfaces and below.
"""
