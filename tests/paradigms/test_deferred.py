"""Modules whose import is put off until they are used, and are then the ones that they are."""

from __future__ import annotations

import copy
import subprocess
import sys
from importlib import import_module

import pytest

from compt.paradigms._deferred import deferred

HEAVY = """\
class Heavy:
    number = 3

    def __init__(self, value):
        self.value = value

def double(value):
    return 2 * value
"""


@pytest.fixture
def library(tmp_path, monkeypatch):
    """The name of a library with a module that is slow to import."""
    folder = tmp_path / "slow_library"
    folder.mkdir()
    (folder / "__init__.py").write_text("from .model import build, Heavy\n")
    (folder / "heavy.py").write_text(HEAVY)
    (folder / "model.py").write_text(
        "from .heavy import Heavy, double\n\ndef build(value):\n    return Heavy(double(value))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield folder.name
    for name in [name for name in sys.modules if name.partition(".")[0] == folder.name]:
        del sys.modules[name]


def light(library, *names):
    with deferred({f"{library}.heavy": names}):
        return import_module(library)


def test_a_module_is_imported_once_it_is_used(library):
    module = light(library, "Heavy", "double")
    assert f"{library}.heavy" not in sys.modules
    built = module.build(4)
    heavy = sys.modules[f"{library}.heavy"]
    assert type(built) is heavy.Heavy and built.value == 8
    assert heavy is module.heavy is import_module(f"{library}.heavy")


def test_what_stands_for_a_class_is_like_it(library):
    later = light(library, "Heavy", "double").model.Heavy
    copy.copy(later)
    assert f"{library}.heavy" not in sys.modules
    assert later.number == 3
    real = sys.modules[f"{library}.heavy"].Heavy
    assert isinstance(real(1), later) and not isinstance(3, later)

    class Own(later):
        pass

    assert issubclass(Own, real) and issubclass(real, later)


def test_the_package_has_the_module_as_if_it_were_imported(library):
    module = light(library, "Heavy", "double")
    assert isinstance(module.Heavy, type)
    assert module.heavy.double(2) == 4
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = module.nothing


def test_a_name_that_is_not_foreseen_imports_at_once(library):
    module = light(library, "Heavy")
    assert sys.modules[f"{library}.heavy"].double(2) == 4
    assert module.build(4).value == 8


def test_what_is_imported_already_is_left_alone(library):
    heavy = import_module(f"{library}.heavy")
    module = light(library, "Heavy", "double")
    assert module.Heavy is heavy.Heavy


def test_a_library_that_fails_leaves_nothing_behind(library, tmp_path):
    (tmp_path / library / "model.py").write_text("from .heavy import Heavy\n1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        light(library, "Heavy")
    assert f"{library}.heavy" not in sys.modules


TOWERS = """
import sys
from pathlib import Path
from compt.interfaces import Member
from compt.paradigms.clip import Clip
assert not {"transformers", "timm", "torch._dynamo"} & set(sys.modules)
import open_clip, torch, transformers, timm
text = dict(context_length=8, width=16, layers=1, heads=1, vocab_size=99)
timm_tower = dict(timm_model_name="resnet10t", timm_model_pretrained=False, image_size=32)
model = Clip().build_model(Member("a", dict(embed_dim=8, vision_cfg=timm_tower, text_cfg=text)))
assert isinstance(model.visual, open_clip.timm_model.TimmModel)
assert model(torch.zeros(2, 3, 32, 32), torch.zeros(2, 8, dtype=torch.long))
sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
transformers.BertConfig(vocab_size=99, **sizes).save_pretrained(sys.argv[1])
text = dict(hf_model_name=sys.argv[1], hf_model_pretrained=False, hf_proj_type="mlp")
vision = dict(image_size=32, patch_size=8, width=16, layers=1, head_width=16)
model = open_clip.CustomTextCLIP(8, vision, text)
assert isinstance(model.text, open_clip.hf_model.HFTextEncoder)
assert model.encode_text(torch.ones(2, 8, dtype=torch.long)).shape == (2, 8)
assert issubclass(open_clip.CoCa, torch.nn.Module)
import torch._dynamo.utils
from torchvision.ops.roi_align import is_compile_supported
assert is_compile_supported("cpu") == torch._dynamo.utils.is_compile_supported("cpu")
"""


@pytest.mark.slow
def test_towers_of_other_libraries_are_built_when_they_are_wanted(tmp_path):
    pytest.importorskip("open_clip")
    pytest.importorskip("transformers")
    pytest.importorskip("timm")
    command = [sys.executable, "-W", "ignore", "-c", TOWERS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
