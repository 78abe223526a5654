"""`compt --print-completion`: scripts that shells take, which know every command."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from compt.cli.command_line import COMMANDS
from tests.cli.conftest import refused


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_a_shell_takes_its_script(run, shell):
    pytest.importorskip("shtab", reason="compt[completion] is not installed")
    code, out, err = run("--print-completion", shell)
    assert (code, err) == (0, "")
    for name in COMMANDS:
        assert name in out
    assert "--cfg-options" in out or shell == "tcsh"
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    done = subprocess.run([shell, "-n"], input=out, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_bash_completes_a_command_and_a_file(run, tmp_path):
    pytest.importorskip("shtab", reason="compt[completion] is not installed")
    if shutil.which("bash") is None:
        pytest.skip("there is no bash here")
    script = tmp_path / "compt.sh"
    script.write_text(run("--print-completion", "bash").out)
    (tmp_path / "my_chain.py").touch()

    def completed(*words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in words)
        asked = (
            f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; "
            "_shtab_compt; printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        done = subprocess.run(
            ["bash", "-c", asked], capture_output=True, text=True, cwd=tmp_path, check=True
        )
        return done.stdout.split()

    assert completed("compt", "pl") == ["plan"]
    assert completed("compt", "plan", "--exp") == ["--explain"]
    assert completed("compt", "train", "my") == ["my_chain.py"]
    assert completed("compt", "train", "--launcher", "sl") == ["slurm"]


def test_without_its_library_the_extra_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    refused(run("--print-completion", "bash"), 'pip install "compt[completion]"')
