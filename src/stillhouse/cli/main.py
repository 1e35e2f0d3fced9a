"""The one command line: ``stillhouse``."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from pathlib import Path

import click

from stillhouse.collector import end_at_once, look_seldom
from stillhouse.errors import ParamsError, StillhouseError
from stillhouse.runner.lifeline import tie_to_parent, under_a_flow

__all__ = ["cli", "main"]

_EXAMPLES = """
\b
Examples:
  stillhouse run                              one night on the source in params.yaml
  stillhouse run --as-of 2026-03-03           the night scheduled for that time
  stillhouse run --source events.parquet      the same columns, another file
  stillhouse run --cold                       the weights start afresh
  stillhouse status --max-age 26h             exits with 1 when no night closed in that time
  stillhouse recommend --user 17 -k 5         ask the champion
  stillhouse tune gru --trials 40             search a student's settings; writes a patch, changes nothing
  stillhouse promote 3 --reason "campaign"    make a version champion
  stillhouse rollback                         return to the champion before
  stillhouse history --at "2026-03-12 14:00"  what was in production then, and why
  stillhouse compare champion challenger      two versions side by side
  stillhouse audit student@champion           where it came from, every link checked again
  stillhouse reproduce champion               make it again and compare, byte for byte
  stillhouse gc --dry-run                     what nothing reaches, and what it would free
  stillhouse backfill --from 2026-03-01 --to 2026-03-05
                                              past nights, beside the live line
"""


#: Commands that train in their own process.
_TRAINING = ("stage", "tune")


@click.group(epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="stillhouse")
@click.option(
    "-C",
    "--workspace",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path(),
    help="The folder of params.yaml and dvc.yaml (default: the current one).",
)
@click.pass_context
def cli(context: click.Context, workspace: Path) -> None:
    """Distil a large recommender into small ones, every night.

    A night validates the day's interactions, fine-tunes the teacher, exports its soft targets, distils each
    student, packages and evaluates them, puts them before the gate and registers them. Settings stand in
    params.yaml; nothing said here changes that file.
    """
    if context.invoked_subcommand not in _TRAINING:
        look_seldom()
    context.obj = workspace.resolve()


@cli.command()
@click.option(
    "--source",
    "source",
    metavar="PATH|URL|shop",
    help="Where interactions come from, in place of params.yaml's source.",
)
@click.option(
    "--as-of",
    "as_of",
    metavar="TIME",
    help="The night's scheduled time, such as 2026-03-02 or 2026-03-02T03:00 (default: the night that is due).",
)
@click.option(
    "--force",
    is_flag=True,
    help="Perform the night even where the source holds nothing new; unchanged stages are reused.",
)
@click.option(
    "--cold",
    is_flag=True,
    help="Start the weights afresh, as every night.cold_every-th night does; a night that did not is performed again.",
)
@click.option("-v", "--verbose", is_flag=True, help="Show Prefect's and DVC's own messages too.")
@click.pass_obj
def run(workspace: Path, source: str | None, as_of: str | None, force: bool, cold: bool, verbose: bool) -> None:
    """Run one night, from the source to the registry.

    A night that was killed goes on where it stopped. One night runs at a time in a workspace.
    """
    from stillhouse.cli.run import run_night

    run_night(workspace, source=source, as_of=as_of, force=force, cold=cold, verbose=verbose)


@cli.command()
@click.option("--max-age", metavar="AGE", help="Exit with 1 unless a night closed within AGE, such as 26h, 90m or 2d.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.pass_obj
def status(workspace: Path, max_age: str | None, as_json: bool) -> None:
    """Show the last night, the champion and what is stale."""
    from stillhouse.cli.status import show_status

    sys.exit(show_status(workspace, max_age=max_age, as_json=as_json))


@cli.command()
@click.argument("name")
@click.argument("paths", nargs=-1, metavar="ARGUMENT=PATH...")
@click.pass_obj
def stage(workspace: Path, name: str, paths: tuple[str, ...]) -> None:
    """Run one stage on given paths: what dvc.yaml calls.

    People run a stage with `dvc repro NAME`, which knows its paths.
    """
    gc.disable()  # until the stage's work begins: looking for garbage while importing takes a third of a stage's start
    from stillhouse.runner.declared import require_fresh
    from stillhouse.runner.stage import run_stage, too_long

    tie_to_parent(lambda seconds: too_long(workspace, name, seconds))
    pairs: dict[str, Path] = {}
    for text in paths:
        key, equals, path = text.partition("=")
        if not equals or not path:
            raise ParamsError(f"a stage's paths must be given as argument=path, got {text!r} (dvc.yaml: {name}.cmd)")
        pairs[key] = workspace / path
    if not under_a_flow():
        require_fresh(workspace, name, pairs)
    run_stage(name, pairs, workspace)


@cli.command()
@click.option("--user", metavar="ID", help="Recommend for this user's history.")
@click.option("--items", metavar="ID,ID,...", help="Recommend for this history, oldest first.")
@click.option("-k", default=10, show_default=True, type=click.IntRange(min=1), help="How many items.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.pass_obj
def recommend(workspace: Path, user: str | None, items: str | None, k: int, as_json: bool) -> None:
    """Let the champion recommend, for a user or for a list of items."""
    from stillhouse.cli.recommend import show_recommendations

    show_recommendations(workspace, user=user, items=items, k=k, as_json=as_json)


@cli.command()
@click.argument("student")
@click.option(
    "--trials", metavar="N", type=click.IntRange(min=1), help="Finished trials to end with (default: tune.trials)."
)
@click.option("--timeout", metavar="AGE", help="Begin no further trial after AGE, such as 90m or 8h.")
@click.option(
    "--epochs", metavar="N", type=click.IntRange(min=1), help="Most epochs of a trial (default: the student's)."
)
@click.option(
    "--seed", metavar="N", type=click.IntRange(0, 2**63 - 1), help="Of the draws (default: seed in params.yaml)."
)
@click.option("--warm", is_flag=True, help="Start each trial from last night's student, as a warm night does.")
@click.pass_obj
def tune(
    workspace: Path,
    student: str,
    trials: int | None,
    timeout: str | None,
    epochs: int | None,
    seed: int | None,
    warm: bool,
) -> None:
    """Search a student's settings on the last night's data.

    Temperature, alpha, learning rate and the methods' weights are searched in the ranges that params.yaml gives
    under tune, on the validation split. The teacher is not run. A search that was killed goes on where it stopped.
    params.yaml stays as it is: what was found is a patch for you to accept.
    """
    from stillhouse.cli.tune import tune_student

    tune_student(workspace, student, trials=trials, timeout=timeout, epochs=epochs, seed=seed, warm=warm)


def _readable(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    """Refuse text that cannot be written down: bytes of another encoding."""
    try:
        (value or "").encode()
    except UnicodeEncodeError:
        raise click.BadParameter("it must be text in UTF-8") from None
    return value


def _decides(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that decides about the champion the option that says who decides."""
    return click.option(
        "--actor",
        metavar="NAME",
        callback=_readable,
        help="Who decides (default: STILLHOUSE_ACTOR, or git's user.name, or the system's user).",
    )(command)


@cli.command()
@click.argument("version")
@click.option(
    "--reason", required=True, metavar="TEXT", callback=_readable, help="Why, for those who read the history later."
)
@click.option("--override-gate", is_flag=True, help="Promote a version that the gate refused all the same.")
@_decides
@click.pass_obj
def promote(workspace: Path, version: str, reason: str, override_gate: bool, actor: str | None) -> None:
    """Make VERSION champion: a number, or challenger, previous or awaiting.

    Its files are checked against the ledger first. Should another champion come in between, nothing happens.
    """
    from stillhouse.cli.promotion import promote_version

    promote_version(workspace, version, reason=reason, actor=actor, override_gate=override_gate)


@cli.command()
@click.option(
    "--reason", metavar="TEXT", callback=_readable, default="rolled back by hand", show_default=True, help="Why."
)
@_decides
@click.pass_obj
def rollback(workspace: Path, reason: str, actor: str | None) -> None:
    """Return to the champion before this one."""
    from stillhouse.cli.promotion import roll_back

    roll_back(workspace, reason=reason, actor=actor)


@cli.command()
@click.argument("version", required=False)
@click.option("--reason", metavar="TEXT", callback=_readable, default="approved", show_default=True, help="Why.")
@_decides
@click.pass_obj
def approve(workspace: Path, version: str | None, reason: str, actor: str | None) -> None:
    """Promote the version that waits for a person (gate.mode: approve)."""
    from stillhouse.cli.promotion import approve_version

    approve_version(workspace, version, reason=reason, actor=actor)


@cli.command()
@click.argument("version", required=False)
@click.option("--reason", required=True, metavar="TEXT", callback=_readable, help="Why.")
@_decides
@click.pass_obj
def reject(workspace: Path, version: str | None, reason: str, actor: str | None) -> None:
    """Turn down the version that waits for a person; the champion stands."""
    from stillhouse.cli.promotion import reject_version

    reject_version(workspace, version, reason=reason, actor=actor)


@cli.command()
@click.option("--at", metavar="TIME", help='What was in production then, such as "2026-03-12 14:00" (night.timezone).')
@click.option("-n", "--limit", metavar="N", type=click.IntRange(min=1), help="Show the last N entries alone.")
@click.option(
    "--model",
    type=click.Choice(["student", "teacher"]),
    default="student",
    show_default=True,
    help="Whose history: teachers are listed with what each started from and whom it taught.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.pass_obj
def history(workspace: Path, at: str | None, limit: int | None, model: str, as_json: bool) -> None:
    """Show what happened to the students, and who was champion, now or at a time; or the teachers."""
    from stillhouse.cli.history import show_history, show_teachers

    show = show_teachers if model == "teacher" else show_history
    show(workspace, at=at, limit=limit, as_json=as_json)


@cli.command()
@click.argument("first")
@click.argument("second")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.pass_obj
def compare(workspace: Path, first: str, second: str, as_json: bool) -> None:
    """Show two versions side by side, on the data that is prepared in the workspace.

    Both rank the same targets; differences are paired by user, with intervals.
    """
    from stillhouse.cli.compare import show_comparison

    show_comparison(workspace, first, second, as_json=as_json)


@cli.command()
@click.argument("what", required=False)
@click.option("--data", metavar="MD5|PATH", help="Forward: list every student that this file of a snapshot reached.")
@click.option("--require-signature", is_flag=True, help="Fail where the record is not signed by a trusted key.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.option("--openlineage", is_flag=True, help="Print the stages as OpenLineage events, if all is verified.")
@click.pass_obj
def audit(
    workspace: Path, what: str | None, data: str | None, require_signature: bool, as_json: bool, openlineage: bool
) -> None:
    """Check everything that WHAT came from: student@champion, a version, teacher@3, or a package on disk.

    Every link is named by its content's hash and checked again: verified, missing or altered. Exits with 1 where
    one is missing or altered.
    """
    from stillhouse.cli.audit import show_audit, show_reached

    if (what is None) == (data is None):
        raise ParamsError("one of WHAT and --data must be given, got " + ("neither" if what is None else "both"))
    if openlineage and (as_json or data is not None):
        raise ParamsError("--openlineage must stand alone, got it with " + ("--json" if as_json else "--data"))
    if data is not None:
        sys.exit(show_reached(workspace, data, as_json=as_json))
    asked = {"as_json": as_json, "openlineage": openlineage, "require_signature": require_signature}
    sys.exit(show_audit(workspace, str(what), **asked))


@cli.command()
@click.argument("version")
@click.option("--keep", type=click.Path(path_type=Path), help="Keep the scratch clone in this folder, which is made.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.pass_obj
def reproduce(workspace: Path, version: str, keep: Path | None, as_json: bool) -> None:
    """Make VERSION again: its night's code and inputs in a scratch clone, every stage but ingest run anew.

    Says which outputs are byte-identical and how far the others differ. Exits with 1 where one differs that need not.
    """
    from stillhouse.cli.reproduce import show_reproduction

    sys.exit(show_reproduction(workspace, version, keep=keep.resolve() if keep else None, as_json=as_json))


@cli.command()
@click.pass_obj
def deploy(workspace: Path) -> None:
    """Make pools, deployments and automations on the Prefect server in PREFECT_API_URL what the files here say.

    `stillhouse stack up` does it for its own server. STILLHOUSE_GPUS: slots of the pool gpu.
    """
    from stillhouse.cli.stack import deploy_flows

    deploy_flows(workspace)


@cli.group()
def stack() -> None:
    """The servers and workers of one machine: PostgreSQL, MLflow, Prefect, and a worker for each pool."""


@stack.command("up")
@click.pass_obj
def stack_up(workspace: Path) -> None:
    """Start whatever does not run, and deploy the flows.

    Ports: STILLHOUSE_MLFLOW_PORT, STILLHOUSE_PREFECT_PORT. A PostgreSQL of your own: STILLHOUSE_PGHOST, _PGPORT,
    _PGUSER, _PGPASSWORD. Alerts: STILLHOUSE_ALERT_URLS. What was said once is kept.
    """
    from stillhouse.cli.stack import start_stack

    start_stack(workspace)


@stack.command("down")
@click.pass_obj
def stack_down(workspace: Path) -> None:
    """Stop everything; what it keeps stays."""
    from stillhouse.cli.stack import stop_stack

    stop_stack(workspace)


@stack.command("status")
@click.pass_obj
def stack_status(workspace: Path) -> None:
    """Show how every program stands; exits with 1 unless all of them run."""
    from stillhouse.cli.stack import show_stack

    sys.exit(show_stack(workspace))


@stack.command("backup")
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False, resolve_path=True))
@click.pass_obj
def stack_backup(workspace: Path, file: Path | None) -> None:
    """Write databases, artifacts, DVC's remote, the nights' tags and secrets into FILE; the stack may be at work.

    Without FILE it goes to .stillhouse/backups.
    """
    from stillhouse.cli.stack import back_up_stack

    back_up_stack(workspace, file)


@stack.command("restore")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, resolve_path=True))
@click.pass_obj
def stack_restore(workspace: Path, file: Path) -> None:
    """Make the stack what the backup FILE holds; it must be down. What was there is kept beside it."""
    from stillhouse.cli.stack import restore_stack

    restore_stack(workspace, file)


@cli.command("gc")
@click.option("--dry-run", is_flag=True, help="Say what would be freed, and change nothing.")
@click.option(
    "--keep-nights",
    metavar="N",
    default=30,
    show_default=True,
    type=click.IntRange(min=1),
    help="Closed nights that are kept whatever names them.",
)
@click.option(
    "--remote/--no-remote",
    "remote",
    default=None,
    help="Free in the default remote too (default: where it lies in the workspace).",
)
@click.option(
    "--deleted",
    is_flag=True,
    help="Let go what the ledger alone names of versions that were deleted from the registry and never served.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.pass_obj
def collect(
    workspace: Path, dry_run: bool, keep_nights: int, remote: bool | None, deleted: bool, as_json: bool
) -> None:
    """Free what no registered version, ledger entry or kept night reaches, and nothing else.

    Freed are content in DVC's cache and remote, tags of nights that were opened and left behind, and caches that can
    be made again. Where it cannot be said what is reached, nothing is freed.
    """
    from stillhouse.cli.gc import collect_garbage

    collect_garbage(
        workspace, keep_nights=keep_nights, dry_run=dry_run, remote=remote, deleted=deleted, as_json=as_json
    )


@cli.command()
@click.option("--from", "first", required=True, metavar="TIME", help="The first night, such as 2026-03-01T03:00.")
@click.option("--to", "last", required=True, metavar="TIME", help="No night is later; a bare date means its whole day.")
@click.option("--every", metavar="AGE", default="1d", show_default=True, help="From one night to the next.")
@click.option(
    "--source",
    metavar="PATH|URL|shop",
    help="Where interactions come from, in place of params.yaml's source.",
)
@click.option("--name", metavar="NAME", help="The backfill's name (default: its first and last night).")
@click.option("--keep-going", is_flag=True, help="Go on after a night that was stopped by a known error.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.pass_obj
def backfill(
    workspace: Path,
    first: str,
    last: str,
    every: str,
    source: str | None,
    name: str | None,
    keep_going: bool,
    as_json: bool,
) -> None:
    """Run past nights in order, in a workspace of their own, each seeing only its own past.

    The live line stays as it is: champion, ledger, tags, previous/. A backfill that was killed goes on where it
    stopped.
    """
    from stillhouse.cli.backfill import run_backfill

    sys.exit(
        run_backfill(
            workspace,
            first=first,
            last=last,
            every=every,
            source=source,
            name=name,
            keep_going=keep_going,
            as_json=as_json,
        )
    )


def main() -> None:
    """Run the command line; a known error is one line on standard error and its exit code."""
    end_at_once()
    try:
        cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stillhouse: interrupted; the next run goes on from here", err=True)
        sys.exit(130)
    except StillhouseError as error:
        if not under_a_flow():  # the flow says it, once
            click.echo(f"stillhouse: {error}", err=True)
        sys.exit(error.exit_code)
    except Exception as error:
        from stillhouse.runner.outcome import refusal

        if (line := refusal(error)) is None:
            raise
        click.echo(f"stillhouse: {line}", err=True)
        sys.exit(StillhouseError.exit_code)
