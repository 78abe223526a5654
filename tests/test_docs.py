"""README and docs: their blocks run, their commands parse, their configs are planned, and their
links lead somewhere.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

import compt
from compt import GROWERS, LAYOUTS, SUITES, cli
from compt.cli.command_line import COMMANDS
from compt.config import ChainConfig, StageConfig
from compt.data import build_source
from compt.data.mixture import MixtureSource
from compt.data.text.blocks import open_blocks
from compt.interfaces import DataSource
from compt.paradigms.text.tokenizer import open_tokenizer
from compt.report.watch.lines import parse_line
from tests.environments import ROOT
from tests.page_folders import MADE
from tests.pages import DOCS, FENCE, PAGES, SHOWN, Block, Reader, blocks, without_blocks

BUDGETS = {
    "begin": "chain.0.epochs=1 chain.1.epochs=1 chain.2.epochs=1",
    "index": "chain.0.epochs=1 chain.1.epochs=1 chain.2.epochs=1 paradigm.data.samples=256"
    " evaluations=1",
}
"""What is set for the commands of a page that train, so that they take seconds."""
OF_BENCHMARKS = {
    *("architectures.md", "does_it_pay.md", "paper.md", "results.md", "study.md"),
    "study_short.md",
}
"""Their blocks are commands of benchmarks/, which its tests run."""
ELSEWHERE = {
    "plan_large.md": "tests/planning/test_plan_large.py",
    "plugins.md": "tests/plugins/test_guide.py",
    "tutorials/plugin.md": "tests/plugins/test_guide.py",
    **{
        f"tutorials/{name}.md": "tests/test_tutorials.py"
        for name in ("clip", "grow", "language_models", "report")
    },
}
"""Pages whose blocks other tests are for."""
NOT_RUN = [
    ("begin.md", 'pip install "compt[completion]"', "installs from a package index"),
    ("clusters.md", "mim train compt my_chain.py --launcher pytorch --gpus 8", "needs eight GPUs"),
    ("clusters.md", "srun compt train my_chain.py --launcher slurm", "needs a Slurm cluster"),
    (
        "clusters.md",
        "mpirun -x MASTER_ADDR=HOST compt train my_chain.py --launcher mpi",
        "needs Open MPI and its hosts",
    ),
    (
        "evaluating.md",
        "compt eval work_dirs/lm_chain --suite lm_eval"
        " --option tasks=hellaswag,arc_easy num_fewshot=0",
        "the harness downloads the data of its tasks",
    ),
    ("index.md", 'pip install -e ".[demo]"', "installs from a package index"),
    (
        "resuming.md",
        "torchrun --nproc-per-node 8 --max-restarts 3 -m compt train my_chain.py"
        " --launcher pytorch --resume",
        "needs eight GPUs; tests/training/test_distributed.py kills a process of two",
    ),
]
"""Page, first line and reason of every block that no test can run."""


def name_of(page: Path) -> str:
    return page.relative_to(ROOT / "docs").as_posix()


def is_slow(page: Path) -> bool:
    """Each command is a process of its own."""
    return any(block.language == "bash" and not block.not_run for block in blocks(page))


@pytest.fixture
def registries():
    """What a page registers is forgotten afterwards."""
    before = [(registry, dict(registry.module_dict)) for registry in (GROWERS, LAYOUTS, SUITES)]
    yield
    for registry, modules in before:
        registry.module_dict.clear()
        registry.module_dict.update(modules)


def python_of(page: Path) -> list[str]:
    return [block.text for block in blocks(page) if block.language == "python"]


def test_the_readme_shows_the_config_that_ships():
    config = (ROOT / "configs" / "clip_chain.py").read_text()
    shown = next(text for text in python_of(ROOT / "README.md") if "paradigm = " in text)
    assert shown.strip() == config[config.index("paradigm = ") :].strip()


def test_the_grower_of_the_readme_grows(registries):
    (block,) = (text for text in python_of(ROOT / "README.md") if "MeanFill" in text)
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


# Every block of every page.


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_block_escapes(page):
    """A fence that opens or closes nothing that is read would be one."""
    fences = len(FENCE.findall(page.read_text(encoding="utf-8")))
    assert fences == 2 * len(blocks(page))


@pytest.mark.parametrize(
    "hidden",
    [
        "1. first\n\n    ```bash\n    compt list\n    ```\n",  # in a list
        "~~~bash\ncompt list\n~~~\n",
        "```bash hl_lines=1\ncompt list\n```\n",
        "```bash\ncompt list\n",  # never closed
    ],
)
def test_a_block_that_is_not_read_is_counted(hidden, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"```bash\ncompt check\n```\n\n{hidden}")
    assert len(FENCE.findall(page.read_text())) > 2 * len(blocks(page))


def test_a_block_tells_what_the_comment_above_it_says(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- not run: a reason -->\n```bash\ncompt list\n```\n")
    (block,) = blocks(page)
    assert (block.not_run, block.text, block.place) == ("a reason", "compt list\n", "page.md:2")
    page.write_text(page.read_text().replace("not run", "not ran"))
    with pytest.raises(AssertionError, match="what does the note say"):
        blocks(page)


def test_pages_are_followed_here_or_elsewhere():
    names = {name_of(page) for page in DOCS}
    here = {f"{stem}.md" for stem in MADE}
    elsewhere = {*ELSEWHERE, *OF_BENCHMARKS}
    assert here <= names and set(ELSEWHERE) <= names
    assert not here & elsewhere
    assert not any(blocks(page) for page in DOCS if name_of(page) not in here | elsewhere)
    assert all((ROOT / file).exists() for file in ELSEWHERE.values())


def test_what_is_not_run_is_known():
    marked = [
        (block.page.name, block.text.splitlines()[0], block.not_run)
        for page in PAGES
        for block in blocks(page)
        if block.not_run
    ]
    cleaned = [(page, re.sub(r"\s+#.*", "", line), reason) for page, line, reason in marked]
    assert cleaned == NOT_RUN


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.stem, marks=[pytest.mark.slow] if is_slow(page) else [])
        for page in (ROOT / "docs" / f"{stem}.md" for stem in sorted(MADE))
    ],
)
def test_a_page_can_be_followed(page, tmp_path, monkeypatch, registries):
    MADE[page.stem](tmp_path)
    monkeypatch.chdir(tmp_path)
    config = "my_chain.py" if page.stem == "config" else ""
    reader = Reader(tmp_path, BUDGETS.get(page.stem, ""), config)
    reader.follow(page)
    marked = [block for block in blocks(page) if block.not_run]
    assert sorted([*reader.done, *reader.left_out, *marked], key=lambda block: block.line) == (
        blocks(page)
    )
    if reader.left_out:
        pytest.skip("; ".join(f"{block.place} needs {block.needs}" for block in reader.left_out))


# Commands, in blocks and in sentences.

COMMAND = re.compile(r"^(?:compt|mim train compt|.*-m compt|srun compt|mpirun .* compt) (.*)$")


def lines_of(block: Block) -> list[str]:
    """Return the commands of a block, without what a comment or another command adds."""
    lines = block.text.replace("\\\n", "").splitlines()
    return [re.sub(r"\s+#.*|\s+&&.*", "", line) for line in lines]


def commands(page: Path) -> list[str]:
    """Return the commands of compt in a page's blocks."""
    lines = [line for block in blocks(page) if block.language == "bash" for line in lines_of(block)]
    return [line for line in lines if COMMAND.match(line)]


def mentions(page: Path) -> list[str]:
    """Return the commands in a page's sentences, which may lack arguments or have placeholders."""
    spans = re.findall(r"`([^`]+)`", without_blocks(page))
    lines = [" ".join(span.split()) for span in spans]
    commands = [line for line in lines if COMMAND.match(line)]
    return [re.sub(r"[][]|\.\.\.|--kind KIND", "", line) for line in commands]


def parse(line: str, *, is_complete: bool = True) -> None:
    """Parse a command line of compt."""
    words = shlex.split(COMMAND.match(line)[1])
    command, *arguments = ["train", *words] if line.startswith("mim") else words
    if command.startswith("--"):
        return
    parser = argparse.ArgumentParser(exit_on_error=False)
    COMMANDS[command].add_arguments(parser)
    parser.add_argument("--gpus", type=int)  # which mim takes for itself
    for action in parser._actions if not is_complete else ():
        action.required = False
    parser.parse_args(arguments)


@pytest.mark.parametrize(
    ("page", "line"),
    [(page, line) for page in PAGES for line in dict.fromkeys(commands(page))],
    ids=lambda value: value.name if isinstance(value, Path) else value,
)
def test_a_command_is_one_that_there_is(page, line):
    """Its sub-command and options, also where it cannot be run."""
    parse(line)


@pytest.mark.parametrize("page", [*DOCS, ROOT / "README.md"], ids=lambda page: page.name)
def test_what_sentences_mention_is_there(page):
    for line in mentions(page):
        parse(line, is_complete=False)


# Configs in sentences and tables.

CONFIG = re.compile(r"`(?:(\w+) ?= ?)?(\[?dict\([^`]*)`")
OTHERS_NEED = {"plugins.md", "tutorials/plugin.md"}
"""Pages whose configs name plug-ins that a reader has yet to write."""


def configs(page: Path) -> list[tuple[str, str]]:
    """Return keys and values of the complete configs in a page's sentences, '' for no key."""
    pairs = CONFIG.findall(without_blocks(page))
    return [(key, value) for key, value in pairs if "..." not in value]


CONFIGS = {
    pair: page
    for page in DOCS
    if name_of(page) not in OTHERS_NEED
    for pair in configs(page)
    if pair[0] in ChainConfig.all_keys()
}


@pytest.mark.parametrize(("key", "value"), CONFIGS, ids=lambda value: value)
def test_a_config_in_a_sentence_is_planned(key, value, toy):
    toy[key] = eval(value, {"dict": dict})
    assert compt.plan(toy).flops


DATA_PAGE = ROOT / "docs" / "data.md"
SOURCES = [value for key, value in configs(DATA_PAGE) if not key and "type=" in value]


FEWER = {"scenes": dict(num_scenes=64, num_held_out=8)}
"""Options of data that would be drawn for long."""


@pytest.mark.slow
def test_data_in_the_tables_is_opened(tmp_path, monkeypatch, subtests):
    MADE["data"](tmp_path)
    monkeypatch.chdir(tmp_path)
    assert len(SOURCES) >= 10
    for value in SOURCES:
        with subtests.test(value):
            config = eval(value, {"dict": dict})
            source = build_source({**config, **FEWER.get(config["type"], {})})
            assert all(opened(source, split) is not None for split in source.splits)


def opened(source: DataSource, split: str) -> object:
    """Open a split; a mixture of texts has none but blocks of tokens."""
    if isinstance(source, MixtureSource) and "image" not in source.provides:
        return open_blocks(source, split, open_tokenizer(None), 8)
    return source.open(split)


# What is shown of a run.


@pytest.fixture(scope="module")
def toy_log(tmp_path_factory) -> tuple[Path, list[str]]:
    """The work folder of a toy chain, and the lines of its log."""
    folder = tmp_path_factory.mktemp("shown")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        MADE["resuming"](folder)
        config, work_dir = folder / "my_chain.py", folder / "run"
        assert cli.main(["train", str(config), "--work-dir", str(work_dir)]) == 0
    return work_dir, printed.getvalue().splitlines()


def test_the_lines_of_a_log_are_as_shown(toy_log):
    """A key may be one of a metric, or be left out at the end of a line."""
    (shown,) = (
        block.text for block in blocks(ROOT / "docs" / "watching.md") if "event=start" in block.text
    )
    written: dict[str, set[str]] = {}
    for line in filter(re.compile("stage=.* event=").match, toy_log[1]):
        pairs = parse_line(line)
        written.setdefault(pairs["event"], set()).update(pairs)
    for line in shown.splitlines():
        pairs = parse_line(line.removesuffix(" ..."))
        keys = {key for key in pairs if "/" not in key}
        assert keys <= written.get(pairs.get("event", ""), {"note", "time"}), line


def test_the_tree_of_a_work_folder_is_as_shown(toy_log):
    """But for what is there while a stage trains, with a tracker, or at another time."""
    page = ROOT / "docs" / "config.md"
    (tree,) = (block.text for block in blocks(page) if block.language in SHOWN)
    names = re.findall(r"^ +([\w.-]+)(?!.*with trunk)", tree, re.M)
    there = {path.name for path in toy_log[0].rglob("*")}
    assert set(names) - there == {"checkpoints", "tracking.json", "DATE_TIME"}
