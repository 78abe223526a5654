"""Every place where compt could run what a file says, and why it does not.

A place that is new fails here: look at what a stranger's file could do there, then add it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import compt

ROOT = Path(compt.__file__).parent
OWN = "a module or program of compt's own, or one that the user names"
PLAIN = "allow_pickle is False by default, and is said nowhere"
WEIGHTS = "weights_only=True, which makes no objects"
TOLD = "trust_remote_code=False, else transformers asks"
IMAGE = "open_image decodes without other programs"
OPEN_CLIP = "open_clip reads pickled weights with weights_only=True, and builds CLIP alone"
PLACES = {
    "torch.load": {"weights.py": WEIGHTS, "training/checkpoint.py": WEIGHTS},
    "Config.fromfile": {
        "config/file.py": "a config is a program, and the user names it",
        "paradigms/mae/mmpretrain.py": "a config of mmpretrain that a config or the user names",
    },
    "import_module": {
        "api.py": OWN,
        "config/file.py": "custom_imports of a config",
        "data/_storage.py": OWN,
        "paradigms/_deferred.py": OWN,
        "registry/foreign_configs.py": OWN,
        "registry/loading.py": OWN,
    },
    "import_modules_from_strings": {
        "cli/export.py": "custom_imports of a work folder: modules that are installed",
        "training/preflight.py": "a stage's config, which compt has written",
        "training/runner.py": "a stage's config, which compt has written",
    },
    "subprocess.run": {"report/software.py": "git describe, in the folder of the user"},
    "np.load": {
        "data/icons/drawings.py": PLAIN,
        "data/images/_tar_index.py": PLAIN,
        "data/scenes/drawings.py": PLAIN,
    },
    "from_pretrained": {
        "paradigms/text/models.py": TOLD,
        "paradigms/text/checkpoints.py": "settings of generation, which are JSON",
        "paradigms/text/settings.py": TOLD,
        "paradigms/text/tokenizer.py": TOLD,
    },
    "HFTokenizer": {"paradigms/clip/models.py": TOLD},
    "create_model": {
        "evaluation/images.py": "pickled weights are read with weights_only=True before",
        "paradigms/clip/models.py": OPEN_CLIP,
        "paradigms/mae/timm_vit.py": "read_folder refuses arguments that name other weights",
    },
    "create_model_and_transforms": {
        "evaluation/finetune.py": OPEN_CLIP,
        "evaluation/images.py": OPEN_CLIP,
    },
    "load_clip": {"evaluation/clip_benchmark.py": "refuse_code, before"},
    "build_wds_dataset": {"evaluation/clip_benchmark.py": "check_members, before"},
    "simple_evaluate": {"evaluation/lm_eval.py": "its include_path is code, and the user names it"},
    "ImageFolder": {"evaluation/images.py": IMAGE},
    "Image.open": {
        "data/images/decode.py": IMAGE,
        "data/icons/drawings.py": "PNG that resvg has drawn in this process",
    },
    "load_from_disk": {
        "data/text/rows.py": "Arrow's own types, from files in the folder",
        "scaffold/configs/keys.py": "Arrow's own types",
    },
    "yaml.safe_load": {"report/card.py": "plain types alone"},
}
NOWHERE = (
    *("exec", "eval", "compile", "__import__", "pickle.load", "pickle.loads", "jit.load"),
    *("os.system", "os.popen", "subprocess.Popen", "yaml.load", "extractall", "load_dataset"),
)


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Yield the calls in a file, by the last two parts of what is called, and the last one."""
    text = path.read_text(encoding="utf-8")
    if not any(name.rpartition(".")[2] in text for name in (*PLACES, *NOWHERE)):
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            *owner, last = dotted(node.func)
            yield ".".join([*owner[-1:], last]), node
            if owner and last not in ("eval", "compile"):  # a module's eval()
                yield last, node


def dotted(node: ast.expr) -> list[str]:
    """Return the names in an expression such as ``torch.jit.load``, '?' for anything else."""
    if isinstance(node, ast.Attribute):
        return [*dotted(node.value), node.attr]
    return [node.id] if isinstance(node, ast.Name) else ["?"]


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, list[ast.Call]]]:
    """Calls by name and file, without compt.testing, which runs plug-ins to test them."""
    result: dict[str, dict[str, list[ast.Call]]] = {}
    for path in sorted(ROOT.rglob("*.py")):
        file = path.relative_to(ROOT).as_posix()
        for name, node in () if file.startswith("testing/") else calls(path):
            result.setdefault(name, {}).setdefault(file, []).append(node)
    return result


@pytest.mark.parametrize("name", PLACES)
def test_every_place_is_known(found, name):
    assert set(found.get(name, ())) == set(PLACES[name])


@pytest.mark.parametrize("name", NOWHERE)
def test_what_is_called_nowhere(found, name):
    assert name not in found


def argument(call: ast.Call, name: str) -> str:
    return next((ast.unparse(k.value) for k in call.keywords if k.arg == name), "")


def test_weights_alone_are_loaded(found):
    for file, nodes in found["torch.load"].items():
        assert {argument(node, "weights_only") for node in nodes} == {"True"}, file


def test_nobody_is_trusted(found):
    for file, nodes in found["from_pretrained"].items():
        said = {argument(node, "trust_remote_code") for node in nodes}
        assert said == {"False"} or file == "paradigms/text/checkpoints.py", file


def test_arrays_are_never_pickled(found):
    for file, nodes in found["np.load"].items():
        assert {argument(node, "allow_pickle") for node in nodes} <= {"", "False"}, file
