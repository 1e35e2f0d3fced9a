"""The command line as a program."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from stillhouse.cli import main

BIN = Path(sys.executable).parent / "stillhouse"


def stillhouse(*arguments, cwd):
    return subprocess.run([str(BIN), *arguments], cwd=cwd, capture_output=True, text=True)


def test_help_names_every_command(tmp_path):
    shown = stillhouse("--help", cwd=tmp_path).stdout
    commands = ("run", "status", "stage", "recommend", "tune", "promote", "rollback", "approve", "reject")
    for command in (*commands, "history", "compare", "audit", "reproduce", "backfill", "deploy", "gc", "stack"):
        assert f"  {command} " in shown


def test_a_folder_that_is_no_workspace_is_one_line_and_exit_code_2(tmp_path):
    done = stillhouse("run", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "params.yaml must exist" in done.stderr


def test_flows_are_deployed_to_a_server_that_is_named_and_to_no_other(tmp_path):
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_bytes((Path(__file__).parents[3] / name).read_bytes())
    done = stillhouse("deploy", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "stillhouse: flows must be deployed to a server, found none in PREFECT_API_URL: "
        ". .stillhouse/stack/env, or set it\n"
    )


def test_a_misspelt_option_is_one_message_and_exit_code_2(tmp_path):
    done = stillhouse("run", "--forse", cwd=tmp_path)
    assert done.returncode == 2
    assert "--force" in done.stderr


def test_a_path_without_its_argument_is_refused(tmp_path):
    done = stillhouse("stage", "admit", "verdict", cwd=tmp_path)
    assert done.returncode == 2
    assert "argument=path" in done.stderr


def test_whoever_promotes_says_why(tmp_path):
    done = stillhouse("promote", "2", cwd=tmp_path)
    assert done.returncode == 2
    assert "--reason" in done.stderr


def test_an_age_that_a_monitor_left_empty_is_refused_and_not_taken_for_none(tmp_path):
    done = stillhouse("status", "--max-age", "", cwd=tmp_path)
    assert done.returncode == 2
    assert "--max-age" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_full_disk_is_one_line_and_a_defect_keeps_its_traceback(monkeypatch, capsys):
    def raises(error):
        def command(**_):
            raise error

        monkeypatch.setattr(main.cli, "main", command)

    raises(OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    raises(KeyError("a defect"))
    with pytest.raises(KeyError):
        main.main()
