"""Keep a teacher's outputs on disk: equal to the bit, and never another teacher's or sample's."""

from __future__ import annotations

import copy
import re
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import Dataset

import compt
from compt.config import load_config
from compt.errors import ConfigError, TrainingError, WorkDirError
from compt.growth.models import build_paradigm
from compt.registry import PARADIGMS
from compt.report.record import StageRecord
from compt.testing.toy import Toy, ToyNet
from compt.training import cache_check, cache_table
from compt.training.cache_check import _is_by_sample, check_repeatable
from compt.training.loops import TrainLoop
from compt.training.teacher import Teacher
from compt.training.teacher_cache import OutputCache, row_checksums
from compt.weights import save_weights
from tests.conftest import TOY

KEY = dict(weights="a", data=dict(samples=100))


@PARADIGMS.register_module(name="still_toy")
class StillToy(Toy):
    """A toy whose samples are the same at every pass."""

    def prepare(self, batch, *, generator, draws=None):
        return batch


def rows(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers)


@pytest.fixture
def outputs():
    generator = torch.Generator().manual_seed(0)
    return {
        "features": torch.randn(100, 3, 5, generator=generator),
        "logits": torch.randn(100, 7, generator=generator).bfloat16(),
        "mask": torch.rand(100, 3, generator=generator) > 0.5,
    }


def of(outputs, numbers):
    return {name: output[numbers] for name, output in outputs.items()}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of files of eight samples."""
    monkeypatch.setattr(cache_table, "SHARD_BYTES", 8 * (60 + 14 + 3 + 16))
    return OutputCache(tmp_path, KEY, 100)


def test_what_is_written_is_read_to_the_bit_in_any_order(cache, outputs, tmp_path):
    first, second = rows(5, 99, 17, 8), rows(0, 7, 63, 64)
    for numbers in (first, second):
        cache.write(numbers, 3 * numbers, of(outputs, numbers))
    for reader in (cache, OutputCache(tmp_path, KEY, 100)):
        mixed = rows(64, 5, 7, 99)
        found, inputs = reader.read(mixed)
        assert all(torch.equal(found[name], output[mixed]) for name, output in outputs.items())
        assert torch.equal(inputs, 3 * mixed)
        assert reader.read(rows(64, 6)) is None, "6 was not written"
        assert reader.read(rows(40)) is None, "no file holds 40"


def test_files_are_safetensors_of_bounded_size(cache, outputs):
    cache.write(rows(9, 41), rows(1, 2), of(outputs, rows(9, 41)))
    names = sorted(path.name for path in cache.folder.glob("outputs-*"))
    assert names == ["outputs-00001.safetensors", "outputs-00005.safetensors"]
    tensors = load_file(cache.folder / names[1])
    assert tensors["features"].shape == (8, 3, 5)
    assert torch.equal(tensors["features"][1], outputs["features"][41])
    assert tensors["_output"].count_nonzero() == 1


def test_a_damaged_row_is_as_if_it_were_not_there(cache, outputs, tmp_path):
    """One bit of what the teacher said, or of the checksum of what it saw."""
    for offset in (0, -16):
        numbers = rows(0, 1)
        cache.write(numbers, numbers, of(outputs, numbers))
        path = cache.folder / "outputs-00000.safetensors"
        content = bytearray(path.read_bytes())
        start = len(cache._table.header()) if offset == 0 else len(content) - 2 * 8 * 8
        content[start] ^= 1
        path.write_bytes(content)
        reader = OutputCache(tmp_path, KEY, 100)
        assert reader.read(rows(1)) is not None
        assert reader.read(numbers) is None and reader.num_damaged == 1


def test_a_file_that_is_cut_off_is_refused_by_name(cache, outputs, tmp_path):
    cache.write(rows(0), rows(0), of(outputs, rows(0)))
    path = cache.folder / "outputs-00000.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WorkDirError, match="Remove the file"):
        OutputCache(tmp_path, KEY, 100).read(rows(0))


@pytest.mark.parametrize("key", [dict(KEY, weights="b"), dict(KEY, data=dict(samples=101))])
def test_what_belongs_to_another_teacher_or_data_is_not_found(cache, outputs, tmp_path, key):
    cache.write(rows(0), rows(0), of(outputs, rows(0)))
    assert OutputCache(tmp_path, key, 100).read(rows(0)) is None


def test_a_folder_under_anothers_name_is_refused(cache, outputs, tmp_path):
    cache.write(rows(0), rows(0), of(outputs, rows(0)))
    other = OutputCache(tmp_path, dict(KEY, weights="b"), 100).folder
    cache.folder.rename(other)
    with pytest.raises(WorkDirError, match="another teacher"):
        OutputCache(tmp_path, dict(KEY, weights="b"), 100)


def test_outputs_of_another_length_are_refused(cache, outputs):
    cache.write(rows(0), rows(0), of(outputs, rows(0)))
    longer = {**of(outputs, rows(1)), "features": torch.zeros(1, 4, 5)}
    with pytest.raises(TrainingError, match="samples of other lengths cannot be cached"):
        cache.write(rows(1), rows(1), longer)


def test_two_processes_write_into_one_file(cache, outputs, tmp_path):
    other = OutputCache(tmp_path, KEY, 100)
    cache.write(rows(0), rows(0), of(outputs, rows(0)))
    other.write(rows(1), rows(1), of(outputs, rows(1)))
    cache.write(rows(2), rows(2), of(outputs, rows(2)))
    for reader in (cache, other):
        found, _ = reader.read(rows(2, 1, 0))
        assert torch.equal(found["features"], outputs["features"][[2, 1, 0]])


# Checksums


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.float64]
)
def test_a_rows_checksum_changes_with_each_of_its_values(dtype):
    values = (torch.arange(24).reshape(2, 3, 4) % 2).to(dtype)
    before = row_checksums({"x": values})
    for i in range(12):
        changed = values.clone()
        changed[1].view(-1)[i] = 1 - changed[1].view(-1)[i].int()
        after = row_checksums({"x": changed})
        assert after[0] == before[0] and after[1] != before[1]


def test_flips_shifts_and_swaps_change_a_checksum():
    image = torch.rand(1, 3, 8, 8)
    variants = [image, image.flip(3), image.roll(1, 3), image.flip(1), -image, image + 1e-6]
    sums = {row_checksums([variant]).item() for variant in variants}
    assert len(sums) == len(variants)
    one, two = torch.rand(2, 1, 4)
    assert row_checksums({"a": one, "b": two}) != row_checksums({"a": two, "b": one})


# In a stage


def chain(folder=None):
    """A toy chain of two, whose second passes six times over its data."""
    config = copy.deepcopy(TOY)
    del config["chain"][2]
    config["chain"][1]["iters"] = 13
    changes = dict(paradigm=dict(type="still_toy", samples=70), checkpoint=dict(interval=4))
    return config | changes | ({} if folder is None else dict(teacher=dict(cache=str(folder))))


def resumed(config, folder, **options):
    compt.train(config, work_dir=folder, resume=True, **options)
    return of_second(folder)


def of_second(folder):
    stage = folder / "02_b"
    return load_file(stage / "weights.safetensors"), StageRecord.read(stage / "manifest.json")


@pytest.fixture(scope="module")
def uncached(tmp_path_factory):
    """The folder of a run without a cache."""
    folder = tmp_path_factory.mktemp("uncached") / "run"
    compt.train(chain(), work_dir=folder)
    return folder


def with_second_anew(config, run, folder):
    """Train a chain in a copy of a run, whose first stage is taken over."""
    shutil.copytree(run, folder)
    return resumed(config, folder, from_stage="b")


@pytest.fixture(scope="module")
def cached_twice(uncached, tmp_path_factory):
    """The weights and records of a run without a cache, one that fills it, and one that reads."""
    folder = tmp_path_factory.mktemp("cached")
    config = chain(folder / "kept")
    runs = (with_second_anew(config, uncached, folder / name) for name in ("fills", "reads"))
    return of_second(uncached), *runs


def test_a_cache_changes_no_bit_and_is_charged_as_it_was_used(cached_twice):
    (weights, plain), (filled_weights, fills), (read_weights, reads) = cached_twice
    for other in (filled_weights, read_weights):
        assert all(torch.equal(other[name], value) for name, value in weights.items())
    assert plain.teacher_iters == 13
    assert 2 < fills.teacher_iters < 13, "first pass, and batches with samples that it dropped"
    assert reads.teacher_iters == 0 == reads.teacher_share
    per_run = plain.batch_size * plain.flops.teacher_per_sample
    for record in (fills, reads):
        missing_runs = 13 - record.teacher_iters
        assert plain.flops.total - record.flops.total == pytest.approx(missing_runs * per_run)
        assert record.curve[-1].flops == record.flops.total
        assert 0 < record.teacher_time_share < 1


def test_augmentation_and_masks_are_refused_before_anything_is_trained(toy, tmp_path):
    toy["teacher"] = dict(cache=str(tmp_path / "kept"))  # the toy adds noise in prepare()
    with pytest.raises(ConfigError, match=r"teacher.cache \(stage 'b'\): What the models see"):
        compt.train(toy, work_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists() and not (tmp_path / "kept").exists()


class Jittered(Dataset):
    """Points with noise of the global generator, as augmentation is."""

    def __init__(self, points):
        self.points = points

    def __len__(self):
        return len(self.points)

    def __getitem__(self, index):
        point, label = self.points[index]
        return point + torch.randn(8), label


def test_randomness_of_the_data_set_is_seen_too():
    paradigm = StillToy(samples=70)
    points = paradigm.build_dataset("train")
    check_repeatable(paradigm, points)
    with pytest.raises(ConfigError, match="augmentation and random masks"):
        check_repeatable(paradigm, Jittered(points))


def notes(config):
    checked = load_config(config)
    planned = compt.plan(checked).stages[1]
    return list(cache_check.check_cache(checked, planned, build_paradigm(config["paradigm"])))


def test_what_the_cache_takes_is_said_and_compared_with_the_disk(tmp_path, monkeypatch):
    (note,) = notes(chain(tmp_path / "kept"))
    size = 70 * (8 * 4 + 16)  # features of width 8, and two checksums
    assert note.startswith(f"the outputs of the teacher of 'b' take up to {size / 1e3:.3g} kB in ")
    monkeypatch.setattr(cache_check.shutil, "disk_usage", lambda _: SimpleNamespace(free=size - 1))
    with pytest.raises(ConfigError, match="Name a folder with more room"):
        notes(chain(tmp_path / "kept"))


def test_a_stage_without_a_second_pass_is_told_that_it_saves_nothing(tmp_path):
    config = chain(tmp_path / "kept")
    config["chain"][1]["iters"] = 2
    assert "meets no sample twice" in notes(config)[-1]


def test_an_output_has_to_be_by_sample():
    scale, features = torch.zeros(()), torch.zeros(2, 8)
    assert not _is_by_sample({2: scale, 3: scale})
    assert not _is_by_sample({2: features, 3: features})
    assert _is_by_sample({2: features, 3: torch.zeros(3, 8)})


def test_samples_that_change_later_end_the_stage(make, batch, tmp_path):
    """What no look at a few samples finds, such as data that is written anew meanwhile."""
    stage = make()
    teacher: Teacher = stage.teacher
    teacher.cache, teacher.numbers = OutputCache(tmp_path, KEY, 100), torch.arange(8)
    needs = frozenset({"features"})
    first = teacher.outputs(batch, needs)["features"]
    assert torch.equal(teacher.outputs(batch, needs)["features"], first)
    teacher.check()
    assert teacher.num_runs == 1
    changed = {**batch, "x": batch["x"].clone()}
    changed["x"][3, 2] += 1e-3
    teacher.outputs(changed, needs)
    with pytest.raises(TrainingError, match="1 samples are others than when the teacher"):
        teacher.check()


def test_a_stage_that_was_stopped_goes_on_with_what_is_cached(
    uncached, cached_twice, tmp_path, monkeypatch
):
    (weights, plain), (_, fills), _ = cached_twice
    step = TrainLoop._step

    def stopped(self, batch):
        if self.stage.teacher is not None and self._iter == 6:
            raise KeyboardInterrupt
        step(self, batch)

    monkeypatch.setattr(TrainLoop, "_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        with_second_anew(chain(tmp_path / "kept"), uncached, tmp_path / "run")
    monkeypatch.undo()
    resumed_weights, record = resumed(chain(tmp_path / "kept"), tmp_path / "run")
    assert all(torch.equal(resumed_weights[name], value) for name, value in weights.items())
    assert record.metrics == plain.metrics
    assert record.teacher_iters <= fills.teacher_iters, "two batches were cached before the stop"


def test_the_error_of_a_full_disk_says_what_to_do(cache, outputs, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(OutputCache, "_create", full)
    with pytest.raises(TrainingError, match=re.escape("No space left on device")):
        cache.write(rows(0), rows(0), of(outputs, rows(0)))


def test_weights_of_the_teacher_are_part_of_the_name(make, tmp_path, monkeypatch):
    """Other weights of the same model, and the same ones again."""
    monkeypatch.setenv("COMPT_CACHE_DIR", str(tmp_path / "cache"))
    dataset = StillToy(samples=70).build_dataset("train")
    folders = []
    for seed in (0, 1, 0):
        torch.manual_seed(seed)
        path = tmp_path / f"teacher-{seed}.safetensors"
        save_weights(ToyNet(8, 1), path)
        stage = make((16, 1), (8, 1), weights=path, options=dict(cache=True))
        stage.open_cache(dataset)
        folders.append(stage.teacher.cache.folder)
    assert folders[0] == folders[2] != folders[1]
    assert folders[0].parent == tmp_path / "cache" / "teachers"
