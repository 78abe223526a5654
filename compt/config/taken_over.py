"""Judge entries of mmengine's dicts that compt does itself.

Those that ask for what compt does anyway are fine. All others are faults that name what to write
instead: none is dropped without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compt.config.faults import Faults

REFUSED_OF_LOADERS: Mapping[str, str] = {
    "batch_sampler": "compt makes batches of batch_size from what sampler says",
    "num_batch_per_epoch": "give the stage its iters",
    "worker_init_fn": "a sample's random numbers follow from the seed and the iteration",
    "generator": "a sample's random numbers follow from the seed and the iteration",
}
"""Entries of a dataloader that are refused, with what to do."""
COLLATE = "the paradigm makes batches of samples, in its method collate"
SAVED_ANYWAY = frozenset(
    (
        "type",
        "interval",
        "by_epoch",
        "max_keep_ckpts",
        "save_last",
        "save_begin",
        "save_optimizer",
        "save_param_scheduler",
        "priority",
    )
)
"""Entries of a CheckpointHook that say when to save what a run is resumed from."""
OF_THE_BEST = frozenset(("save_best", "rule", "greater_keys", "less_keys"))
SCOPE = "_scope_"
"""Entry that mmengine puts into the dicts of a package's base file."""
DEFAULT_HOOKS = ("runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint")


def short(kind: Any) -> str:
    """Return the name of a ``type`` without the scope before it, '' where it is no name."""
    return kind.rpartition(".")[2] if isinstance(kind, str) else ""


def _is_only(config: Any, name: str) -> bool:
    """Tell whether a config names this part, and says no more of it."""
    entries = config.keys() - {SCOPE} if isinstance(config, Mapping) else set()
    return entries == {"type"} and short(config["type"]) == name


def check_train_loader(value: Mapping[str, Any], name: str, faults: Faults) -> None:
    """Note entries of the training's dataloader that compt decides itself."""
    _check_refused(value, name, faults)
    if value.get("drop_last") is False:
        faults.add(f"{name}.drop_last: every batch is full; what an epoch leaves over is left out.")
    sampler = value.get("sampler")
    if sampler is not None and not (isinstance(sampler, Mapping) and "type" in sampler):
        faults.add(f"{name}.sampler: {sampler!r} is not a dict(type=..., ...).")
    if sampler is not None and "shuffle" in value:
        faults.add(f"{name}.shuffle: the sampler decides it, sampler=dict(..., shuffle=...).")
    if not isinstance(value.get("shuffle", True), bool):
        faults.add(f"{name}.shuffle: {value['shuffle']!r} is not True or False.")


def check_val_loader(value: Mapping[str, Any], name: str, faults: Faults) -> None:
    """Note entries of the validation's dataloader that compt decides itself."""
    _check_refused(value, name, faults)
    whole = "every validation split is measured whole and in order, in every process"
    sampler = value.get("sampler")
    is_in_order = (
        isinstance(sampler, Mapping)
        and short(sampler.get("type")) == "DefaultSampler"
        and sampler.get("shuffle") is False
    )
    if sampler is not None and not is_in_order:
        faults.add(f"{name}.sampler: {whole}; leave it out.")
    for entry in ("shuffle", "drop_last"):
        if value.get(entry):
            faults.add(f"{name}.{entry}: {whole}; leave it out.")


def _check_refused(value: Mapping[str, Any], name: str, faults: Faults) -> None:
    for entry in value.keys() & REFUSED_OF_LOADERS.keys():
        if value[entry] is not None:
            faults.add(f"{name}.{entry}: {REFUSED_OF_LOADERS[entry]}.")
    if value.get("in_order") is False:
        faults.add(f"{name}.in_order: batches out of order would differ from run to run.")
    collate = value.get("collate_fn")
    if collate is not None and not _is_only(collate, "default_collate"):
        faults.add(f"{name}.collate_fn: {COLLATE}.")


def check_default_hooks(value: Mapping[str, Any], name: str, faults: Faults) -> None:
    """Note changes of default hooks that compt's own loop leaves no place for."""
    for key, hook in value.items():
        where = f"{name}.{key}"
        if hook is None:
            _check_removed(key, where, faults)
        elif not isinstance(hook, Mapping):
            faults.add(f"{where}: {hook!r} is neither None nor a dict(type=..., ...).")
        elif key == "checkpoint":
            _check_checkpoint(hook, where, faults)
        elif key == "sampler_seed":
            if not _is_only(hook, "DistSamplerSeedHook"):
                faults.add(
                    f"{where}: batches follow from the seed and the iteration; leave it out."
                )
        elif key == "logger" and hook.get("log_metric_by_epoch"):
            faults.add(f"{where}.log_metric_by_epoch: a stage counts iterations; leave it out.")
        elif "type" not in hook and key != "logger":
            faults.add(f"{where}: {dict(hook)!r} is not a dict(type=..., ...).")


def _check_removed(key: str, where: str, faults: Faults) -> None:
    if key not in DEFAULT_HOOKS:
        faults.add(f"{where}: there is no default hook of that name to leave out.")
    elif key == "param_scheduler":
        faults.add(f"{where}: for a constant learning rate give param_scheduler=[].")


def _check_checkpoint(hook: Mapping[str, Any], where: str, faults: Faults) -> None:
    saves = "compt saves what --resume goes on from itself: checkpoint=dict(interval=, keep=)"
    if short(hook.get("type")) != "CheckpointHook":
        faults.add(f"{where}: {saves}.")
        return
    best = hook.keys() & {"save_best"} or hook.keys() & OF_THE_BEST
    for entry in best | (hook.keys() - SAVED_ANYWAY - OF_THE_BEST - {SCOPE}):
        if entry in OF_THE_BEST:
            delivers = (
                "a stage delivers its last weights, which are also the measured ones. Give "
                "stopping=dict(type='gain') or custom_hooks=[dict(type='EarlyStoppingHook', ...)] "
                "to end it in time, or dict(type='EMAHook') to deliver an average"
            )
            faults.add(f"{where}.{entry}: {delivers}.")
        else:
            faults.add(f"{where}.{entry}: {saves}; a finished stage holds weights and export.")


def left_out(default_hooks: Mapping[str, Any]) -> list[str]:
    """Say what of the default hooks is left out although it is no fault, a sentence each."""
    hook = default_hooks.get("checkpoint") or {}
    entries = ", ".join(f"{name}={hook[name]!r}" for name in hook if name not in ("type", SCOPE))
    if not entries:
        return []
    return [
        f"default_hooks.checkpoint ({entries}) is left out: compt saves every checkpoint.interval "
        "iterations."
    ]


def check_log_processor(value: Mapping[str, Any] | None, name: str, faults: Faults) -> None:
    """Note a log that is to count epochs."""
    if isinstance(value, Mapping) and value.get("by_epoch"):
        faults.add(f"{name}.by_epoch: a stage counts iterations; leave it out.")
