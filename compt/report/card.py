"""The model card of an export, README.md, in Hugging Face's format.

It says where the weights come from, on what data, at what cost, what they reach, and how to load
them. https://huggingface.co/docs/hub/model-cards
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from compt._version import __version__
from compt.errors import WorkDirError
from compt.files import CARD, CARD_MARK, EXPORT, MANIFEST, stage_name
from compt.interfaces import ExportFormat, Paradigm
from compt.report.card_sections import (
    costs_text,
    data_text,
    growing_text,
    making_text,
    metrics_text,
    summary_text,
    versions_text,
)
from compt.report.growth import GrowthReport
from compt.report.metrics import Metrics
from compt.report.record import StageRecord
from compt.writing import atomic

FRONT = re.compile(r"\A---\r?\n(.*?)\r?\n---\r?\n", re.DOTALL)
TAKEN_OVER = ("license", "license_name", "license_link", "language", "datasets")
"""What a card takes from that of the model which the weights come from."""
OWN = (*TAKEN_OVER, "tags", "base_model")
"""Keys of a card's head among those of the config's ``card``."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What an export's card says, before it is known which library a folder is for."""

    title: str
    model: str
    """Name of the model, 'chain/member'."""
    summary: str
    head: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the metadata that are known beside the library's."""
    sections: Sequence[tuple[str, str]] = ()
    """Titles and Markdown."""
    metrics: Metrics = field(default_factory=dict)
    data: str = ""
    """Name of the data that the metrics are of."""

    def text(self, library: ExportFormat) -> str:
        """Return the card of a folder that a library loads."""
        head: dict[str, Any] = {
            "library_name": library.loaded_by,
            "pipeline_tag": library.task,
            **self.head,
        }
        if results := self._results(library.task):
            head["model-index"] = [{"name": self.model, "results": [results]}]
        head = {name: value for name, value in head.items() if value not in (None, "", [], ())}
        front = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
        parts = [f"---\n{front}---\n", CARD_MARK, f"# {self.title}\n", f"{self.summary}\n"]
        if library.usage:
            usage = library.usage.replace("FOLDER", "path/to/this/folder")
            parts.append(f"## Use\n\n```python\n{usage}```\n")
        parts += [f"## {title}\n\n{body}\n" for title, body in self.sections if body]
        return "\n".join(parts)

    def _results(self, task: str) -> dict[str, Any]:
        """Return the metrics as Hugging Face's index of results has them."""
        metrics = []
        for name, metric in self.metrics.items():
            if metric.value is None:
                continue
            more = {"unit": metric.unit or None, "chance": metric.chance}
            args = {key: value for key, value in more.items() if value is not None}
            content = {"type": name.rpartition("/")[2], "name": name, "value": metric.value}
            metrics.append({**content, "args": args} if args else content)
        if not metrics:
            return {}
        data = self.data or "unknown"
        return {
            "task": {"type": task or "other"},
            "dataset": {"type": data, "name": f"{data}, held out"},
            "metrics": metrics,
        }


def stage_card(
    records: Sequence[StageRecord],
    *,
    chain: str,
    config: Mapping[str, Any],
    data_licence: str = "",
    source: Mapping[str, Any] | None = None,
) -> Card:
    """Return the card of a stage's export.

    Args:
        records: of the chain's stages up to this one; of this one alone where it was trained
            alone.
        chain: name of the work folder.
        config: the chain's, as JSON types.
        data_licence: as the data's source declares it.
        source: head of the card of what the weights come from.
    """
    record, options = records[-1], dict(config.get("card") or {})
    model, data = f"{chain}/{record.name}", (config.get("paradigm") or {}).get("data") or {}
    members = list(config.get("chain") or ())
    init = members[0].get("init") if members and record.index == 0 else None
    base = _base_model(records, chain, init, options)
    head = _stage_head(record, options, source or {})
    if base:
        head["base_model"] = base
    if init:
        head["base_model_relation"] = "finetune"
    return Card(
        title=options.get("title") or model,
        model=model,
        summary=summary_text(record, [str(member.get("name")) for member in members]),
        head=head,
        sections=(
            ("How it was made", making_text(record, base, init)),
            ("What it cost", costs_text(records)),
            ("Data", data_text(record, data, data_licence)),
            ("Held-out metrics", metrics_text(record.metrics)),
            ("Versions", versions_text(record)),
        ),
        metrics=record.metrics,
        data=str(data.get("type", "")),
    )


def write_stage_cards(
    stage: Path,
    record: StageRecord,
    config: Mapping[str, Any],
    paradigm: Paradigm,
    *,
    export: Path,
    more: str = "",
) -> None:
    """Write the cards of a stage's export, from what the folders of its chain say.

    Args:
        stage: folder of the stage.
        record: of the stage, whose manifest may not be written yet.
        config: the chain's, as JSON types.
        paradigm: of the chain.
        export: the folder to write into.
        more: Markdown at the end.
    """
    earlier: list[Path] = []
    if record.mode == "chain":
        names = [str(member["name"]) for member in config.get("chain") or ()][: record.index]
        earlier = [stage.parent / stage_name(i, name) for i, name in enumerate(names)]
    source: dict[str, Any] = {}
    if earlier and record.growth is not None:
        source = read_head(earlier[-1])
    elif record.index == 0 and (init := (config.get("chain") or [{}])[0].get("init")):
        source = read_head(Path(init))
    card = stage_card(
        [*(StageRecord.read(folder / MANIFEST) for folder in earlier), record],
        chain=stage.absolute().parent.name,
        config=config,
        data_licence=paradigm.data_licence,
        source=source,
    )
    formats = {folder: paradigm.export_format(folder) for folder in export_folders(export)}
    write_cards(card, export, formats, more)


def growth_card(report: Mapping[str, Any], source: Path, out: Path) -> Card:
    """Return the card of what ``compt grow`` has made of a checkpoint.

    Args:
        report: of :func:`compt.growth.convert.grow_checkpoint`.
        source: the checkpoint.
        out: the folder that was written.
    """
    growth, base = GrowthReport.from_json(report), model_name(source)
    head = {**_taken_over(read_head(source)), "tags": ["compt", "model-growth"], "base_model": base}
    written = f"Weights are written in {report['dtype']}."
    if (error := report.get("rounding_error")) is not None:
        written += f" Rounding changes outputs by {error:.1e}."
    return Card(
        title=out.name,
        model=out.name,
        summary=f"`{base}`, grown to a larger model and not trained since.",
        head=head,
        sections=(
            ("How it was made", f"{growing_text(growth, base)}\n\n{written}"),
            ("Versions", f"compt {__version__}"),
        ),
    )


def write_cards(
    card: Card, folder: Path, formats: Mapping[Path, ExportFormat], more: str = ""
) -> None:
    """Write a card into every folder of an export that a library loads.

    Args:
        card: to write.
        folder: the export.
        formats: by folder, the export's own among them.
        more: Markdown at the end.
    """
    for path, library in formats.items():
        if path != folder and not library.loaded_by:
            continue
        with atomic(path / CARD) as file:
            file.write_text(card.text(library) + more, encoding="utf-8")


def export_folders(folder: Path) -> list[Path]:
    """Return an export's folder and those in it, of which each may be for another library."""
    return [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]


def read_head(folder: Path) -> dict[str, Any]:
    """Return the metadata of a folder's card, ``{}`` where it has none that can be read."""
    inside = folder / EXPORT
    path = (inside if inside.is_dir() else folder) / CARD
    try:
        front = FRONT.match(path.read_text(encoding="utf-8"))
        content = yaml.safe_load(front[1]) if front else None
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def model_name(path: Path) -> str:
    """Return what a checkpoint is called as a base model."""
    path = path.absolute()
    for folder in (path, path.parent):
        if (folder / MANIFEST).is_file():
            try:
                return f"{folder.parent.name}/{StageRecord.read(folder / MANIFEST).name}"
            except WorkDirError:
                break
    return path.name if path.is_dir() else path.stem


def _taken_over(head: Mapping[str, Any]) -> dict[str, Any]:
    return {name: head[name] for name in TAKEN_OVER if head.get(name)}


def _stage_head(
    record: StageRecord, options: Mapping[str, Any], source: Mapping[str, Any]
) -> dict[str, Any]:
    """Return licence, languages and tags, the config's before those of the source's card."""
    growth = ["model-growth"] if record.growth else []
    tags = ["compt", record.paradigm, *growth, *options.get("tags", ())]
    return {**_taken_over(source), **_taken_over(options), "tags": tags}


def _base_model(
    records: Sequence[StageRecord], chain: str, init: str | None, options: Mapping[str, Any]
) -> str:
    """Return what the weights come from, '' where they come from nothing."""
    record = records[-1]
    if record.growth is not None and len(records) > 1:
        return f"{chain}/{records[-2].name}"
    if init:
        return options.get("base_model") or model_name(Path(init))
    return ""
