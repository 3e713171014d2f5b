"""Dialogues of a benchmark: what its harness logged as rows that every verb reads, and checklists from right answers.

    raw/run-N ──transcripts──▶ messages ─┐
    outcomes.jsonl ──official outcome────┼──▶ dialogues ──cm2 judge, cm2 report──▶ why a task failed
    harness ──told: tools, right answer──┘       ▲
                        └────▶ reference dialogue ──▶ checklist, decided by checks

`told` asks the harness, `bfcl`, `tau2` and `toolsandbox` read transcripts, `gold` makes checklists, and `write` does it
all.
"""
