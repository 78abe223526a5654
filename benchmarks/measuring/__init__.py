"""Measure families of members in runs of compt, and show the results as tables and plots."""
