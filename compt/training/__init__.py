"""Train one stage: its first weights, model, loops, data order, optimizer and checkpoints.

May import: the work folder, report, planning, config, growth, registry, interfaces and below; only
the chain and the command line import it.
"""
