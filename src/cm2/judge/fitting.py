"""Fitting: a classifier from stored verdicts, with thresholds that keep a promise.

Dialogues are split into three parts by a hash of their id, so that all rollouts of a task, and all its turns and items,
fall into one part, whatever the file's order:

    fit    60 %   the weights; their regularisation by folds that keep dialogues together
    tune   20 %   Platt's sigmoid, and the two thresholds of confidence
    check  20 %   nothing is chosen here: what is reported was measured here

The promise of a threshold: among the items that the model decides on that side (yes, no) at most `target` have a
verdict that differs from the judge's after any step. A threshold is taken only where the upper Clopper-Pearson bound on
`tune` is below the target; ten candidates a side share the risk of 1 − `surety` (Bonferroni), and the number of items
counts as many as dialogues leave independent. If too little is known, the side has no threshold and goes to the model
that judges.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any, Literal

import msgspec
import numpy as np
from scipy import special

from cm2.errors import DataError, MissingExtra, Where
from cm2.judge.agreement import Confusion, Floats, effective_size, rate
from cm2.judge.classifier import Classifier, Header, settle
from cm2.judge.examples import Example, read_examples
from cm2.judge.features import WORD_BITS, idf_of, matrix, rows_of
from cm2.judge.fitting_config import TrainConfig

__all__ = ["TrainConfig", "part_of", "threshold", "train", "train_file"]

Part = Literal["fit", "tune", "check"]
STRENGTHS = (0.3, 3.0, 30.0)
CANDIDATES = 10
FOLDS = 3


def part_of(dialogue: str, seed: int = 0) -> Part:
    """The part that a dialogue falls into."""
    digest = hashlib.blake2b(f"{seed}/{dialogue}".encode(errors="surrogatepass"), digest_size=8).digest()
    at = int.from_bytes(digest, "big") / 2**64
    return "fit" if at < 0.6 else "tune" if at < 0.8 else "check"


def train_file(config: TrainConfig) -> Classifier:
    """Train, measure and save.

    Raises:
        DataError: a file does not read, or there are too few verdicts of either kind.
        MissingExtra: scikit-learn is not installed.
    """
    examples, counts, judges = read_examples(config)
    found = train(examples, target=config.target, surety=config.surety, seed=config.seed, where=config.verdicts)
    found.header.judges = judges
    found.header.report |= dict(counts)
    found.save(config.output)
    return found


def train(
    examples: list[Example], *, target: float = 0.02, surety: float = 0.95, seed: int = 0, where: str | None = None
) -> Classifier:
    """The model of these examples. Arguments as in `TrainConfig`; `where` is the file that an error names.

    Raises:
        DataError: there are too few verdicts of either kind in a part.
        MissingExtra: scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import log_loss
        from sklearn.model_selection import GroupKFold
    except ImportError as error:
        raise MissingExtra("training a classifier", "classifier") from error
    parts: dict[Part, list[Example]] = {"fit": [], "tune": [], "check": []}
    for example in examples:
        parts[part_of(example.dialogue, seed)].append(example)
    for name, mine in parts.items():
        dialogues = len({example.dialogue for example in mine})
        said = Counter(met for example in mine for met in example.met)
        if dialogues < FOLDS or min(said[True], said[False]) < FOLDS:
            raise DataError(
                f"too few verdicts to learn from: {dialogues} dialogues fall into the part '{name}', with"
                f" {said[True]} yes and {said[False]} no",
                where=Where(file=where) if where else None,
                fix="judge more dialogues; some hundreds are a beginning",
            )
    described = [one for example in parts["fit"] for one in example.described]
    says = np.array([met for example in parts["fit"] for met in example.met], dtype=int)
    groups = np.array([example.dialogue for example in parts["fit"] for _ in example.met])
    idf = idf_of(matrix([words for words, _ in described], WORD_BITS))
    columns = rows_of(described, idf)

    def model(strength: float) -> Any:
        return LogisticRegression(C=strength, solver="liblinear", max_iter=200, random_state=0)

    losses = []
    for strength in STRENGTHS:
        chance = np.zeros(len(says))
        for learnt, held in GroupKFold(n_splits=FOLDS).split(columns, says, groups):
            if len(set(says[learnt].tolist())) < 2:
                chance[held] = says[learnt].mean()
            else:
                chance[held] = model(strength).fit(columns[learnt], says[learnt]).predict_proba(columns[held])[:, 1]
        losses.append(float(log_loss(says, np.clip(chance, 1e-9, 1 - 1e-9), labels=[0, 1])))
    best = STRENGTHS[int(np.argmin(losses))]
    fitted = model(best).fit(columns, says)
    found = Classifier(fitted.coef_[0], float(fitted.intercept_[0]), idf, Header(target=target))
    # What is stored are single floats; what is calibrated and promised must be the model as it will be loaded.
    found.weights, found.idf = (each.astype(np.float32).astype(float) for each in (found.weights, found.idf))

    tune = parts["tune"]
    scores = found.scores([one for example in tune for one in example.described])
    told = np.array([met for example in tune for met in example.met], dtype=int)
    platt = LogisticRegression(C=1e6).fit(scores[:, None], told)
    found.header.slope, found.header.offset = float(platt.coef_[0, 0]), float(platt.intercept_[0])
    yes, confidence, wrong, dialogues_of = outcomes(found, tune)
    found.header.yes_from = threshold(confidence[yes], wrong[yes], dialogues_of[yes], target, surety)
    found.header.no_from = threshold(confidence[~yes], wrong[~yes], dialogues_of[~yes], target, surety)
    found.header.report = {
        "examples": {name: len(mine) for name, mine in parts.items()},
        "dialogues": {name: len({example.dialogue for example in mine}) for name, mine in parts.items()},
        "regularisation": best,
        "check": measure(found, parts["check"]),
    }
    return found


def outcomes(model: Classifier, examples: list[Example]) -> tuple[Any, Floats, Any, Any]:
    """Of each example: whether the model says yes, its confidence, whether it differs from the judge, the dialogue."""
    chances = model.probabilities([one for example in examples for one in example.described])
    yes, confidence, wrong = [], [], []
    at = 0
    for example in examples:
        mine = chances[at : at + len(example.met)]
        at += len(example.met)
        met, sure = settle(mine[None, :])
        yes.append(bool(met.any()))
        confidence.append(float(sure[0]))
        wrong.append(met[0].tolist() != example.met)
    dialogues = np.array([example.dialogue for example in examples], dtype=object)
    return np.array(yes, dtype=bool), np.array(confidence, dtype=float), np.array(wrong, dtype=bool), dialogues


def threshold(confidence: Floats, wrong: Any, dialogues: Any, target: float, surety: float) -> float | None:
    """The lowest confidence from which at most `target` are wrong, with probability `surety`; None where none is.

    Candidates are ranks, the most confident first, evenly spaced in their logarithm from the fewest items that could
    prove the target to all of them. How much the items of a dialogue resemble each other is seen from all of them,
    because among the most confident there may be no error to see it from.
    """
    n = len(confidence)
    risk = (1 - surety) / CANDIDATES
    worth = _worth(wrong, dialogues)
    fewest = int(np.ceil(np.log(risk) / np.log1p(-target) / worth)) if n else 1
    if n < fewest:
        return None
    order = np.argsort(-confidence, kind="stable")
    best = None
    for rank in np.unique(np.geomspace(fewest, n, CANDIDATES).round().astype(int)):
        limit = float(confidence[order[min(rank, n) - 1]])
        taken = confidence >= limit
        size = float(taken.sum()) * worth
        bad = float(wrong[taken].sum()) * worth
        if bad < size and float(special.betaincinv(bad + 1, size - bad, 1 - risk)) <= target:
            best = limit if best is None else min(best, limit)
    return best


def _worth(wrong: Any, dialogues: Any) -> float:
    """How much an item counts as evidence, as its dialogue has others like it (at most 1)."""
    if not len(wrong):
        return 1.0
    _, at = np.unique(dialogues.astype(str), return_inverse=True)
    return effective_size(np.bincount(at, weights=wrong), np.bincount(at)) / len(wrong)


def measure(model: Classifier, examples: list[Example]) -> dict[str, Any]:
    """How the model does on examples: agreement of all, what it would decide, and the errors among that."""
    yes, confidence, wrong, dialogues = outcomes(model, examples)
    limits = np.where(yes, model.header.yes_from or np.inf, model.header.no_from or np.inf)
    decided = confidence >= limits
    truth = np.array([any(example.met) for example in examples])
    kinds = [example.item.kind or "(none)" for example in examples]

    def tell(which: Any, sided: bool = False) -> dict[str, Any]:
        mine = decided & which
        counts = [int((mine & (yes == s) & (truth == t)).sum()) for s, t in ((1, 1), (1, 0), (0, 1), (0, 0))]
        _, at = np.unique(dialogues[mine].astype(str), return_inverse=True)
        error = rate(np.bincount(at, weights=wrong[mine]), np.bincount(at)) if mine.any() else None
        return {
            "items": int(which.sum()),
            "agreement": float((~wrong[which]).mean()) if which.any() else None,
            "decided": int(mine.sum()),
            "wrong": None if error is None else msgspec.to_builtins(error),
            "kappa": None if sided else Confusion(*counts).kappa,  # of one side only it is always 0
        }

    return tell(np.ones(len(examples), dtype=bool)) | {
        "yes": tell(yes, sided=True),
        "no": tell(~yes, sided=True),
        "kinds": {kind: tell(np.array(kinds) == kind) for kind in sorted(set(kinds))},
    }
