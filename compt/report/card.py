"""The model card of an export, README.md, in Hugging Face's format.

It says where the weights come from, on what data, at what cost, what they reach, and how to load
them. https://huggingface.co/docs/hub/model-cards
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from compt._version import __version__
from compt.errors import WorkDirError
from compt.files import CARD, CARD_MARK, EXPORT, MANIFEST, atomic, stage_name
from compt.interfaces import ExportFormat, Paradigm
from compt.report.format import duration, left_out_lines, metric_text, quantity, tensor_counts
from compt.report.growth import GrowthReport
from compt.report.metrics import Metrics
from compt.report.record import StageRecord

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
    model, paradigm = f"{chain}/{record.name}", dict(config.get("paradigm") or {})
    data = paradigm.get("data") or {}
    first = (config.get("chain") or [{}])[0]
    init = first.get("init") if record.index == 0 else None
    base = _base_model(records, chain, init, options)
    tags = ["compt", record.paradigm, *(["model-growth"] if record.growth else [])]
    own = {name: options.get(name) for name in TAKEN_OVER if options.get(name)}
    head = {**_taken_over(source or {}), **own, "tags": [*tags, *options.get("tags", ())]}
    if base:
        head["base_model"] = base
    if init:
        head["base_model_relation"] = "finetune"
    members = [str(one.get("name")) for one in config.get("chain") or ()]
    return Card(
        title=options.get("title") or model,
        model=model,
        summary=_summary(record, members),
        head=head,
        sections=(
            ("How it was made", _making(record, base, init)),
            ("What it cost", _costs(records)),
            ("Data", _data(record, data, data_licence)),
            ("Held-out metrics", _metrics(record.metrics)),
            ("Versions", _versions(record)),
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
            ("How it was made", f"{_growing(growth, base)}\n\n{written}"),
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


def _summary(record: StageRecord, members: Sequence[str]) -> str:
    params = quantity(record.params)
    if record.mode == "individual":
        return f"A model of {params} parameters, trained alone with compt ({record.paradigm})."
    return (
        f"A model of {params} parameters, member {record.index + 1} of {len(members)} of the chain "
        f"{' -> '.join(members)}, trained with compt ({record.paradigm})."
    )


def _making(record: StageRecord, base: str, init: str | None) -> str:
    if record.growth is None:
        origin = f"It started from `{base}` (`{init}`)." if init else "It was trained from scratch."
        return origin if record.iters else f"{origin} It was not trained further."
    lines = [_growing(record.growth, base)]
    if record.transfer not in (None, "none"):
        lines.append(f"In training it followed the features of `{base}` ({record.transfer}).")
    return "\n\n".join(lines)


def _growing(growth: GrowthReport, base: str) -> str:
    """Say by what the weights were grown, what became of the tensors, and how exact it was."""
    lines = [f"Its first weights were grown from `{base}` by `{growth.grower}`."]
    if growth.function_preserving:
        measured = "" if growth.error is None else f" (measured: {growth.error:.1e})"
        lines.append(f"The grown model computed what its source did{measured}.")
    else:
        measured = "" if growth.error is None else f", outputs differed by {growth.error:.1e}"
        lines.append(f"It did not compute what its source did: {growth.reason}{measured}.")
    lines.append(f"Tensors: {tensor_counts(growth.counts)}; {len(growth.dropped)} dropped.")
    if growth.reset:
        lines.append(f"Set anew: {len(growth.reset)}.")
    return " ".join(lines)


def _costs(records: Sequence[StageRecord]) -> str:
    """Return a table with a row a stage, and what all of them cost."""
    rows = [
        (
            record.name,
            f"{record.iters:,}",
            f"{record.samples:,}",
            quantity(record.flops.total, "FLOP"),
            duration(record.seconds),
        )
        for record in records
    ]
    if len(rows) > 1:
        total = [sum(record.samples for record in records), sum(r.flops.total for r in records)]
        seconds = sum(record.seconds for record in records)
        sums = (f"{total[0]:,}", quantity(total[1], "FLOP"), duration(seconds))
        rows.append(("all of them", "", *sums))
    table = _table(("stage", "iterations", "samples", "compute", "time"), rows)
    note = "A multiply-add counts as 2; teachers and learned growth are charged."
    ended = f"\n\n{records[-1].stopped}." if records[-1].stopped else ""
    return f"{table}\n\n{note}{ended}"


def _data(record: StageRecord, data: Mapping[str, Any], licence: str) -> str:
    if not data:
        return ""
    options = ", ".join(f"{key}={value!r}" for key, value in data.items() if key != "type")
    lines = [f"`{data.get('type')}`" + (f" with {options}" if options else "") + "."]
    lines.append(f"Licence: {licence}." if licence else "Its source declares no licence.")
    lines += [f"Left out: {line}." for line in left_out_lines(record.left_out)]
    return "\n\n".join(lines)


def _metrics(metrics: Metrics) -> str:
    rows = []
    for name, metric in metrics.items():
        chance = "" if metric.chance is None else f"{metric.chance:.4g}"
        rows.append((name, metric_text(metric, with_chance=False), chance, metric.unit or ""))
    return _table(("metric", "value", "chance", "unit"), rows) if rows else ""


def _versions(record: StageRecord) -> str:
    versions = dict(record.environment)
    packages = versions.pop("packages", "") or f"compt {__version__}"
    if "torch " in packages:
        versions.pop("torch", None)
    return ", ".join([*(f"{name} {value}" for name, value in versions.items()), packages])


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    return "\n".join(_lines(header, rows))


def _lines(header: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    names = list(header)
    yield f"| {' | '.join(names)} |"
    yield f"|{'---|' * len(names)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
