"""The ledger of claims: from the artifacts of a set of reward models to findings and verdicts."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf, nan
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from tension_utils.analysis.accuracy import BEHAVIORS, OPPOSING
from tension_utils.analysis.findings import CLAIMS, INDEX, POINTS, SD, WAYS, Finding, Part, judge
from tension_utils.analysis.frontier import frontier_gaps, frontier_rows
from tension_utils.artifacts import OWN_SCORES, read_table
from tension_utils.conditions import (
    CONTROL,
    EQUAL_ACTIVITY,
    EQUAL_SIZE,
    MIXED_SETS,
    NATURAL,
    ONLY,
    SHARED,
    WITHOUT_KEYSTONE,
)
from tension_utils.config import (
    CONTROLS,
    LABELS,
    MATCHED_ARM,
    MIXED,
    MIXED_ARMS,
    REMOVAL,
    SCORE_KINDS,
    SINGLE_OBJECTIVES,
    Run,
    list_pairs,
    sham_arm,
)
from tension_utils.neurons import NeuronSet, jaccard, top_neurons
from tension_utils.scores import NeuronScores
from tension_utils.statistics import (
    ITEM_COLUMNS,
    MODEL_COLUMNS,
    RM_COLUMNS,
    TAILS,
    Bootstrap,
    Spread,
    ablation_changes,
    complete_models,
    contrast_draws,
    contrast_spread,
    count_distinct,
    crossed_parts,
    mean_table,
    pair_differences,
    prediction_test,
    seed_interval,
)

HELPFUL, HARMLESS = SINGLE_OBJECTIVES

PUBLISHED, CONTROLLED = WAYS

MAIN_FRACTION = 0.1  # the study's share of neurons

MAIN_KIND, PUBLISHED_KIND = "rms_change", "signed_mean"  # score kinds of the primary findings, by way

SINGLE = "single"  # arm of a finding on the single-objective reward models

PLACE = [*MODEL_COLUMNS, *ITEM_COLUMNS, "cluster"]

TARGETED = -1  # draw of the targeted set, beside its random sets 0, 1, ...

MOST = {POINTS: 100.0, SD: inf}  # that a value can be; an interval over few seeds would pass it

UNIT_OF = {"accuracy": (POINTS, 100), "margin": (SD, 1)}  # metric -> unit and factor


@dataclass(frozen=True)
class Evidence:
    """Stored results of a set of reward models; what is missing is not run.

    Args:
        evaluation: rows of evaluation.parquet; None where nothing was evaluated.
        ablation: rows of ablation.parquet; None where no set was removed.
        scores: run -> its neuron scores on its own training pairs.
        n_resamples: bootstrap draws behind every interval; each is drawn anew, whatever else is read.
        interpolation: rows of interpolation.parquet; None where no weights were interpolated.
    """

    evaluation: pd.DataFrame | None = None
    ablation: pd.DataFrame | None = None
    scores: Mapping[Run, NeuronScores] = field(default_factory=dict)
    n_resamples: int = Bootstrap.n_resamples
    interpolation: pd.DataFrame | None = None

    @classmethod
    def of(cls, runs: Sequence[Run]) -> "Evidence":
        """Read the artifacts that runs have, of whichever base models, arms and seeds."""

        def table(name: str, made_by: str) -> pd.DataFrame | None:
            found = [run for run in runs if (run.folder / f"{name}.parquet").exists()]
            return read_table(found, name, made_by) if found else None

        scored = [run for run in runs if (run.folder / OWN_SCORES).exists()]
        scores = {
            run: NeuronScores.load(run.folder / OWN_SCORES).only(SCORE_KINDS, ("both",), ("all",)) for run in scored
        }
        pairs = [pair for pair in list_pairs(runs) if (pair.folder / "interpolation.parquet").exists()]
        interpolation = read_table(pairs, "interpolation", "05c_dial") if pairs else None
        evaluation, ablation = table("evaluation", "02_evaluate"), table("ablation", "04_ablate")
        return cls(evaluation, ablation, scores, interpolation=interpolation)

    @cached_property
    def fraction(self) -> float:
        """The share of neurons nearest to the study's tenth that was removed; a tenth where none were."""
        if self.ablation is None:
            return MAIN_FRACTION
        return float(min(self.ablation.fraction.unique(), key=lambda share: abs(share - MAIN_FRACTION)))

    @property
    def top(self) -> str:
        """The share in words."""
        return f"top {100 * self.fraction:g} %"

    @cached_property
    def removed(self) -> dict[tuple[str, str, str], pd.DataFrame]:
        """(objective, set, family) -> changes on the HH-RLHF items without it and without its random sets.

        Of sets of `fraction`, removed to zero. The index, the same for all, numbers reward models and items; `places`
        tells which.
        """
        rows = self.ablation
        if rows is None or self.evaluation is None:
            return {}
        is_it = (rows.fraction == self.fraction) & (rows.ablation_kind == "zero") & (rows["scale"] == REMOVAL)
        changes = ablation_changes(rows[is_it & (rows.benchmark == "hh-rlhf")], self.evaluation)
        draw = changes.draw.where(changes["set"] == CONTROL, TARGETED)
        kept = changes[["control", "group", *(f"{metric}_change" for metric in UNIT_OF)]]
        kept = kept.astype({"control": "category", "group": "category"}).assign(draw=draw)
        kept.index = pd.MultiIndex.from_frame(self.places).get_indexer(pd.MultiIndex.from_frame(changes[PLACE]))
        return {
            key: kept.iloc[at] for key, at in changes.groupby(["objective", "matched_to", "family"]).indices.items()
        }

    @cached_property
    def intact(self) -> pd.DataFrame:
        """What intact reward models have to lose on each ablated item, by objective and number of place.

        margin in their standard deviations on the benchmark, as changes are; accuracy beyond chance.
        """
        rows = self.evaluation
        spread = rows.groupby([*RM_COLUMNS, "benchmark"]).margin.transform("std")
        place = pd.MultiIndex.from_frame(self.places).get_indexer(pd.MultiIndex.from_frame(rows[PLACE]))
        values = {"margin": rows.margin / spread, "accuracy": rows.credit - rows.chance}
        table = pd.DataFrame({"objective": rows.objective, "place": place} | values)
        return table[place >= 0].set_index(["objective", "place"])

    @cached_property
    def places(self) -> pd.DataFrame:
        """Base model, seed and place of every ablated item, each once."""
        return self.ablation[PLACE].drop_duplicates(ignore_index=True)

    @property
    def removed_kinds(self) -> list[str]:
        """The score kinds whose sets were removed from single-objective models, the main one first."""
        found = {name for objective, name, _ in self.removed if objective in SINGLE_OBJECTIVES and name in SCORE_KINDS}
        return sorted(found, key=lambda kind: (kind != MAIN_KIND, kind))

    def controls(self, objectives: Sequence[str], name: str, family: str = "") -> list[str]:
        """Return the kinds of random sets that match a set in every one of the models, the closest match first."""
        keys = [(objective, name, family) for objective in objectives]
        found = [set(self.removed[key].control) for key in keys if key in self.removed]
        common = set.intersection(*found) if len(found) == len(keys) else set()
        return [control for control in reversed(CONTROLS) if control in common]


def not_run(what: Mapping[str, Any], reason: str) -> Finding:
    """Return the finding that something was not run, so that it does not disappear."""
    return Finding(**what, value=nan, ci_low=nan, ci_high=nan, p_value=nan, reason=reason)


def raw(what: Mapping[str, Any], rows: pd.DataFrame, strata: Sequence[str] = ()) -> Finding:
    """Return a finding as published: means of the parts, no interval.

    Args:
        what: fields of the finding that name it.
        rows: part, value, and the columns of items and models.
        strata: columns within a part whose values weigh the same.
    """
    means = rows.groupby(["part", *strata], sort=False).value.mean().groupby(level="part", sort=False).mean()
    sizes = {"n_items": count_distinct(rows, ITEM_COLUMNS), "n_seeds": count_distinct(rows, MODEL_COLUMNS)}
    parts = tuple(Part(name, value) for name, value in means.items())
    return Finding(**what, value=float(means.mean()), ci_low=nan, ci_high=nan, p_value=nan, parts=parts, **sizes)


def estimated(
    what: Mapping[str, Any], rows: pd.DataFrame, n_resamples: int, strata: Sequence[str] = (), **found: Any
) -> Finding:
    """Return a finding with its interval: items, by cluster, crossed with seeds; parts weigh the same.

    Args:
        what: fields of the finding that name it.
        rows: part, value, and the columns of items and models.
        n_resamples: bootstrap draws.
        strata: columns within a part, of which the first weighs its values the same, and so do the cells in each.
        found: further fields; without p_value it is the share of draws that are not on the claimed side.
    """
    sums, counts, cells = crossed_parts(rows, "value", ["part", *strata])
    names = sorted({cell[0] for cell in cells})
    own = np.array([[cell[0] == name for name in names] for cell in cells]) * _shares(cells)[:, None]
    values, draws = contrast_draws(sums, counts, np.c_[own.mean(1), own], Bootstrap(n_resamples), is_shared=True)
    most = MOST[what["unit"]]
    bounds = np.c_[values, np.quantile(draws, TAILS, axis=0).T.clip(-most, most)]
    if len(cells) == len(names):  # parts that are plain means: the intervals that tables of them show
        alone = mean_table(rows, ["value"], ["part"], Bootstrap(n_resamples))
        bounds[1:, 1:] = alone[["value_ci_low", "value_ci_high"]].clip(-most, most)
    parts = [Part(name, *of_part) for name, of_part in zip(names, bounds[1:].tolist(), strict=True)]
    for name, of_model in rows.groupby("base_model") if rows.base_model.nunique() > 1 else ():
        one = estimated(what, of_model, n_resamples, strata)
        parts.append(Part(name, one.value, one.ci_low, one.ci_high))
    is_against = CLAIMS[what["claim"]].sign * draws[:, 0] <= 0
    found = {"p_value": float((1 + is_against.sum()) / (1 + len(draws)))} | found
    sizes = {"n_items": count_distinct(rows, ITEM_COLUMNS), "n_seeds": counts.shape[1]}
    pooled = dict(zip(("value", "ci_low", "ci_high"), bounds[0].tolist(), strict=True))
    by_seed = tuple((_of_seeds(sums, counts) @ own.mean(1)).tolist())
    runs = rows[list(MODEL_COLUMNS)].drop_duplicates().sort_values(list(MODEL_COLUMNS))  # as `crossed_parts` has them
    spread = contrast_spread(sums, counts, own.mean(1), is_shared=True)
    of_runs = {"by_seed": by_seed, "bases": tuple(runs.base_model.astype(str)), "spread": spread}
    return Finding(**what, **pooled, **sizes, **found, **of_runs, parts=tuple(parts))


def _of_seeds(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the mean of every training run and cell (S, M) of sums and counts (C, S, M); NaN where there is none."""
    n_items = counts.sum(0)
    return np.divide(sums.sum(0), n_items, out=np.full(n_items.shape, nan), where=n_items > 0)


def _shares(cells: Sequence[tuple]) -> np.ndarray:
    """Return the share of each cell (part, first stratum, ...) in its part (M,)."""
    firsts = [cell[:2] for cell in cells]
    n_firsts = Counter(first[0] for first in set(firsts))
    return np.array([1 / n_firsts[first[0]] / firsts.count(first) for first in firsts])


# C1: mixing.


def mixing(evidence: Evidence) -> Iterator[Finding]:
    """Yield what is lost by training on both objectives, item by item and seed by seed."""
    yield _mixing(evidence, MIXED, "all", PUBLISHED)
    yield _mixing(evidence, MATCHED_ARM, "own", is_primary=True)
    yield _mixing(evidence, MIXED, "own")
    if evidence.evaluation is not None and evidence.evaluation.benchmark.nunique() > 1:
        yield _mixing(evidence, MATCHED_ARM, "all")
        yield _mixing(evidence, MATCHED_ARM, "safety")
    yield from _beyond_frontiers(evidence)


def _beyond_frontiers(evidence: Evidence) -> Iterator[Finding]:
    """Yield how far mixed models lie beyond what the two single ones reach without joint training."""
    rows = evidence.evaluation
    found = set() if rows is None else set(rows.objective[rows.benchmark == "hh-rlhf"])
    arms = [arm for arm in MIXED_ARMS if arm in found]
    if not arms or not set(SINGLE_OBJECTIVES) <= found:
        return
    frontiers = frontier_rows(rows, evidence.interpolation)
    for arm in arms:
        what = _named("C1", "frontier", "accuracy", arm, "both")
        for _, row in frontier_gaps(rows, frontiers, (arm,), bootstrap=Bootstrap(evidence.n_resamples)).iterrows():
            is_claimed = CLAIMS["C1"].sign * row.gap > 0
            values = {"value": 100 * row.gap, "ci_low": 100 * row.ci_low, "ci_high": 100 * row.ci_high}
            p_value = row.p_value / 2 if is_claimed else 1 - row.p_value / 2
            sizes = {"n_items": row.n_items, "n_seeds": row.n_seeds}
            yield Finding(**what | {"control": row.frontier}, **values, p_value=p_value, **sizes)


def _mixing(evidence: Evidence, arm: str, test: str, way: str = CONTROLLED, is_primary: bool = False) -> Finding:
    """Return one reading; as published ties are wrong and every subset weighs the same."""
    is_published = way == PUBLISHED
    what = _named("C1", "mixing", "accuracy", arm, test, way=way, is_primary=is_primary or is_published)
    if evidence.evaluation is None:
        return not_run(what, "nothing was evaluated")
    if arm not in set(evidence.evaluation.objective):
        return not_run(what, f"no model was trained as {arm}")
    parts = []
    for single in SINGLE_OBJECTIVES:
        rows = _of_test(evidence.evaluation, single, test)
        rows = complete_models(rows, "objective", (arm, single), (*MODEL_COLUMNS, "benchmark"))
        if rows.empty:
            return not_run(what, f"{single} model and {arm} were not evaluated on the same items ({test})")
        score = 100 * ((rows.margin > 0).astype(float) if is_published else rows.credit)
        rows = rows[["objective", *PLACE, "direction"]].assign(value=score)
        difference = pair_differences(rows, "objective", (arm, single), ["value"])
        parts.append(difference.assign(part=single))
    rows = pd.concat(parts, ignore_index=True)
    if is_published:
        return raw(what, rows, ["benchmark", "subset"])
    strata = ["direction", "benchmark", "subset"] if test == "safety" else []
    return estimated(what, rows, evidence.n_resamples, strata)


def _named(claim: str, quantity: str, metric: str, arm: str, test: str, **names: Any) -> dict[str, Any]:
    """Return the fields that name a finding."""
    unit = UNIT_OF[metric][0] if metric in UNIT_OF else INDEX
    what = {"claim": claim, "way": CONTROLLED, "is_primary": False, "quantity": quantity, "metric": metric}
    what |= {"objective": "both", "arm": arm, "test": test, "neuron_set": "", "score_kind": "", "control": ""}
    return what | {"unit": unit} | names


def _of_test(evaluation: pd.DataFrame, single: str, test: str) -> pd.DataFrame:
    """Return the rows of a kind of test of one objective; those on safety are the same for both."""
    if test == "safety":
        is_it = evaluation.direction.isin(BEHAVIORS) & (evaluation.benchmark != "hh-rlhf")
        both = set(evaluation.direction[is_it]) == set(BEHAVIORS)
        return evaluation[is_it & both]
    is_own = evaluation.group == single
    return evaluation[is_own & (evaluation.benchmark == "hh-rlhf")] if test == "own" else evaluation[is_own]


# C2 and C3: removal.


REMOVED_FROM = {  # claim -> which test that is in a word, objective of the reward model -> test
    "C2": ("own", {single: single for single in SINGLE_OBJECTIVES}),
    "C3": ("opposing", OPPOSING),
}


def removal_finding(evidence: Evidence, claim: str, kind: str, metric: str, control: str, **names: Any) -> Finding:
    """Return what removing the single-objective models' top neurons does to one test.

    Args:
        evidence: the stored results.
        claim: key of `REMOVED_FROM`.
        kind: score kind of the sets.
        metric: "accuracy" or "margin".
        control: of `config.CONTROLS`; "" for none, as published.
        names: further fields that name the finding.
    """
    test, tests = REMOVED_FROM[claim]
    names |= {"neuron_set": evidence.top, "score_kind": kind, "control": control}
    parts = {objective: [(objective, group, kind, "", 1)] for objective, group in tests.items()}
    return _removed(evidence, _named(claim, "removal", metric, SINGLE, test, **names), parts)


def removal(claim: str) -> Any:
    """Return what yields the readings of a claim of `REMOVED_FROM`."""

    def readings(evidence: Evidence) -> Iterator[Finding]:
        kinds = evidence.removed_kinds
        published = PUBLISHED_KIND if PUBLISHED_KIND in kinds or not kinds else kinds[0]
        for kind in dict.fromkeys([published, *kinds]):
            is_primary = kind == published
            yield removal_finding(evidence, claim, kind, "accuracy", "", way=PUBLISHED, is_primary=is_primary)
        for kind in dict.fromkeys([MAIN_KIND, *kinds]):
            best, *others = evidence.controls(SINGLE_OBJECTIVES, kind) or [""]
            yield removal_finding(evidence, claim, kind, "margin", best, is_primary=kind == MAIN_KIND)
            if kind == MAIN_KIND and kind in kinds:
                yield removal_finding(evidence, claim, kind, "accuracy", best)
                yield from (removal_finding(evidence, claim, kind, "margin", other) for other in others)

    return readings


def _removed(evidence: Evidence, what: dict[str, Any], parts: Mapping[str, list[tuple]]) -> Finding:
    """Return a finding on removed sets: changes, beyond those of random sets where there is a control.

    Args:
        evidence: the stored results.
        what: fields of the finding that name it.
        parts: name -> terms (objective of the reward model, test, set, family, sign) whose sum is measured.
    """
    found = []
    for name, terms in parts.items():
        tables = [sign * _by_draw(evidence, what, *term) for *term, sign in terms]
        if any(table.empty for table in tables):
            return not_run(what, "no such neuron set was removed")
        found.append(sum(tables[1:], tables[0]).dropna(axis=1, how="all").dropna().assign(part=name))
    wide = pd.concat(found).dropna(axis=1)  # draws that all models have
    rows = evidence.places.loc[wide.index].assign(part=wide.part, value=wide[TARGETED])
    if what["way"] == PUBLISHED:
        return raw(what, rows)
    draws = wide.drop(columns=[TARGETED, "part"])
    if draws.shape[1] < 2:
        return not_run(what, "fewer than two random sets match the removed one")
    means = wide.assign(**rows[list(MODEL_COLUMNS)]).groupby(["part", *MODEL_COLUMNS]).mean()
    side = "less" if CLAIMS[what["claim"]].sign < 0 else "greater"
    p_value = prediction_test(means[TARGETED].to_numpy(), means[draws.columns].to_numpy(), side).p_value
    rows["value"] -= draws.mean(axis=1)
    found = {"p_value": p_value, "n_draws": draws.shape[1]}
    if CLAIMS[what["claim"]].sign < 0:
        models = {name: terms[0][0] for name, terms in parts.items()}
        found["to_lose"] = _to_lose(evidence, what["metric"], models, rows)
    return estimated(what, rows, evidence.n_resamples, **found)


def _to_lose(evidence: Evidence, metric: str, models: Mapping[str, str], rows: pd.DataFrame) -> float:
    """Return what intact models have to lose in the mean over parts, in the metric's unit.

    Args:
        evidence: the stored results.
        metric: key of `UNIT_OF`.
        models: part -> objective of its reward models.
        rows: part of every item; the index is that of `Evidence.places`.
    """
    means = [evidence.intact.loc[models[part]][metric].loc[items.index].mean() for part, items in rows.groupby("part")]
    return UNIT_OF[metric][1] * float(np.mean(means))


def _by_draw(
    evidence: Evidence, what: Mapping[str, Any], objective: str, group: str, name: str, family: str
) -> pd.DataFrame:
    """Return changes of every item of a test, a column per draw, without a set and without its random sets."""
    rows = evidence.removed.get((objective, name, family))
    if rows is None:
        return pd.DataFrame()
    is_kept = (rows.draw == TARGETED) | ((rows.control == what["control"]) & (what["control"] != ""))
    rows = rows[is_kept & rows.group.isin([group] if group else SINGLE_OBJECTIVES)]
    return UNIT_OF[what["metric"]][1] * rows.pivot(columns="draw", values=f"{what['metric']}_change")


# C4: sharing.


def sharing(evidence: Evidence) -> Iterator[Finding]:
    """Yield the overlap of both objectives' top neurons, as it is and beyond that with models of sham labels.

    Chance is no control: the same loud neurons enter both sets whatever was learned. A sham model was trained on the
    same pairs, and what it shares with the model of the *other* objective needs no objective; the two sets of text are
    those of the helpful and the harmless model.
    """
    yield _sharing(evidence, PUBLISHED_KIND, "", way=PUBLISHED, is_primary=True)
    yield _sharing(evidence, MAIN_KIND, "", way=PUBLISHED)
    yield _sharing(evidence, MAIN_KIND, LABELS[1], is_primary=True)
    yield _sharing(evidence, PUBLISHED_KIND, LABELS[1])
    yield _sharing(evidence, MAIN_KIND, LABELS[2])


def _sharing(evidence: Evidence, kind: str, labels: str, **names: Any) -> Finding:
    """Return one reading; with a control paired by seed, and Student's t over seeds."""
    names |= {"neuron_set": evidence.top, "score_kind": kind, "control": labels}
    what = _named("C4", "sharing", "jaccard", SINGLE, "", **names)
    sets = {
        run: top_neurons(own.get(kind), evidence.fraction)
        for run, own in evidence.scores.items()
        if (kind, "both", "all") in own.tensors
    }
    models: dict[tuple[str, int], dict[str, NeuronSet]] = {}
    for run, neurons in sets.items():
        models.setdefault((run.base_model_name, run.seed), {})[run.objective] = neurons
    shams = [sham_arm(objective, labels) for objective in SINGLE_OBJECTIVES] if labels else []
    complete = {place: own for place, own in models.items() if {*SINGLE_OBJECTIVES, *shams} <= set(own)}
    if not complete:
        lacking = [name for name in (*SINGLE_OBJECTIVES, *shams) if not any(name in own for own in models.values())]
        return not_run(what, f"no neuron scores of {' and '.join(lacking)}" if lacking else "no seed has all models")
    beyond = np.array([overlap_beyond(own, shams) for own in complete.values()])
    sizes = {"n_items": len(next(iter(complete.values()))[HELPFUL]), "n_seeds": len(beyond)}
    if not labels:
        reason = "an index above zero cannot fail"
        return Finding(**what, value=beyond.mean(), ci_low=nan, ci_high=nan, p_value=nan, reason=reason, **sizes)
    low, high = seed_interval(beyond)
    p_value = nan
    if len(beyond) > 1 and np.ptp(beyond) > 0:
        p_value = float(stats.ttest_1samp(beyond, 0, alternative="greater").pvalue)
    of_model = pd.Series(beyond, index=[name for name, _ in complete]).groupby(level=0)
    parts = tuple(Part(name, own.mean(), *seed_interval(own)) for name, own in of_model) if len(of_model) > 1 else ()
    sizes |= {"parts": parts, "by_seed": tuple(beyond.tolist()), "bases": tuple(name for name, _ in complete)}
    if len(beyond) > 1:
        sizes["spread"] = Spread(0.0, float(beyond.var(ddof=1)) / len(beyond), 0.0, len(beyond) - 1)
    return Finding(**what, value=beyond.mean(), ci_low=low, ci_high=high, p_value=p_value, **sizes)


def overlap_beyond(sets: Mapping[str, NeuronSet], shams: Sequence[str]) -> float:
    """Return the overlap of both objectives minus the mean overlap of each with the sham of the other."""
    control = [jaccard(sets[single], sets[sham]) for single, sham in zip(SINGLE_OBJECTIVES, shams[::-1], strict=False)]
    return float(jaccard(sets[HELPFUL], sets[HARMLESS]) - (np.mean(control) if control else 0))


# C5: weight.


def weight(evidence: Evidence) -> Iterator[Finding]:
    """Yield what the shared set does more than each only set, on that one's own test.

    On the other test an only set has nothing to do, and any shared neuron would seem heavier than it. As published sets
    are as large as they are, and both tests count.
    """
    yield _weight(evidence, MIXED, NATURAL, "accuracy", way=PUBLISHED, is_primary=True)
    for arm in reversed(MIXED_ARMS):
        best, *others = weighed_families(evidence, arm) or [EQUAL_SIZE]
        yield _weight(evidence, arm, best, "margin", is_primary=arm == MATCHED_ARM)
        if (arm, SHARED, best) in evidence.removed:
            yield _weight(evidence, arm, best, "accuracy")
            yield from (_weight(evidence, arm, family, "margin") for family in others)


def weighed_families(evidence: Evidence, arm: str) -> list[str]:
    """Return the families whose shared and only sets can be weighed in an arm, the one with the most in common first.

    Sets of one size and activity say more than sets of one size; of natural sets the largest would weigh most.
    """
    families = (EQUAL_ACTIVITY, EQUAL_SIZE, WITHOUT_KEYSTONE)
    return [family for family in families if evidence.controls([arm], SHARED, family)]


def _weight(evidence: Evidence, arm: str, family: str, metric: str, way: str = CONTROLLED, **names: Any) -> Finding:
    is_published = way == PUBLISHED
    control = [] if is_published else evidence.controls([arm], SHARED, family)
    names |= {"neuron_set": family, "control": control[0] if control else "", "way": way}
    what = _named("C5", "weight", metric, arm, "both" if is_published else "own", **names)
    if not {(arm, name, family) for name in MIXED_SETS} <= set(evidence.removed):
        return not_run(what, f"no shared and only sets were removed from {arm}")
    groups = {single: "" if is_published else single for single in SINGLE_OBJECTIVES}
    parts = {
        single: [(arm, group, SHARED, family, 1), (arm, group, ONLY[single], family, -1)]
        for single, group in groups.items()
    }
    return _removed(evidence, what, parts)


READINGS = {
    "C1": mixing,
    "C2": removal("C2"),
    "C3": removal("C3"),
    "C4": sharing,
    "C5": weight,
}


def ledger(evidence: Evidence) -> pd.DataFrame:
    """Return every reading of every claim with its verdict, one row each; columns as of `findings.judge`."""
    return judge(finding for claim in CLAIMS for finding in READINGS[claim](evidence))
