"""Results of several families -> one table and one picture.

``python benchmarks/merge.py benchmarks/results/acceleration-*.json --picture docs/acceleration.svg --write README.md``
draws the first result's quality against compute, and acceleration against the number of members for all; the table is
printed, and put into the document between ``<!-- acceleration -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from measuring.show import PAPER, draw_together, put_between

from compt.errors import ComptError
from compt.tables import plain_console


def markdown(found: Sequence[Mapping[str, Any]]) -> str:
    """One row a family; a missed member is named, and the family then has no ratio."""
    lines = [
        "| family | members | FLOPs saved | seconds | only the largest wanted | predicted | the paper, CLIP on CC3M |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found:
        count = len(one["members"])
        ends = one["members"][0]["params"], one["members"][-1]["params"]
        sizes = " - ".join(f"{size / 1e6:.2g}" for size in ends)
        if one["missed"]:
            ratio = f"missed by {', '.join(one['missed'])} ({one['acceleration_if_none_were_missed']:.2f}x without)"
            seconds = ""
        else:
            ratio, seconds = f"**{one['acceleration']:.2f}x**", f"{one['acceleration_seconds']:.2f}x"
        largest = one["acceleration_of_the_largest"]
        lines.append(
            f"| {one['name'].partition('-')[0]}, {sizes} M parameters | {count} | {ratio} | {seconds} | "
            f"{f'{largest:.2f}x' if largest else ''} | {one['predicted_acceleration']:.2f}x ± "
            f"{one['predicted_deviation']:.2f} | {f'{PAPER[count]}x' if count in PAPER else ''} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Read, print, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="+", type=Path, help="files of acceleration.py --json; the first is drawn")
    parser.add_argument("--picture", type=Path, help="SVG to draw")
    parser.add_argument("--write", type=Path, metavar="DOCUMENT", help="document to put the table into")
    arguments = parser.parse_args()
    try:
        found = [json.loads(path.read_text()) for path in arguments.results]
        if arguments.picture:
            draw_together(found, arguments.picture)
        if arguments.write:
            put_between(arguments.write, "acceleration", markdown(found))
    except (ComptError, OSError, ValueError, KeyError) as error:
        print(f"merge: {error}", file=sys.stderr)
        return 2
    plain_console().print(markdown(found), highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
