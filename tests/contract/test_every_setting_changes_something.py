"""Each setting of params.yaml and night.yaml is set to another value, and what happens is not what happened before.

A field that is added to a settings model without a case here fails this file.
Effects are observed on a small night (tests/support/settings_bench.py); a
limit that is only copied into a report does not count as one.
"""

import copy
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from settings import DROP, Case, before_and_after, leaves
from settings_bench import BASE, DISTILLATION, MODELS, TRAINING, Bench

from stillhouse.data.files import write_json
from stillhouse.errors import DataError, PackageError, ParamsError, SourceError, TrainingError
from stillhouse.evaluate.ranks import write_evaluation
from stillhouse.evaluate.scoring import Scored
from stillhouse.package.export import export_graph
from stillhouse.params.alerts import AlertsParams
from stillhouse.params.document import STAGE_PARAMS, Document
from stillhouse.params.gate import GateParams, NightParams
from stillhouse.params.tune import TuneParams
from stillhouse.tuning.space import search_space
from stillhouse.tuning.study import Pruned, open_study
from tasks.events import quarantined_beyond
from tasks.gate import decide
from tasks.night import Night
from tasks.plan import Request, plan_night
from tasks.versions import CLOSED, tag_night
from tasks.watching import Champion, Due, missed, old

COMPUTE = {
    "compute.device": Case("cuda", refused=ParamsError),  # the bench has no GPU, wherever it runs
    "compute.precision": Case("bf16-mixed"),
    "compute.threads": Case(2),
}
SHOP = {"source.kind": "shop", "as_of": "2026-01-04T00:00:00+00:00"}
ITEMS = {"source.items_path": "items.csv"}
SQL = {"source.kind": "sql"}

INGEST = {
    "as_of": Case("2026-01-05T00:00:00+00:00", given=SHOP),
    "fingerprint": Case("0" * 64, refused=SourceError),
    "source.kind": Case("shop", given={"as_of": SHOP["as_of"]}),
    "source.shop.size": Case("default", given=SHOP),
    "source.shop.seed": Case(8, given=SHOP),
    "source.shop.users": Case(60, given=SHOP),
    "source.shop.items": Case(60, given=SHOP),
    "source.shop.rows": Case(6_000, given=SHOP),
    "source.path": Case("fewer.csv"),
    "source.items_path": Case("items.csv"),
    "source.url": Case("sqlite:///fewer.db", given=SQL),
    "source.query": Case("SELECT * FROM rows WHERE timestamp < :as_of - 500000", given=SQL),
    "source.items_query": Case("SELECT * FROM items", given=SQL),
    "source.columns.user": Case("buyer"),
    "source.columns.item": Case("good"),
    "source.columns.timestamp": Case("sent"),
    "source.columns.position": Case(
        "order_no", given={"source.columns.timestamp": None, "source.columns.position": "place"}
    ),
    "source.columns.rating": Case("stars"),
    "source.columns.event": Case("action"),
    "source.item_columns.item": Case("sku", given=ITEMS),
    "source.item_columns.title": Case("name", given=ITEMS),
    "source.item_columns.text": Case("blurb", given=ITEMS),
    "source.item_columns.category": Case("shelf", given=ITEMS),
    "source.item_columns.separator": Case(";", given={**ITEMS, "source.item_columns.category": "shelf"}),
    "source.later_rows": Case("leave"),
}

LAST_PROFILE = {"previous_profile": "last night's profile"}
VALIDATE = {
    "min_rows": Case(10_000),
    "min_users": Case(1_000),
    "min_items": Case(1_000),
    "earliest": Case("2024-01-05"),
    "rating_min": Case(2.0),
    "rating_max": Case(4.0),
    "id_length": Case(2),
    "volume_min": Case(1.5, inputs=LAST_PROFILE),
    "volume_max": Case(0.9, inputs=LAST_PROFILE),
    "event_weights": Case({"view": 0.5}),
    "as_of": Case("2024-01-06T00:00:00+00:00"),
}

PREPARE = {
    "min_user_events": Case(4),
    "min_item_events": Case(4),
    "min_rating": Case(3.0),
    "window_days": Case(4.0),
    "repeat_items": Case(True),
    "event_weights": Case({"view": 0.5, "purchase": 0.9}),
    "as_of": Case("2024-01-14T00:00:00+00:00"),
}


def training(place, previous, given=None, model="student.model", alone=None):
    """Return the cases of a `TrainingSpec` at ``place``; ``previous`` gives the stage something to start warm from.

    ``alone`` makes a student learn without a teacher, who may have been asked about other windows.
    """
    # At a rate of nearly nothing no epoch is better than the first.
    still = {f"{place}.learning_rate": 1e-9, f"{place}.epochs": 3, f"{place}.patience": 2}
    cases = {
        "epochs": Case(1),
        "warm_epochs": Case(2, inputs=previous),
        "batch_size": Case(8),
        "learning_rate": Case(0.02),
        "warmup_steps": Case(0),
        "schedule": Case("linear"),
        "windows": Case("all", given={f"{model}.length": 2, **(alone or {})}),  # shorter than the histories
        "candidates": Case("all"),
        "negatives": Case(3),
        "average": Case(1.0),
        "own_rows": Case(0.5, given={f"{model}.items": {"splits": 4, "codes": 4}}),
        "weight_decay": Case(0.1),
        "clip_norm": Case(0.01),
        "patience": Case(1, given=still),
        "valid_users": Case(3),
    }
    given = given or {}
    return {f"{place}.{name}": replace(case, given={**given, **case.given}) for name, case in cases.items()}


def model(place):
    """Return the cases of a model at ``place``, of either kind."""
    common = {"width": Case(12), "blocks": Case(2), "length": Case(4), "dropout": Case(0.4)}
    shared = {f"{place}.items": {"splits": 4, "codes": 4}}
    common |= {
        "queries": Case(3),
        "weights": Case("int8"),
        "items.splits": Case(2, given=shared),
        "items.codes": Case(3, given=shared),
    }
    kinds = {
        "transformer": {
            **common,
            "heads": Case(1),
            "positions": Case("rotary"),
            "norm": Case("after"),
            "gated": Case(True),
            "kind": Case("gru", along={f"{place}.heads": DROP}),
        },
        "gru": {**common, "kind": Case("transformer", along={f"{place}.heads": 1})},
    }
    return {f"{place}[{kind}].{name}": case for kind, cases in kinds.items() for name, case in cases.items()}


def teacher():
    """Return the cases of the kinds of model that only a teacher may be."""
    sized = {"width": Case(12), "blocks": Case(2), "length": Case(4), "dropout": Case(0.4), "heads": Case(1)}
    without_gaps = {"model.mask_share": DROP, "model.last_share": DROP}
    fitted = {"length": Case(4), "folds": Case(3)}
    near = {**fitted, "neighbours": Case(3), "decay": Case(0.5)}
    plain = {"model.length": 6, "model.folds": 2}
    other = {"knn": {"model": {**MODELS["item_knn"], "decay": 0.5}}, "popular": {"model": MODELS["popularity"]}}
    kinds = {
        "bidirectional": {
            **sized,
            "mask_share": Case(0.7, given={"model.last_share": 0.0}),
            "last_share": Case(0.0),
            "kind": Case("transformer", along=without_gaps),
        },
        "item_knn": {
            **near,
            "shrink": Case(5.0),
            "kind": Case("ease", along={"model.shrink": DROP, "model.l2": 10.0}),
        },
        "ease": {**near, "l2": Case(99.0), "kind": Case("item_knn", along={"model.l2": DROP, "model.shrink": 1.0})},
        "popularity": {**fitted, "kind": Case("item_knn", along={"model.decay": 0.8})},
        "ensemble": {
            "combine": Case("weighted"),
            "members": Case(other),
            "kind": Case("popularity", along={"model.combine": DROP, "model.members": DROP, **plain}),
        },
        "cross_fitted": {
            "folds": Case(3),
            "model": Case(MODELS["transformer"]),
            "kind": Case("popularity", along={"model.model": DROP, **plain}),
        },
    }
    return {f"model[{kind}].{name}": case for kind, cases in kinds.items() for name, case in cases.items()}


TRAIN_TEACHER = {
    **model("model"),
    **teacher(),
    **training("training", {"previous_teacher": "last night's teacher"}, model="model"),
    "seed": Case(2),
    "repeat_items": Case(True, refused=DataError),
    **COMPUTE,
}
FELL_BEHIND = {"teacher": "a poor teacher", "previous_teacher": "last night's teacher"}
CHECK_TEACHER = {
    "min_over_popularity": Case(1_000.0, refused=TrainingError),
    "max_drop": Case(0.0, inputs=FELL_BEHIND, refused=TrainingError),
    "min_coverage": Case(1.0, inputs={"teacher": "a poor teacher"}, refused=TrainingError),
    "repeat_items": Case(True, refused=DataError),
    **COMPUTE,
}
EXPORT_SOFT_TARGETS = {
    "k": Case(5),
    "score_bits": Case(5),
    "tail_samples": Case(3),
    "tail_bits": Case(4),
    "temperatures": Case([1.0, 3.0]),
    "shard_positions": Case(20),
    "batch_size": Case(8),
    "windows": Case("all"),
    "keep_nights": Case(3, inputs={"teacher": "a warm teacher", "previous_soft_targets": "last night's soft targets"}),
    "hidden": Case(True),
    "copies": Case(1),
    "substituted": Case(0.9, given={"copies": 1}),
    "seed": Case(2),
    "repeat_items": Case(True, refused=DataError),
    **COMPUTE,
}
LAST_STUDENT = {"previous_student": "last night's student"}
#: What stands where a case is about one kind of schedule.
MODELS.update(
    constant={"kind": "constant", "value": 1.0},
    linear={"kind": "linear", "start": 0.9, "end": 0.1, "until": 0.8},
    adaptive={"kind": "adaptive"},
)


def distillation(place):
    """Return the cases of a `DistillationSpec` at ``place``."""
    alpha, temperature = f"{place}.alpha", f"{place}.temperature"
    constant = {f"{place}.temperature": 2.0}
    steps = {"kind": "linear", "start": 2.0, "end": 1.0, "until": 1.0}
    alone = {alpha: 1.0}
    right = {f"{place}.trust": "where_right", f"{place}.right_within": 1}
    cases = {
        "alpha[constant].value": Case(0.8, given=constant),
        "alpha[constant].kind": Case(
            "linear", along={f"{alpha}.value": DROP, f"{alpha}.start": 1.0, f"{alpha}.end": 0.0}
        ),
        "alpha[linear].kind": Case("cosine"),
        "alpha[linear].start": Case(0.5),
        "alpha[linear].end": Case(0.5),
        "alpha[linear].until": Case(0.4),
        "alpha[adaptive].kind": Case(
            "constant",
            given={alpha: {"kind": "adaptive", "sure": 0.2, "unsure": 0.9}},
            along={f"{alpha}.sure": DROP, f"{alpha}.unsure": DROP, f"{alpha}.value": 0.3},
        ),
        "alpha[adaptive].sure": Case(0.8, given={alpha: {"kind": "adaptive", "sure": 0.2, "unsure": 0.9}}),
        "alpha[adaptive].unsure": Case(0.5, given={alpha: {"kind": "adaptive", "sure": 0.2, "unsure": 0.9}}),
        "temperature[constant].value": Case(2.0),
        "temperature[constant].kind": Case(
            "linear",
            along={f"{temperature}.value": DROP, f"{temperature}.start": 2.0, f"{temperature}.end": 1.0},
        ),
        # Of two stored temperatures a curve takes the lower from 1.5 down: after 0.7 of the way.
        "temperature[linear].kind": Case("cosine", given={temperature: {**steps, "start": 8 / 3}}),
        "temperature[linear].start": Case(1.2, given={temperature: steps}),
        "temperature[linear].end": Case(2.0, given={temperature: steps}),
        "temperature[linear].until": Case(0.2, given={temperature: steps}),
        "temperature[adaptive].kind": Case(
            "constant",
            given={temperature: {"kind": "adaptive", "target": 0.01}},
            along={f"{temperature}.target": DROP, f"{temperature}.value": 1.0},
        ),
        "temperature[adaptive].target": Case(0.9, given={temperature: {"kind": "adaptive", "target": 0.01}}),
        "methods": Case([{"kind": "soft", "weight": 2.0}]),
        "trust": Case("by_confidence"),
        "right_within": Case(4, given=right),
        "start": Case("teacher_items"),
        "finetune": Case(0.5),
        "label_smoothing": Case(0.2, given=alone),
    }
    return {f"{place}.{name}": case for name, case in cases.items()}


ALONE = {"distillation.alpha": 1.0}
TRAIN_STUDENT = {
    **training("training", LAST_STUDENT, alone=ALONE),
    **distillation("distillation"),
    **model("student.model"),
    **training("student.training", LAST_STUDENT, given={"student.training": TRAINING}, alone=ALONE),
    **distillation("student.distillation"),
    "seed": Case(2),
    "repeat_items": Case(True, refused=DataError),
    **COMPUTE,
}
PACKAGE = {
    "weights": Case("int8"),
    "parity": Case(1e-30, refused=PackageError),
    "parity_histories": Case(2),
    "repeat_items": Case(True, refused=PackageError),
}
EVALUATE_CHAMPION = {
    "ks": Case([1, 5, 10]),
    "batch_size": Case(16),
    "threads": Case(2),
    "latency_threads": Case(2),
    "latency_requests": Case(20),
    "short_history": Case(6),
    "head_share": Case(0.9),
    "repeat_items": Case(True),
}
CASES = {
    "ingest": INGEST,
    "validate": VALIDATE,
    "admit": {"max_quarantined": Case(0.0, refused=DataError)},
    "prepare": PREPARE,
    "train_teacher": TRAIN_TEACHER,
    "check_teacher": CHECK_TEACHER,
    "export_soft_targets": EXPORT_SOFT_TARGETS,
    "train_student": TRAIN_STUDENT,
    "package": PACKAGE,
    "evaluate": {**EVALUATE_CHAMPION, "repeat_items": Case(True, refused=PackageError)},
    "evaluate_champion": EVALUATE_CHAMPION,
}

GATE = {
    "mode": Case("approve"),
    "choose": Case("smallest"),
    "against_champion": Case("superiority"),
    "margin": Case(0.0),
    "reference_margin": Case(0.0),
    "slices.margin": Case(0.0),
    "slices.min_users": Case(1_000),
    "slices.categories": Case(False),
    "max_quarantined": Case(0.0),
    "confidence": Case(0.99),
    "resamples": Case(300),
    "min_users": Case(1_000),
    "min_ndcg_at_10": Case(0.9),
    "min_over_popularity": Case(50.0),
    "max_bytes": Case(10),
    "max_p99_ms": Case(0.001),
    "seed": Case(18),
}
GATE_BASE = {
    "mode": "automatic",
    "choose": "best_ndcg",
    "against_champion": "non_inferiority",
    "margin": 0.9,
    "reference": "first",
    "reference_margin": 0.9,
    "slices": {"margin": 0.9, "min_users": 5, "categories": True},
    "max_quarantined": 0.1,
    "confidence": 0.95,
    "resamples": 200,
    "min_users": 5,
    "min_ndcg_at_10": 0.01,
    "min_over_popularity": 1.0,
    "max_bytes": 1000,
    "max_p99_ms": 25.0,
    "seed": 17,
}
NIGHT = {"cold_every": Case(1), "timezone": Case("Europe/Berlin")}
ALERTS = {"max_quarantined": Case(0.1), "max_champion_days": Case(30.0), "max_late_hours": Case(12.0)}
ALERTS_BASE = {"max_quarantined": 0.01, "max_champion_days": 14.0, "max_late_hours": 3.0}
TUNE = {
    "trials": Case(9),
    "alpha.low": Case(0.2),
    "alpha.high": Case(0.6),
    "temperatures": Case([1.0]),
    "learning_rate.low": Case(0.005),
    "learning_rate.high": Case(0.02),
    "method_weight.low": Case(0.5),
    "method_weight.high": Case(2.0),
    "startup_trials": Case(2),
    "warmup_epochs": Case(2),
}
TUNE_BASE = {
    "trials": 8,
    "alpha": {"low": 0.1, "high": 0.9},
    "temperatures": None,
    "learning_rate": {"low": 0.001, "high": 0.05},
    "method_weight": {"low": 0.1, "high": 10.0},
    "startup_trials": 3,
    "warmup_epochs": 1,
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A bench in a folder of its own, without a GPU, and where neither exporting nor timing takes its time."""
    graphs = {}

    def export_once(model, length):
        form = repr(model) + str({name: (weight.dtype, weight.shape) for name, weight in model.state_dict().items()})
        if form not in graphs:
            graphs[form] = export_graph(model, length)
        return copy.deepcopy(graphs[form])

    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("bench")
        patch.chdir(root)
        one = Bench(root)
        patch.setattr("torch.cuda.is_available", lambda: False)
        patch.setattr("onnxruntime.InferenceSession", one.session)
        patch.setattr("stillhouse.stages.package.export_graph", export_once)
        patch.setattr("stillhouse.evaluate.latency._SPAN", 0.0)
        yield one
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "setting"), [(stage, name) for stage, cases in CASES.items() for name in cases])
def test_a_setting_changes_what_its_stage_does(bench, stage, setting):
    before, after = compared(bench, stage, setting, CASES[stage][setting])
    assert before != after, f"{stage} does the same whatever {setting} is: it reads it for nothing, or not at all"


@pytest.mark.slow
@pytest.mark.parametrize("stage", CASES)
def test_the_same_settings_do_the_same_so_that_a_difference_means_something(bench, stage):
    assert bench.run(stage)[0] == bench.run(stage, again=True)[0]


def test_every_setting_of_every_stage_has_its_case_and_no_other_has():
    assert {stage: sorted(cases) for stage, cases in CASES.items()} == {
        stage: sorted(leaves(model)) for stage, model in STAGE_PARAMS.items()
    }


def test_every_setting_that_the_flow_reads_has_its_case_and_no_other_has():
    # Which version is the reference is decided as the night is opened: tests/unit/tasks/test_promotion.py.
    assert sorted([*GATE, "reference"]) == sorted(leaves(GateParams))
    assert sorted(NIGHT) == sorted(leaves(NightParams))
    assert sorted(TUNE) == sorted(leaves(TuneParams))
    assert sorted(ALERTS) == sorted(leaves(AlertsParams))


def test_every_section_of_params_yaml_belongs_to_a_stage_or_to_the_flow():
    sections = {info.alias or name for name, info in Document.model_fields.items()}
    models = STAGE_PARAMS.values()
    of_stages = {key for one in models for key in (one.section, *one.shared, one.instances) if key}
    of_nights = {key for one in models for key in one.night} & sections
    assert sections == (of_stages - {"ingest"}) | of_nights | {"gate", "night", "tune", "alerts"}


def locked(*students):
    """Return a lock of DVC's in which each student comes from all that a record names."""
    chain = {"ingest": ["snapshot"], "validate": ["accepted", "quarantine", "verdict"]}
    chain |= {
        "prepare": ["vocabulary", "sequences"],
        "train_teacher": ["teacher"],
        "export_soft_targets": ["soft_targets"],
    }
    stages, before = {}, []
    for stage, outputs in chain.items():
        stages[stage], before = entry(stage, before, outputs), [f"{stage}/{name}" for name in outputs]
    for student in students:
        stages[f"train_student@{student}"] = entry(f"train_student@{student}", before, ["student"])
        stages[f"package@{student}"] = entry(f"package@{student}", [f"train_student@{student}/student"], ["package"])
    return {"stages": stages}


def entry(stage, inputs, outputs):
    paths = {name: f"{stage}/{name}" for name in outputs}
    return {
        "cmd": " ".join(["stillhouse stage", stage, *(f"{name}={path}" for name, path in paths.items())]),
        "deps": [{"path": path, "md5": "0" * 32} for path in inputs],
        "outs": [{"path": path, "md5": "0" * 32} for path in paths.values()],
    }


@pytest.fixture
def judged(tmp_path, make_sequences):
    """A workspace of two students, a champion and a reference as the gate finds them: one better, the other smaller."""
    root = tmp_path / "judged"
    histories = [[2 + user % 3, 3, 1 + user % 2] for user in range(60)]
    vocabulary, sequences = make_sequences(histories, n_items=100, window=1, categories=["a", "b"] * 50)
    shutil.copytree(vocabulary, root / "data" / "vocabulary")
    shutil.copytree(sequences, root / "data" / "sequences")
    put(root / "reports" / "verdict.json", {"passed": True, "snapshot_rows": 100, "quarantined_rows": 5})
    put(root / "dvc.lock", locked("transformer", "gru"))
    models = [("_champion", 900, 0.2), ("_reference", 900, 0.2), ("transformer", 900, 0.3), ("gru", 800, 0.2)]
    targets = np.array([history[-1] for history in histories])
    for seed, (name, size, ndcg) in enumerate(models):
        ranks = np.random.default_rng(seed).integers(1, 12, 60)
        if name == "transformer":
            ranks = np.where(targets == 1, 9, 1)  # better, but for one category
        rows = Scored(np.arange(60), targets, np.full(60, 2), ranks, np.zeros((60, 1), np.int64))
        write_evaluation(root / "evaluations" / name, {"time_window": rows}, 100, {})
        figures = {name: {"ndcg_at_10": ndcg} for name in ("leave_one_out", "time_window")}
        popular = {"popularity": {"leave_one_out": {"ndcg_at_10": 0.1}}}
        put(root / "metrics" / "evaluate" / f"{name}.json", {**figures, **popular, "bytes": size})
        put(root / "timings" / f"{name}.json", {"p50_ms": 0.5, "p99_ms": 1.0})
        put(root / "packages" / name / "package.json", {"parity": 1e-6, "parity_limit": 1e-4})
    return root


@pytest.mark.parametrize("setting", GATE)
def test_a_setting_of_the_gate_changes_its_decision(judged, setting):
    def decision(section):
        write_params(judged, gate=section)
        against = SimpleNamespace(champion=1, reference=1)
        found = decide(judged, against, dict.fromkeys(locked("transformer", "gru")["stages"], "run"))
        rules = [(one.student, rule.name, rule.value, rule.text) for one in found.verdicts for rule in one.rules]
        return found.chosen, found.mode, rules

    before, after = before_and_after(GATE_BASE, setting, GATE[setting], {})
    assert decision(before) != decision(after)


@pytest.fixture(scope="module")
def after_one_night(tmp_path_factory):
    """A repository in which one night of the shop has closed."""
    root = tmp_path_factory.mktemp("after")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    closed = Night(
        id="2026-03-02",
        as_of="2026-03-02T00:00:00+00:00",
        source={"kind": "shop"},
        fingerprint="0" * 64,
        cold=True,
        previous=None,
        revises=None,
        champion=None,
    )
    put(root / "night.yaml", closed.document())
    tag_night(root, closed.id, CLOSED, "closed", ["night.yaml"])
    return root


@pytest.mark.parametrize("setting", NIGHT)
def test_a_setting_of_the_night_changes_what_is_planned(after_one_night, setting):
    def planned(section):
        write_params(after_one_night, night=section)
        found = plan_night(Request(after_one_night, as_of="2026-03-03T03:00"))
        assert found.action == "open"
        return found.night.cold, found.night.as_of

    before, after = before_and_after({"cold_every": 7, "timezone": "UTC"}, setting, NIGHT[setting], {})
    assert planned(before) != planned(after)


@pytest.mark.parametrize("setting", ALERTS)
@pytest.mark.parametrize("off", [None, 0, "another"])
def test_a_setting_of_the_alerts_changes_what_is_told(setting, off):
    now = datetime(2026, 3, 10, 9, tzinfo=UTC)

    def told(section):
        alerts = AlertsParams(**section)
        champion = Champion(1, now - timedelta(days=20))
        due = [Due(now - timedelta(hours=6))]
        rows = {"snapshot_rows": 100, "quarantined_rows": 5}
        return (
            quarantined_beyond(rows, alerts),
            old(champion, now=now, alerts=alerts),
            missed(due, now=now, after=[], alerts=alerts),
        )

    case = ALERTS[setting] if off == "another" else Case(off)
    before, after = before_and_after(ALERTS_BASE, setting, case, {})
    assert all(told(before))
    assert [bool(one) for one in told(after)] == [name != setting for name in ALERTS]


@pytest.mark.parametrize("setting", TUNE)
def test_a_setting_of_a_search_changes_its_trials(tmp_path, setting):
    methods = [{"kind": "soft", "weight": 1.0}, {"kind": "rank", "weight": 1.0}]

    def performed(section, folder):
        tune = TuneParams(**section)
        mix = {"alpha": 0.3, "temperature": 1.0, "methods": methods}
        study = open_study(folder, search_space(tune, {"learning_rate": 0.01}, mix, (1.0, 2.0)), tune, 7)
        while len(study.trials) < tune.trials:
            draft, figure = study.draw(), 0.0
            try:
                for epoch in range(4):
                    figure = 1.0 - draft.values["alpha"] + 0.01 * epoch
                    draft.report(figure)
            except Pruned:
                study.finish(draft, None, 1.0, "pruned")
            else:
                study.finish(draft, figure, 1.0, "complete")
        return study.trials

    found = []
    for number, section in enumerate(before_and_after(TUNE_BASE, setting, TUNE[setting], {})):
        (tmp_path / str(number)).mkdir()
        found.append(performed(section, tmp_path / str(number)))
    assert found[0] != found[1]


def compared(bench, stage, setting, case):
    """As `Bench.compare`; a case within a student's own distillation finds that section there."""
    if not setting.startswith("student.distillation."):
        return bench.compare(stage, setting, case)
    base = copy.deepcopy(BASE[stage])
    base["student"]["distillation"] = copy.deepcopy(DISTILLATION)
    before, after = before_and_after(base, setting, case, MODELS)
    assert before != after, "the case must set another value"
    return bench.run(stage, before, case.inputs)[0], bench.run(stage, after, case.inputs, case.refused)[0]


def put(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, value)


def write_params(root, **sections):
    shipped = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())
    put(root / "params.yaml", {**shipped, **sections})
