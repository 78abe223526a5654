"""Writes a config that fits one's data, from a look at the data.

``guessing`` tells what lies at a path; ``tables`` and ``dividing`` make what no source reads as it
is into one that has a held-out split; ``looking`` opens it by compt's own sources; ``fitting``
chooses sizes and budgets; ``filling`` puts them into a template; ``writing`` does one after the
other, and plans the config before it is kept.

May import: config, planning, report, registry, interfaces, files and below.
"""
