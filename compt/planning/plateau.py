"""Find the iteration of a stage at whose weights the next member's growth begins."""

from __future__ import annotations

from pathlib import Path

from compt.config import StageConfig
from compt.config.rates import decay_begin, iteration, warmup_end
from compt.errors import ConfigError
from compt.files import MANIFEST, PLATEAU
from compt.shards import weight_files


def plateau_iter(stage: StageConfig, iters: int) -> int | None:
    """Return the iterations after which a stage keeps its weights, None where it does not.

    Args:
        stage: config of the stage.
        iters: its iterations; 0 for a member that is given, which brings its plateau along.

    Raises:
        ConfigError: there is no plateau in so many iterations, or a given member has none.
    """
    if not stage.trunk:
        return None
    if not iters:
        check_given(stage)
        return None
    begin = decay_begin(stage.param_scheduler)
    if begin is None:  # an average is delivered, and all of the stage is its plateau
        return iters
    last = iteration(begin, iters)
    risen = warmup_end(stage.param_scheduler, iters)
    if not risen < last < iters:
        raise ConfigError(
            f"trunk: '{stage.name}' has {iters:,} iterations, its warm-up ends at iteration "
            f"{risen:,} and its decay begins at iteration {last:,}, so there is no plateau.",
            where=f"chain, member '{stage.name}'",
            do="Lengthen the stage, or let the decay of param_scheduler begin within it.",
        )
    return last


def check_given(stage: StageConfig) -> None:
    """Raise ConfigError for a member that is given without the plateau to grow the next from.

    A folder that is not there says nothing: the stage may be done, and not need it any more.
    """
    path = Path(stage.init or "")
    if path.exists() and not weight_files(path / PLATEAU):
        kind = "has kept none" if (path / MANIFEST).is_file() else "is no finished stage"
        raise ConfigError(
            f"trunk: '{stage.name}' is not trained, and '{path}' {kind}, so there is no plateau "
            "to grow from.",
            where=f"chain, member '{stage.name}'",
            do=f"Give init the folder of a stage that was trained with trunk=True, it has a "
            f"{PLATEAU}; or give '{stage.name}' trunk=False.",
        )
