"""README and docs: their code runs, their config is the one that ships, their links lead
somewhere.
"""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest

from compt import GROWERS, LAYOUTS
from compt.cli.command_line import COMMANDS
from compt.config import ChainConfig, StageConfig
from tests.environments import ROOT

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced code blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)


@pytest.fixture
def registries():
    """What a page registers is forgotten afterwards."""
    before = [(registry, dict(registry.module_dict)) for registry in (GROWERS, LAYOUTS)]
    yield
    for registry, modules in before:
        registry.module_dict.clear()
        registry.module_dict.update(modules)


def test_the_readme_shows_the_config_that_ships():
    config = (ROOT / "configs" / "clip_chain.py").read_text()
    shown = next(block for block in blocks(ROOT / "README.md", "python") if "paradigm = " in block)
    assert shown.strip() == config[config.index("paradigm = ") :].strip()


def test_the_grower_of_the_readme_grows(registries):
    (block,) = (block for block in blocks(ROOT / "README.md", "python") if "MeanFill" in block)
    exec(block, {"__name__": "a_page"})
    from compt import grow
    from compt.testing.toy import ToyNet

    source, target = ToyNet(8, 1), ToyNet(12, 1)
    fresh = target.head.weight[0, 8:] + source.head.weight.mean()
    expected = fresh.tolist()
    grow(source, target, "mean_fill")
    assert target.head.weight[0, 8:].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_every_key_is_explained():
    text = (ROOT / "docs" / "config.md").read_text()
    keys = {*ChainConfig.all_keys(), *StageConfig.all_keys()}
    missing = [key for key in sorted(keys) if f"`{key}`" not in text]
    assert {"chain", "epochs", "optim_wrapper"} <= keys
    assert not missing


COMMAND = re.compile(r"^(?:compt|mim train compt|.*-m compt|srun compt|mpirun .* compt) (.*)$")
PLACEHOLDER = re.compile(r"^\.\.\.$|^\[")


def commands(page: Path) -> list[str]:
    """The command lines of compt in a page's blocks of bash, what follows a comment left out."""
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    text = (re.sub(r"\s+#.*|\s+&&.*", "", line) for line in lines)
    return [line for line in text if COMMAND.match(line) and not line.startswith("#")]


@pytest.mark.parametrize(
    ("page", "line"),
    [(page, line) for page in PAGES for line in dict.fromkeys(commands(page))],
    ids=lambda value: value.name if isinstance(value, Path) else value,
)
def test_a_command_is_one_that_there_is(page, line):
    """Its sub-command and options; tutorials are run, see test_tutorials.py."""
    words = [word for word in shlex.split(COMMAND.match(line)[1]) if not PLACEHOLDER.match(word)]
    command, *arguments = ["train", *words] if line.startswith("mim") else words
    if command.startswith("--"):
        command, arguments = "", words
    parser = argparse.ArgumentParser(exit_on_error=False)
    if command:
        COMMANDS[command].add_arguments(parser)
        parser.add_argument("--gpus", type=int)  # which mim takes for itself
        parser.parse_args(arguments)
