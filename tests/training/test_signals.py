"""Ask a stage to stop by a signal."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

import compt
from compt.errors import TrainingError
from compt.training.evaluation import EvalLoop
from compt.training.loops import TrainLoop
from compt.training.signals import Interruptible, StopSignals, by_default, exit_code
from tests.test_chain import python


def ask(number: signal.Signals = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def test_signals_are_noted_and_the_handlers_put_back():
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    signals = StopSignals().__enter__()
    assert signals.first == 0
    ask(signal.SIGTERM)
    ask(signal.SIGINT)
    assert signals.first == signal.SIGTERM
    signals.__exit__(TrainingError)  # as it was asked to stop
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_nobody_looked_for_in_time_comes_again(number):
    """After the last look of a stage there is a checkpoint to write, and the next stage."""
    with Interruptible() as command:
        with pytest.raises(KeyboardInterrupt), StopSignals():
            ask(number)
        assert command.number == number


def test_a_second_interrupt_is_not_waited_for():
    signals = StopSignals().__enter__()
    ask(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        ask(signal.SIGINT)
    signals.__exit__(KeyboardInterrupt)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_is_interrupted_by_both_and_knows_by_which(number):
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt), Interruptible() as signals:
        ask(number)
    assert signals.number == number
    assert exit_code(number) == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_a_forked_process_dies_of_sigterm_as_any_other():
    with Interruptible() as signals:
        child = os.fork()
        if child == 0:
            try:
                ask(signal.SIGTERM)
            finally:
                os._exit(3)  # not reached
        _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGTERM
    assert signals.number == 0


def test_a_call_that_never_comes_back_can_be_ended():
    with Interruptible():
        with by_default():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL


def test_another_thread_sets_no_handlers():
    seen = []

    def enter() -> None:
        with StopSignals() as signals:
            seen.append((signals.first, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [(0, signal.getsignal(signal.SIGTERM))]


def weights(work: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(work.glob("0*/weights.safetensors"))]


def test_a_signal_during_the_last_evaluation_stops_the_chain(toy, tmp_path, monkeypatch):
    """It has no later iteration at which to be seen."""
    toy |= dict(chain=toy["chain"][:2], evaluations=1)
    whole = compt.train(toy, work_dir=tmp_path / "whole")
    run = EvalLoop.run

    def run_and_ask(self):
        ask()
        return run(self)

    with monkeypatch.context() as patch:
        patch.setattr(EvalLoop, "run", run_and_ask)
        with pytest.raises(TrainingError, match="Stopped by SIGTERM after iteration 8 of 8") as end:
            compt.train(toy, work_dir=tmp_path / "run")
        assert end.value.exit_code == 143
    resumed = compt.train(toy, work_dir=tmp_path / "run", resume=True)
    assert weights(resumed) == weights(whole)


def test_a_stop_waits_for_the_end_of_an_accumulation(toy, tmp_path, monkeypatch):
    """A checkpoint holds no gradients: one in its middle would go on otherwise."""
    toy |= dict(chain=toy["chain"][:1], optim_wrapper=dict(accumulative_counts=4))
    whole = compt.train(toy, work_dir=tmp_path / "whole")
    step = TrainLoop._step

    def step_and_ask(self, batch):
        step(self, batch)
        if self.iter == 1:
            ask()

    with monkeypatch.context() as patch:
        patch.setattr(TrainLoop, "_step", step_and_ask)
        with pytest.raises(TrainingError, match="Stopped by SIGTERM after iteration 4 of 8"):
            compt.train(toy, work_dir=tmp_path / "run")
    resumed = compt.train(toy, work_dir=tmp_path / "run", resume=True)
    assert weights(resumed) == weights(whole)


def test_the_config_of_an_older_run_finds_both_loops():
    """It imports compt.training.loops alone for them."""
    script = (
        "import compt.training.loops\n"
        "from mmengine.registry import LOOPS\n"
        "assert LOOPS.get('ComptTrainLoop') and LOOPS.get('ComptEvalLoop')\n"
    )
    done = python("-c", script)
    assert done.returncode == 0, done.stderr
