"""Record what stages cost and reached, and show it as tables, plots, pages and predictions.

``watch`` shows a run while it is there, ``html`` writes the page of a report.

May import: planning, config and below; never training, so that a report opens without a GPU or the
data.
"""
