"""What a stack is told, what it writes down and what it leaves to nobody's eyes; nothing is started here."""

import configparser
import hashlib
import io
import json
import os
import pwd
import shlex
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import psutil
import pytest

from stillhouse.errors import StackError
from tasks.stack_layout import Layout, alone, layout_of, write_private
from tasks.stack_leftovers import end_leftovers
from tasks.stack_programs import Program, config_text, inherited, programs_of, script_text
from tasks.stack_restore import finish_restore, restore
from tasks.stack_settings import Settings, keep, read_env, require_free_ports, settings_for
from tasks.stack_tables import plain


@pytest.fixture
def layout(tmp_path):
    found = layout_of(tmp_path)
    found.prepare()
    yield found
    found.remove_sockets()


def test_secrets_are_made_once_and_read_back(layout):
    first = settings_for(layout, {})
    keep(layout, first)
    assert settings_for(layout, {}).kept == first.kept
    assert read_env(layout.client.read_text()) == first.client()
    assert layout.client.stat().st_mode & 0o777 == layout.secrets.stat().st_mode & 0o777 == 0o600


def test_a_shell_reads_the_env_file_as_we_do(layout):
    odd = "a b'c\"d$e`f\\g#h"
    keep(layout, settings_for(layout, {"STILLHOUSE_ALERT_URLS": odd}))
    code = f'. {shlex.quote(str(layout.secrets))}; printf %s "$STILLHOUSE_ALERT_URLS"'
    assert subprocess.run(["/bin/sh", "-c", code], capture_output=True, text=True, check=True).stdout == odd
    assert settings_for(layout, {}).alerts == {"STILLHOUSE_ALERT_URLS": odd}


def test_what_was_said_once_stays_until_it_is_taken_back(layout):
    keep(layout, settings_for(layout, {"STILLHOUSE_MLFLOW_PORT": "5055", "STILLHOUSE_ALERT_URLS": "json://x"}))
    kept = settings_for(layout, {})
    assert (kept.mlflow_port, kept.prefect_port) == (5055, 4200)
    taken_back = settings_for(layout, {"STILLHOUSE_MLFLOW_PORT": "", "STILLHOUSE_ALERT_URLS": ""})
    assert (taken_back.mlflow_port, taken_back.alerts) == (5000, {})


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"STILLHOUSE_MLFLOW_PORT": "x"}, "STILLHOUSE_MLFLOW_PORT must be a port from 1 to 65535, got 'x'"),
        ({"STILLHOUSE_PREFECT_PORT": "70000"}, "got '70000'"),
        ({"STILLHOUSE_PREFECT_PORT": "5000"}, "must differ, got 5000 twice"),
        ({"STILLHOUSE_PGHOST": "db"}, "STILLHOUSE_PGHOST must come with STILLHOUSE_PGUSER and STILLHOUSE_PGPASSWORD"),
    ],
)
def test_an_impossible_setting_is_one_line(layout, said, line):
    with pytest.raises(StackError, match=line):
        settings_for(layout, said)


def test_a_port_in_use_is_named_with_its_variable(layout):
    with socket.socket() as taken, socket.socket() as free:
        for one in (taken, free):
            one.bind(("127.0.0.1", 0))
        taken.listen()
        port, other = taken.getsockname()[1], free.getsockname()[1]
        free.close()  # the default may be a stack's that runs here
        said = {"STILLHOUSE_PREFECT_PORT": str(port), "STILLHOUSE_MLFLOW_PORT": str(other)}
        with pytest.raises(StackError, match=f"port {port} of 127.0.0.1 must be free.*STILLHOUSE_PREFECT_PORT"):
            require_free_ports(settings_for(layout, said))


def test_a_postgres_of_ones_own_takes_the_place_of_ours(layout):
    own = {"STILLHOUSE_PGHOST": "db", "STILLHOUSE_PGUSER": "u", "STILLHOUSE_PGPASSWORD": "p"}
    settings = settings_for(layout, own)
    assert not settings.runs_postgres
    expected = {"PGHOST": "db", "PGUSER": "u", "PGPASSWORD": "p", "PGDATABASE": "mlflow"}
    assert settings.database(layout, "mlflow") == expected
    names = [one.name for one in programs_of(layout, settings, None, None)]
    assert names == ["mlflow", "prefect", "night", "cpu", "gpu"]


def test_the_supervisor_takes_the_configuration_even_with_odd_signs_in_the_path(tmp_path):
    from supervisor.options import ServerOptions

    root = tmp_path / "a b'c"
    root.mkdir()
    layout = layout_of(root)
    layout.prepare()
    me = pwd.getpwuid(os.geteuid()).pw_name
    found = programs_of(layout, settings_for(layout, {}), root / "bin" / "postgres", me)
    layout.config.write_text(config_text(layout, found))
    options = ServerOptions()
    options.realize(["-c", str(layout.config)])
    read = {one.name: one for group in options.process_group_configs for one in group.process_configs}
    assert sorted(read) == ["cpu", "gpu", "mlflow", "night", "postgres", "prefect"]
    assert shlex.split(read["night"].command) == ["/bin/sh", str(layout.programs / "night.sh")]
    started = shlex.split(read["postgres"].command)
    assert started[:2] == ["/usr/bin/env", "-i"]
    assert f"STILLHOUSE_STACK={layout.stack}" in started
    assert started[started.index("-D") + 1] == str(layout.database)
    assert started[-2:] == ["-c", "listen_addresses="]
    order = [group.name for group in sorted(options.process_group_configs)]
    assert order == ["database", "servers", "workers"], "stopped from the last to the first"
    layout.remove_sockets()


def test_no_secret_stands_in_the_configuration_and_only_workers_know_the_alerts(layout):
    settings = settings_for(layout, {"STILLHOUSE_ALERT_URLS": "json://secret"})
    found = programs_of(layout, settings, layout.root / "postgres", "somebody")
    text = config_text(layout, found)
    assert not [value for name, value in settings.kept.items() if not name.endswith("PORT") and value in text]
    parser = configparser.RawConfigParser()
    parser.read_string(text)
    assert parser["program:postgres"]["user"] == "somebody"
    assert parser["program:postgres"]["stopsignal"] == "INT"
    assert {one.name for one in found if "json://secret" in script_text(one)} == {"night", "cpu", "gpu"}


def test_a_script_tells_its_program_odd_values_unchanged(tmp_path):
    odd = {"ONE": "a b'c\"d$e`f\\g", "TWO": "x\ny"}
    code = "import os, json; print(json.dumps([os.environ['ONE'], os.environ['TWO'], os.getcwd(), os.umask(0)]))"
    program = Program("p", "workers", [sys.executable, "-c", code], tmp_path, odd, umask=0o027)
    done = subprocess.run(["/bin/sh"], input=script_text(program), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [odd["ONE"], odd["TWO"], str(tmp_path), 0o027]


def test_the_callers_other_servers_are_not_inherited(layout):
    told = {"PREFECT_API_URL": "x", "MLFLOW_TRACKING_URI": "x", "PGPASSWORD": "x", "STILLHOUSE_PGPASSWORD": "x"}
    kept = {"AWS_SECRET_ACCESS_KEY": "x", "STILLHOUSE_SIGNING_KEY": "x"}
    assert inherited({**told, **kept}, layout) == {**kept, "STILLHOUSE_STACK": str(layout.stack)}


def test_sockets_get_a_short_place_of_this_users_alone(tmp_path):
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    layout = layout_of(deep)
    layout.prepare()
    assert len(str(layout.control)) < 80
    assert layout.sockets.stat().st_uid == os.geteuid()
    assert not layout.sockets.stat().st_mode & 0o066
    layout.remove_sockets()
    assert not layout.sockets.exists()
    layout.sockets.symlink_to(tmp_path)
    try:
        with pytest.raises(StackError, match="must be a folder of this user"):
            layout.prepare()
    finally:
        layout.sockets.unlink()


def test_a_path_that_the_configuration_cannot_hold_is_refused(tmp_path):
    for sign in ";#%\n":
        with pytest.raises(StackError, match="must hold no newline, ;, # or %"):
            layout_of(tmp_path / f"a{sign}b")


def test_a_second_command_waits_its_turn_and_is_refused(layout):
    with alone(layout), pytest.raises(StackError, match="one command at a time"), alone(layout):
        pass


def test_a_private_file_is_never_readable_for_others_and_replaces_whole(tmp_path):
    file = tmp_path / "secret"
    file.write_text("old")
    file.chmod(0o644)
    write_private(file, "new")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("new", 0o600)
    assert list(tmp_path.iterdir()) == [file]


def test_only_what_carries_every_mark_is_ended(tmp_path):
    marks = {"STILLHOUSE_STACK": str(tmp_path), "STILLHOUSE_STACK_PROGRAM": "mlflow"}
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    ours = subprocess.Popen(sleep, env={**os.environ, **marks})
    other = subprocess.Popen(sleep, env={**os.environ, **marks, "STILLHOUSE_STACK_PROGRAM": "prefect"})
    try:
        assert end_leftovers(marks) == 1
        assert not psutil.pid_exists(ours.pid)
        assert other.poll() is None
    finally:
        for process in (ours, other):
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE INDEX CONCURRENTLY i ON flow USING gin (name gin_trgm_ops);",
        "\n CREATE INDEX i\n ON flow USING gin (name gin_trgm_ops);\n",
    ],
)
def test_a_trigram_index_becomes_a_plain_one_of_the_same_name(statement):
    assert "trgm" not in (found := str(plain(statement)))
    assert " i" in found
    assert "(name)" in found


def test_every_statement_of_this_prefect_that_needs_the_extension_is_rewritten():
    from prefect.server.database import _migrations

    files = list((Path(_migrations.__path__[0]) / "versions" / "postgresql").glob("*.py"))
    lines = [line for file in files for line in file.read_text().splitlines()]
    asking = [line for line in lines if "trgm_ops" in line or "EXTENSION" in line]
    assert len(asking) >= 9
    created = [line for line in asking if "DROP" not in line]
    assert not [line for line in created if "trgm" in (plain(line) or "")]


def tar_of(file, members, listed=None, form=1):
    """Write a backup of ``members``, with a list that may lie."""
    with tarfile.open(file, "w") as tar:

        def add(name, data):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

        for name, data in members:
            add(name, data)
        files = {name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in members}
        add("manifest.json", json.dumps({"format": form, "files": {**files, **(listed or {})}}).encode())
    return file


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda file: tar_of(file, [("a", b"x")], {"a": {"sha256": "0" * 64}}), "a with other content"),
        (lambda file: tar_of(file, [], {"database/mlflow.dump": {"sha256": "0"}}), "database/mlflow.dump missing"),
        (lambda file: tar_of(file, [("../outside", b"x")]), "the entry '../outside'"),
        (lambda file: tar_of(file, [("/outside", b"x")]), "the entry '/outside'"),
        (lambda file: tar_of(file, [("a", b"x"), ("a", b"x")]), "the entry 'a'"),
        (lambda file: tar_of(file, [], form=9), "must be of format 1, found 9"),
        (lambda file: tarfile.open(file, "w").close(), "no manifest.json at its end"),
        (lambda file: file.write_bytes(b"no tar at all" * 1000), "ReadError"),
        (lambda file: None, "must be there, found none"),
    ],
)
def test_a_damaged_backup_is_refused_before_anything_changes(layout, tmp_path, make, line):
    (layout.stack / "mine").touch()
    file = tmp_path / "backup.tar"
    make(file)
    with pytest.raises(StackError, match=line) as error:
        restore(layout.root, file, lambda _line: None)
    assert str(file) in str(error.value)
    assert (layout.stack / "mine").exists()
    assert not list(layout.stack.parent.glob("stack.*e*r*")), "neither a half-made stack nor one that was moved"
    assert not (tmp_path / "outside").exists()


def test_a_restore_that_was_killed_between_its_moves_is_finished(tmp_path):
    layout = layout_of(tmp_path)
    fresh = layout.stack.with_name("stack.restoring")
    fresh.mkdir(parents=True)
    (fresh / "complete").touch()
    (fresh / "restored").touch()
    finish_restore(layout)
    assert (layout.stack / "restored").exists()
    assert not fresh.exists()


def test_a_restore_that_was_killed_earlier_leaves_the_stack_as_it_was(layout):
    (layout.stack / "mine").touch()
    fresh = Layout(layout.root, layout.stack.with_name("stack.restoring"))
    fresh.prepare()
    finish_restore(layout)
    assert (layout.stack / "mine").exists()
    assert not fresh.stack.exists()


def test_settings_name_their_accounts_but_no_password():
    settings = Settings({"PREFECT_AUTH_PASSWORD": "hidden"})
    assert settings.accounts == {"mlflow": "admin", "prefect": "stillhouse"}
    assert settings.prefect_auth == "stillhouse:hidden"
