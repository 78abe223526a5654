"""Write the reference of the command line, ``python -m compt.cli.reference docs/cli.md``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from compt.cli.command_line import COMMANDS

HEAD = """# Command line

Written by `python -m compt.cli.reference docs/cli.md`. `python -m compt` is the same as `compt`;
`mim train compt CONFIG` is `compt train CONFIG`.

Exit codes: 0 done, 1 training or data failed, 2 bad config, arguments or plug-in, 130 ended by
Ctrl-C (SIGINT), 143 by SIGTERM.
"""


def reference() -> str:
    """Return the page, one section a command."""
    return "\n".join([HEAD, *(_section(name) for name in COMMANDS)])


def _section(name: str) -> str:
    parser = argparse.ArgumentParser(prog=f"compt {name}", add_help=False)
    COMMANDS[name].add_arguments(parser)
    text = COMMANDS[name].HELP
    lines = [f"## compt {name}", "", f"{text[0].upper()}{text[1:]}.", ""]
    rows = list(_rows(parser))
    if rows:
        lines += ["| argument | meaning |", "|---|---|", *rows, ""]
    return "\n".join(lines)


def _rows(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if action.help == argparse.SUPPRESS:
            continue
        value = _value(action)
        names = action.option_strings or [value]
        shown = ", ".join(f"`{name}`" for name in names)
        if action.option_strings and action.nargs != 0:
            shown += f" `{value}`"
        cells = (cell.replace("|", "\\|") for cell in (shown, _meaning(action)))
        yield f"| {' | '.join(cells)} |"


def _value(action: argparse.Action) -> str:
    """Return what stands for an argument's value, such as ``WORK_DIR ...``."""
    choices = None if action.choices is None else "{" + ",".join(map(str, action.choices)) + "}"
    plain = action.metavar or choices or action.dest.upper()
    name = plain if isinstance(plain, str) else " ".join(plain)
    return {"?": f"[{name}]", "+": f"{name} ...", "*": f"[{name} ...]"}.get(str(action.nargs), name)


def _meaning(action: argparse.Action) -> str:
    text = (action.help or "") % {"default": action.default}
    default = action.default
    is_said = "default" in text or default is None or default is False or default == []
    return text if is_said else f"{text} (default: `{default}`)".strip()


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
