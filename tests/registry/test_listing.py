"""compt list, compt check, and what is said of a plug-in that cannot be imported; on fake
packages.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

import compt
from compt.errors import PluginError
from compt.registry import GROWERS, PARADIGMS
from compt.registry.entry_points import pip_command
from compt.registry.listing import (
    PluginInfo,
    as_dicts,
    as_table,
    check,
    check_command,
    list_command,
    listing,
)
from tests.packages import GROWER, write_package


def rows_of(package, rows):
    return [row for row in rows if row.package == package]


def test_listing(install):
    install("alpha", {"one": "alpha_m:Fake", "same": "alpha_m:Fake"}, {"alpha_m": GROWER})
    install("beta", {"same": "beta_m:Fake [extra]"}, {"beta_m": GROWER}, version="2.0")
    rows = listing()
    assert rows_of("alpha", rows) + rows_of("beta", rows) == [
        PluginInfo("growers", "one", "alpha", "1.2", "alpha_m:Fake", "one"),
        PluginInfo("growers", "same", "alpha", "1.2", "alpha_m:Fake", "alpha:same", clash=True),
        PluginInfo("growers", "same", "beta", "2.0", "beta_m:Fake", "beta:same", clash=True),
    ]
    assert not {"alpha_m", "beta_m"} & set(sys.modules)
    growers = [row.name for row in rows if row.registry == "growers"]
    assert growers == sorted(growers)
    assert list(dict.fromkeys(row.registry for row in rows)) == [
        "growers",
        "transfers",
        "paradigms",
        "layouts",
        "data",
        "suites",
        "trackers",
    ]
    assert {"lossless", "scratch"} <= {row.name for row in rows_of("compt", rows)}


def test_registered_in_process(install):
    install("alpha", {"one": "alpha_m:Fake", "two": "alpha_m:Fake"}, {"alpha_m": GROWER})
    GROWERS.register_module(name="mine", module=GROWERS.get("lossless"))
    GROWERS.register_module(name="two", module=GROWERS.get("lossless"))
    GROWERS.register_module(name="one", module=GROWERS.get("one"))
    local = [
        row for row in rows_of("", listing()) if row.registry == "growers" and row.name != "learner"
    ]
    assert local == [  # the learner is registered by another test's module
        PluginInfo("growers", "mine", "", "", "compt.growers.lossless:Lossless", "mine"),
        PluginInfo("growers", "two", "", "", "compt.growers.lossless:Lossless", "", clash=True),
    ]


def test_listing_imports_no_plugin(tmp_path):
    write_package(
        tmp_path, "alpha", {"one": "alpha_m:Fake"}, {"alpha_m": "print('imported')\n" + GROWER}
    )
    code = (
        "import sys; before = set(sys.modules); from compt.cli import main;"
        "code = main(['list', '--json']);"
        "loaded = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "print(code, sorted(loaded - sys.stdlib_module_names), file=sys.stderr)"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    rows = {(row["registry"], row["name"]): row for row in json.loads(done.stdout)}
    assert rows["growers", "one"] == {
        "registry": "growers", "name": "one", "package": "alpha", "version": "1.2",
        "target": "alpha_m:Fake", "type": "one", "clash": False,
    }  # fmt: skip
    assert {("paradigms", "clip"), ("data", "csv")} <= set(rows)
    loaded = done.stderr.splitlines()[-1]
    assert loaded == "0 ['compt']", "not even a library"


@pytest.fixture
def faulty(install):
    """A package with good and bad growers, all of them loud."""
    loud = "import sys\nprint('to stdout')\nprint('to stderr', file=sys.stderr)\n"
    install(
        "alpha",
        {
            "boom": "alpha_boom:Fake",
            "good": "alpha_good:Fake",
            "lacks": "alpha_lacks:Fake",
            "needs": "alpha_needs:Fake",
        },
        {
            "alpha_boom": f"{loud}raise ValueError('boom [bold]')",
            "alpha_good": f"{loud}{GROWER}",
            "alpha_lacks": f"{loud}class Fake: pass",
            "alpha_needs": f"{loud}import missing_one",
        },
        metadata="Provides-Extra: one\nRequires-Dist: missing-one; extra == 'one'\n",
    )


@pytest.mark.usefixtures("faulty")
class TestCheck:
    def test_neighbours_are_unharmed(self, capsys):
        rows = {row.plugin.name: row for row in check() if row.plugin.registry == "growers"}
        bad = {name for name, row in rows.items() if not row.ok}
        assert bad == {"boom", "lacks", "needs"}
        assert rows["good"].error == rows["lossless"].error == ""
        assert (
            "alpha 1.2 (alpha_boom:Fake) cannot be imported: ValueError: boom" in rows["boom"].error
        )
        assert rows["lacks"].error.startswith(
            "The grower 'lacks' of alpha 1.2 (alpha_lacks:Fake) is not a subclass of compt.Grower "
            "and lacks check, grow."
        )
        assert rows["needs"].error.endswith(
            'which is not installed. Install it: pip install "alpha[one]"'
        )
        assert all("\n" not in row.error for row in rows.values())
        assert capsys.readouterr() == ("", "")

    def test_command(self, capsys):
        assert check_command(json=True) == 2
        rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
        assert rows["good"]["ok"] is True
        assert rows["good"]["error"] == ""
        assert rows["boom"]["ok"] is False
        assert "ValueError: boom" in rows["boom"]["error"]
        assert check_command(json=False) == 2
        lines = capsys.readouterr().out.splitlines()
        (line,) = (
            line
            for line in lines
            if line.lstrip().startswith("growers") and " needs " in line.split("alpha ")[0]
        )
        assert 'pip install "alpha[one]"' in line, (
            "brackets are not markup, and a pipe folds no line"
        )

    def test_list_goes_on(self, capsys):
        assert list_command(json=False) == 0
        assert "alpha_boom:Fake" in capsys.readouterr().out


def test_check_passes_where_all_is_well(install, monkeypatch, capsys):
    monkeypatch.setattr("compt.registry.listing.REGISTRIES", (GROWERS,))
    install("alpha", {"one": "alpha_m:Fake"}, {"alpha_m": GROWER})
    assert check_command(json=False) == 0
    assert capsys.readouterr().out.count(" ok ") == len(GROWERS)


def test_check_of_a_class_in_process(install, monkeypatch):
    monkeypatch.setattr("compt.registry.listing.REGISTRIES", (GROWERS,))
    GROWERS.register_module(name="mine", module=int)
    (row,) = (row for row in check() if row.plugin.name == "mine")
    assert "(builtins:int) is not a subclass of compt.Grower" in row.error


def test_a_clash_is_shown_but_is_no_failure(install, monkeypatch, capsys):
    monkeypatch.setattr("compt.registry.listing.REGISTRIES", (GROWERS,))
    install("alpha", {"same": "alpha_m:Fake"}, {"alpha_m": GROWER})
    install("beta", {"same": "beta_m:Fake"}, {"beta_m": GROWER})
    assert check_command(json=False) == 0
    out = capsys.readouterr().out
    assert "same (clash: write alpha:same)" in out
    assert "same (clash: write beta:same)" in out


def test_empty():
    assert as_dicts([]) == []
    assert as_table([]).row_count == 0


EXTRAS = """\
    Requires-Dist: base-lib>=2
    Provides-Extra: small
    Provides-Extra: clip
    Provides-Extra: all
    Requires-Dist: other; extra == 'clip'
    Requires-Dist: missing_clip_torch>=3; extra == 'clip'
    Requires-Dist: shared_one; extra == "clip"
    Requires-Dist: shared-one (>=2) ; extra == 'small'
    Requires-Dist: missing-clip-torch; python_version > '3' and extra == 'all'
    Requires-Dist: lonely; extra == 'all'
    """


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("missing_clip", 'pip install "alpha[clip]"'),
        ("missing_clip.model", 'pip install "alpha[clip]"'),
        (
            "shared_one",
            'pip install "alpha[clip]"',
        ),  # the extra of the plug-in's name, though another is smaller
        ("lonely", 'pip install "alpha[all]"'),
        ("base_lib", "pip install base-lib"),
        ("never_heard_of", "pip install never_heard_of"),
        ("sklearn_not", "pip install sklearn_not"),
    ],
)
def test_missing_dependency(install, module, command):
    source = f"import {module}\n{GROWER}"
    install("alpha", {"clip": "alpha_m:Fake"}, {"alpha_m": source}, metadata=EXTRAS)
    with pytest.raises(PluginError) as caught:
        GROWERS.get("clip")
    top = module.partition(".")[0]
    assert caught.value.what == (
        f"The grower 'clip' of alpha 1.2 (alpha_m:Fake) needs the module '{top}', "
        "which is not installed."
    )
    assert caught.value.do == f"Install it: {command}"
    assert GROWERS.signature_faults({"type": "clip"}) == [f"{caught.value.what} {caught.value.do}"]


def test_smallest_extra_otherwise(install):
    install("alpha", {"one": "alpha_m:Fake"}, {"alpha_m": "import shared_one"}, metadata=EXTRAS)
    with pytest.raises(PluginError, match=r'pip install "alpha\[small\]"'):
        GROWERS.get("one")


def test_part_of_an_installed_package_is_missing():
    (entry,) = (e for e in PARADIGMS.candidates("clip")[1])
    assert pip_command("timm.not_yet", entry) == 'pip install --upgrade "compt[clip]"'
    assert pip_command("pytest.not_yet", GROWERS.candidates("lossless")[1][0]).startswith(
        "pip install --upgrade "
    )


@pytest.mark.parametrize(
    ("source", "first_error"),
    [
        ("raise ValueError('boom\\nmore')", "ValueError: boom"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("x = = 1", "SyntaxError: invalid syntax"),
        ("import alpha_m.inner", "ModuleNotFoundError: No module named 'alpha_m.inner'"),
        ("from json import nothing_such", "ImportError: cannot import name 'nothing_such'"),
        ("x = 1", "AttributeError: module 'alpha_m' has no attribute 'Fake'"),
        (
            "import compt\n@compt.GROWERS.register_module()\nclass Half: pass\n1 / 0",
            "ZeroDivisionError: division by zero",
        ),
    ],
)
def test_broken_on_import(install, source, first_error):
    install(
        "alpha",
        {"bad": "alpha_m:Fake", "good": "alpha_n:Fake"},
        {"alpha_m": source, "alpha_n": GROWER},
    )
    for _ in range(2):  # a second try says the same
        with pytest.raises(PluginError) as caught:
            GROWERS.get("bad")
        start = f"The grower 'bad' of alpha 1.2 (alpha_m:Fake) cannot be imported: {first_error}"
        assert caught.value.what.startswith(start)
        assert "\n" not in caught.value.what
        assert "pip install" not in caught.value.do
    assert GROWERS.get("good").__name__ == "Fake"


def test_the_place_of_the_error_is_named(install):
    install("alpha", {"bad": "alpha_m:Fake"}, {"alpha_m": "x = 1\nraise ValueError('boom')\n"})
    with pytest.raises(PluginError) as caught:
        GROWERS.get("bad")
    assert caught.value.where.endswith("alpha_m.py:2")


class TestVersions:
    def test_a_package_that_requires_another_compt(self, install):
        required = ("numpy", "not a requirement", "compt[clip]>=99,<100")
        needs = "".join(f"Requires-Dist: {line}\n" for line in required)
        install(
            "alpha",
            {"one": "alpha_m:Fake"},
            {"alpha_m": "raise ValueError('too late')"},
            metadata=needs,
        )
        with pytest.raises(PluginError) as caught:
            GROWERS.get("one")
        assert caught.value.what == (
            "The grower 'one' of alpha 1.2 (alpha_m:Fake) needs compt<100,>=99, "
            f"and this is {compt.__version__}."
        )
        assert "pip install --upgrade alpha" in caught.value.do
        assert "alpha_m" not in sys.modules, "it is not even imported"
        assert GROWERS.get("lossless")

    @pytest.mark.parametrize(
        "needs",
        ["compt>=0.0.1", "compt", "compt>=99; extra == 'all'", "compt>=99; python_version < '3'"],
    )
    def test_a_package_that_is_content(self, install, needs):
        install(
            "alpha",
            {"one": "alpha_m:Fake"},
            {"alpha_m": GROWER},
            metadata=f"Requires-Dist: {needs}\n",
        )
        assert GROWERS.get("one").__name__ == "Fake"

    @pytest.mark.parametrize(
        ("version", "what"),
        [
            ("2.0", "was written for the plug-in API 2.0, and this compt has 1.0"),
            ("1.99", "was written for the plug-in API 1.99, and this compt has 1.0"),
            ("0.9", "was written for the plug-in API 0.9, and this compt has 1.0"),
            ("new", "states the API version 'new', which is not of the form '1.0'"),
            ("1", "states the API version '1', which is not of the form '1.0'"),
        ],
    )
    def test_a_class_that_was_written_for_another_api(self, install, monkeypatch, version, what):
        monkeypatch.setattr("compt.api.API_VERSION", "1.0")
        source = GROWER.replace(
            "class Fake(Grower):", f"class Fake(Grower):\n    api_version = {version!r}"
        )
        install("alpha", {"one": "alpha_m:Fake"}, {"alpha_m": source})
        with pytest.raises(PluginError) as caught:
            GROWERS.get("one")
        assert caught.value.what == f"The grower 'one' of alpha 1.2 (alpha_m:Fake) {what}."
        assert "pip install --upgrade compt" in caught.value.do

    @pytest.mark.parametrize("version", ["1.0", "1.3"])
    def test_an_api_of_the_same_major_version_holds_what_older_ones_held(
        self, install, monkeypatch, version
    ):
        monkeypatch.setattr("compt.api.API_VERSION", "1.3")
        source = GROWER.replace(
            "class Fake(Grower):", f"class Fake(Grower):\n    api_version = {version!r}"
        )
        install("alpha", {"one": "alpha_m:Fake"}, {"alpha_m": source})
        assert GROWERS.get("one").api_version == version

    def test_a_class_in_this_process(self, install):
        @GROWERS.register_module(name="mine")
        class Mine(GROWERS.get("lossless")):
            api_version = "9.0"

        with pytest.raises(
            PluginError, match=r"'mine' \(.*Mine\) was written for the plug-in API 9.0"
        ):
            GROWERS.get("mine")


def test_a_list_of_entry_points_that_cannot_be_read_harms_nobody_else(
    install, tmp_path, monkeypatch
):
    monkeypatch.setattr("compt.registry.listing.REGISTRIES", (GROWERS,))
    install("alpha", {"one": "alpha_m:Fake"}, {"alpha_m": GROWER})
    install("beta", {"two": "beta_m:Fake"}, {"beta_m": GROWER})
    (tmp_path / "site" / "beta-1.2.dist-info" / "entry_points.txt").write_text(
        "[compt.growers]\nno sign of equality\n"
    )
    GROWERS.refresh()
    assert GROWERS.get("one").__name__ == "Fake"
    assert "two" not in GROWERS
    assert {"one", "lossless"} <= {row.name for row in listing()}
    first = check()[0]
    assert (first.plugin.package, first.plugin.version, first.ok) == ("beta", "1.2", False)
    assert "cannot be read" in first.error
    assert [row.plugin.name for row in check() if not row.ok] == ["(not known)"]


def test_a_target_that_is_none(install):
    install("alpha", {"odd": "3 x y", "good": "alpha_m:Fake"}, {"alpha_m": GROWER})
    with pytest.raises(PluginError, match="has no target of the form 'module:attribute'"):
        GROWERS.get("odd")
    assert GROWERS.get("good").__name__ == "Fake"


def test_listing_is_fast():
    """As a share of starting Python, which is what the machine can do; the best of a few runs
    each.
    """

    def seconds(*arguments):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start

    empty = min(seconds("-c", "pass") for _ in range(5))
    listed = min(seconds("-m", "compt", "list", "--json") for _ in range(5))
    assert listed < 20 * empty, (
        f"compt list takes {listed / empty:.0f} times as long as an empty program"
    )
