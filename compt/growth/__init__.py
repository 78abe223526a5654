"""Describe models by named axes and grow one into another.

May import: registry, interfaces and below. Growers build on it, and so does everything
that plans or trains.
"""
