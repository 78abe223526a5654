"""Configs that are written read back as what they were."""

from __future__ import annotations

import runpy

from compt.planning.config_text import WIDTH, config_text

CONTENT = {
    "paradigm": {"type": "toy", "text": 'a "quoted" word', "path": None},
    "chain": [
        {"name": "a", "iters": 3, "model": {"width": 8, "class": 1, "long": list(range(60))}},
        {"name": "b", "iters": 2, "model": {"empty": {}, "none": [], "one": (1,)}},
    ],
    "grown": {"lr_mult": {0.125: 0.5, 0.5: 1.0}},
    "seed": 3,
    "betas": (0.9, 0.95),
}


def test_what_is_written_is_read(tmp_path):
    comments = {"seed": "It is " + 40 * "long " + "indeed."}
    text = config_text(CONTENT, ["First.", "Second " + 30 * "and " + "on."], comments, ["x", ""])
    file = tmp_path / "made.py"
    file.write_text(text)
    content = runpy.run_path(str(file))
    assert {key: content[key] for key in CONTENT} == CONTENT
    assert content["__doc__"].startswith("First.\n\nSecond and")
    assert all(len(line) <= WIDTH for line in text.splitlines())
    assert text.index("paradigm =") < text.index("chain =") < text.index("betas =")
    assert "    # x\n    dict(\n        name=" in text
    assert "'class'" in text, "no name of an argument"


def test_short_things_stand_on_one_line():
    text = config_text({"seed": 1, "chain": [{"name": "a"}]}, ["x"], {}, ["said"])
    assert text == '"""x\n"""\n\nchain = [\n    # said\n    dict(name="a"),\n]\n\nseed = 1\n'
