import os
import tempfile
import warnings

import pandas as pd
import pytest

from stillhouse.data.expectations import Expectation, Outcome, run_suite

ROWS = pd.DataFrame({"fine": [True, False, True], "stars": [1.0, None, 9.0]})
IN_SET = "ExpectColumnValuesToBeInSet"


def test_an_outcome_counts_unexpected_rows_or_gives_what_was_observed(tmp_path):
    suite = [
        Expectation("fine", IN_SET, {"column": "fine", "value_set": [True]}, "all fine"),
        Expectation("stars", "ExpectColumnValuesToBeBetween", {"column": "stars", "max_value": 5}, "few stars"),
        Expectation("sum", "ExpectColumnSumToBeBetween", {"column": "fine", "min_value": 2}, "two fine"),
    ]
    assert run_suite(ROWS, suite, tmp_path / "docs") == {
        "fine": Outcome(success=False, value=1),
        "stars": Outcome(success=False, value=1),
        "sum": Outcome(success=True, value=2),
    }
    assert (tmp_path / "docs" / "index.html").is_file()


def test_an_expectation_that_cannot_be_evaluated_is_a_defect_not_bad_data(tmp_path):
    suite = [Expectation("ghost", IN_SET, {"column": "ghost", "value_set": [True]}, "no such column")]
    with pytest.raises(RuntimeError, match="could not evaluate 'ghost'"):
        run_suite(ROWS, suite, tmp_path / "docs")


def test_a_run_says_nothing_reports_nothing_and_leaves_nothing_behind(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    suite = [Expectation("fine", IN_SET, {"column": "fine", "value_set": [True]}, "all fine")]
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        run_suite(ROWS, suite, tmp_path / "docs")
    assert not heard
    assert capfd.readouterr() == ("", "")
    assert os.environ["GX_ANALYTICS_ENABLED"] == "false"
    assert not list((tmp_path / "temporary").iterdir())


def test_no_value_is_looked_at_for_a_fingerprint_or_for_decimals(tmp_path, monkeypatch):
    from great_expectations.execution_engine import pandas_execution_engine as engine
    from great_expectations.expectations.metrics.column_aggregate_metrics import column_sum

    def looked(*_, **__):
        raise AssertionError("every value was looked at once more")

    monkeypatch.setattr(engine, "hash_pandas_dataframe", looked)
    monkeypatch.setattr(column_sum, "convert_pandas_series_decimal_to_float_dtype", looked)
    threshold = engine.HASH_THRESHOLD
    suite = [Expectation("sum", "ExpectColumnSumToBeBetween", {"column": "fine", "min_value": 2}, "two fine")]
    assert run_suite(ROWS, suite, tmp_path / "docs")["sum"] == Outcome(success=True, value=2)
    assert threshold > 0
    assert (threshold, looked) == (
        engine.HASH_THRESHOLD,
        column_sum.convert_pandas_series_decimal_to_float_dtype,
    ), "put back after the run"
