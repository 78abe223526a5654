"""Take what devices a plan is for, for ``compt plan``."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from compt.cli.shared import num_bytes
from compt.errors import ConfigError

if TYPE_CHECKING:
    from compt.config import ChainConfig
    from compt.planning.devices import Device
    from compt.planning.estimate import Estimate
    from compt.planning.plans import ChainPlan

FLAGS = ("device", "devices", "memory", "tflops", "mfu")
"""Arguments that say what a plan is for."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says which devices there are, and how many."""
    parser.add_argument(
        "--device",
        help="estimate memory, hours and checkpoints on a GPU, such as H200, A100-80GB, RTX-4090",
    )
    parser.add_argument(
        "--devices",
        type=int,
        metavar="N",
        help="on so many of them, a process each, whole (ddp) and sharded (fsdp)",
    )
    parser.add_argument(
        "--memory", metavar="SIZE", help="of a device, such as 80GB, in place of --device's"
    )
    parser.add_argument(
        "--tflops",
        type=float,
        metavar="T",
        help="peak of a device in TFLOP/s, in the config's number format, in place of --device's",
    )
    parser.add_argument(
        "--mfu",
        type=float,
        help="share of the peak that is assumed to be reached (default: 0.35)",
    )


def device_of(arguments: argparse.Namespace) -> Device | None:
    """Return the device that is named or described, None where none is.

    Raises:
        ConfigError: it is neither, or a number is none.
    """
    if all(getattr(arguments, flag) is None for flag in FLAGS):
        return None
    _check(arguments)
    from compt.planning.devices import Device, device

    if arguments.device is not None:
        known = device(arguments.device)
        memory = known.memory if arguments.memory is None else _gigabytes(arguments.memory)
        if arguments.tflops is None:
            return replace(known, memory=memory)
        return replace(known, memory=memory, half=arguments.tflops, single=arguments.tflops)
    memory, tflops = _gigabytes(arguments.memory), arguments.tflops
    return Device(f"device of {memory:g} GB", memory, tflops, tflops)


def estimate_on(
    device: Device, arguments: argparse.Namespace, config: ChainConfig, plan: ChainPlan
) -> Estimate:
    """Estimate what a chain takes on so many devices."""
    from compt.planning.devices import MFU
    from compt.planning.estimate import estimate

    mfu = MFU if arguments.mfu is None else arguments.mfu
    return estimate(config, plan, device, devices=arguments.devices or 1, mfu=mfu)


def _check(arguments: argparse.Namespace) -> None:
    if arguments.devices is not None and arguments.devices < 1:
        raise ConfigError(
            f"--devices {arguments.devices} is no number of devices.", do="1 or more."
        )
    if arguments.tflops is not None:
        from compt.planning.devices import check_peak

        check_peak(arguments.tflops)
    if arguments.device is not None:
        return
    if missing := [flag for flag in ("memory", "tflops") if getattr(arguments, flag) is None]:
        first = next(flag for flag in FLAGS if getattr(arguments, flag) is not None)
        raise ConfigError(
            f"--{first} needs a device, and --{' and --'.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not given.",
            do="Name one, such as --device H200, or describe it: --memory 80GB --tflops 312.",
        )


def _gigabytes(size: str) -> float:
    return num_bytes(size, "--memory", "80GB") / 1e9
