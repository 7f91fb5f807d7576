"""Rollout: a canary that takes over step by step.

Five words: a *plan* is what the object asks for; the *state* is how far it has come; a *sample* is what the
canary did in this step; a *gate* judges the sample; the *weight* is the canary's share of requests, a fact
that routing reads.
"""

from retia.policy.rollout.choose import CANARY, STABLE, rollout_of
from retia.policy.rollout.machine import Command, NotPossible, Phase, State, advance, begin, command, waiting
from retia.policy.rollout.plan import Gates, Plan, PlanStep, plan_of
from retia.policy.rollout.sample import Evidence, Sample

__all__ = [
    "CANARY",
    "STABLE",
    "Command",
    "Evidence",
    "Gates",
    "NotPossible",
    "Phase",
    "Plan",
    "PlanStep",
    "Sample",
    "State",
    "advance",
    "begin",
    "command",
    "plan_of",
    "rollout_of",
    "waiting",
]
