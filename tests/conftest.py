"""Shared fixtures: a toy chain that trains in a second, and fake packages."""

from __future__ import annotations

import os

# Before torch is imported. Its last bits depend on the number of threads, and tests compare runs of
# this process with those of others; workers side by side would also ask for each core twice.
os.environ["OMP_NUM_THREADS"] = "1"

import copy
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import compt.testing.toy  # noqa: F401 - registers the toy paradigm
from compt.registry import REGISTRIES
from tests.environments import ROOT, build_wheel, copy_of, once
from tests.packages import write_package

MOST_WORKERS = 4
"""Each holds the libraries and its models: about 2 GB."""
LONG = (
    "tests/benchmarks/",
    "tests/plugins/",
    "tests/scaffold/",
    "tests/test_packaging.py",
    "tests/planning/test_recipes.py",
    "tests/training/test_distributed.py",
)
TOY: dict[str, Any] = dict(
    custom_imports=dict(imports=["compt.testing.toy"]),
    paradigm=dict(type="toy", samples=256),
    grower=dict(type="lossless"),
    transfer=dict(type="feature_mse"),
    train_dataloader=dict(batch_size=32),
    checkpoint=dict(interval=3, keep=2),
    evaluations=2,
    chain=[
        dict(name="a", model=dict(width=8, depth=1), iters=8),
        dict(name="b", model=dict(width=16, depth=2), iters=8),
        dict(name="c", model=dict(width=24, depth=3), iters=6),
    ],
)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many processes ``-n auto`` in pyproject.toml starts; 0 runs in this one.

    One file, or tests named with ``::``, are not worth the start, and want a debugger.
    """
    if all(Path(argument.partition("::")[0]).is_file() for argument in config.args):
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    # Measured on two cores: two workers 620 s, three 702 s.
    return min(cores or 1, MOST_WORKERS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files of long tests, so that no worker ends with one while others wait."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


@pytest.fixture
def toy() -> dict[str, Any]:
    """The config of a three-member toy chain, free to change."""
    return copy.deepcopy(TOY)


def config_file(folder: Path, config: dict[str, Any], name: str = "toy.py") -> Path:
    """Write a config as a Python file."""
    file = folder / name
    file.write_text("\n".join(f"{k} = {v!r}" for k, v in config.items()) + "\n")
    return file


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Install fake packages for one test; registries and sys.modules are as before afterwards."""
    before = [dict(registry.module_dict) for registry in REGISTRIES]
    modules, site = set(sys.modules), tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def add(
        name: str,
        entries: Mapping[str, str],
        modules: Mapping[str, str],
        *,
        folder: str = "site",
        **options,
    ) -> None:
        write_package(tmp_path / folder, name, entries, modules, **options)
        if folder != "site":
            monkeypatch.syspath_prepend(str(tmp_path / folder))
        for registry in REGISTRIES:
            registry.refresh()

    yield add
    for registry, names in zip(REGISTRIES, before, strict=True):
        registry.module_dict.clear()
        registry.module_dict.update(names)
        registry.refresh()
    for module in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[module], "__file__", "")):
            del sys.modules[module]


@pytest.fixture(scope="session")
def tree(tmp_path_factory) -> Path:
    """A copy of the checkout."""
    return once(tmp_path_factory, "tree", lambda folder: copy_of(ROOT, folder))


@pytest.fixture(scope="session")
def wheel(tree, tmp_path_factory) -> Path:
    """compt's own wheel."""
    return once(tmp_path_factory, "wheel", lambda folder: build_wheel(tree, folder))
