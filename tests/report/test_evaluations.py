"""What suites measured is recorded beside a stage, and stands in its report."""

from __future__ import annotations

import json

import pytest

from compt.report.build import report
from compt.report.evaluation_tables import rows, tables
from compt.report.evaluations import EVALUATIONS, Evaluation, labels, read_evaluations
from compt.report.metrics import MetricValue
from compt.report.terminal import show
from tests.evaluation.folders import write_run


def share(value: float | None, chance: float | None = 0.1) -> MetricValue:
    return MetricValue(value, chance, unit="share")


def made(suite: str = "knn", options: dict | None = None, **metrics: MetricValue) -> Evaluation:
    return Evaluation(suite=suite, options=options or {}, metrics=metrics, weights={"w.bin": "1"})


def test_a_record_is_read_as_it_was_written(tmp_path):
    whole = Evaluation(
        suite="other:knn",
        options=dict(data="/x", k=[1, 5], limit=None),
        metrics={"x/top1": share(0.5), "x/loss": MetricValue(None, None, False)},
        weights={"model.bin": "12ab"},
        tool="scikit-learn",
        tool_version="1.9",
        seconds=2.5,
        environment={"torch": "3"},
    )
    path = whole.write(tmp_path / EVALUATIONS)
    assert path.name.startswith("other_knn-")
    assert read_evaluations(tmp_path) == (whole,)


def test_each_choice_of_options_has_a_file(tmp_path):
    for k in (1, 5, 5):
        made(options=dict(k=k)).write(tmp_path / EVALUATIONS)
    assert [e.options["k"] for e in read_evaluations(tmp_path)] in ([1, 5], [5, 1])


@pytest.mark.parametrize(
    ("files", "outdated"),
    [
        ({"export/w.bin": "1", "optimizer.safetensors": "7"}, False),
        ({"export/w.bin": "2"}, True),
        ({"export/w.bin": "1", "export/v.bin": "1"}, True),
        ({}, False),  # a record of an older version does not say
    ],
)
def test_an_evaluation_of_other_weights_is_outdated(files, outdated):
    assert made().is_outdated(files) is outdated


def test_suites_are_told_apart_by_the_options_that_differ():
    few = made("lm", dict(tasks=["a"], shots=0), acc=share(0.2))
    many = made("lm", dict(tasks=["a"], shots=5), acc=share(0.4))
    table = rows({"s": [few, many, made("knn", {}, knn=share(0.3))], "b": [many]})
    assert [(row.label, row.value("s"), row.value("b")) for row in table] == [
        ("lm shots=0", "20.0 %", "-"),
        ("lm shots=5", "40.0 %", "40.0 %"),
        ("knn", "30.0 %", "-"),
    ]


def test_labels_are_short():
    data = [f"/data/wds_{name}" for name in ("cifar10", "cifar100", "flickr8k")]
    one = made("clip", dict(data="/data/wds_dtd"), **{"wds_dtd/acc1": share(0.2)})
    many = made("clip", dict(data=data), **{"wds_cifar10/acc1": share(0.2)})
    assert labels([one, many]) == ["clip", "clip"], "the metrics tell them apart"
    few = made("clip", dict(data=data[0]), **{"wds_cifar10/acc1": share(0.2)})
    assert labels([one, many, few]) == [
        "clip",
        "clip data=wds_cifar10,wds_cifar...",
        "clip data=wds_cifar10",
    ]
    there = made("clip", dict(data="/elsewhere/wds_cifar10"), **few.metrics)
    assert labels([few, there]) == [f"clip {e.file_name[5:13]}" for e in (few, there)]
    assert labels([few, few]) == ["clip", "clip"], "of two members"


def test_chance_is_that_of_all_members():
    same, other, none = share(0.5, 0.1), share(0.5, 0.2), share(0.5, None)
    for values, text in (
        ([same, same], "10.0 %"),
        ([same, other], "differs"),
        ([same, none], "differs"),
        ([none, none], "-"),
    ):
        members = {str(i): [made(knn=value)] for i, value in enumerate(values)}
        assert rows(members)[0].chance == text


def test_members_that_do_not_fit_have_a_table_of_their_own():
    members = {f"member-{i}": [made(knn=share(0.5))] for i in range(4)}
    members["member-0"].append(made("ab", other=share(0.5)))
    names = [[column.header for column in table.columns] for table in tables(members, width=50)]
    headers = ["suite", "metric", "chance"]
    # 6 + 8 + 8 for the headers, and 10 for each member
    assert [list(map(str, columns)) for columns in names] == [
        [*headers, "member-0", "member-1"],
        [*headers, "member-2", "member-3"],
    ]


def test_a_table_has_no_row_without_a_value():
    members = {"a": [made(knn=share(0.5))], "b" * 30: [made("ab", other=share(0.5))]}
    assert [table.row_count for table in tables(members, width=60)] == [1, 1]
    assert not list(tables({"a": []}))


def test_a_report_has_what_suites_measured(tmp_path, capsys):
    folder = write_run(tmp_path / "run", a="x", b="xx")
    for stage, value in (("01_a", 0.2), ("02_b", 0.4)):
        made(**{"discs/knn": share(value)}).write(folder / stage / EVALUATIONS)
    (folder / "02_b" / EVALUATIONS / "x.json").write_text("{")
    result = report([folder])
    show(result, [], as_json=False)
    out = capsys.readouterr().out
    assert ["knn", "discs/knn", "10.0", "%", "20.0", "%"] in [
        line.split() for line in out.split("\n")
    ]
    assert "chain, 'a': knn was measured of other weights than the stage now has." in out
    assert "chain, 'b': Cannot read 'x.json'" in out
    (run,) = json.loads(json.dumps(result.to_dict()))["runs"]
    (evaluation,) = run["members"][0]["evaluations"]
    assert evaluation["metrics"]["discs/knn"]["value"] == 0.2
    assert run["members"][1]["evaluations"] == []


def test_two_runs_have_one_table(tmp_path):
    folders = [write_run(tmp_path / name, a="x") for name in ("one", "two")]
    for folder, value in zip(folders, (0.2, 0.4), strict=True):
        made(knn=share(value)).write(folder / "01_a" / EVALUATIONS)
    from compt.report.terminal import tables as all_tables

    *_, last = all_tables(report(folders))
    assert [str(c.header) for c in last.columns][3:] == ["a chain 1", "a chain 2"]
