"""Write a report as one HTML file, which opens without a network.

Stages are read into :mod:`.stages`; tables, charts, the drawn chain and growth coverage are made of
them, each in its file; :mod:`.page` puts all into a template.
"""
