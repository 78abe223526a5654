"""The command line: exit codes, one message without a traceback, and what each command prints and writes."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from mmengine.registry import DATASETS, METRICS
from safetensors.torch import load_file
from torch.utils.data import TensorDataset

import compt
from compt import cli
from compt.config import load_config
from compt.files import read_json
from compt.testing.toy import Toy, ToyNet
from tests.conftest import TOY

PICTURES = ("quality_vs_compute.png", "quality_vs_compute.svg")


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys):
    """Run ``compt`` in this process."""

    def call(*arguments: Any, main: Any = cli.main) -> Result:
        try:
            code = main([str(a) for a in arguments])
        except SystemExit as stop:  # argparse
            code = stop.code
        return Result(code, *capsys.readouterr())

    return call


def shell(*arguments: Any, folder: Path) -> Result:
    """Run a Python of its own in a folder."""
    root = str(Path(compt.__file__).parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    return Result(done.returncode, done.stdout, done.stderr)


def refused(result: Result, *words: str, code: int = 2) -> None:
    """It ended with this code and one message that has these words."""
    assert result.code == code, result
    assert result.err.startswith("compt: ")
    assert result.err.count("compt: ") == 1
    assert "Traceback" not in result.err + result.out
    for word in words:
        assert word in result.err


def config_file(folder: Path, config: dict[str, Any], name: str = "toy.py") -> Path:
    file = folder / name
    file.write_text("\n".join(f"{k} = {v!r}" for k, v in config.items()) + "\n")
    return file


@pytest.fixture
def short(toy, tmp_path) -> dict[str, Any]:
    """A chain of two members and three iterations each."""
    toy["chain"] = toy["chain"][:2]
    for stage in toy["chain"]:
        stage["iters"] = 3
    return toy


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The work folder of a finished toy chain."""
    return compt.train(copy.deepcopy(TOY), work_dir=tmp_path_factory.mktemp("finished") / "run")


# What is refused


def test_a_missing_config_is_one_message(run):
    for command in ("plan", "train"):
        refused(run(command, "no/such/config.py"), "no/such/config.py")


def test_a_config_of_another_folder_is_not_taken_for_a_shipped_one(run):
    refused(run("plan", "elsewhere/clip_chain.py"), "elsewhere/clip_chain.py")


def test_a_shipped_config_is_found_by_its_name():
    assert cli.find_config("clip_chain") == cli.find_config("clip_chain.py")
    assert "chain = " in cli.find_config("clip_chain").read_text()


def test_a_folder_is_no_config(run, tmp_path):
    refused(run("plan", tmp_path), str(tmp_path))


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("trian",),
        ("plan",),
        ("plan", "a.py", "b.py"),
        ("plan", "a.py", "--jsn"),
        ("train", "a.py", "--launcher", "ssh"),
        ("grow", "--from", "a"),
        ("report",),
    ],
)
def test_arguments_that_do_not_parse_end_with_2(run, arguments):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "usage: compt" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["seed"], "'seed' is not KEY=VALUE"),
        (["sed=3"], "Did you mean 'seed'?"),
        (["chain.9.iters=3"], "--cfg-options"),
        (["chain.1=3"], "chain"),
        (["chain.0.iters=-3"], "chain.0.iters: -3"),
        (["=3"], ""),
    ],
)
def test_a_bad_option_is_one_message(run, toy, tmp_path, options, word):
    for command in ("plan", "train"):
        refused(run(command, config_file(tmp_path, toy), "--cfg-options", *options), word)


def test_a_faulty_config_lists_its_faults(run, toy, tmp_path):
    toy["chain"][0]["epoch"] = 3
    toy["transfr"] = dict(type="none")
    result = run("plan", config_file(tmp_path, toy))
    refused(result, "2 faults", "Did you mean 'epochs'?", "Did you mean 'transfer'?", "toy.py")
    assert result.out == ""


@pytest.mark.parametrize("tail", ["", "run"])
def test_a_file_in_the_way_of_the_work_folder(run, short, tmp_path, tail):
    (tmp_path / "file").write_text("mine")
    refused(run("train", config_file(tmp_path, short), "--work-dir", tmp_path / "file" / tail), "file", "--work-dir")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_foreign_folder_is_left_alone(run, short, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.tex").write_text("mine")
    refused(run("train", config_file(tmp_path, short), "--work-dir", folder), "holds no chain", "--work-dir")
    assert [p.name for p in folder.iterdir() if not p.name.startswith(".")] == ["thesis.tex"]


def test_failed_training_ends_with_1(run, short, tmp_path):
    short["paradigm"]["fail_at"] = 1
    folder = tmp_path / "run"
    refused(run("train", config_file(tmp_path, short), "--work-dir", folder), "not finite", code=1)
    assert (folder / "chain.json").is_file()
    assert not (folder / "01_a" / "manifest.json").exists()


def test_a_process_of_its_own_ends_the_same_way(toy, tmp_path):
    config_file(tmp_path, {**toy, "sed": 3})
    refused(shell("-m", "compt", "plan", "toy.py", folder=tmp_path), "Did you mean 'seed'?")


# Bad parts of mmengine's: found before anything is trained

OPTIMIZER = dict(type="AdamW", lr=1e-3)
BAD_PARTS = {
    "optimizer argument": (dict(optim_wrapper=dict(optimizer=dict(type="AdamW", lrr=1.0))), "lrr"),
    "optimizer": (dict(optim_wrapper=dict(optimizer=dict(type="AdamWW", lr=1.0))), "'AdamWW'"),
    "optimizer wrapper": (dict(optim_wrapper=dict(type="OptimWraper", optimizer=OPTIMIZER)), "'OptimWraper'"),
    "wrapper argument": (dict(optim_wrapper=dict(optimizer=OPTIMIZER, clip_gradd=dict(max_norm=1))), "clip_gradd"),
    "no wrapper": (dict(optim_wrapper=5), "optim_wrapper"),
    "scheduler": (dict(param_scheduler=[dict(type="CosineAnealingLR")]), "'CosineAnealingLR'"),
    "scheduler argument": (dict(param_scheduler=[dict(type="CosineAnnealingLR", eta_mn=0.0)]), "eta_mn"),
    "scheduler without type": (dict(param_scheduler=[dict(eta_min=0.0)]), "param_scheduler"),
    "no scheduler": (dict(param_scheduler=5), "param_scheduler"),
    "loader option": (dict(train_dataloader=dict(batch_size=32, num_wokers=1)), "num_wokers"),
    "loader value": (dict(train_dataloader=dict(batch_size=32, num_workers=-1)), "num_workers"),
    "data set": (dict(train_dataloader=dict(batch_size=32, dataset=dict(type="NoSuchData"))), "'NoSuchData'"),
    "held-out loader option": (dict(val_dataloader=dict(batchsize=3)), "batchsize"),
    "no held-out loader": (dict(val_dataloader=5), "val_dataloader"),
    "hook": (dict(custom_hooks=[dict(type="EMAHok")]), "'EMAHok'"),
    "hook argument": (dict(custom_hooks=[dict(type="IterTimerHook", intervall=3)]), "intervall"),
    "no hook": (dict(custom_hooks=5), "custom_hooks"),
    "default hook": (dict(default_hooks=dict(logger=dict(type="LoggerHok"))), "'LoggerHok'"),
    "no default hooks": (dict(default_hooks=5), "default_hooks"),
    "evaluator": (dict(val_evaluator=dict(type="Acuracy")), "'Acuracy'"),
    "second evaluator": (dict(val_evaluator=[dict(type="DumpResults", out_file_path="a.pkl"), dict(type="X")]), "'X'"),
    "visualizer": (dict(visualizer=dict(type="Visualiser")), "'Visualiser'"),
    "log back end": (
        dict(visualizer=dict(type="Visualizer", vis_backends=[dict(type="WandbBackend")])),
        "WandbBackend",
    ),
    "log processor": (dict(log_processor=dict(by_epoch=False, windw_size=3)), "windw_size"),
    "optimizer of a stage": (dict(chain={1: dict(optim_wrapper=dict(optimizer=dict(type="Adm", lr=1.0)))}), "'Adm'"),
    "schedule of a stage": (dict(chain={1: dict(param_scheduler=[dict(type="ConstLR")])}), "'ConstLR'"),
    "loader of a stage": (dict(chain={1: dict(train_dataloader=dict(shuffel=True))}), "shuffel"),
}


@pytest.mark.parametrize("part", BAD_PARTS)
def test_bad_parts_are_found_before_training(run, short, tmp_path, part):
    changes, word = copy.deepcopy(BAD_PARTS[part])
    for index, stage in changes.pop("chain", {}).items():
        short["chain"][index] |= stage
    folder = tmp_path / "run"
    result = run("train", config_file(tmp_path, {**short, **changes}), "--work-dir", folder)
    refused(result, word)
    assert not list(folder.rglob("manifest.json"))
    assert not (folder / "01_a").exists()


def test_all_bad_parts_are_found_at_once(run, short, tmp_path):
    short |= dict(custom_hooks=[dict(type="EMAHok")], val_evaluator=dict(type="Acuracy"))
    short["chain"][1]["optim_wrapper"] = dict(optimizer=dict(lrr=1.0))
    file = config_file(tmp_path, short)
    refused(run("train", file, "--work-dir", tmp_path / "run"), "'EMAHok'", "'Acuracy'", "lrr")


@METRICS.register_module(name="CountedLogits")
class CountedLogits:
    prefix = None

    def __init__(self) -> None:
        self.seen = 0

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.seen += sum(len(sample["logits"]) for sample in data_samples)

    def evaluate(self, size: int) -> dict[str, float]:
        seen, self.seen = self.seen, 0
        return {"counted": seen, "size": size}


def test_good_parts_pass_and_are_used(run, short, tmp_path):
    short |= dict(
        optim_wrapper=dict(
            type="OptimWrapper",
            optimizer=dict(type="SGD", lr=0.1, momentum=0.9),
            clip_grad=dict(max_norm=1.0),
            paramwise_cfg=dict(bias_lr_mult=2.0),
        ),
        param_scheduler=[dict(type="MultiStepLR", milestones=[1, 2]), dict(type="PolyLR", eta_min=1e-4, power=0.9)],
        train_dataloader=dict(batch_size=32, pin_memory=False, timeout=0),
        val_dataloader=dict(batch_size=16),
        custom_hooks=[dict(type="NaiveVisualizationHook")],
        default_hooks=dict(timer=dict(type="IterTimerHook")),
        val_evaluator=[dict(type="CountedLogits")],
        log_processor=dict(by_epoch=False, window_size=1),
    )
    folder = tmp_path / "run"
    result = run("train", config_file(tmp_path, short), "--work-dir", folder)
    assert result.code == 0, result.err
    metrics = read_json(folder / "02_b" / "manifest.json")["metrics"]
    assert metrics["val/counted"]["value"] == metrics["val/size"]["value"] == 64
    log = (folder / "02_b").rglob("*.log")
    assert "SGD" in next(log).read_text()


@DATASETS.register_module(name="ShellPoints")
class ShellPoints(TensorDataset):
    def __init__(self, count: int) -> None:
        super().__init__(torch.randn(count, 8, generator=torch.Generator().manual_seed(0)), torch.arange(count) % 10)


def test_a_data_set_of_mmengines_takes_the_place_of_the_paradigms(run, short, tmp_path):
    short |= dict(
        train_dataloader=dict(batch_size=32, dataset=dict(type="ShellPoints", count=64)),
        val_dataloader=dict(dataset=dict(type="ShellPoints", count=10)),
        val_evaluator=dict(type="CountedLogits"),
    )
    folder = tmp_path / "run"
    result = run("train", config_file(tmp_path, short), "--work-dir", folder)
    assert result.code == 0, result.err
    metrics = read_json(folder / "02_b" / "manifest.json")["metrics"]
    assert metrics["val/counted"]["value"] == metrics["val/size"]["value"] == 10


# plan


def test_a_plan_as_json_is_the_plan(run, toy, tmp_path):
    file = config_file(tmp_path, toy)
    code, out, err = run("plan", file, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == compt.plan(toy).to_dict()
    out = run("plan", file, "--json", "--individual", "--cfg-options", "individual.iters=5", "chain.1.iters=2").out
    changed = load_config(toy, {"individual.iters": 5, "chain.1.iters": 2})
    assert json.loads(out) == compt.plan(changed, individual=True).to_dict()
    assert json.loads(out)["flops"] == 5 * 32 * (2272 + 13760 + 43680)
    assert sorted(tmp_path.iterdir()) == [file]


def test_a_plan_is_a_table_with_its_warnings(run, toy, tmp_path):
    code, out, _ = run("plan", config_file(tmp_path, toy))
    assert code == 0
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    # 256 * 2272 = 582 k; 256 * (13760 + 800) = 3.73 M; 192 * (43680 + 4672) = 9.28 M; together 13.6 M
    assert [f"{n} %" in rows[m] for m, n in zip("abc", (4, 27, 68))] == [True] * 3
    assert "582 k" in rows["a"] and "3.73 M" in rows["b"] and "9.28 M" in rows["c"]
    assert "chain 13.6 MFLOP; every member alone 15.3 MFLOP (1.12x the chain)" in out
    assert "warning: 'a' -> 'b' grows 5.4x" in out


def test_a_plan_in_a_process_of_its_own(toy, tmp_path):
    config_file(tmp_path, toy)
    code, out, err = shell("-m", "compt", "plan", "toy.py", "--json", folder=tmp_path)
    assert code == 0, err
    assert json.loads(out)["flops"] == compt.plan(toy).flops


# list, check


def test_list_and_check_are_json(run):
    code, out, _ = run("list", "--json")
    rows = {(row["registry"], row["name"]): row for row in json.loads(out)}
    assert code == 0
    assert {("growers", "lossless"), ("transfers", "feature_mse"), ("paradigms", "clip")} <= rows.keys()
    assert rows["growers", "lossless"]["target"] == "compt.growers.lossless:Lossless"
    code, out, _ = run("check", "--json")
    checked = {(row["registry"], row["name"]): row for row in json.loads(out)}
    assert checked.keys() == rows.keys()
    assert checked["growers", "lossless"]["ok"] is True
    assert code == (0 if all(row["ok"] for row in checked.values()) else 2)


def test_list_is_a_table(run):
    code, out, _ = run("list")
    assert code == 0
    assert re.search(r"growers +leading_block +compt +\S+ +compt\.growers\.leading_block:LeadingBlock", out)


# grow


@pytest.fixture
def larger(tmp_path) -> Path:
    file = tmp_path / "larger.json"
    file.write_text(json.dumps(dict(width=16, depth=3)))
    return file


def same_outputs(small: ToyNet, large: ToyNet) -> bool:
    points = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
    return torch.allclose(small.eval()(points), large.eval()(points), atol=1e-4)


@pytest.mark.parametrize("part", ["01_a", "01_a/export"])
def test_a_grown_checkpoint_computes_the_same(run, finished, larger, tmp_path, part):
    out = tmp_path / "out"
    code, text, err = run("grow", "--from", finished / part, "--to", larger, "-o", out, "--paradigm", "toy", "--json")
    assert code == 0, err
    report = json.loads(text)
    assert (report["grower"], report["function_preserving"], report["dropped"]) == ("lossless", True, [])
    assert report["error"] < 1e-4
    small, large = Toy().load(finished / "01_a" / "export"), Toy().load(out)
    assert (large.embed.out_features, len(large.blocks)) == (16, 3)
    assert report["params"].keys() == dict(large.named_parameters()).keys()
    assert sum(report["counts"].values()) == len(report["params"]) == 24  # 2 + 3 * 6 + 2 + 2
    assert same_outputs(small, large)


def test_the_paradigm_is_found_from_the_checkpoint(run, finished, larger, tmp_path):
    code, out, err = run("grow", "--from", finished / "01_a", "--to", larger, "-o", tmp_path / "out")
    assert code == 0, err
    assert "keeps the function" in out
    assert (tmp_path / "out" / "toy.safetensors").is_file()


def test_growth_depends_on_grower_and_seed(run, finished, larger, tmp_path):
    def grown(name: str, *options: Any) -> dict[str, torch.Tensor]:
        code, *_ = run("grow", "--from", finished / "01_a", "--to", larger, "-o", tmp_path / name, *options)
        assert code == 0
        return load_file(tmp_path / name / "toy.safetensors")

    one, same, other = grown("1"), grown("2"), grown("3", "--seed", 1)
    corner = grown("4", "--grower", "leading_block")
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])
    source = load_file(finished / "01_a" / "export" / "toy.safetensors")
    assert torch.equal(corner["embed.weight"][:8], source["embed.weight"])
    assert not same_outputs(Toy().load(finished / "01_a" / "export"), Toy().load(tmp_path / "4"))


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--from", "gone", ("gone", "--from")),
        ("--from", "damaged", ("damaged",)),
        ("--grower", "lossles", ("Did you mean 'lossless'?",)),
        ("--paradigm", "tyo", ("Did you mean 'toy'?",)),
        ("--to", "gone.json", ("gone.json", "--to")),
        ("--to", "text.json", ("text.json", "--to")),
        ("--to", "list.json", ("list.json",)),
        ("--to", "misspelt.json", ("widht",)),
        ("--to", "small.json", ("shrink from 16 to 8",)),
        ("--to", "ViT-B-32", ("ViT-B-32",)),
    ],
)
def test_growth_that_cannot_be_is_refused_and_writes_nothing(run, finished, larger, tmp_path, option, value, words):
    contents = {"text": "{", "list": "[1]", "misspelt": '{"widht": 16}', "small": '{"width": 8, "depth": 2}'}
    for name, content in contents.items():
        (tmp_path / f"{name}.json").write_text(content)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "toy.safetensors").write_bytes(b"not weights")
    out = tmp_path / "out"
    given: dict[str, Any] = {"--from": finished / "02_b", "--to": larger, "-o": out, "--paradigm": "toy"}
    given[option] = tmp_path / value if option == "--from" or value.endswith(".json") else value
    refused(run("grow", *(part for pair in given.items() for part in pair)), *words)
    assert not out.exists() or not list(out.iterdir())


@pytest.mark.parametrize("kind", ["full", "file"])
def test_growth_does_not_overwrite(run, finished, larger, tmp_path, kind):
    out = tmp_path / "out"
    if kind == "full":
        out.mkdir()
        (out / "mine.txt").write_text("mine")
    else:
        out.write_text("mine")
    refused(run("grow", "--from", finished / "01_a", "--to", larger, "-o", out), "out")
    assert (out if kind == "file" else out / "mine.txt").read_text() == "mine"


def test_a_folder_that_nobody_reads_is_refused(run, larger, tmp_path):
    (tmp_path / "other").mkdir()
    refused(run("grow", "--from", tmp_path / "other", "--to", larger, "-o", tmp_path / "out"), "other", "--paradigm")


def clip_model(width: int, layers: int, size: int = 32) -> dict[str, Any]:
    return dict(
        embed_dim=32,
        vision_cfg=dict(image_size=size, patch_size=16, width=width, layers=layers, head_width=16),
        text_cfg=dict(context_length=8, vocab_size=99, width=width, layers=layers, heads=width // 16),
    )


@pytest.mark.parametrize("kind", ["json", "folder"])
def test_a_grown_open_clip_folder_computes_the_same(run, tmp_path, kind):
    open_clip = pytest.importorskip("open_clip")
    from compt.interfaces import Member
    from compt.paradigms.clip import CONFIG_FILE, Clip

    source, target, out = tmp_path / "source", tmp_path / "target", tmp_path / "out"
    source.mkdir()
    target.mkdir()
    torch.manual_seed(0)
    clip = Clip()
    clip.export(clip.build_model(Member("s", clip_model(32, 2))), source)
    file = target / CONFIG_FILE
    file.write_text(json.dumps({"model_cfg": clip_model(64, 3)}))
    to = file if kind == "json" else target
    code, text, err = run("grow", "--from", source, "--to", to, "-o", out, "--json")
    assert code == 0, err
    report = json.loads(text)
    assert report["function_preserving"], report["reason"]
    small, large = (open_clip.create_model_and_transforms(f"local-dir:{folder}")[0].eval() for folder in (source, out))
    assert large.transformer.width == 64
    image, text = torch.randn(3, 3, 32, 32), torch.randint(1, 99, (3, 8))
    with torch.no_grad():
        for before, after in zip(small(image, text), large(image, text)):
            torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)


def test_an_open_clip_target_with_another_input_is_refused(run, tmp_path):
    pytest.importorskip("open_clip")
    from compt.interfaces import Member
    from compt.paradigms.clip import Clip

    clip = Clip()
    clip.export(clip.build_model(Member("s", clip_model(32, 1))), tmp_path)
    to = tmp_path / "to.json"
    to.write_text(json.dumps(clip_model(64, 1, size=64)))
    refused(run("grow", "--from", tmp_path, "--to", to, "-o", tmp_path / "out"), "image size")


# train


def test_training_prints_the_plan_first_and_the_report_last(run, short, tmp_path):
    folder = tmp_path / "run"
    code, out, err = run("train", config_file(tmp_path, short), "--work-dir", folder)
    assert code == 0, err
    steps = [
        "plan (compute in FLOP)",
        "warning: 'a' -> 'b'",
        "a: 3 iterations of 32, from scratch",
        "a done in",
        "b: 3 iterations of 32, grown by lossless, transfer feature_mse",
        "growth keeps the function",
        "b done in",
        "val/accuracy",
        f"wrote {folder / 'report.json'}",
    ]
    places = [out.rindex(step) if step.startswith(("val", "wrote")) else out.index(step) for step in steps]
    assert places == sorted(places)
    assert out.rstrip().splitlines()[-1].startswith("wrote ")
    report = json.loads((folder / "report.json").read_text())
    assert [member["name"] for member in report["runs"][0]["members"]] == ["a", "b"]


def test_training_goes_to_a_folder_named_after_the_config(run, short, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short["individual"] = dict(iters=2)
    file = config_file(tmp_path, short, "family.py")
    assert run("train", file).code == 0
    assert run("train", file, "--individual").code == 0
    chain, alone = (tmp_path / "work_dirs" / name for name in ("family", "family_individual"))
    assert [read_json(f / "chain.json")["mode"] for f in (chain, alone)] == ["chain", "individual"]
    assert [read_json(f / "02_b" / "manifest.json")["iters"] for f in (chain, alone)] == [3, 2]
    assert read_json(alone / "02_b" / "manifest.json")["growth"] is None
    code, out, _ = run("report", chain, alone)
    assert code == 0
    assert "verdict" in out
    refused(run("train", file, "--work-dir", alone, "--resume"), "'individual', not 'chain'")


def test_a_work_dir_of_the_config_is_used(run, short, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short |= dict(work_dir=str(tmp_path / "mine"), individual=dict(iters=2))
    file = config_file(tmp_path, short)
    assert run("train", file, "--individual").code == 0
    assert (tmp_path / "mine_individual" / "chain.json").is_file()
    assert not (tmp_path / "mine").exists()
    assert not (tmp_path / "work_dirs").exists()


def test_mims_train_command_takes_what_mim_passes(run, short, tmp_path):
    file, folder = config_file(tmp_path, short), tmp_path / "run"
    arguments = ("--launcher", "none", "--work-dir", folder, "--local-rank", "0", "--cfg-options", "seed=7")
    assert run(file, *arguments, main=cli.train_main).code == 0
    assert read_json(folder / "chain.json")["config"]["seed"] == 7
    weights = folder / "02_b" / "weights.safetensors"
    before = weights.read_bytes(), weights.stat().st_mtime_ns
    refused(run(file, *arguments, main=cli.train_main), "--resume")
    assert run(file, "--resume", *arguments, main=cli.train_main).code == 0
    refused(run(file, *arguments[:-1], "seed=8", "--resume", main=cli.train_main), "seed: 7 -> 8")
    assert (weights.read_bytes(), weights.stat().st_mtime_ns) == before


def test_the_folder_to_resume_may_be_given_in_three_places(run, short, tmp_path):
    file, folder = config_file(tmp_path, short), tmp_path / "run"
    assert run("train", file, "--work-dir", folder).code == 0
    before = (folder / "02_b" / "manifest.json").stat().st_mtime_ns
    assert run("train", file, "--work-dir", folder, "--resume").code == 0
    assert run("train", file, "--resume", folder).code == 0
    assert run("train", "--work-dir", folder, "--resume", file).code == 0
    assert (folder / "02_b" / "manifest.json").stat().st_mtime_ns == before
    refused(run("train", file, "--work-dir", tmp_path / "other", "--resume", folder), "two folders")
    assert not (tmp_path / "other").exists()


def test_resuming_where_nothing_was_begun_starts_the_chain(run, short, tmp_path):
    folder = tmp_path / "run"
    assert run("train", config_file(tmp_path, short), "--work-dir", folder, "--resume").code == 0
    assert (folder / "02_b" / "manifest.json").is_file()


def test_train_without_a_config_says_so(run):
    refused(run("train"), "config")


def test_a_damaged_state_is_one_message(run, short, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "chain.json").write_text("{")
    refused(run("train", config_file(tmp_path, short), "--work-dir", folder, "--resume"), "chain.json")


# report


def test_a_report_prints_a_table_and_writes_pictures(run, finished, tmp_path):
    code, out, err = run("report", finished, "-o", tmp_path / "out")
    assert code == 0, err
    rows = [line.split() for line in out.splitlines()]
    assert [row[0] for row in rows if row and row[0] in "abc"] == ["a", "b", "c"]
    for name in ("report.json", *PICTURES):
        assert (tmp_path / "out" / name).stat().st_size > 500
        assert f"wrote {tmp_path / 'out' / name}" in out
    assert not (finished / "report.json").exists()


def test_a_report_goes_into_the_first_folder_and_is_json(run, finished):
    code, out, err = run("report", finished, "--json")
    assert code == 0, err
    assert json.loads(out) == json.loads((finished / "report.json").read_text())
    manifests = [read_json(p) for p in sorted(finished.glob("*/manifest.json"))]
    members = json.loads(out)["runs"][0]["members"]
    assert [m["flops"] for m in members] == [m["flops"]["total"] for m in manifests]
    assert [m["flops"] for m in members] == [s.flops for s in compt.plan(TOY).stages]
    for name in ("report.json", *PICTURES):
        (finished / name).unlink()


def test_what_is_no_run_has_no_report(run, tmp_path):
    refused(run("report", tmp_path), str(tmp_path))
    refused(run("report", tmp_path / "gone"), "gone")
    assert list(tmp_path.iterdir()) == []


# Help


def test_help_needs_no_torch(tmp_path):
    code = """
import sys
from compt import cli
for line in ([], ["train"], ["plan"], ["grow"], ["list"], ["check"], ["report"]):
    try:
        cli.main([*line, "-h"])
    except SystemExit as stop:
        assert stop.code == 0
try:
    cli.train_main(["-h"])
except SystemExit as stop:
    assert stop.code == 0
print("loaded", sorted({"torch", "mmengine", "open_clip", "rich", "matplotlib"} & set(sys.modules)))
"""
    result = shell("-c", code, folder=tmp_path)
    assert result.code == 0, result.err
    assert "loaded []" in result.out
    for word in ("--work-dir", "--resume", "--individual", "--launcher", "--cfg-options", "--grower", "--json"):
        assert word in result.out
