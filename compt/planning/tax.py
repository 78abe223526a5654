"""Hold what a hop costs beside what its source is worth."""

from __future__ import annotations

RESTART = 0.17
"""What a grown member needs beside what is left to learn, as a share of its budget alone.

Its source's rate had come down, and its own goes up and comes down once more. From the hops of
docs/study_short.md. The one place to change once it is measured anew."""

RESTART_DEVIATION = 0.1
"""Standard deviation of the same over those hops."""
