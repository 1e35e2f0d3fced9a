"""What happens on the drill's nights: each says beforehand what must come of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

from _drill.clone import Drill
from _drill.look import (
    alert,
    days_of,
    decision_of,
    entry_text,
    how_it_ended,
    kill_worker,
    process_of,
    put_stray,
    run_at_work,
    short_hash,
    tags_of,
    unmoved,
    unreached,
    when_back,
)

START = date(2026, 3, 2)

#: Seconds within which a night that holds nothing new must have said so.
NOTHING = 20.0

#: A type of event that is not listed is a bad row: far more of them than admit.max_quarantined bears.
BAD_DATA = {"event_weights": {"view": 0.4}}

#: A student that can hardly learn, before a gate that concedes nothing.
WORSE = {
    "students": {
        "small": {"model": {"kind": "transformer", "width": 4, "blocks": 1, "heads": 1, "length": 20, "dropout": 0.9}}
    },
    "gate.against_champion": "superiority",
    "gate.confidence": 0.999,
}


def ordinary(drill: Drill, day: str) -> None:
    """A night on which nothing happens."""
    with drill.step(day, "an ordinary night", "Completed, its student promoted") as step:
        before = drill.champion()
        ended = drill.night(day)
        moved = drill.champion() != before
        step.happened = f"{ended}, {'its student promoted' if moved else 'nothing promoted'}"


def bad_data(drill: Drill, day: str) -> None:
    """A night whose rows are mostly bad."""
    with drill.step(day, "bad data", "Failed, champion unmoved, alert sent") as step, drill.settings(BAD_DATA):
        before, since = drill.champion(), len(drill.alerts)
        ended = drill.night(day)
        step.happened = f"{ended}, {unmoved(drill, before)}, {alert(drill, 'quarantine', since)}"


def worse_student(drill: Drill, day: str) -> None:
    """A night whose student is worse than the champion."""
    with drill.step(day, "a worse student", "Completed, refused, champion unmoved, alert sent") as step:
        before, since = drill.champion(), len(drill.alerts)
        with drill.settings(WORSE):
            ended = drill.night(day)
        last = drill.history()["entries"][-1]
        step.happened = (
            f"{ended}, {'refused' if last['kind'] == 'refused' else last['kind']}, {unmoved(drill, before)}, "
            f"{alert(drill, 'gate', since)}"
        )


def killed_worker(drill: Drill, day: str) -> None:
    """A night whose GPU worker dies with the stage that it performs."""
    champion = "no champion yet" if day == str(START) else "champion unmoved"
    expected = f"the stage's run Crashed within 2 minutes, {champion}, the night Completed, its student promoted"
    with drill.step(day, "the GPU worker and its stage killed", expected) as step:
        before, seen = drill.champion(), list[str]()

        def kill() -> None:
            run = run_at_work(drill, day)
            kill_worker(drill, "gpu")
            seen.extend([how_it_ended(drill, run, time.monotonic()), unmoved(drill, before)])

        ended = drill.night(day, kill)
        moved = "its student promoted" if drill.champion() != before else "nothing promoted"
        step.happened = f"the stage's run {', '.join(seen)}, the night {ended}, {moved}"


def awaiting(drill: Drill, day: str) -> None:
    """A night whose student waits for a person, who approves it, and then thinks better of it."""
    since = len(drill.alerts)
    with drill.step(day, "gate.mode: approve", "Completed, awaiting, champion unmoved") as step:
        before = drill.champion()
        with drill.settings({"gate.mode": "approve", "alerts.max_quarantined": 1e-6}):
            ended = drill.night(day)
        waiting = drill.history()["awaiting"]
        step.happened = f"{ended}, {'awaiting' if waiting else 'nobody waits'}, {unmoved(drill, before)}"
    with drill.step(day, "rows in quarantine above the level", "alert sent") as step:
        step.happened = alert(drill, "of the rows are in quarantine", since)
    with drill.step(day, "a champion of months ago", "Completed, alert sent") as step:
        deployment = drill.prefect("deployments/name/watch/watch")["id"]
        run = drill.prefect(f"deployments/{deployment}/create_flow_run", {})["id"]
        step.happened = f"{drill.state(run, 120)}, {alert(drill, 'The champion is', since)}"
    with drill.step(day, "stillhouse approve", "the one that waited is champion") as step:
        drill.command("approve", "--reason", "the drill", "--actor", "drill")
        step.happened = "the one that waited is champion" if drill.champion() == waiting else "another is champion"
    with drill.step(day, "stillhouse rollback", "the champion before is back") as step:
        drill.command("rollback", "--reason", "the drill", "--actor", "drill")
        step.happened = "the champion before is back" if drill.champion() == before else "it is not"


def tampered(drill: Drill, day: str) -> None:
    """An entry of the ledger edited by somebody with access to the registry, found, and put back."""
    expected = "audit, run and promote refuse and name it, champion unmoved"
    with drill.step(day, "a ledger entry edited", expected) as step:
        told = drill.history()
        entry = next(one for one in told["entries"] if one["kind"] == "promoted")
        champion = told["champion"]["version"]
        # Of one that the gate had before it nothing else stands in the way: afterwards it is promoted.
        other = max(one["version"] for one in told["entries"] if one["version"] != champion)
        promote = ["promote", str(other), "--override-gate", "--reason", "the drill", "--actor", "drill"]
        text = entry_text(drill, entry["number"])
        forged = text.replace('"actor":"gate"', '"actor":"nobody"')
        hashes = f"its text hashes to {short_hash(forged)}, it was written as {short_hash(text)}"
        words = f"entry {entry['number']} was altered: {hashes}"
        try:
            entry_text(drill, entry["number"], forged)
            tries = (["audit", str(champion)], ["run", "--as-of", day, "--force"], promote)
            refused = [drill.command(*one, code=None) for one in tries]
            named = [one.returncode != 0 and words in " ".join(f"{one.stdout} {one.stderr}".split()) for one in refused]
            told_of = "audit, run and promote refuse and name it" if all(named) else f"{named}"
            step.happened = f"{told_of}, {unmoved(drill, champion)}"
        finally:
            entry_text(drill, entry["number"], text)
    with drill.step(day, "the entry put back", "every link verified, and that promotion done") as step:
        done = drill.command("audit", str(champion), code=None)
        drill.command(*promote)
        whole = "every link verified" if done.returncode == 0 else done.stdout[-300:]
        step.happened = f"{whole}, and {'that promotion done' if drill.champion() == other else 'another is champion'}"


def lost(program: str) -> Callable[[Drill, str], None]:
    """Return what kills one of the stack's servers in the middle of a night."""

    def happens(drill: Drill, day: str) -> None:
        expected = (
            "champion unmoved, the stage's run over within 2 minutes of its return, "
            "Completed at the latest at the second attempt, its student promoted, nothing left at work"
        )
        with drill.step(day, f"{program} killed in mid-night", expected) as step:
            before, seen = drill.champion(), list[str]()

            def kill() -> None:
                run = run_at_work(drill, day)
                pid = process_of(drill, program)
                os.kill(pid, signal.SIGKILL)
                returned = when_back(drill, program, pid)
                seen.append(unmoved(drill, before))
                over = how_it_ended(drill, run, returned)
                limit = "within 2 minutes"
                seen.append(f"the stage's run {'over ' + limit if over.endswith(limit) else over} of its return")

            ended = drill.night(day, kill)
            if ended != "Completed":
                ended = drill.night(day)
            moved = "its student promoted" if drill.champion() != before else "nothing promoted"
            idle = "nothing left at work" if drill.idle(120) else "runs left at work"
            step.happened = f"{', '.join(seen)}, {ended} at the latest at the second attempt, {moved}, {idle}"

    happens.__name__ = f"lost_{program}"
    return happens


def a_persons_commands(drill: Drill, day: str) -> None:
    """What a person asks and decides beside a stack at work, of which the next night must not notice anything."""
    champion = waiting = first = 0
    with drill.step(day, "a night that waits, and its decision", "Completed, against the first champion too") as step:
        with drill.settings({"gate.mode": "approve"}):
            ended = drill.night(day)
        told = drill.history()
        champion, waiting = told["champion"]["version"], told["awaiting"]
        first = next(one["version"] for one in told["entries"] if one["kind"] == "promoted")
        decision = decision_of(drill, waiting)
        rule = next(one for one in decision["verdicts"][0]["rules"] if one["name"] == "reference")
        known = (decision["champion"], decision["reference"]) == (champion, first) and rule["value"] is not None
        step.happened = f"{ended}, {'against the first champion too' if known else f'against {decision}'}"
    with drill.step(day, "stillhouse reject", "turned down by drill, champion unmoved") as step:
        drill.command("reject", "--reason", "the drill", "--actor", "drill")
        told = drill.history()
        last = told["entries"][-1]
        said = (last["kind"], last["version"], last["reason"], told["awaiting"])
        right = said == ("rejected", waiting, "the drill", None)
        step.happened = f"{'turned down' if right else last['kind']} by {last['actor']}, {unmoved(drill, champion)}"
    with drill.step(day, "stillhouse compare", "both, on the same users, under both protocols") as step:
        found = drill.told("compare", str(champion), str(waiting))
        sides = [found[side]["version"] for side in ("first", "second")] == [champion, waiting]
        paired = {
            one["protocol"]
            for one in found["differences"]
            if one["users"] > 0 and one["low"] - 1e-9 <= one["second"] - one["first"] <= one["high"] + 1e-9
        }
        right = sides and paired == {"leave_one_out", "time_window"}
        step.happened = "both, on the same users, under both protocols" if right else json.dumps(found["differences"])
    with drill.step(day, "stillhouse promote", "the first one is champion, by drill") as step:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        time.sleep(1.1)  # the ledger's times are whole seconds
        drill.command("promote", str(first), "--reason", "the drill", "--actor", "drill")
        entry = drill.history()["champion"]
        right = drill.champion() == first == entry["version"] != champion
        step.happened = f"the {'first' if right else 'wrong'} one is champion, by {entry['actor']}"
    with drill.step(
        day, "stillhouse history --at", "then the champion of then, now the first, before it all none"
    ) as step:
        then, before = (drill.told("history", "--at", when)["champion"] for when in (at, "2020-01-01 12:00"))
        now = drill.history()["champion"]["version"]
        right = (then["version"], now, before) == (champion, first, None)
        step.happened = (
            "then the champion of then, now the first, before it all none" if right else f"{then}, {now}, {before}"
        )
    _traced(drill, day, champion, waiting)
    _kept(drill, day, champion)


def _traced(drill: Drill, day: str, version: int, newest: int) -> None:
    """What a person asks of a version: who vouches for it, what it came from, whether it can be made again."""
    with drill.step(day, "whose signature", "ours, every link verified; to a stranger nobody's") as step:
        words = ("audit", f"student@{version}", "--require-signature")
        whole = drill.told(*words)["whole"]
        stranger = drill.command(*words, code=None, STILLHOUSE_SIGNING_KEY="", STILLHOUSE_VERIFY_KEYS="")
        refused = stranger.returncode == 1 and "must be signed by a trusted key" in stranger.stderr
        step.happened = (
            f"{'ours, every link verified' if whole else 'broken'}; to a stranger {'nobody' if refused else 'some'}'s"
        )
    with drill.step(
        day, "stillhouse audit --data", "the first day reached every student, the last one tonight's"
    ) as step:
        days = days_of(drill, newest)  # some of them, by mistakes of the shop's, in years to come
        oldest, latest = (
            [one["version"] for one in drill.told("audit", "--data", days[name])]
            for name in (min(days), f"interactions/{date.fromisoformat(day) - timedelta(days=1)}.parquet")
        )
        right = oldest == sorted({one["version"] for one in drill.history()["entries"]}) and latest == [newest]
        step.happened = (
            "the first day reached every student, the last one tonight's" if right else f"{oldest}, {latest}"
        )
    with drill.step(day, "stillhouse reproduce", "every output identical, or not by nature") as step:
        found = json.loads(drill.command("reproduce", f"student@{version}", "--json", code=None).stdout)
        differ = [one["path"] for one in found["outputs"] if one["state"] == "differs"]
        count = sum(one["state"] == "identical" for one in found["outputs"])
        right = found["identical"] and not differ and count >= 10
        step.happened = "every output identical, or not by nature" if right else f"{count} identical; {differ} differ"


def _kept(drill: Drill, day: str, version: int) -> None:
    """What a person does beside the live line must leave it as it stands."""
    with drill.step(day, "stillhouse gc", "a stray named, then freed, every link verified") as step:
        before = unreached(drill)
        stray = put_stray(drill.root)
        named = unreached(drill) == before + 1 and stray.exists()
        drill.command("gc")
        gone = not stray.exists() and unreached(drill) == 0
        done = drill.command("audit", str(version), code=None)
        step.happened = (
            f"a stray {'named' if named else 'overlooked'}, then {'freed' if gone else 'kept'}, "
            f"{'every link verified' if done.returncode == 0 else done.stdout[-300:]}"
        )
    with drill.step(day, "stillhouse backfill", "closed, the live ledger, tags and champion unmoved") as step:
        champion, entries, tags = drill.champion(), drill.history()["entries"], tags_of(drill.root)
        found = drill.told("backfill", "--from", "2026-02-20", "--to", "2026-02-20")
        same = (drill.history()["entries"], tags_of(drill.root)) == (entries, tags)
        step.happened = (
            f"{', '.join(one['state'] for one in found['nights'])}, "
            f"the live {'ledger, tags and' if same else 'line moved,'} {unmoved(drill, champion)}"
        )


def lost_machine(drill: Drill, day: str) -> None:
    """The stack of before the night comes back from its backup; the night, which the backup never saw, is run again."""
    backup = drill.root.parent / "stack.tar"
    with drill.step(day, "make backup, then a night", "Completed, its student promoted") as step:
        before = drill.champion()
        drill.command("stack", "backup", str(backup))
        ended = drill.night(day)
        moved = drill.champion() != before
        step.happened = f"{ended}, {'its student promoted' if moved else 'nothing promoted'}"
    with drill.step(day, "the stack lost, make restore", "champion of the backup, every link verified") as step:
        drill.command("stack", "down")
        shutil.rmtree(drill.root / ".stillhouse" / "stack")
        drill.command("stack", "restore", str(backup))
        drill.command("stack", "up")
        whole = drill.command("audit", "student@champion", code=None)
        champion = "champion of the backup" if drill.champion() == before else "another champion"
        step.happened = f"{champion}, {'every link verified' if whole.returncode == 0 else whole.stdout[-300:]}"
    with drill.step(day, "the night that the backup never saw", "Completed, its student promoted") as step:
        ended = drill.night(day)
        step.happened = f"{ended}, {'its student promoted' if drill.champion() != before else 'nothing promoted'}"


def nothing_new(drill: Drill, day: str) -> None:
    """The same night once more, twice at once."""
    expected = "Cancelled and Completed, in seconds, ledger unmoved"
    with drill.step(day, "the same night again, twice at once", expected) as step:
        before = len(drill.history()["entries"])
        other: list[str] = []
        started = time.monotonic()
        first = drill.night(day, lambda: other.append(drill.night(day)))
        took = time.monotonic() - started
        same = len(drill.history()["entries"]) == before
        step.happened = (
            f"{' and '.join(sorted([first, *other]))}, {'in seconds' if took < NOTHING else f'after {took:.0f} s'}, "
            f"{'ledger unmoved' if same else 'new entries'}"
        )
