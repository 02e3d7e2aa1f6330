"""What is live: the endpoint, how a new version takes over, and when the model is trained again."""

from __future__ import annotations

import trimtab as tt
from flights.model import delays
from trimtab import check as ck

# An airport asks once an hour for the flights that it schedules: about 47 requests a day. The salt is fixed so
# that a repeated replay splits the same requests in the same way; a real endpoint draws one and keeps it.
delay_api = tt.endpoint(
    "delay_api",
    serves=delays,
    rollout=tt.canary([10, 30, 100], judge=[ck.errors(), ck.latency("1s")], soak="2d", minimum=5),
    salt="flights-demo",
)

# Flights of one day are alike, so a day is one observation. Drift is shown and raises alarms; what leads to
# retraining is the loss on flights that have landed since.
tt.when(
    ck.performance("delay_api", on="brier", false_alarms="12/year", material=0.01, block="1d").fails,
    run=delays,
    then=delay_api.roll_out,
    cooldown="28d",
    name="retrain when live loss is worse",
)
