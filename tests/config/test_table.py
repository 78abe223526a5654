"""docs/config.md says of every key what the key says of itself."""

from __future__ import annotations

import pytest

from compt.config.schema import ChainConfig, StageConfig, StageDefaults
from compt.config.table import TABLES, written
from tests.environments import ROOT

DOCUMENT = ROOT / "docs" / "config.md"


def test_the_document_is_what_the_keys_say():
    text = DOCUMENT.read_text("utf-8")
    assert written(text) == text, "python -m compt.config.table docs/config.md"


def test_every_table_has_its_place():
    text = DOCUMENT.read_text("utf-8")
    assert all(f"<!-- keys: {name} -->" in text for name in TABLES)


@pytest.mark.parametrize("section", [ChainConfig, StageConfig])
def test_every_key_is_in_a_table(section):
    text = "".join(table() for table in TABLES.values())
    assert [name for name in section.all_keys() if f"`{name}`" not in text] == []


def test_a_changed_help_changes_the_document():
    text = DOCUMENT.read_text("utf-8").replace("evaluations a stage", "something else")
    assert written(text) != text


def test_a_stage_overrides_exactly_what_it_shares_with_the_chain():
    shared = ChainConfig.all_keys().keys() & StageConfig.all_keys().keys()
    assert shared == StageDefaults.all_keys().keys()
