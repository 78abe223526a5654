"""Ctrl-C and SIGTERM, at any moment of a command."""

from __future__ import annotations

import os
import signal

import pytest

import compt.__main__
from compt import cli
from tests.cli.conftest import refused


def asking(number, then=None):
    """What a command does that is interrupted, and raises an error of its own over it."""

    def command(arguments):
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:
            if then is None:
                raise
            raise then from None

    return command


@pytest.mark.parametrize("then", [None, ImportError("half of a library")])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_command_with_one_line(run, monkeypatch, number, code, then):
    monkeypatch.setattr("compt.cli.list.run", asking(number, then))
    result = run("list")
    refused(result, f"interrupted by {signal.Signals(number).name}", code=code)
    assert result.err.count("\n") == 1


def test_an_interrupt_while_the_command_is_imported(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "main", interrupted)
    monkeypatch.setattr(os, "_exit", lambda code: pytest.fail("left") if code != 130 else None)
    assert compt.__main__.main() == 130
    assert capsys.readouterr().err == "compt: interrupted.\n"


def test_other_errors_are_not_hidden(run, monkeypatch):
    def fail(arguments):
        raise ZeroDivisionError

    monkeypatch.setattr("compt.cli.list.run", fail)
    with pytest.raises(ZeroDivisionError):
        run("list")


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", ".."])
def test_a_name_that_is_no_path(run, name):
    refused(run("plan", name), "path" if name != ".." else "..")


@pytest.mark.parametrize(
    "arguments",
    [
        ("report", "x" * 400),
        ("grow", "--from", "x" * 400, "--to", "a.json", "-o", "out"),
        ("new-plugin", "x" * 300, "--kind", "grower"),
    ],
)
def test_a_path_that_the_system_refuses(run, arguments):
    refused(run(*arguments), "xxx")
