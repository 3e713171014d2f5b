"""verl: the cluster engine, as a plug-in of verl (0.9.1) and without a fork.

    cm2 rl --engine verl  ──▶  RUN/verl.yaml  ──▶  python -m verl.trainer.main_ppo
                                                      │
    verl asks for       dataset ─────────────────── data.py      rows that carry a task each
                        agent loop "cm2" ────────── loop.py      a dialogue, played by session.py
                        trainer "cm2" ───────────── trainer.py   advantages of cm2.credit, by credits.py

Environment, judge, worlds and credit are those of the local engine; here they are only fitted to verl's hooks. What a
session sends to the trainer is a `record.py`: verdicts and token counts of a rollout, from which the trainer makes the
advantages with the functions that the local engine calls.

Nothing here needs verl but plugin.py and what it registers (loop.py, data.py, trainer.py) and check.py; configurations
are written without it.
"""

TESTED = "0.9.1"
"""The version of verl that all of this was held against."""
PLUGIN = "cm2.verl.plugin"
"""The module that verl's processes import: by the entry point `verl.plugins`, and by VERL_USE_EXTERNAL_MODULES."""
NAME = "cm2"
"""Under which agent loop, trainer and estimator are registered."""
