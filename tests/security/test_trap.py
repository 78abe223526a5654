"""The traps go off where they are run: without that, no other test here says anything."""

from __future__ import annotations

import pickle
import subprocess


def test_every_form_runs(trap):
    exec(trap.code)
    assert trap.has_run
    trap.mark.unlink()
    pickle.loads(trap.pickled())
    assert trap.has_run
    trap.mark.rmdir()
    subprocess.run([trap.script(trap.mark.parent / "bin" / "gs")], check=False)
    assert trap.has_run
    trap.mark.unlink()
