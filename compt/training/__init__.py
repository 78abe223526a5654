"""Train one stage, from its first weights to its last checkpoint.

May import: the work folder, report, planning, config, growth, registry, interfaces and
below; only the chain and the command line import it.
"""
