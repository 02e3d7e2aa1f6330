"""From an alarm to a decision: fire, retrain, judge, roll out; each step is recorded and can be resumed.

    pending -> running (the retraining run) -> done (accepted and rolled out, accepted, or refused with the reason)
                          |                 -> failed (the run broke; a case is open, nothing is tried again)

An alarm fires an automation once, and again for each time that it is found to stand still, as soon as the cooldown
is over. What a kill interrupts is carried on: the run reuses the steps that it has
finished, a rollout that was started already is found again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
from msgspec.structs import replace

from trimtab.automate.jobs import Jobs, Outcome
from trimtab.automate.policy import hold_back
from trimtab.check.declare import MONITOR_KINDS
from trimtab.core.clock import parse_time
from trimtab.core.errors import TrimtabError, Unavailable
from trimtab.core.ids import new_id
from trimtab.core.nouns import Data, Run, Version
from trimtab.monitor.signals import Rule, Watch, rules
from trimtab.monitor.watch import Monitors, restart
from trimtab.serve.apply import roll_back, roll_out
from trimtab.store import facts, live
from trimtab.store.ledger import Reader, Tx
from trimtab.store.live import Alarm, Firing, RolloutRow
from trimtab.store.store import Store

ENDED = ("promoted", "rolled_back", "failed")
_NO_VERDICT = ("superseded", "removed")


class Loop:
    """The automations of one store.

    Args:
        store: the store.
        jobs: starts retraining runs; None where there is no project to run.
        monitors: start anew after each decision.
    """

    def __init__(self, store: Store, jobs: Jobs | None, monitors: Monitors) -> None:
        self._store = store
        self._jobs = jobs
        self._monitors = monitors
        self._told: set[str] = set()

    def fire(self, now: datetime) -> list[Firing]:
        """Turn alarms that nobody has acted on into firings, once each; those held back are recorded too.

        Alarms from before an automation was declared are no business of it.

        Returns:
            The firings that are to act.
        """
        reader, fired = self._store.ledger, []
        for rule in rules(reader):
            if rule.check.kind not in MONITOR_KINDS or rule.status != "fail":
                self._tell_useless(rule, now)
                continue
            endpoint = live.find_endpoint(reader, rule.endpoint)
            if endpoint is None:
                continue
            key = Watch(endpoint=endpoint, check=rule.check, by_default=False).key
            known = {one.key for one in live.list_firings(reader, rule.automation.id)}
            for alarm in live.list_alarms(reader, endpoint.id):
                due = rule.automation.created_at <= last_seen(alarm) <= now
                if due and occurrence(alarm) not in known and alarm.data.get("watch") == key:
                    made = self._fire(rule, alarm)
                    fired += [made] if made else []
        return fired

    def _tell_useless(self, rule: Rule, now: datetime) -> None:
        """Open a case for an automation whose condition nothing ever tells; once."""
        if rule.automation.id in self._told:
            return
        name = rule.automation.name
        title = f"automation {name} never fires: nobody watches for {rule.check.name} to be {rule.status}"
        told = {"fix": "wait for ck.drift(...).fails or ck.performance(...).fails"}
        subject, what = rule.automation.id, f"automation {name}"
        self._store.ledger.write(
            lambda tx: live.open_case(tx, kind="automation", title=title, subject=subject, at=now, facts=told).id,
            what=what,
        )
        self._told.add(rule.automation.id)

    def _fire(self, rule: Rule, alarm: Alarm) -> Firing | None:
        name, at = rule.automation.name, last_seen(alarm)
        data: Data = {
            "at": at.isoformat(),
            "automation": name,
            "endpoint": rule.endpoint,
            "trigger": _trigger(alarm),
            "actions": [{"do": action.do, "target": action.target} for action in rule.actions],
            "manifest": str(rule.automation.spec.get("manifest") or ""),
            "rolled_out": False,
        }

        def write(tx: Tx) -> Firing | None:
            known = live.list_firings(tx, rule.automation.id)
            acted = [one.at for one in known if one.data.get("verdict") != "held"]
            held = hold_back(acted, at, cooldown=rule.cooldown, limit=rule.limit)
            if not rule.automation.enabled:
                held = "the automation is disabled"
            if held and known and _held_for(known[-1], alarm):
                return None  # it has been told, and is asked again when the alarm is found once more
            verdict = "held" if held else ""
            made = live.add_firing(
                tx, automation_id=rule.automation.id, key=occurrence(alarm), at=at,
                data={**data, "verdict": verdict, "reason": held},
            )  # fmt: skip
            if made is not None and held:
                live.update_firing(tx, replace(made, state="done"))
            return None if held else made

        return self._store.ledger.write(write, what=f"automation {name}")

    def step(self, now: datetime, *, wait: bool) -> int:
        """Carry on with every firing that is not done and return how many came to an end.

        Args:
            now: event time.
            wait: for the runs that were started.
        """
        moved = 0
        for firing in live.list_firings(self._store.ledger):
            if firing.state in ("pending", "running"):
                moved += self._carry_on(self._begin(firing, now), now, wait)
            elif firing.data.get("rollout") and not firing.data.get("outcome"):
                self._conclude(firing)
        return moved

    def _begin(self, firing: Firing, now: datetime) -> Firing:
        """Record that an automation has begun to act."""
        if firing.state == "running":
            return firing
        who = f"automation:{firing.data['automation']}"
        run = Run(
            id=new_id("run"), kind="automation", name=firing.data["automation"], state="running",
            started_at=min(firing.at, now), actor=who, key=firing.id, facts={"trigger": firing.data["trigger"]},
            environment=self._store.ledger.environment, workspace=self._store.ledger.workspace,
        )  # fmt: skip
        begun = replace(firing, state="running", run_id=run.id)

        def write(tx: Tx) -> None:
            facts.start_run(tx, run)
            live.update_firing(tx, begun)

        self._store.ledger.write(write, what=who)
        return begun

    def _carry_on(self, firing: Firing, now: datetime, wait: bool) -> bool:
        runs = [action["target"] for action in firing.data["actions"] if action["do"] == "run"]
        if not runs:
            return self._act(firing, now, {"verdict": "accepted", "reason": "nothing had to run"})
        if self._jobs is None:
            return self._fail(firing, now, Unavailable("there is no project to run", fix="start it in the project"))
        who = f"automation:{firing.data['automation']}"
        self._jobs.run(firing.id, runs[0], actor=who, manifest=str(firing.data.get("manifest") or ""))
        try:
            outcome = self._jobs.poll(firing.id, wait=wait)
        except Unavailable as error:
            if self._jobs.closing:
                raise
            return self._fail(firing, now, error)
        if outcome is None:
            return False
        self._jobs.forget(firing.id)
        found = self._judge(runs[0], firing.data["endpoint"], outcome)
        if found["verdict"] == "accepted":
            return self._act(firing, now, found)
        return self._end(firing, now, found, failed=found["verdict"] == "failed")

    def _judge(self, asset: str, endpoint: str, outcome: Outcome) -> Data:
        """Return what a retraining run's report says: accepted, refused or failed, why, and by which interval."""
        stages = {stage["id"]: stage for stage in outcome.report.get("stages", ())}
        broken = [stage["error"] for stage in stages.values() if stage.get("error") and stage["state"] != "blocked"]
        if outcome.exit_code not in (0, 1) or outcome.error:
            error = outcome.error or (broken or [{"message": f"the run ended with {outcome.exit_code}"}])[0]
            return {"verdict": "failed", "reason": error.get("message", ""), "error": error, "log": outcome.log}
        gate = stages.get(f"gate:{asset}") or stages.get(f"make:{asset}") or {}
        verdicts = gate.get("verdicts") or self._recorded(asset)
        found = {**_measured(verdicts), "version": ""}
        found["candidate"] = found.get("candidate") or gate.get("version", "")
        if outcome.exit_code or gate.get("state") not in ("done", "reused"):
            bad = [one["reason"] for one in verdicts if one["status"] in ("fail", "inconclusive")]
            return {**found, "verdict": "refused", "reason": "; ".join(bad or [one["message"] for one in broken])}
        version = facts.current(self._store.ledger, asset)
        if gate.get("state") == "reused" and version is not None and version.id in self._serving(endpoint):
            text = f"nothing has changed since {version.ref} was made, and it serves already"
            return {"verdict": "refused", "reason": text, "candidate": version.ref, "interval": None}
        reasons = [one["reason"] for one in verdicts if one["kind"] == "beats"] or ["its gate passed"]
        return {**found, "verdict": "accepted", "reason": reasons[0], "version": version.ref if version else ""}

    def _recorded(self, asset: str) -> list[Data]:
        """Return the verdicts on record about the newest version of an asset; a refit stands on its candidate's."""
        newest = facts.newest(self._store.ledger, asset)
        if newest is None:
            return []
        subject = str(newest.meta.get("refit_of") or newest.id)
        return [msgspec.to_builtins(one) for one in facts.verdicts_of(self._store.ledger, subject)]

    def _serving(self, endpoint: str) -> set[str]:
        found = live.find_endpoint(self._store.ledger, endpoint)
        return {live.get_deployment(self._store.ledger, one).version_id for one in (found.traffic if found else ())}

    def _act(self, firing: Firing, now: datetime, found: Data) -> bool:
        more: Data = {}
        try:
            for action in firing.data["actions"]:
                if action["do"] == "roll_out":
                    more |= self._roll_out(firing, action["target"], str(found.get("version", "")))
                elif action["do"] == "roll_back":
                    reason = f"automation {firing.data['automation']}: {firing.data['trigger']['reason']}"
                    more["rolled_back"] = roll_back(self._store, action["target"], reason=reason, wait=False)["version"]
        except TrimtabError as error:
            return self._fail(firing, now, error, found)
        return self._end(firing, now, {**found, **more})

    def _roll_out(self, firing: Firing, name: str, version: str) -> Data:
        """Start the rollout of an accepted version, unless it serves, was started already, or was reversed before."""
        reader = self._store.ledger
        if not version:
            return {"rolled_out": False, "reason": "there is no version to roll out"}
        wanted = facts.resolve(reader, version)
        past = _rollouts_of(reader, live.need_endpoint(reader, name).id, wanted)
        own = [row for row in past if parse_time(row.data["started"]) >= firing.at]
        if own:
            return {"rolled_out": True, "rollout": own[-1].id}
        if wanted.id in self._serving(name):
            return {"rolled_out": False, "reason": f"{wanted.ref} serves already"}
        if past and past[-1].state in ENDED[1:] and past[-1].data.get("outcome") not in _NO_VERDICT:
            return {"rolled_out": False, "reason": f"the rollout of {wanted.ref} was reversed before"}
        why = f"automation:{firing.data['automation']}"
        return {"rolled_out": True, "rollout": roll_out(self._store, name, wanted.ref, why=why)}

    def _fail(self, firing: Firing, now: datetime, error: TrimtabError, found: Data | None = None) -> bool:
        told = {"verdict": "failed", "reason": error.message, "error": error.as_data()}
        return self._end(firing, now, {**(found or {}), **told}, failed=True)

    def _end(self, firing: Firing, now: datetime, found: Data, *, failed: bool = False) -> bool:
        """Record the decision: the firing, its run, the verdict's facts, and that the watch that fired starts anew.

        The other watches keep what they have seen: a champion that stays is judged by them as before, and one that
        goes takes their evidence with it.
        """
        name = firing.data["automation"]
        after = replace(firing, state="failed" if failed else "done", data={**firing.data, **found})
        fired = firing.data["trigger"].get("watch")
        watched = [one for one in self._monitors.of_endpoint(firing.data["endpoint"], now) if one.watch.key == fired]
        reader = self._store.ledger
        used = [
            (facts.resolve(reader, str(found[role])).id, role) for role in ("candidate", "champion") if found.get(role)
        ]
        told = {key: value for key, value in after.data.items() if key not in ("error", "trigger")}

        def write(tx: Tx) -> None:
            state, ended = "failed" if failed else "done", max(now, firing.at)
            error = found.get("error") or {}
            facts.finish_run(tx, firing.run_id, state=state, ended_at=ended, facts=told, error=error)  # type: ignore[arg-type]
            facts.add_used(tx, firing.run_id, used)
            live.update_firing(tx, after)
            tx.note(firing.run_id, automation=name, verdict=found["verdict"], reason=found.get("reason", ""))
            if failed:
                title = f"automation {name} failed: {found['reason']}"
                live.open_case(tx, kind="automation", title=title, subject=firing.id, at=now, facts=found)
            restart(tx, watched, now)

        reader.write(write, what=f"automation:{name}")
        return True

    def _conclude(self, firing: Firing) -> None:
        """Add to a firing how the rollout that it started has ended."""
        reader = self._store.ledger
        endpoint = live.find_endpoint(reader, firing.data["endpoint"])
        rows = live.list_rollouts(reader, endpoint.id) if endpoint else []
        row = next((one for one in rows if one.id == firing.data["rollout"] and one.state in ENDED), None)
        if row is None:
            return
        data = {**firing.data, "outcome": row.state, "outcome_at": row.updated_at.isoformat()}
        reader.write(lambda tx: live.update_firing(tx, replace(firing, data=data)), what="automation outcome")


def last_seen(alarm: Alarm) -> datetime:
    """Return when an alarm was raised, or found to stand still for the last time."""
    return parse_time(alarm.data["latest"]["at"]) if alarm.data.get("latest") else alarm.at


def occurrence(alarm: Alarm) -> str:
    """Return what an automation fires for: an alarm, or one of the times at which it was found again."""
    repeats = alarm.data.get("repeats")
    return f"{alarm.id}/{repeats}" if repeats else alarm.id


def _held_for(last: Firing, alarm: Alarm) -> bool:
    return bool(last.data.get("verdict") == "held" and last.data["trigger"]["alarm"] == alarm.id)


def _trigger(alarm: Alarm) -> Data:
    """Return what set an automation off, in short; the alarm has the whole evidence."""
    found = alarm.data.get("latest") or alarm.data
    evidence = found.get("evidence") or {}
    named = [item["feature"] for item in evidence.get("features") or () if item.get("named")]
    return {
        "check": alarm.check,
        "alarm": alarm.id,
        "repeats": alarm.data.get("repeats", 0),
        "watch": alarm.data.get("watch", ""),
        "signal": alarm.data.get("signal", ""),
        "reason": found.get("reason", ""),
        "version": alarm.data.get("version", ""),
        "evidence": {name: evidence[name] for name in ("e_value", "rows", "mean", "interval") if name in evidence}
        | ({"features": named} if named else {}),
    }


def _measured(verdicts: Sequence[Data]) -> Data:
    """Return what the comparison with the champion measured, if there was one."""
    evidence = next((one["evidence"] for one in verdicts if one["kind"] == "beats"), None) or {}
    gain = evidence.get("gain") or {}
    return {
        "interval": {name: gain.get(name) for name in ("estimate", "low", "high", "level")} if gain else None,
        "metric": evidence.get("metric"),
        "values": {who: evidence.get(f"{who}_value") for who in ("candidate", "champion")} if gain else None,
        "candidate": evidence.get("candidate"),
        "champion": evidence.get("champion"),
        "rows": gain.get("rows", evidence.get("rows")),
    }


def _rollouts_of(reader: Reader, endpoint_id: str, version: Version) -> list[RolloutRow]:
    return [
        row
        for row in live.list_rollouts(reader, endpoint_id)
        if live.get_deployment(reader, row.candidate_id).version_id == version.id
    ]
