import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from stillhouse.data.files import write_json
from stillhouse.errors import DataError
from tasks import events
from tasks.events import tell_of_decision, tell_of_quarantine, telling_why_stopped


@pytest.fixture
def emitted(monkeypatch):
    """What would go to a server: (event, resource, title, body)."""
    sent = []
    monkeypatch.setattr(
        events, "emit", lambda event, _root, resource, title, body: sent.append((event, resource, title, body)) or True
    )
    return sent


def verdict(student, reason):
    return SimpleNamespace(student=student, reason=reason)


def test_a_night_without_a_winner_is_told_once_with_every_students_reason(emitted, tmp_path):
    refused = SimpleNamespace(
        chosen=None, champion=None, verdicts=[verdict("gru", "lost 3 %"), verdict("t", "lost 4 %")]
    )
    assert tell_of_decision(tmp_path, "2026-03-03", refused)
    ((event, resource, title, body),) = emitted
    assert (event, resource) == ("stillhouse.night.refused", "night.2026-03-03")
    assert title == "Night 2026-03-03: the gate refused every student (2 of 2)"
    assert body.splitlines()[:2] == ["t: lost 4 %", "gru: lost 3 %"]


def test_a_night_with_a_winner_is_not_told(emitted, tmp_path):
    passed = SimpleNamespace(chosen="gru", champion=1, verdicts=[verdict("gru", "passed")])
    assert not tell_of_decision(tmp_path, "2026-03-03", passed)
    assert not emitted


@pytest.mark.parametrize(("limit", "told"), [(0.01, True), (0.02, False), (0, False), (None, False)])
def test_quarantine_is_told_above_its_limit_with_the_commonest_reason_first(emitted, tmp_path, limit, told):
    params = yaml.safe_load((Path(__file__).parents[3] / "params.yaml").read_text())
    params["alerts"]["max_quarantined"] = limit
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    (tmp_path / "reports").mkdir()
    counts = {"rating is NaN": 1, "user_id missing": 4}
    verdict = {"snapshot_rows": 250, "quarantined_rows": 5, "reasons": counts}
    write_json(tmp_path / "reports" / "verdict.json", verdict)
    assert tell_of_quarantine(tmp_path, "2026-03-03") == told
    assert bool(emitted) == told
    if told:
        assert emitted[0][2] == "Night 2026-03-03: 2.0% of the rows are in quarantine"
        assert emitted[0][3].splitlines()[1:3] == ["4 rows: user_id missing", "1 rows: rating is NaN"]


def test_a_known_error_is_told_with_its_line_and_goes_on(emitted, tmp_path):
    with pytest.raises(DataError), telling_why_stopped(tmp_path, "2026-03-03"):
        raise DataError("rows must be whole, found 3")
    ((event, _, title, body),) = emitted
    assert (event, title) == ("stillhouse.night.stopped", "Night 2026-03-03 stopped: DataError")
    assert body.splitlines()[0] == "rows must be whole, found 3"


def test_a_defect_and_a_night_within_another_flow_are_not_told(emitted, tmp_path, monkeypatch):
    with pytest.raises(ZeroDivisionError), telling_why_stopped(tmp_path, "2026-03-03"):
        raise ZeroDivisionError
    above = SimpleNamespace(flow_run=SimpleNamespace(parent_task_run_id="some"))
    monkeypatch.setattr(events.FlowRunContext, "get", lambda: above)
    with pytest.raises(DataError), telling_why_stopped(tmp_path, "2026-03-03"):
        raise DataError("the flow above fails, and that is the alert")
    assert not emitted


def test_without_a_server_nothing_is_sent_and_none_is_started(tmp_path):
    code = (
        "import sys; from pathlib import Path; from tasks.events import tell_missed; "
        "assert tell_missed(Path.cwd(), ['x']) is False; "
        "assert 'prefect.server.api.server' not in sys.modules"
    )
    root = Path(__file__).parents[3]
    environment = {"PREFECT_HOME": str(tmp_path), "PYTHONPATH": f"{root / 'src'}:{root}", "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
