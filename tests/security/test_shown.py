"""Show what strangers have written, in pages, on terminals and in configs, as text alone."""

from __future__ import annotations

import ast
import io
import json
from html.parser import HTMLParser

import pytest
from rich.console import Console

from compt.cli.init import _seen
from compt.errors import DataError, some, visible
from compt.interfaces import LeftOut
from compt.report.build import report
from compt.report.watch.terminal import Terminal
from compt.scaffold.configs.filling import frame
from compt.scaffold.configs.looking import Look
from compt.scaffold.configs.writing import Prepared, Wish, prepare, write
from tests.report.work_folders import CHAIN, change, make_run

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'\x1b[2J"


class Elements(HTMLParser):
    """Count the elements of a page, and attributes that run something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.handlers += [name for name, value in attrs if name.startswith("on")]


def page_of(work) -> str:
    pytest.importorskip("bokeh")
    from compt.report.html.page import html_page

    return html_page(report([work]))


def test_texts_of_a_run_are_no_elements_of_its_page(tmp_path):
    plain = make_run(tmp_path / "plain", "chain", CHAIN)
    work = make_run(tmp_path / "run", "chain", CHAIN, name=f"val/{EVIL}")
    for stage in ("01_tiny", "02_small"):
        left_out = {EVIL: {"samples": {EVIL: 2}, "parts": {EVIL: 1}, "total": 9, "num_read": 9}}
        change(
            work / stage / "manifest.json",
            environment={EVIL: EVIL},
            left_out=left_out,
            stopped=EVIL,
            transfer=EVIL,
            paradigm=EVIL,
        )
    config = {"chain": [{"name": "tiny", "init": EVIL}], EVIL: EVIL}
    change(
        work / "chain.json",
        config=config,
        data={EVIL: {EVIL: EVIL}},
        history=[{"time": EVIL, "changes": [EVIL]}],
    )
    page, usual = page_of(work), Elements(page_of(plain))
    found = Elements(page)
    assert "alert(1)" in page and "<script>alert" not in page
    assert found.tags["script"] == usual.tags["script"]
    assert "img" not in found.tags and not found.handlers
    assert "default-src 'none'" in page


@pytest.mark.parametrize(
    "text", ["\x1b[2J", "\x1b]0;owned\x07", "\x9b2J", "a\rb", "a\x08b", "\x7f", "\x00"]
)
def test_no_terminal_obeys_a_name(text):
    error = DataError(f"'{text}' is broken.", where=text, do=text)
    left_out = LeftOut()
    left_out.sample("whose image is broken", text)
    shown = [str(error), error.one_line, some([text]), *left_out.examples, visible(text)]
    shown.append(_seen(Prepared({}, (text,), Look(1, facts=(text,)))))
    for line in shown:
        assert not any(not c.isprintable() and c != "\n" for c in line), repr(line)
        assert "\\x" in line


def test_what_is_shown_twice_is_the_same():
    assert visible(visible("\x1b[1m\tä\n")) == visible("\x1b[1m\tä\n") == "\\x1b[1m\tä\n"


def test_markup_in_a_note_is_text(monkeypatch):
    out = io.StringIO()
    reporter = Terminal.__new__(Terminal)
    reporter.console = Console(file=out, width=80)
    reporter.note("[/bold] [link=file:///etc/passwd]x[/link]")
    assert "[/bold] [link=file:///etc/passwd]x[/link]" in out.getvalue()


@pytest.mark.parametrize(
    "name",
    [
        "text\nimport os\nos.mkdir('MARK')\n#",
        "text\r\nimport os\ros.mkdir('MARK')\r#",
        'x"""\nimport os\nos.mkdir("MARK")\n"""',
        "x\\",
    ],
)
def test_a_column_is_no_line_of_a_config(trap, tmp_path, name):
    name = name.replace("MARK", str(trap.mark))
    rows = [json.dumps({name: f"A document of some words, number {i}."}) for i in range(40)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows) + "\n")
    wish = Wish("toy", tmp_path / "chain.py", str(tmp_path / "rows.jsonl"))
    prepared = prepare(wish)
    write(wish, prepared)
    tree = ast.parse((tmp_path / "chain.py").read_text())
    assert all(isinstance(step, ast.Assign | ast.Expr) for step in tree.body)


def test_nor_of_one_that_is_planned(trap, tmp_path):
    pytest.importorskip("transformers")
    name = f"text\nopen({str(trap.mark)!r}, 'w')\n#"
    rows = [json.dumps({name: f"A document of some words, number {i}. " * 40}) for i in range(400)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows) + "\n")
    wish = Wish("causal_lm", tmp_path / "chain.py", str(tmp_path / "rows.jsonl"), sizes="8x1")
    write(wish, prepare(wish))


def test_nor_is_the_name_of_a_file(trap):
    text = frame("toy", file=f'"""\n{trap.code}"""', data={"type": "text", "train": '")\n'})
    assert len(ast.parse(text).body) == len(ast.parse(frame("toy", file="x", data={})).body)
