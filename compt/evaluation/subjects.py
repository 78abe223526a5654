"""Find the models in work folders, stages and exports, and where their results go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from compt.errors import ConfigError
from compt.files import EXPORT, MANIFEST, STATE, digests, stage_name
from compt.report.evaluations import EVALUATIONS
from compt.report.state import ChainState


@dataclass(frozen=True)
class Subject:
    """A model to evaluate."""

    name: str
    """Of the member, or of the folder where it is of no chain."""
    origin: str
    """What tells it from others of its name."""
    export: Path
    results: Path
    """The folder of its evaluations."""

    def weights(self) -> dict[str, str]:
        """Return the SHA-256 of its files, by path in the export."""
        beginning = f"{self.export.name}/"
        hashes = digests(self.export.parent, [self.export.name])
        return {name.removeprefix(beginning): digest for name, digest in hashes.items()}


@dataclass(frozen=True)
class Subjects:
    """The models to evaluate, and the members that have none yet."""

    models: tuple[Subject, ...]
    unfinished: tuple[str, ...]


def find(paths: Sequence[Path], out: Path | None = None) -> Subjects:
    """Find the models in folders, each once and under a name of its own.

    Args:
        paths: work folders, of which all finished stages count, folders of stages, and exports.
        out: folder for the results, in a folder for each model; by default they are in the folder
            of the stage, or beside the export.

    Raises:
        ConfigError: there is no such path, or nothing in it is finished.
        WorkDirError: a work folder is damaged.
    """
    models: dict[Path, Subject] = {}
    unfinished: list[str] = []
    for path in paths:
        path = path.absolute()
        if (path / STATE).is_file():
            finished, waiting = _members(path)
            unfinished += waiting
        else:
            finished = [_single(path)]
        models |= {subject.export: subject for subject in finished}
    if not models:
        raise ConfigError(
            "No stage is finished, so that there is nothing to evaluate.",
            where=", ".join(map(str, paths)),
            do="Wait for the first, or go on with the chain: compt train --resume.",
        )
    named = tuple(_with_own_names(list(models.values())))
    if out is not None:
        named = tuple(replace(s, results=out.absolute() / _folder_name(s.name)) for s in named)
    return Subjects(named, tuple(unfinished))


def _members(work_dir: Path) -> tuple[list[Subject], list[str]]:
    """Return the finished members of a work folder, and the names of the others."""
    finished, unfinished = [], []
    for index, name in enumerate(ChainState.read(work_dir / STATE).members):
        stage = work_dir / stage_name(index, name)
        if (stage / MANIFEST).is_file():
            finished.append(_stage(stage, name))
        else:
            unfinished.append(name)
    return finished, unfinished


def _single(path: Path) -> Subject:
    """Return the model of a path that is no work folder.

    Raises:
        ConfigError: there is no such path, or it is a stage that is not finished.
    """
    if (path / MANIFEST).is_file():
        return _stage(path)
    if path.name == EXPORT and (path.parent / MANIFEST).is_file():
        return _stage(path.parent)
    if not path.exists():
        raise ConfigError(
            f"There is no '{path}'.", do="Name a work folder, a stage or an exported model."
        )
    if (path.parent / STATE).is_file():
        raise ConfigError(f"The stage '{path.name}' is not finished.", where=str(path))
    return Subject(path.name, str(path.parent), path, path.with_name(f"{path.name}_{EVALUATIONS}"))


def _stage(folder: Path, name: str = "") -> Subject:
    member = name or folder.name.partition("_")[2] or folder.name
    return Subject(member, folder.parent.name, folder / EXPORT, folder / EVALUATIONS)


def _with_own_names(subjects: Sequence[Subject]) -> Iterator[Subject]:
    """Put their origin before names that several have, and their path where that tells nothing."""
    names = [subject.name for subject in subjects]
    longer = [
        f"{subject.origin}/{subject.name}" if names.count(subject.name) > 1 else subject.name
        for subject in subjects
    ]
    for subject, name in zip(subjects, longer, strict=True):
        yield replace(subject, name=name if longer.count(name) == 1 else str(subject.export))


def _folder_name(name: str) -> str:
    return name.strip("/").replace("/", "_")
