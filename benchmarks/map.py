"""Put results of several families into one table and one plot.

``python benchmarks/map.py benchmarks/results/*.json --plot docs/saving.svg --write docs/study.md``
prints the tables, and puts them into documents, each between its marker and ``<!-- end -->``: what
rows save behind ``<!-- saving -->``, their controls behind ``<!-- controls -->``, what members come
to on splits that do not judge behind ``<!-- elsewhere -->``, what stages overwrite behind
``<!-- overwritten -->``, and studies behind ``<!-- restart -->``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from measuring.plot import draw_map
from measuring.tables import (
    controls_table,
    elsewhere_table,
    overwritten_table,
    put_between,
    saving_table,
    study_table,
)

from compt.errors import ComptError, DataError
from compt.report.format import plain_console


def read(path: Path) -> list[dict[str, Any]]:
    """Return the results of a file.

    Raises:
        DataError: it has none.
    """
    results = json.loads(path.read_text())
    if not isinstance(results, list) or not all({"gate", "ways"} & {*result} for result in results):
        raise DataError(f"'{path}' has no results of saving.py or study.py.")
    return results


def tables(results: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the tables of rows and of studies, those there are, by the name of their place."""
    rows = [result for result in results if "gate" in result]
    studies = [result for result in results if "ways" in result]
    content = {
        "saving": saving_table(rows),
        "controls": controls_table(rows),
        "elsewhere": elsewhere_table(rows),
        "overwritten": overwritten_table(rows),
        "restart": "\n\n".join(map(study_table, studies)),
    }
    return {name: text for name, text in content.items() if text}


def main() -> int:
    """Read, print, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "results", nargs="+", type=Path, help="files that --json of saving.py or study.py wrote"
    )
    parser.add_argument("--plot", type=Path, help="SVG to draw, of rows")
    parser.add_argument(
        "--write",
        nargs="+",
        type=Path,
        default=[],
        metavar="DOCUMENT",
        help="to put the tables into",
    )
    arguments = parser.parse_args()
    try:
        results = [result for path in arguments.results for result in read(path)]
        content = tables(results)
        if arguments.plot:
            draw_map([result for result in results if "gate" in result], arguments.plot)
        for document in arguments.write:
            for name, text in content.items():
                put_between(document, name, text)
    except (ComptError, OSError, ValueError) as error:
        print(f"map: {error}", file=sys.stderr)
        return 2
    plain_console().print("\n\n".join(content.values()), highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
