"""Read the pages of the documentation as a reader does, who runs every block in its order.

A comment above a block says what is to be known of it:

- ``<!-- not run: REASON -->``: no test can run it; its compt commands are still parsed.
- ``<!-- needs PACKAGE -->``: it is run where the package is installed.
- ``<!-- added to FILE -->``: the block is appended to a config, which is then planned.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import compt
from tests.environments import ROOT

FENCE = re.compile(r"^[ \t>]*(?:```|~~~)", re.M)
BLOCK = re.compile(
    r"(?:^<!-- (?P<note>[^>]*) -->\n)?"
    r'^```(?P<language>\w*)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$',
    re.M | re.S,
)
NOTE = re.compile(r"not run: (?P<not_run>.+)|needs (?P<needs>\w+)|added to (?P<added_to>\S+)")
FILE_NAME = re.compile(r"# ([\w/.-]+\.\w+)\n")
SHOWN = ("", "text", "console")
"""Languages of what is only to be looked at, such as what a command prints."""
TOOLS = {
    "python": "",
    "compt": "-m compt",
    "mim": "-m mim",
    "torchrun": "-m torch.distributed.run",
}
"""What the pages call, by what this environment's Python is given for it."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and what the comment above it says."""

    page: Path
    line: int
    language: str
    text: str
    title: str = ""
    not_run: str = ""
    needs: str = ""
    added_to: str = ""

    @property
    def file(self) -> str:
        """Return the name of the file that it is, by its title or first line."""
        named = FILE_NAME.match(self.text)
        return self.title or (named[1] if named else "")

    @property
    def place(self) -> str:
        """Return where it stands."""
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page in their order."""
    text = page.read_text(encoding="utf-8")
    return [_block(page, text, match) for match in BLOCK.finditer(text)]


def without_blocks(page: Path) -> str:
    """Return a page's sentences, tables and headings."""
    return BLOCK.sub("", page.read_text(encoding="utf-8"))


def _block(page: Path, text: str, match: re.Match[str]) -> Block:
    note = NOTE.fullmatch(match["note"] or "")
    assert note or not match["note"], f"{page.name}: what does the note say? {match['note']}"
    return Block(
        page,
        text.count("\n", 0, match.start("language")) + 1,
        match["language"],
        match["text"],
        match["title"] or "",
        **({key: value or "" for key, value in note.groupdict().items()} if note else {}),
    )


@dataclass
class Reader:
    """One who follows pages in a folder of their own.

    Attributes:
        folder: where files are written and commands are run.
        budget: ``--cfg-options`` of every command that trains, so that it takes seconds.
        config: the config that Python without a file's name belongs to; '' if it is a script.
        printed: what the commands wrote to stdout.
        done: the blocks that were written, run or looked at.
        left_out: those that could not be run here, for want of a package.
    """

    folder: Path
    budget: str = ""
    config: str = ""
    printed: str = ""
    done: list[Block] = field(default_factory=list)
    left_out: list[Block] = field(default_factory=list)
    names: dict[str, object] = field(default_factory=lambda: {"__name__": "a_page"})

    def follow(self, page: Path) -> None:
        """Do what each block of a page says."""
        for block in blocks(page):
            if block.needs and importlib.util.find_spec(block.needs) is None:
                self.left_out.append(block)
            elif not block.not_run:
                self._do(block)
                self.done.append(block)

    def _do(self, block: Block) -> None:
        if block.file:
            (self.folder / block.file).write_text(block.text, encoding="utf-8")
        elif block.language == "bash":
            self._run(block)
        elif block.language == "python" and (name := block.added_to or self.config):
            with (self.folder / name).open("a", encoding="utf-8") as file:
                file.write(block.text)
            compt.plan(self.folder / name)
        elif block.language == "python":
            exec(compile(block.text, block.place, "exec"), self.names)
        else:
            assert block.language in SHOWN, f"{block.place}: what is to be done with it?"

    def _run(self, block: Block) -> None:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text],
            cwd=self.folder,
            env=self._variables(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        said = f"{block.place}\n{block.text}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == 0, said
        self.printed += done.stdout

    def _variables(self) -> dict[str, str]:
        """Return the environment of a command: this one's tools, and a home of its own."""
        shims, home = self.folder / ".tools", self.folder / ".home"
        if not shims.exists():
            shims.mkdir()
            home.mkdir()
            for tool, arguments in TOOLS.items():
                (shims / tool).write_text(self._shim(arguments))
                (shims / tool).chmod(0o755)
        cache = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
        path = f"{shims}{os.pathsep}{os.environ['PATH']}"
        own = {"PATH": path, "HOME": str(home), "XDG_CACHE_HOME": cache, "HF_HUB_OFFLINE": "1"}
        return {**os.environ, **own, "HF_DATASETS_OFFLINE": "1"}

    def _shim(self, arguments: str) -> str:
        """Return a script that is called like a tool, and gives trainings the budget."""
        budget = f'case " $* " in *" train "*) set -- "$@" --cfg-options {self.budget};; esac\n'
        call = f'exec "{sys.executable}" {arguments} "$@"\n'
        return "#!/bin/sh\n" + (budget if self.budget else "") + call


DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*sorted(ROOT.glob("*.md")), *DOCS]
