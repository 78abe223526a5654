"""`compt init`: flags, questions, and what is refused before anything is looked at."""

from __future__ import annotations

import argparse

import pytest

from compt.cli import init
from tests.cli.conftest import refused


def arguments(*line: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    init.add_arguments(parser)
    return parser.parse_args(line)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["-o", "x.py"], ["--paradigm is missing", "no terminal"]),
        (["--paradigm", "mae"], ["-o is missing", "no terminal"]),
        (["--paradigm", "maee", "-o", "x.py"], ["No paradigm named 'maee'", "'mae'"]),
        (["--paradigm", "mae", "-o", "x.json"], ["does not end in .py", "x.py"]),
        (["--paradigm", "mae", "-o", "x.py", "--hours", "2"], ["--device"]),
        (["--paradigm", "mae", "-o", "x.py", "--hours", "-1", "--device", "T4"], ["not above 0"]),
        (["--paradigm", "mae", "-o", "x.py", "--hours", "1", "--device", "T5"], ["'T5'", "T4"]),
        (["--paradigm", "mae", "-o", "x.py", "--sizes", "64"], ["'64' are no sizes", "tiny"]),
        (["--paradigm", "mae", "-o", "x.py", "--data", "nowhere"], ["nothing at 'nowhere'"]),
    ],
)
def test_what_cannot_be_is_refused(run, tmp_path, monkeypatch, line, words):
    pytest.importorskip("mmpretrain")
    monkeypatch.chdir(tmp_path)
    refused(run("init", *line), *words)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_not_replaced_unless_it_is_said(run, tmp_path):
    file = tmp_path / "chain.py"
    file.write_text("mine")
    refused(run("init", "--paradigm", "toy", "--data", "stdlib", "-o", file), "--force")
    assert file.read_text() == "mine"
    code, out, _ = run("init", "--paradigm", "toy", "--data", "stdlib", "-o", file, "--force")
    assert code == 0 and "frame to fill in" in out
    assert 'type="toy"' in file.read_text()


def test_only_what_flags_leave_out_is_asked(monkeypatch):
    questions = []

    def ask(question, **options):
        questions.append(question.split()[0].rstrip(":"))
        return options.get("default", "causal_lm")

    monkeypatch.setattr("rich.prompt.Prompt.ask", ask)
    given = arguments("--paradigm", "causal_lm", "--sizes", "64x1")
    init._ask(given)
    assert questions == ["Data", "Epochs", "Config"]
    assert (given.data, given.epochs, given.out) == ("stdlib", None, "chain.py")
    questions.clear()
    init._ask(arguments())
    assert questions == ["Paradigm", "Data", "Sizes", "Epochs", "Config"]


def test_answers_that_end_are_no_crash(run, monkeypatch):
    def ended(*_, **__):
        raise EOFError

    monkeypatch.setattr("rich.prompt.Prompt.ask", ended)
    for stream in ("stdin", "stdout"):
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True, raising=False)
    refused(run("init"), "not answered")
