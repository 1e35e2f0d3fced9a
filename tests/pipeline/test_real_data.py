"""Nights on real data, through the same commands: only the source and params differ."""

import json
import math

import pandas as pd
import pytest
import yaml
from shared_data import shared
from workspaces import TINY, make_workspace

pytestmark = [pytest.mark.slow, pytest.mark.shared]

TRAINING = {
    "train_teacher.model": {"kind": "transformer", "width": 32, "blocks": 1, "heads": 1, "length": 30, "dropout": 0.2},
    "train_teacher.training.epochs": 4,
    "train_teacher.training.warm_epochs": 1,
    "train_student.training.epochs": 3,
    "train_student.training.warm_epochs": 1,
    "students": {"gru": {"model": {"kind": "gru", "width": 16, "blocks": 1, "length": 20, "dropout": 0.1}}},
    "prepare.min_user_events": 5,
    "prepare.min_item_events": 5,
    "validate.min_rows": 10_000,
    "validate.min_users": 500,
    "validate.min_items": 500,
    "gate.margin": 0.5,
}


def night(root, values, *arguments):
    workspace = make_workspace(root, {**TINY, **TRAINING, **values})
    return workspace, workspace.run("run", *arguments)


def metrics(workspace, name):
    return json.loads((workspace.root / "metrics" / f"{name}.json").read_text())


def ndcg(workspace, name="evaluate/gru"):
    return metrics(workspace, name)["leave_one_out"]["ndcg_at_10"]


def by_chance(workspace):
    """NDCG@10 of a random order of all items."""
    items = len(pd.read_parquet(workspace.root / "data" / "vocabulary" / "items.parquet"))
    return sum(1 / math.log2(place + 1) for place in range(1, 11)) / items


@pytest.mark.drill
def test_a_night_on_movielens_100k_with_timestamps_titles_and_genres(tmp_path):
    data = shared("ml-100k")
    workspace, done = night(
        tmp_path / "ws",
        {
            "source.kind": "file",
            "source.path": str(data / "interactions.csv"),
            "source.items_path": str(data / "items.csv"),
            "source.columns": {
                "user": "user_id",
                "item": "item_id",
                "timestamp": "timestamp",
                "position": None,
                "rating": "rating",
                "event": None,
            },
            "source.item_columns": {
                "item": "item_id",
                "title": "title",
                "text": None,
                "category": "genres",
                "separator": "|",
            },
        },
        "--as-of",
        "1998-04-23",
    )
    assert "promoted" in done.out
    assert metrics(workspace, "ingest")["rows"] == 100_000
    assert metrics(workspace, "evaluate/gru")["time_window"]["users"] > 20
    assert ndcg(workspace, "check_teacher") > 5 * by_chance(workspace)
    titles = pd.read_parquet(workspace.root / "data" / "vocabulary" / "items.parquet")
    assert titles.set_index("item_id").loc["1", "title"] == "Toy Story"
    answer = json.loads(workspace.run("recommend", "--user", "196", "-k", "5", "--json").out)
    assert answer["kind"] == "personal"
    assert all(row["title"] and row["category"] for row in answer["items"])


@pytest.mark.drill
def test_a_night_on_a_thousand_users_of_movielens_1m_ordered_by_position(tmp_path):
    data = shared("ml-1m")
    rows = pd.read_parquet(data / "interactions.parquet")
    users = rows["user_id"].drop_duplicates().iloc[:1000]
    rows[rows["user_id"].isin(users)].to_parquet(tmp_path / "cut.parquet")
    workspace, done = night(
        tmp_path / "ws",
        {
            "source.kind": "file",
            "source.path": str(tmp_path / "cut.parquet"),
            "source.items_path": str(data / "items.parquet"),
            "source.columns": {
                "user": "user_id",
                "item": "item_id",
                "timestamp": None,
                "position": "position",
                "rating": None,
                "event": None,
            },
            "source.item_columns": {
                "item": "item_id",
                "title": "title",
                "text": None,
                "category": "genres",
                "separator": "|",
            },
        },
        "--as-of",
        "2026-03-01",
    )
    assert "promoted" in done.out
    assert metrics(workspace, "evaluate/gru")["time_window"] is None
    assert metrics(workspace, "evaluate/gru")["leave_one_out"]["users"] == 1000
    assert ndcg(workspace, "check_teacher") > 5 * by_chance(workspace)


@pytest.mark.drill
def test_three_nights_on_yelp_a_block_a_night_warm_start_each_other(tmp_path):
    data = shared("yelp-blocks")
    workspace, _ = night(
        tmp_path / "ws",
        {
            "source.kind": "file",
            "source.path": str(data / "interactions.parquet"),
            "source.items_path": None,
            "source.columns": {
                "user": "user_id",
                "item": "item_id",
                "timestamp": "timestamp",
                "position": None,
                "rating": None,
                "event": None,
            },
            "source.later_rows": "leave",
            "prepare.window_days": 2,
            "train_teacher.model": {**TRAINING["train_teacher.model"], "width": 16, "length": 15},
            "train_teacher.training.epochs": 2,
            "train_student.training.epochs": 2,
            "export_soft_targets.k": 20,
        },
        "--as-of",
        "2024-01-01",
    )
    rows = [metrics(workspace, "ingest")["rows"]]
    for day in ("2024-01-02", "2024-01-03"):
        done = workspace.run("run", "--as-of", day)
        rows.append(metrics(workspace, "ingest")["rows"])
        assert yaml.safe_load((workspace.root / "night.yaml").read_text())["cold"] is False
        for model in ("models/teacher", "models/students/gru"):
            assert json.loads((workspace.root / model / "model.json").read_text())["warm"] is True
        assert metrics(workspace, "evaluate_champion")["time_window"]["users"] > 1000
        assert "promoted" in done.out or "refused" in done.out
    assert rows == [146_505, 146_505 + 46_207, 146_505 + 46_207 + 28_118]
    assert [tag for tag in workspace.tags() if tag.endswith("closed")] == [
        f"night/2024-01-0{n}/closed" for n in (1, 2, 3)
    ]
