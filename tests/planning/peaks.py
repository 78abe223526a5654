"""Measure what a step of a stage holds at most, by what torch's allocator counts on a CPU.

``python -m tests.planning.peaks OPTIONS STORE`` is one of several processes, which meet at a file.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from torch import Tensor, distributed, library as operators
from torch._C import DispatchKey
from torch.profiler import profile, record_function

import compt.training.optim  # noqa: F401 - registers the constructor
from compt.config import ChainConfig, load_config
from compt.config.parallel import Sharded
from compt.training.sharding import adapt, shard_stage
from compt.training.stage import StageModel

CHAIN = dict(
    paradigm=dict(
        type="causal_lm", context=64, data=dict(type="text", train="none", num_samples=10_000)
    ),
    train_dataloader=dict(batch_size=4),
    chain=[
        dict(
            name="a",
            iters=10,
            model=dict(
                model_type="llama",
                hidden_size=128,
                intermediate_size=384,
                num_hidden_layers=4,
                num_attention_heads=4,
                vocab_size=2048,
                max_position_embeddings=64,
            ),
        )
    ],
)
"""A language model of 1.4 M parameters."""
GPT2 = dict(model_type="gpt2", n_embd=128, n_layer=4, n_head=4, vocab_size=2048, n_positions=64)
"""A model of 1.1 M parameters that drops out 0.1 of scores, branches and embeddings."""
STEPS = 2


def config(**options: object) -> ChainConfig:
    return load_config({**CHAIN, **options})


@contextmanager
def dropping_as_on_gpu() -> Iterator[None]:
    """Let a CPU drop out in kernels as a GPU does, with bytes as masks, and attention without any.

    A CPU takes attention with dropout apart, and keeps masks in float32.
    """
    aten = torch.ops.aten
    composite = DispatchKey.CompositeImplicitAutograd

    def dropout(values: Tensor, p: float, train: bool) -> Tensor:
        return aten.native_dropout.default(values, p, True)[0] if train and p else values

    def attend(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Any = None,
        p: float = 0.0,
        *args: Any,
        **o: Any,
    ) -> Tensor:
        attention = aten.scaled_dot_product_attention.default
        return attention._op_dk(composite, query, key, value, mask, 0.0, *args, **o)

    with operators._scoped_library("aten", "IMPL") as library:
        library.impl("dropout", dropout, "AutogradCPU")
        library.impl("scaled_dot_product_attention", attend, "AutogradCPU")
        yield


def measured(chain: ChainConfig, way: str = "one") -> int:
    """Return the most bytes that this process holds in a step, once the optimizer has state."""
    (member,) = chain.stages
    with profile(profile_memory=True) as profiler:
        stage = StageModel(
            chain.paradigm,
            dict(name=member.name, model=member.model),
            performance=member.performance.to_dict(),
        )
        model = stage
        if way == "fsdp":
            assert isinstance(chain.parallel, Sharded)
            model = shard_stage(stage, chain.parallel)
        elif way == "ddp":
            model = MMDistributedDataParallel(
                module=stage, device_ids=None, broadcast_buffers=False
            )
        constructor = dict(constructor="ComptOptimWrapperConstructor")
        wrapper = build_optim_wrapper(model, {**member.optim_wrapper, **constructor})
        if way == "fsdp":
            adapt(wrapper, model.parameters())
        stage.paradigm.prepare = lambda batch, *, generator: batch
        example = stage.paradigm.example_batch(stage.student, member.batch_size)
        batch = {name: torch.zeros_like(value) for name, value in example.items()}
        del example
        model.train()
        wrapper.initialize_count_status(model, 0, 100)
        for _ in range(STEPS):
            with record_function("a step"):
                model.train_step(dict(batch), optim_wrapper=wrapper)
            stage.after_step()
    events = profiler.profiler.kineto_results.events()
    last = max(event.start_ns() for event in events if event.name() == "a step")
    live, peak = 0, 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live) if event.start_ns() >= last else peak
    return peak


if __name__ == "__main__":
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    distributed.init_process_group(
        "gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=world_size
    )
    options = json.loads(sys.argv[1])
    sharded = options.get("parallel", {}).get("type") == "fsdp"
    print(json.dumps(measured(config(**options), "fsdp" if sharded else "ddp")))
    distributed.barrier()
    os._exit(0)  # a thread of gloo may otherwise abort the exit
