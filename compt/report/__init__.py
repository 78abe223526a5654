"""Record what finished stages cost and reached, and show it as tables, plots and predictions.

May import: planning, config and below; never training, so that a report opens without a GPU or the
data.
"""
