"""From an alarm to a decision: fire, retrain, judge, roll out; each step is recorded and can be resumed."""

from __future__ import annotations

from datetime import datetime

import msgspec

from trimtab.automate.jobs import Jobs, Outcome
from trimtab.automate.policy import hold_back
from trimtab.core.errors import TrimtabError
from trimtab.core.ids import new_id
from trimtab.core.nouns import Data, Run
from trimtab.monitor.signals import Rule, rules
from trimtab.monitor.watch import Monitors
from trimtab.serve.apply import roll_back, roll_out
from trimtab.store import facts, live
from trimtab.store.ledger import Tx
from trimtab.store.live import Alarm, Firing
from trimtab.store.store import Store


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

    def fire(self, now: datetime) -> list[Firing]:
        """Turn alarms that nobody has acted on into firings, once each."""
        fired = []
        for rule in rules(self._store.ledger):
            if not rule.automation.enabled or rule.status != "fail" or not rule.endpoint:
                continue
            endpoint = live.find_endpoint(self._store.ledger, rule.endpoint)
            for alarm in live.list_alarms(self._store.ledger, endpoint.id) if endpoint else []:
                if alarm.check == rule.check.name and alarm.at <= now:
                    made = self._fire(rule, alarm)
                    fired += [made] if made else []
        return fired

    def _fire(self, rule: Rule, alarm: Alarm) -> Firing | None:
        known = live.list_firings(self._store.ledger, rule.automation.id)
        if any(one.key == alarm.id for one in known):
            return None
        acted = [one.at for one in known if one.data.get("verdict") != "held"]
        held = hold_back(acted, alarm.at, cooldown=rule.cooldown, limit=rule.limit)
        data: Data = {
            "automation": rule.automation.name,
            "trigger": {"check": alarm.check, "alarm": alarm.id, "reason": alarm.data.get("reason", "")},
            "actions": [{"do": action.do, "target": action.target} for action in rule.actions],
            "verdict": "held" if held else "",
            "reason": held,
            "rolled_out": False,
        }

        def write(tx: Tx) -> Firing | None:
            made = live.add_firing(tx, automation_id=rule.automation.id, key=alarm.id, at=alarm.at, data=data)
            if made is not None and held:
                live.update_firing(tx, msgspec.structs.replace(made, state="done"))
            return made

        made = self._store.ledger.write(write, what=f"automation {rule.automation.name}")
        return None if held else made

    def step(self, now: datetime, *, wait: bool) -> int:
        """Carry on with every firing that is not done and return how many moved."""
        moved = 0
        for firing in live.list_firings(self._store.ledger):
            if firing.state in ("pending", "running"):
                moved += self._carry_on(firing, now, wait)
        return moved

    def _carry_on(self, firing: Firing, now: datetime, wait: bool) -> bool:
        runs = [action["target"] for action in firing.data["actions"] if action["do"] == "run"]
        if not runs:
            return self._act(firing, now, {"verdict": "accepted", "reason": "nothing had to run"})
        if self._jobs is None:
            return self._end(firing, now, {"verdict": "refused", "reason": "there is no project to run"}, failed=True)
        self._jobs.run(firing.id, runs[0], actor=f"automation:{firing.data['automation']}")
        if firing.state == "pending":
            self._save(msgspec.structs.replace(firing, state="running"))
        outcome = self._jobs.poll(firing.id, wait=wait)
        if outcome is None:
            return False
        self._jobs.forget(firing.id)
        found = self._judge(runs[0], outcome)
        if outcome.exit_code not in (0, 1):
            return self._end(firing, now, found, failed=True)
        if found["verdict"] != "accepted":
            return self._end(firing, now, found)
        return self._act(firing, now, found)

    def _judge(self, asset: str, outcome: Outcome) -> Data:
        """Return what a retraining run's report says: accepted or refused, why, and with which interval."""
        if outcome.error:
            return {"verdict": "failed", "reason": outcome.error.get("message", ""), "error": outcome.error}
        stages = {stage["id"]: stage for stage in outcome.report["stages"]}
        gate = stages.get(f"gate:{asset}") or stages.get(f"make:{asset}") or {}
        verdicts = gate.get("verdicts") or self._recorded(asset)
        beats = next((one for one in verdicts if one["kind"] == "beats"), None)
        evidence = (beats or {}).get("evidence") or {}
        gain = evidence.get("gain") or {}
        bad = [one["reason"] for one in verdicts if one["status"] in ("fail", "inconclusive")]
        challenger = facts.alias_of(self._store.ledger, asset, "challenger")
        accepted = outcome.exit_code == 0 and gate.get("state") in ("done", "reused")
        failed = [stage["error"]["message"] for stage in stages.values() if stage.get("error")]
        return {
            "verdict": "accepted" if accepted else "refused",
            "reason": (beats or {}).get("reason", "") if accepted else "; ".join(bad or failed),
            "interval": {name: gain.get(name) for name in ("estimate", "low", "high", "level")} if gain else None,
            "metric": evidence.get("metric"),
            "candidate": evidence.get("candidate") or gate.get("version", ""),
            "champion": evidence.get("champion"),
            "rows": evidence.get("rows"),
            "version": challenger.ref if accepted and challenger else "",
        }

    def _recorded(self, asset: str) -> list[Data]:
        newest = facts.newest(self._store.ledger, asset)
        if newest is None:
            return []
        parent = str(newest.meta.get("refit_of") or newest.id)
        return [msgspec.to_builtins(one) for one in facts.verdicts_of(self._store.ledger, parent)]

    def _act(self, firing: Firing, now: datetime, found: Data) -> bool:
        more: Data = {}
        for action in firing.data["actions"]:
            try:
                if action["do"] == "roll_out":
                    more |= self._roll_out(action["target"], str(found.get("version", "")))
                elif action["do"] == "roll_back":
                    more["rolled_back"] = roll_back(self._store, action["target"], reason="automation")["version"]
            except TrimtabError as error:
                return self._end(firing, now, {**found, "reason": error.message, "error": error.as_data()}, failed=True)
        return self._end(firing, now, {**found, **more})

    def _roll_out(self, name: str, version: str) -> Data:
        reader = self._store.ledger
        endpoint = live.need_endpoint(reader, name)
        wanted = facts.resolve(reader, version) if version else None
        active = live.active_rollout(reader, endpoint.id)
        if active is not None and wanted and live.get_deployment(reader, active.candidate_id).version_id == wanted.id:
            return {"rolled_out": True, "rollout": active.id}
        serving = [live.get_deployment(reader, one).version_id for one in endpoint.traffic]
        if wanted is None or wanted.id in serving:
            return {"rolled_out": False, "reason": "the accepted version serves already"}
        return {"rolled_out": True, "rollout": roll_out(self._store, name, wanted.ref, why="automation")}

    def _end(self, firing: Firing, now: datetime, found: Data, *, failed: bool = False) -> bool:
        after = msgspec.structs.replace(firing, state="failed" if failed else "done", data={**firing.data, **found})
        run = Run(
            id=new_id("run"), kind="automation", name=firing.data["automation"], state="failed" if failed else "done",
            started_at=firing.at, ended_at=max(now, firing.at), actor=f"automation:{firing.data['automation']}",
            facts={name: value for name, value in after.data.items() if name != "error"},
            error=found.get("error") or {},
        )  # fmt: skip

        def write(tx: Tx) -> None:
            facts.start_run(tx, run)
            live.update_firing(tx, msgspec.structs.replace(after, run_id=run.id))
            if failed:
                title = f"automation {firing.data['automation']} failed"
                live.open_case(tx, kind="automation", title=title, subject=firing.id, at=now, facts=found)
            for rule in rules(tx):
                if rule.automation.id == firing.automation_id and rule.endpoint:
                    self._monitors.restart(tx, live.need_endpoint(tx, rule.endpoint), now)

        self._store.ledger.write(write, what="automation")
        return True

    def _save(self, firing: Firing) -> None:
        self._store.ledger.write(lambda tx: live.update_firing(tx, firing), what="automation")
