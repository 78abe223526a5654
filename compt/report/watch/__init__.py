"""Show what a run is doing, on its terminal, in its log, and to other shells by files alone.

``follower`` keeps a ``status.RunStatus`` as the run tells it of its steps, and writes it to
``status.json``; ``live`` draws one, ``lines`` writes one as text, ``inspection`` reads a folder's.
"""
