"""Pages of work folders written by hand, and what is in them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from compt.report.build import report
from compt.report.html.page import html_page
from tests.report.test_losses import losses, write_log
from tests.report.work_folders import ALONE, CHAIN, change, make_run

VOID = {"meta", "link", "input", "br"}
OPTIONAL = {"tr", "td"}
"""Elements whose end may be left out."""


class Page(HTMLParser):
    """A page read as elements, which must be closed in the order in which they are opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open[-1] != tag and self._open[-1] in OPTIONAL:
            self._open.pop()
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        (self.scripts if self._open[-1:] in (["script"], ["style"]) else self.texts).append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def attributes(self, name: str) -> list[str]:
        return [str(attributes[name]) for _, attributes in self.elements if name in attributes]

    def item(self, name: str) -> str:
        """Return what Bokeh is to draw in an element."""
        scripts = "".join(self.scripts)
        items = json.JSONDecoder().raw_decode(scripts[scripts.index('{"quality-1"') :])[0]
        return json.dumps(items[name])


def page_of(folders: Sequence[Path]) -> Page:
    return Page(html_page(report(folders)))


def pair(folder: Path) -> list[Path]:
    """A chain and its members alone, with logs."""
    chain = make_run(folder / "c", "chain", CHAIN)
    alone = make_run(folder / "i", "individual", ALONE)
    for run in (chain, alone):
        for stage in ("01_tiny", "02_small"):
            write_log(run / stage, "20260101_000000", losses(range(1, 4), 2.5))
    return [chain, alone]


def grown(manifest: Path, params: dict[str, str], **values: Any) -> None:
    """Record how each tensor came about."""
    counts: dict[str, int] = {}
    for status in params.values():
        counts[status] = counts.get(status, 0) + 1
    base = {"grower": "lossless", "function_preserving": True, "reason": "", "error": 1e-7}
    change(manifest, growth={**base, "counts": counts, "params": params, **values})
