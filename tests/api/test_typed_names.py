"""Type checkers and the documentation see the names that ``compt`` offers when it runs."""

from __future__ import annotations

import ast
from pathlib import Path

import compt
from compt import api


def test_every_public_name_is_imported_for_type_checkers():
    tree = ast.parse(Path(compt.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.asname for line in block.body for alias in line.names}
    assert seen == {name for names in api.TOP.values() for name in names}
