"""docs/cli.md says what the commands take."""

from __future__ import annotations

import argparse

import pytest

from compt.cli.command_line import COMMANDS
from compt.cli.reference import reference
from tests.environments import ROOT


def test_the_page_is_that_of_the_code():
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert page == reference(), "python -m compt.cli.reference docs/cli.md"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_argument_is_explained(name):
    parser = argparse.ArgumentParser(add_help=False)
    COMMANDS[name].add_arguments(parser)
    assert [action.dest for action in parser._actions if not action.help] == []


def test_a_cell_holds_its_bar_and_its_default():
    assert "`[WORK_DIR\\|EXPORT ...]`" in reference()
    assert "(default: `0`)" in reference()
