"""What is measured on a GPU runs on whatever device there is, in small."""

from __future__ import annotations

import on_gpu
import pytest
import torch
from measuring import utilisation
from measuring.utilisation import Sizes, Trained, flops_of, resumed_alike, rows_of

CLIP = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 32, "layers": 2, "head_width": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 512, "width": 32, "layers": 2, "heads": 2},
}
LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
MODELS = (
    Trained("clip", {"type": "clip"}, CLIP, 4, goal=None, performance={"precision": "bf16"}),
    Trained("lm", {"type": "causal_lm", "context": 16}, LLAMA, 4, performance={}),
)


@pytest.mark.slow
def test_every_piece_is_measured():
    sizes = Sizes(MODELS, matmul=64, steps=4, warm_up=1)
    small = {"width": 64, "layers": 2, "context": 32}
    rows = [row for _, measure in on_gpu.measurements(sizes, small) for row in measure()]
    by_name = {row.what: row for row in rows}
    assert by_name["weights after a resume beside none"].is_met
    assert by_name["losses on the device beside the CPU's"].is_met
    assert by_name["clip"].value > 0 and by_name["clip"].is_met is None
    assert by_name["lm"].goal == ">= 50 %" and by_name["lm"].is_met is not None


@pytest.mark.slow
def test_graphs_are_compiled_in_the_warm_up_and_never_again():
    performance = {"compile": {"backend": "aot_eager"}}
    trained = Trained("lm", MODELS[1].paradigm, LLAMA, 4, None, performance)
    rows = rows_of(trained, Sizes((trained,), matmul=64, steps=4, warm_up=2), 1e12)
    (compiled,) = (row for row in rows if "compiled anew" in row.what)
    assert compiled.is_met


def test_the_models_are_those_of_the_question():
    """About 350 million parameters, and FLOPs as six a parameter and token say, and attention."""
    (lm,) = (t for t in utilisation.ON_GPU.models if "language" in t.name)
    width, inner, layers = (
        utilisation.LM[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers")
    )
    num_params = layers * (4 * width**2 + 3 * width * inner)
    assert num_params == pytest.approx(350e6, rel=0.03)
    assert lm.paradigm["context"] == 2048
    context = 16
    small = Trained("lm", {"type": "causal_lm", "context": context}, LLAMA, 4)
    weights = 2 * (4 * 32**2 + 3 * 32 * 64) + 32 * flops_vocabulary()
    attention = 2 * 2 * 2 * context**2 * 32 * 3
    assert flops_of(small) == pytest.approx(6 * weights * context + attention, rel=0.02)


def flops_vocabulary() -> int:
    """Tokens of the bytes' tokenizer, which the output layer has a column for."""
    from compt.paradigms.causal_lm import CausalLm

    return CausalLm(context=16).tokenizer.size


def test_a_failing_piece_leaves_the_others_their_time(monkeypatch, tmp_path, capsys):
    def failing():
        raise RuntimeError("out of memory\nand more")

    monkeypatch.setattr(on_gpu, "DEVICE_FILE", tmp_path / "on_gpu.json")
    pieces = [("a", failing), ("b", lambda: [on_gpu.Row("b", 1.0, "x", "", True)])]
    monkeypatch.setattr(on_gpu, "measurements", lambda *_: iter(pieces))
    assert not on_gpu.device(end=float("inf"))
    printed = capsys.readouterr().out
    assert "not measured: a: RuntimeError: ['out of memory']" in printed and "1 x" in printed
    assert not on_gpu.device(end=0.0)
    assert "not measured: b: the time is over" in capsys.readouterr().out


@pytest.mark.slow
def test_a_resume_is_to_the_bit_here(tmp_path):
    assert resumed_alike(tmp_path)[0].value == 0.0


def test_without_a_gpu_it_says_so(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert on_gpu.main() == 0
    assert "there is none: nothing was measured" in capsys.readouterr().out
