"""Find before anything is trained what would keep a teacher's outputs from being cached."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import DefaultScope
from torch import Tensor
from torch.utils.data import Dataset

from compt.config import ChainConfig, StageConfig
from compt.errors import ConfigError
from compt.growth.models import architecture
from compt.interfaces import Batch, Draws, Paradigm, Transferer, accepted
from compt.interfaces.mini_batches import batch_length
from compt.planning.plans import StagePlan
from compt.planning.teaching import count_asked
from compt.registry import TRANSFERERS
from compt.report.format import quantity
from compt.training.cache_table import NAMES, Table
from compt.training.loader import SeededFetch, open_dataset
from compt.training.teacher import cache_place
from compt.training.teacher_cache import row_checksums, used_bytes

NUM_PROBED = 16
"""Samples that are prepared twice, to see whether they come out alike."""


def check_cache(config: ChainConfig, plan: StagePlan, paradigm: Paradigm) -> Iterator[str]:
    """Check that a stage's teacher can be cached, and yield what that takes.

    Args:
        config: of the chain.
        plan: of the stage, which has a teacher.
        paradigm: of the chain, which knows all members.

    Raises:
        ConfigError: samples are drawn anew at every pass, outputs are not by sample, or the disk
            is too small.
    """
    source, stage = config.stages[plan.index - 1 : plan.index + 1]
    with DefaultScope.overwrite_default_scope(config.default_scope):
        dataset = open_dataset(paradigm, stage.train_dataloader, "train")
    check_repeatable(paradigm, dataset)
    transferer: Transferer = TRANSFERERS.build(dict(stage.transfer))
    outputs = _outputs(paradigm, transferer, source, stage)
    asked = count_asked(transferer, plan.iters)
    num_samples = len(dataset)  # type: ignore[arg-type]
    row = Table.of(outputs, num_samples)
    num_rows = min(num_samples, asked * plan.batch_size)
    place = cache_place(stage.teacher)
    _check_room(row.row_bytes * num_rows, place)
    yield (
        f"the outputs of the teacher of '{stage.name}' take up to "
        f"{quantity(row.row_bytes * num_rows, 'B')} in {place} "
        f"({num_rows:,} samples of {quantity(row.row_bytes, 'B')})"
    )
    if asked * plan.batch_size <= num_samples:
        yield (
            f"the teacher of '{stage.name}' meets no sample twice, so that its cache is read by "
            "later runs only"
        )


def check_repeatable(paradigm: Paradigm, dataset: Dataset[Any]) -> None:
    """Raise ConfigError where samples are others at every pass."""
    first, second = (_prepared(paradigm, dataset, seed) for seed in (1, 2))
    try:
        batch_length(first)
    except ConfigError as error:
        raise ConfigError(error.what, do="Leave out teacher.cache.") from error
    if not torch.equal(row_checksums(first), row_checksums(second)):
        raise ConfigError(
            "What the models see of a sample is another one at every pass over the data, as "
            "augmentation and random masks make it; a cache has the teacher's outputs of one.",
            do="Switch them off (clip: augment=None), or leave out teacher.cache.",
        )


def _prepared(paradigm: Paradigm, dataset: Dataset[Any], seed: int) -> Batch:
    """Return some samples as a batch that models see, with random numbers of a seed."""
    num_samples = len(dataset)  # type: ignore[arg-type]
    step = max(1, num_samples // NUM_PROBED)
    indices = list(range(0, num_samples, step))[:NUM_PROBED]
    batch = dict(paradigm.collate(SeededFetch(dataset).__getitems__([seed, *indices])))
    if paradigm.sample_index:
        batch["index"] = torch.tensor(indices)
    generator = torch.Generator().manual_seed(seed)
    arguments = accepted(paradigm.prepare, training=True, draws=Draws(generator))
    return paradigm.prepare(batch, generator=generator, **arguments)


def _outputs(
    paradigm: Paradigm, transferer: Transferer, source: StageConfig, stage: StageConfig
) -> dict[str, Tensor]:
    """Return what of a teacher is kept for each sample, [2, ...] on the meta device.

    Raises:
        ConfigError: something of it is not by sample.
    """
    with torch.device("meta"):
        teacher, student = (paradigm.build_model(s.member).eval() for s in (source, stage))
        with torch.no_grad():
            batches = {size: paradigm.example_batch(teacher, size) for size in (2, 3)}
            pair = [(m, paradigm.forward(m, batches[2])) for m in (teacher, student)]
            transferer.bind(*(architecture(paradigm, model, outputs) for model, outputs in pair))
            outputs = {
                size: paradigm.teacher_forward(teacher, batch, transferer.needs)
                for size, batch in batches.items()
            }
    for name in sorted(transferer.needs):
        if not _is_by_sample({size: of_size[name] for size, of_size in outputs.items()}):
            raise ConfigError(
                f"The transfer reads '{name}', which is not one value a sample.",
                do="Leave out teacher.cache, or compare other outputs.",
            )
    return {name: outputs[2][name] for name in transferer.needs}


def _is_by_sample(outputs: Mapping[int, Tensor]) -> bool:
    """Tell whether an output has one row for each sample, by batches of several sizes."""
    shapes = {output.shape[1:] for output in outputs.values()}
    are_rows = all(output.dim() and len(output) == size for size, output in outputs.items())
    return are_rows and len(shapes) == 1 and all(o.dtype in NAMES for o in outputs.values())


def _check_room(num_bytes: int, place: Path) -> None:
    existing = next(folder for folder in (place, *place.parents) if folder.exists())
    free = shutil.disk_usage(existing).free + (used_bytes(place) if existing == place else 0)
    if num_bytes > free:
        raise ConfigError(
            f"The teacher's outputs take up to {quantity(num_bytes, 'B')}, and {place} has "
            f"{quantity(free, 'B')} free.",
            do="Name a folder with more room, teacher=dict(cache='FOLDER'), compare pooled "
            "features, or leave out teacher.cache.",
        )
