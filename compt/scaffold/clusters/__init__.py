"""Templates of jobs that train a chain on a cluster, and go on with it after every interruption."""

from __future__ import annotations

from pathlib import Path

CLUSTERS = {"slurm": "slurm.sh", "kubernetes": "kubernetes.yaml", "skypilot": "skypilot.yaml"}
"""Files by what reads them."""


def template(cluster: str) -> str:
    """Return the job for a cluster, one of ``CLUSTERS``."""
    return (Path(__file__).parent / CLUSTERS[cluster]).read_text(encoding="utf-8")
