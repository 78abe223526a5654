"""Put the results of several families into one table and one plot.

``python benchmarks/merge.py benchmarks/results/acceleration-*.json --plot docs/acceleration.svg
--write README.md`` draws the first result's quality against compute, and acceleration against the
number of members for all; the table is printed, and put into documents between ``<!-- acceleration
-->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from measuring.show import draw_together, family_table, put_between

from compt.errors import ComptError
from compt.report.format import plain_console


def main() -> int:
    """Read, print, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "results", nargs="+", type=Path, help="files of acceleration.py --json; the first is drawn"
    )
    parser.add_argument("--plot", "--picture", type=Path, help="SVG to draw")
    parser.add_argument(
        "--write",
        nargs="+",
        type=Path,
        default=[],
        metavar="DOCUMENT",
        help="to put the table into",
    )
    arguments = parser.parse_args()
    try:
        results = [json.loads(path.read_text()) for path in arguments.results]
        if arguments.plot:
            draw_together(results, arguments.plot)
        for document in arguments.write:
            put_between(document, "acceleration", family_table(results))
    except (ComptError, OSError, ValueError, KeyError) as error:
        print(f"merge: {error}", file=sys.stderr)
        return 2
    plain_console().print(family_table(results), highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
