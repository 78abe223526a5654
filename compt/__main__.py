"""``python -m compt``, and the command ``compt``."""

from __future__ import annotations

import os
import signal
import sys

INTERRUPTED = 128
"""Exit codes above it stand for a signal."""


def main() -> int:
    """Run the command line; Ctrl-C may come while that is still imported."""
    try:
        from compt.cli import main as run

        code = run()
    except KeyboardInterrupt:
        print("compt: interrupted.", file=sys.stderr)
        code = INTERRUPTED + 2
    if code > INTERRUPTED:
        sys.stdout.flush()
        sys.stderr.flush()
        # Where the interrupt came inside of exec(), as dataclasses call it, Python would end with
        # a signal of its own in place of the exit code; and there is nothing left to wait for.
        os._exit(code)
    # What is left is Python's own end, where an interrupt would leave a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return code


if __name__ == "__main__":
    sys.exit(main())
