"""Fork Python processes off one that has imported the libraries already.

``python fork_server.py MODULE ...`` imports the modules and then reads requests, one JSON object a
line: what ``python`` would be called with, or the number of a process to ask about. Answers are
lines of JSON too. It ends with its input. As it needs the standard library alone, any interpreter
runs it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import site
import sys
import types
from typing import IO, Any


def serve(requests: IO[str], answers: IO[str]) -> dict[str, Any] | None:
    """Answer until the input ends; in a new process return the request that it is for."""
    for line in iter(requests.readline, ""):
        request = json.loads(line)
        if "arguments" in request:
            pid = os.fork()
            if not pid:
                return request
            answer = {"pid": pid}
        else:
            pid, status = os.waitpid(request["pid"], os.WNOHANG)
            answer = {"code": os.waitstatus_to_exitcode(status) if pid else None}
        print(json.dumps(answer), file=answers, flush=True)
    return None


def become(request: dict[str, Any]) -> None:
    """Take the folder, the variables, the path and the streams of a new process."""
    for stream, path in enumerate((request["out"], request["err"]), 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), stream)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[1:1] = list(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    if request["installed_since"]:
        for folder in site.getsitepackages():
            site.addsitedir(folder)  # the .pth files of editable packages
    importlib.invalidate_caches()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # as every process has its own; random does so itself


def run(option: str, *arguments: str) -> None:
    """Run what ``python OPTION ARGUMENTS`` would: ``-m MODULE``, ``-c CODE`` or a script."""
    if option == "-m":
        sys.path[0] = os.getcwd()
        sys.argv = ["-m", *arguments[1:]]
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    elif option == "-c":
        sys.path[0] = ""
        sys.argv = ["-c", *arguments[1:]]
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        exec(compile(arguments[0], "<string>", "exec"), main.__dict__)
    else:
        sys.path[0] = os.path.dirname(os.path.abspath(option))
        sys.argv = [option, *arguments]
        runpy.run_path(option, run_name="__main__")


if __name__ == "__main__":
    # Whatever the libraries or a new process read and print, it is none of these.
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    for module in sys.argv[1:]:
        with contextlib.suppress(ImportError):  # an extra that is not installed
            importlib.import_module(module)
    gc.freeze()
    # A new process goes on from here, and so ends as any other: by the end of this file.
    request = serve(requests, answers)
    requests.close()
    answers.close()
    if request is not None:
        become(request)
        run(*request["arguments"])
