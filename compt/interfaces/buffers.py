"""Say how state that is not trained is brought together over several processes."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Literal, get_args

from torch import Tensor, nn

from compt.errors import PluginError, did_you_mean

BufferRule = Literal["mean", "max", "min", "first"]
"""What all processes hold of a buffer after a step.

That is the mean, the largest or the smallest of their values, or the value of the first process.
"""


def ruled_buffers(
    rules: Mapping[str, BufferRule], module: nn.Module, owner: str
) -> dict[str, BufferRule]:
    """Return the rule of every buffer of a module that has one, by name.

    Parameters that are marked as not trained count as buffers.

    Args:
        rules: by the buffer's name, or by a pattern with ``*``; the first that fits counts.
        module: the student, or the transferer.
        owner: the class that declares the rules, for messages.

    Raises:
        PluginError: there is no such rule or buffer, or whole numbers have no mean.
    """
    if not isinstance(rules, Mapping):
        raise PluginError(
            f"{owner}.buffer_rules is {rules!r}.", do="Set it to a dict of rules by buffer name."
        )
    untrained = {name: p.detach() for name, p in module.named_parameters() if not p.requires_grad}
    buffers = {**dict(module.named_buffers()), **untrained}
    for pattern, rule in rules.items():
        _check_rule(pattern, rule, buffers, owner)
    matches = {name: [rules[p] for p in rules if fnmatchcase(name, p)] for name in buffers}
    ruled = {name: matching[0] for name, matching in matches.items() if matching}
    for name, rule in ruled.items():
        if rule == "mean" and not buffers[name].is_floating_point():
            raise PluginError(
                f"{owner}.buffer_rules asks for the mean of '{name}', which holds "
                f"{buffers[name].dtype}.",
                do="Use 'max', 'min' or 'first' for whole numbers, or register it as floats.",
            )
    return ruled


def _check_rule(pattern: str, rule: str, buffers: Mapping[str, Tensor], owner: str) -> None:
    """Raise PluginError for a rule that is not known, and for a name that no buffer has.

    A pattern may fit nothing, as the members of a chain need not have the same buffers.
    """
    if rule not in get_args(BufferRule):
        near = did_you_mean(str(rule), get_args(BufferRule))
        raise PluginError(
            f"{owner}.buffer_rules has the rule {rule!r} for '{pattern}'.{near}",
            do=f"One of {get_args(BufferRule)}.",
        )
    if pattern not in buffers and not any(sign in pattern for sign in "*?["):
        raise PluginError(
            f"{owner}.buffer_rules names '{pattern}', and there is no such buffer."
            f"{did_you_mean(pattern, buffers)}",
            do="Register it with register_buffer(), or as a parameter with requires_grad=False; "
            "'*' in a name stands for anything.",
        )
