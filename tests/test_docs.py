"""README and docs: their code runs, their config is the one that ships, their links lead
somewhere.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from compt import GROWERS, LAYOUTS
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
