"""The gate: what passes, what fails, what cannot be decided."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from stillhouse.evaluate import against, gate
from stillhouse.evaluate.against import Ground
from stillhouse.evaluate.gate import Candidate, Rivals, Verdict, choose
from stillhouse.evaluate.ranks import RankRows, Ranks
from stillhouse.params.gate import GateParams, SlicesParams

PARAMS = GateParams(
    choose="best_ndcg",
    against_champion="non_inferiority",
    margin=0.02,
    reference="first",
    reference_margin=0.05,
    slices=SlicesParams(margin=0.1, min_users=20, categories=True),
    max_quarantined=0.05,
    confidence=0.95,
    resamples=500,
    min_users=20,
    min_ndcg_at_10=0.05,
    min_over_popularity=1.5,
    max_bytes=1000,
    max_p99_ms=5.0,
    seed=1,
)
N_ITEMS = 100


def ranks(window: np.ndarray | list[int], leave_one_out: np.ndarray | list[int] = ()) -> Ranks:
    def rows(values: np.ndarray | list[int]) -> RankRows:
        n = len(values)
        return RankRows(np.arange(n), np.ones(n, np.int64), np.asarray(values, dtype=np.int64))

    return Ranks({"leave_one_out": rows(leave_one_out), "time_window": rows(window)}, N_ITEMS)


def candidate(name: str = "gru", **changes: object) -> Candidate:
    one = Candidate(
        name,
        metrics={
            "leave_one_out": {"ndcg_at_10": 0.2, "users": 100},
            "time_window": {"ndcg_at_10": 0.1},
            "popularity": {"leave_one_out": {"ndcg_at_10": 0.1}},
            "bytes": 800,
        },
        timings={"p50_ms": 0.5, "p99_ms": 2.0},
        package={"parity": 1e-6, "parity_limit": 1e-4},
        ranks=ranks([3] * 50, [3] * 50),
        data={"passed": True, "checks": [], "snapshot_rows": 100, "quarantined_rows": 2},
        gaps=[],
    )
    return dataclasses.replace(one, **changes)


def judge(student, champion, params, *, order, reference=None, masks=None) -> Verdict:
    ground = Ground.of(order, {"time_window": masks or {}})
    return gate.judge(student, Rivals(champion, reference), ground, params)


def with_metrics(**changes: object) -> Candidate:
    return candidate(metrics={**candidate().metrics, **changes})


def rule(verdict: Verdict, name: str):
    return next(one for one in verdict.rules if one.name == name)


def failed(verdict: Verdict) -> list[str]:
    return [one.name for one in verdict.rules if not one.passed]


def test_a_good_student_passes_where_there_is_no_champion_yet() -> None:
    verdict = judge(candidate(), None, PARAMS, order="timestamp")
    assert verdict.passed
    assert verdict.reason == "every rule passed"
    assert "no champion yet" in rule(verdict, "non_inferiority").text


def test_every_rule_prints_value_and_limit() -> None:
    texts = {one.name: one.text for one in judge(candidate(), ranks([4] * 50), PARAMS, order="timestamp").rules}
    assert texts == {
        "finite": "every figure is a finite number (5 looked at)",
        "ndcg_floor": "NDCG@10 (leave-one-out) is 0.2, at least 0.05 asked",
        "over_popularity": "NDCG@10 (leave-one-out) is 2 times popularity's 0.1000, at least 1.5 times asked",
        "bytes": "bytes of the model is 800, at most 1,000 asked",
        "latency": "p99 latency of one request in ms is 2, at most 5 asked",
        "parity": "largest difference from the checkpoint is 1e-06, at most 0.0001 asked",
        "data": "share of the night's rows in quarantine is 0.02, at most 0.05 asked",
        "lineage": "the record names all that the student came from",
        "reference": "no reference: there is nothing to have drifted from",
        "slices": "no slice is shown to have regressed (0 looked at, 0 too small)",
        "non_inferiority": (
            "NDCG@10 on tonight's time window: 0.5000 against the champion's 0.4307 over 50 users; "
            "the difference is above +0.0693 with confidence 0.95, at least -0.0086 asked"
        ),
    }


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        (
            with_metrics(leave_one_out={"ndcg_at_10": 0.04}, popularity={"leave_one_out": {"ndcg_at_10": 0}}),
            "ndcg_floor",
        ),
        (with_metrics(leave_one_out={"ndcg_at_10": 0.149}), "over_popularity"),
        (with_metrics(bytes=1001), "bytes"),
        (candidate(timings={"p50_ms": 1, "p99_ms": 5.01}), "latency"),
        (candidate(timings={"p50_ms": 1, "p99_ms": math.nan}), "latency"),
        (candidate(package={"parity": 2e-4, "parity_limit": 1e-4}), "parity"),
        (with_metrics(time_window={"ndcg_at_10": math.nan}), "finite"),
        (with_metrics(leave_one_out={"ndcg_at_10": 0.2, "mrr": math.inf}), "finite"),
    ],
)
def test_one_broken_rule_stops_a_student(changed: Candidate, name: str) -> None:
    verdict = judge(changed, None, PARAMS, order="timestamp")
    assert failed(verdict) == [name]
    assert not verdict.passed
    assert not verdict.inconclusive
    assert verdict.reason == rule(verdict, name).text


def test_a_value_at_its_limit_passes() -> None:
    edge = candidate(
        metrics={
            **candidate().metrics,
            "bytes": 1000,
            "leave_one_out": {"ndcg_at_10": 0.1875},
            "popularity": {"leave_one_out": {"ndcg_at_10": 0.125}},
        },
        timings={"p50_ms": 1, "p99_ms": 5.0},
    )
    assert judge(edge, None, PARAMS, order="timestamp").passed


def test_popularity_of_zero_is_beaten_by_anything() -> None:
    one = with_metrics(popularity={"leave_one_out": {"ndcg_at_10": 0.0}})
    assert rule(judge(one, None, PARAMS, order="timestamp"), "over_popularity").passed


def test_what_could_not_be_measured_is_inconclusive_and_no_pass() -> None:
    verdict = judge(candidate(timings={"p50_ms": None, "p99_ms": None}), None, PARAMS, order="timestamp")
    assert not verdict.passed
    assert verdict.inconclusive
    none = with_metrics(leave_one_out=None, popularity={"leave_one_out": None})
    assert failed(judge(none, None, PARAMS, order="timestamp")) == ["ndcg_floor", "over_popularity"]


def test_a_student_as_good_as_the_champion_passes() -> None:
    same = np.arange(60) % 12 + 1
    assert judge(candidate(ranks=ranks(same)), ranks(same), PARAMS, order="timestamp").passed


def test_a_loss_within_the_margin_passes_and_one_beyond_it_does_not() -> None:
    champion = np.full(400, 3)
    small, large = champion.copy(), champion.copy()
    small[:4], large[:40] = 4, 4
    assert judge(candidate(ranks=ranks(small)), ranks(champion), PARAMS, order="timestamp").passed
    strict = PARAMS.model_copy(update={"margin": 0.001})
    verdict = judge(candidate(ranks=ranks(large)), ranks(champion), strict, order="timestamp")
    assert failed(verdict) == ["non_inferiority"]


def test_a_noisy_student_fails_though_its_mean_is_higher() -> None:
    generator = np.random.default_rng(4)
    champion = generator.permutation(np.tile([1, 60], 20))
    student = generator.permutation(np.concatenate([champion[:-1], [1]]))
    one = rule(judge(candidate(ranks=ranks(student)), ranks(champion), PARAMS, order="timestamp"), "non_inferiority")
    assert one.value is not None
    assert one.value < one.limit
    assert not one.passed
    assert not one.inconclusive


def test_superiority_asks_for_a_student_that_is_shown_to_be_better() -> None:
    strict = PARAMS.model_copy(update={"against_champion": "superiority"})
    champion = np.full(400, 3)
    better = champion.copy()
    better[:40] = 1
    assert judge(candidate(ranks=ranks(better)), ranks(champion), strict, order="timestamp").passed
    same = judge(candidate(ranks=ranks(champion)), ranks(champion), strict, order="timestamp")
    assert failed(same) == ["superiority"]
    assert "more than 0 asked" in same.reason


def test_small_losses_do_not_add_up_beyond_the_reference() -> None:
    reference, champion, student = (np.full(400, 3) for _ in range(3))
    champion[:60], student[:64] = 4, 4  # 1 % below the champion before each time, until the sum is too much
    strict = PARAMS.model_copy(update={"reference_margin": 0.02})
    given = {"order": "timestamp", "reference": ranks(reference)}
    assert judge(candidate(ranks=ranks(student)), ranks(champion), PARAMS, **given).passed
    verdict = judge(candidate(ranks=ranks(student)), ranks(champion), strict, **given)
    assert failed(verdict) == ["reference"]
    assert "the reference's 0.5000 over 400 users" in verdict.reason


def test_a_slice_that_is_shown_to_regress_stops_the_student_and_a_small_one_does_not() -> None:
    champion = np.full(400, 3)
    student = np.full(400, 2)
    student[:30] = 9
    masks = {"tail": np.arange(400) < 30, "head": np.arange(400) >= 30, "new_users": np.arange(400) < 10}
    verdict = judge(candidate(ranks=ranks(student)), ranks(champion), PARAMS, order="timestamp", masks=masks)
    assert failed(verdict) == ["slices"]
    assert "tail (0.5000 to 0.3010 over 30 users" in verdict.reason
    assert "new_users" not in verdict.reason
    few = {"new_users": masks["new_users"]}
    passed = judge(candidate(ranks=ranks(student)), ranks(champion), PARAMS, order="timestamp", masks=few)
    assert "(0 looked at, 1 too small)" in rule(passed, "slices").text
    assert passed.passed


def test_a_reason_names_the_worst_slices_shortly_and_counts_the_others() -> None:
    champion, student = np.full(800, 3), np.full(800, 2)
    student[:400] = 9
    masks = {f"category {place} {'x' * 500}\n# {place}": np.arange(800) % 8 == place for place in range(8)}
    student[np.arange(800) % 8 == 6] = 60
    bad = {name: mask & (np.arange(800) < 400) for name, mask in masks.items()}
    verdict = judge(candidate(ranks=ranks(student)), ranks(champion), PARAMS, order="timestamp", masks=bad)
    text = rule(verdict, "slices").text
    assert text.endswith("; and 3 more")
    assert "found category 6 xxx" in text, "the worst stands first"
    assert "\n" not in text
    assert len(text) < 1_200


def test_draws_are_spared_for_slices_that_did_not_regress(monkeypatch: pytest.MonkeyPatch) -> None:
    champion, student = np.full(400, 3), np.full(400, 2)
    student[:30] = 9
    masks = {f"category {place}": np.arange(400) // 40 == place for place in range(10)}
    drawn, plain = [], against.lower_bound
    monkeypatch.setattr(against, "lower_bound", lambda *given: drawn.append(len(given[0])) or plain(*given))
    judge(candidate(ranks=ranks(student)), ranks(champion), PARAMS, order="timestamp", masks=masks)
    assert drawn.count(40) == 1


def test_a_noisy_slice_is_not_shown_to_regress() -> None:
    generator = np.random.default_rng(4)
    champion, student = (generator.permutation(np.tile([1, 60], 20)) for _ in range(2))
    masks = {"tail": np.ones(40, dtype=bool)}
    verdict = judge(candidate(ranks=ranks(student)), ranks(champion), PARAMS, order="timestamp", masks=masks)
    assert rule(verdict, "slices").passed
    assert not rule(verdict, "non_inferiority").passed


def test_a_night_of_bad_data_promotes_nobody() -> None:
    table = {"level": "table", "passed": False, "text": "too few rows"}
    bad = {"passed": False, "checks": [table], "snapshot_rows": 9, "quarantined_rows": 0}
    verdict = judge(candidate(data=bad), None, PARAMS, order="timestamp")
    assert failed(verdict) == ["data"]
    assert "too few rows" in verdict.reason
    dirty = candidate().data | {"quarantined_rows": 6}
    assert failed(judge(candidate(data=dirty), None, PARAMS, order="timestamp")) == ["data"]


def test_a_record_with_gaps_promotes_nobody() -> None:
    verdict = judge(candidate(gaps=["soft_targets"]), None, PARAMS, order="timestamp")
    assert failed(verdict) == ["lineage"]
    assert "it lacks soft_targets" in verdict.reason


def test_too_few_users_are_inconclusive_however_good_the_student_is() -> None:
    verdict = judge(candidate(ranks=ranks([1] * 19)), ranks([90] * 19), PARAMS, order="timestamp")
    assert verdict.inconclusive
    assert not verdict.passed
    assert "inconclusive against the champion: 19 users on tonight's time window, at least 20 asked" in verdict.reason


def test_a_champion_and_no_window_is_inconclusive() -> None:
    verdict = judge(candidate(ranks=ranks([])), ranks([]), PARAMS, order="timestamp")
    assert verdict.inconclusive
    assert "0 users" in verdict.reason


def test_positions_are_compared_on_leave_one_out_and_the_rule_says_so() -> None:
    worse = judge(candidate(ranks=ranks([], [9] * 40)), ranks([], [1] * 40), PARAMS, order="position")
    assert failed(worse) == ["non_inferiority"]
    assert "leave-one-out (positions allow no time window)" in worse.reason
    assert judge(candidate(ranks=ranks([], [1] * 40)), ranks([], [9] * 40), PARAMS, order="position").passed


def test_users_with_many_targets_count_once() -> None:
    def many(first: int) -> Ranks:
        users = np.concatenate([np.zeros(500, np.int64), np.arange(1, 41)])
        values = np.concatenate([np.full(500, first), np.full(40, 2)])
        rows = RankRows(users, np.arange(540), values)
        return Ranks({"leave_one_out": rows, "time_window": rows}, N_ITEMS)

    lenient = PARAMS.model_copy(update={"margin": 0.2})
    assert judge(candidate(ranks=many(90)), many(1), lenient, order="timestamp").passed


def test_a_verdict_is_plain_data() -> None:
    plain = judge(candidate(), ranks([3] * 50), PARAMS, order="timestamp").as_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == json.loads(json.dumps(plain))
    assert plain["passed"] is True
    assert plain["rules"][0]["name"] == "finite"


def test_a_verdict_on_numbers_that_are_not_finite_can_still_be_written_as_json() -> None:
    plain = judge(candidate(timings={"p50_ms": 1, "p99_ms": math.nan}), None, PARAMS, order="timestamp").as_dict()
    json.dumps(plain, allow_nan=False)


def test_the_same_numbers_give_the_same_verdict() -> None:
    champion = ranks(np.random.default_rng(0).integers(1, 101, 300))
    one, other = (judge(candidate(ranks=champion), champion, PARAMS, order="timestamp") for _ in range(2))
    assert one == other


def test_the_choice_is_among_those_that_pass() -> None:
    best = candidate("best", metrics={**candidate().metrics, "time_window": {"ndcg_at_10": 0.9}, "bytes": 5000})
    good = candidate("good", metrics={**candidate().metrics, "time_window": {"ndcg_at_10": 0.5}, "bytes": 900})
    small = candidate("small", timings={"p50_ms": 0.9, "p99_ms": 1.0})
    candidates = [best, good, small]
    verdicts = [judge(one, None, PARAMS, order="timestamp") for one in candidates]
    assert choose(verdicts, candidates, "best_ndcg") == "good"
    assert choose(verdicts, candidates, "smallest") == "small"
    assert choose(verdicts, candidates, "fastest") == "good"


def test_the_choice_looks_at_leave_one_out_where_one_of_them_has_no_window() -> None:
    one = candidate("one", metrics={**candidate().metrics, "time_window": None})
    two = candidate("two", metrics={**candidate().metrics, "leave_one_out": {"ndcg_at_10": 0.3}})
    verdicts = [judge(each, None, PARAMS, order="position") for each in (one, two)]
    assert choose(verdicts, [one, two], "best_ndcg") == "two"


def test_equal_students_are_told_apart_by_size_and_then_by_name() -> None:
    metrics = candidate().metrics
    b, a = candidate("b"), candidate("a")
    tiny = candidate("z", metrics={**metrics, "bytes": 10})
    verdicts = [judge(each, None, PARAMS, order="timestamp") for each in (b, a, tiny)]
    assert choose(verdicts[:2], [b, a], "best_ndcg") == "a"
    assert choose(verdicts, [b, a, tiny], "best_ndcg") == "z"


def test_nobody_is_chosen_where_nobody_passes() -> None:
    one = with_metrics(bytes=9999)
    assert choose([judge(one, None, PARAMS, order="timestamp")], [one], "best_ndcg") is None
