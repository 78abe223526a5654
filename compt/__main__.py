"""``python -m compt``, and the command ``compt``."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line, of which Ctrl-C may come while it is still imported."""
    try:
        from compt.cli import main as run

        return run()
    except KeyboardInterrupt:
        print("compt: interrupted.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
