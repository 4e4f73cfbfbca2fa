"""What the study found, written by hand: numbers come from the stored results, and no sentence outlives them.

    python book/_ext/findings.py

writes a text for every chapter that the stored results fill; the build puts it below that chapter's question. Where the
results do not bear out a sentence, say because they are somebody else's, the page gets none, and a test of the project
fails and names it: read the tables, and write it anew.
"""

import argparse
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from tension_utils.analysis import margins, overlap, parting, removal, scaling
from tension_utils.analysis.accuracy import (
    behavior_table,
    depth_accuracy,
    mixed_against_single,
    percent,
    runs_text,
    tension_table,
)
from tension_utils.analysis.claims import TARGETED, Evidence
from tension_utils.analysis.findings import CLAIMS, LITTLE_TO_LOSE, SMALLEST, Part
from tension_utils.analysis.keystone import keystone_table
from tension_utils.analysis.removed import changes_by_draw, held_shares, shared_changes
from tension_utils.analysis.training import kept_checkpoints, training_sizes
from tension_utils.analysis.transfer import transferability_table
from tension_utils.artifacts import OWN_SCORES, atomic_path, find_runs, read_table
from tension_utils.conditions import SHARED
from tension_utils.config import (
    CURVE,
    CURVE_ARMS,
    LABELS,
    MATCHED_ARM,
    MIXED,
    MIXED_ARMS,
    OBJECTIVES,
    SHAM_ARMS,
    SINGLE_OBJECTIVES,
    Run,
    list_pairs,
    sham_arm,
)
from tension_utils.planted.rates import rated_ledger
from tension_utils.show import explorer
from tension_utils.show.ledger import extent_words, number_words, value_words
from tension_utils.show.sentences import extent
from tension_utils.statistics import (
    MODEL_COLUMNS,
    accuracy_table,
    complete_models,
    difference_table,
    pair_differences,
)

HELPFUL, HARMLESS = SINGLE_OBJECTIVES
KINDS, FRACTION = ("rms_change", "signed_mean"), 0.1  # how far training moved a neuron, and its mean activation
N_DRAWS = 20  # random sets beside each set
NAMES = {"smollm2-135m": "SmolLM2-135M", "gemma3-270m": "Gemma-3-270M"}  # base models, as texts call them
SMOLLM2, GEMMA = NAMES
GENERATED = Path("book", "generated", "findings")


class Unfounded(ValueError):
    """A sentence about the study that its stored results do not bear out."""


def require(holds: bool, sentence: str) -> None:
    """Refuse a sentence that does not follow from the results.

    Raises:
        Unfounded: with the sentence.
    """
    if not holds:
        raise Unfounded(f"the stored results no longer say that {sentence}; look at the tables and write it anew")


class Study:
    """The stored results that sentences are checked against.

    Args:
        folder: of the stored runs.
    """

    def __init__(self, folder: Path) -> None:
        """Read nothing yet."""
        self.folder = folder
        self.runs: list[Run] = find_runs(folder)

    @cached_property
    def evidence(self) -> Evidence:
        """All artifacts that the ledger reads."""
        return Evidence.of(self.runs)

    @cached_property
    def ledger(self) -> pd.DataFrame:
        """Every reading of every claim, with the verdicts that all pages show."""
        return rated_ledger(self.evidence, self.folder / "planted")

    @cached_property
    def main(self) -> pd.DataFrame:
        """Rows of the HH-RLHF tests, of the three objectives."""
        rows = self.evidence.evaluation
        return rows[rows.objective.isin(OBJECTIVES) & (rows.benchmark == "hh-rlhf")]

    @cached_property
    def errors(self) -> pd.DataFrame:
        """How much surer models are than right: a row each, by objective and group as index."""
        return margins.calibration_errors(self.main, by=["objective", "group"]).set_index(["objective", "group"])

    @cached_property
    def lengths(self) -> pd.DataFrame:
        """What length is worth to a model: a row each, by objective and group as index."""
        return margins.length_bias_table(self.main, by=["objective", "group"]).set_index(["objective", "group"])

    @cached_property
    def transfer(self) -> pd.DataFrame:
        """What the mixed model keeps: a row per group, as index."""
        kept = transferability_table(self.main)
        return kept[kept.pairings == "all"].set_index("group")

    @cached_property
    def matrix(self) -> pd.DataFrame:
        """Accuracy by training objective and test: a row each, by both as index."""
        return matrix_of(self.evidence.evaluation)

    @cached_property
    def by_size(self) -> dict[int, pd.DataFrame]:
        """Evaluations of models that differ in the number of training pairs, by it, of the same base models."""
        tables = {}
        for place in (self.folder / CURVE).glob("*-pairs"):
            found = [run for run in find_runs(place) if (run.folder / "evaluation.parquet").exists()]
            if found:
                tables[int(place.name.removesuffix("-pairs"))] = read_table(found, "evaluation", "02_evaluate")
        bases = {base for table in tables.values() for base in table.base_model.unique()}
        rows = self.evidence.evaluation
        is_it = rows.objective.isin(CURVE_ARMS) & rows.base_model.isin(bases)
        tables[int(self.sizes.n_pairs[MATCHED_ARM])] = rows[is_it]
        return dict(sorted(tables.items()))

    def main_of(self, model: pd.Series) -> pd.DataFrame:
        """Return the rows of the HH-RLHF tests of one reward model.

        Args:
            model: has objective, base_model and seed.
        """
        names, rows = ["objective", *MODEL_COLUMNS], self.evidence.evaluation
        return rows[(rows[names] == model[names]).all(axis=1) & (rows.benchmark == "hh-rlhf")]

    @property
    def curve_bases(self) -> set[str]:
        """The base models of `by_size`."""
        return set(self.by_size[max(self.by_size)].base_model)

    @cached_property
    def split(self) -> pd.Series:
        """What mixing costs, and what of it fewer own pairs and the other objective's pairs cost."""
        split = scaling.halving_table(self.by_size)
        require(len(split) > 0, "single-objective models were trained on half as many pairs")
        return split.iloc[-1]

    @cached_property
    def coins(self) -> pd.DataFrame:
        """Accuracy of the models of coin-flip labels on both tests."""
        return self.matrix.loc[[*overlap.COIN_ARMS.values()]]

    @property
    def trained(self) -> list[Run]:
        """Reward models of the four main arms whose training was logged."""
        main = {*SINGLE_OBJECTIVES, *MIXED_ARMS}
        return [run for run in self.runs if run.objective in main and (run.folder / "train_log.parquet").exists()]

    @cached_property
    def kept(self) -> pd.DataFrame:
        """The checkpoint that every model of the four main arms kept."""
        return kept_checkpoints(self.trained)

    @cached_property
    def sizes(self) -> pd.DataFrame:
        """How many pairs and steps the four main arms were trained on: a row each, by objective as index."""
        return training_sizes(self.trained).set_index("objective")

    @cached_property
    def held(self) -> pd.Series:
        """How much of the set that training moved most its random sets hold, by objective."""
        held = held_shares(self.evidence)
        return held[held.score_kind == KINDS[0]].set_index("objective").held

    @cached_property
    def every_scored(self) -> dict[str, list[Run]]:
        """All reward models whose neurons were scored, by base model: those of two are not averaged."""
        found = [run for run in self.runs if (run.folder / OWN_SCORES).exists()]
        return {base: [run for run in found if run.base_model == base] for base in NAMES}

    @property
    def scored(self) -> list[Run]:
        """Those of SmolLM2 and of the three objectives."""
        return [run for run in self.every_scored[SMOLLM2] if run.objective in OBJECTIVES]

    @property
    def scored_gemma(self) -> list[Run]:
        """Those of Gemma and of single objectives: one run, which is why no interval is told."""
        scored = [run for run in self.every_scored[GEMMA] if run.objective in SINGLE_OBJECTIVES]
        require(len(scored) == len(SINGLE_OBJECTIVES), "the neurons of one run on Gemma were scored")
        return scored

    @cached_property
    def scores_agree(self) -> pd.Series:
        """How far the two scores select the same neurons of a model."""
        return overlap.agreement_table(overlap.kind_table(self.scored, KINDS, FRACTION, "all")).iloc[0]

    @cached_property
    def halves(self) -> pd.DataFrame:
        """How far the sets are those of half of the text: a row each, by score kind as index."""
        halves = overlap.half_table(self.scored, KINDS, FRACTION, "all")
        return overlap.seed_stability(halves, overlap.seed_table(self.scored, KINDS, FRACTION, "all")).set_index(
            "score_kind"
        )

    @cached_property
    def thirds(self) -> pd.DataFrame:
        """Where the sets lie: a row each, by score kind and objective as index."""
        sets = {kind: overlap.run_sets(self.scored, kind, FRACTION, "all") for kind in KINDS}
        return overlap.depth_table(sets).set_index(["score_kind", "objective"])

    @cached_property
    def overlaps(self) -> pd.DataFrame:
        """What two sets share, beside what gives it a meaning: a row per comparison."""
        return overlap.level_rows(self.every_scored[SMOLLM2], KINDS, FRACTION)

    @cached_property
    def levels(self) -> pd.DataFrame:
        """The means of `overlaps`: a row each, by score kind and level as index."""
        return overlap.summarize_overlaps(self.overlaps, ["score_kind", "level"]).set_index(["score_kind", "level"])

    @cached_property
    def beside_coins(self) -> pd.Series:
        """What the two objectives share in the runs that have models of coin-flip labels, by score kind."""
        rows = self.overlaps
        seeds = rows.seed[rows.level == overlap.SHAM].unique()
        rows = rows[(rows.level == overlap.TWO_OBJECTIVES) & rows.seed.isin(seeds)]
        return rows.groupby("score_kind").jaccard.mean()

    @cached_property
    def same_text(self) -> pd.Series:
        """What the sets of the helpful and the harmless model share where both read one text, by score kind."""
        cross = overlap.cross_design_table(self.scored, KINDS, FRACTION)
        is_it = (cross.relation == overlap.SAME_TEXT) & (cross.models == overlap.TWO_OBJECTIVES)
        return cross[is_it].groupby("score_kind").jaccard.mean()

    @cached_property
    def renamed(self) -> pd.Series:
        """Whether sets of one objective overlap more than those of two, by renaming the models; of the main kind."""
        return overlap.permutation_table(self.scored, KINDS[:1], FRACTION).iloc[0]

    @cached_property
    def keystone(self) -> pd.DataFrame:
        """How many neurons of sets were loud on any text before training: a row each, by set as index."""
        return keystone_table(self.scored, ["rms_change"], FRACTION, "all").set_index("set")

    @cached_property
    def measured(self) -> list[Run]:
        """Reward models of the main arms whose rewards were read at every depth."""
        arms = (*OBJECTIVES, MATCHED_ARM)
        return [run for run in self.runs if run.objective in arms and (run.folder / "depth.parquet").exists()]

    @cached_property
    def depths(self) -> pd.DataFrame:
        """From which depth on a model's accuracies on both tests lie apart: a row each, by objective as index."""
        evaluation = read_table(self.measured, "evaluation", "02_evaluate")
        depth = parting.hh_depths(read_table(self.measured, "depth", "05b_part"), evaluation)
        return parting.depth_table(depth_accuracy(depth), parting.depth_gaps(depth)).set_index("objective")

    @cached_property
    def signs(self) -> pd.DataFrame:
        """How many neurons of a set push the margins of both texts apart: a row each, by objective and set as index."""
        rows = parting.sign_rows(self.measured, "rms_change", FRACTION, N_DRAWS)
        return parting.sign_table(rows).set_index(["objective", "set"])

    @cached_property
    def slopes(self) -> pd.DataFrame:
        """How far removals took accuracies toward chance: a row each, by what was removed as index."""
        own = self.evidence.ablation
        own = own[own.objective.isin(OBJECTIVES) & (own.fraction == FRACTION) & (own.ablation_kind == "zero")]
        return removal.chance_slopes(own, self.evidence.evaluation).set_index("sets")

    @cached_property
    def by_model(self) -> pd.DataFrame:
        """What every single-objective model's margins change by beyond random sets: columns of both tests."""
        changes = changes_by_draw(self.evidence)
        wide = changes.pivot(index=["test", "objective", *MODEL_COLUMNS], columns="draw", values="change")
        effect = wide[TARGETED] - wide.drop(columns=TARGETED).mean(axis=1)
        return effect.unstack("test")

    @cached_property
    def spreads(self) -> pd.DataFrame:
        """How wide margins spread without a set and without random ones, in intact spreads: a row per single model."""
        removed, models = self.evidence.ablation, ["objective", *MODEL_COLUMNS]
        removed = removed[removed.objective.isin(SINGLE_OBJECTIVES) & (removed.matched_to == KINDS[0])]
        removed = removed[(removed.fraction == FRACTION) & (removed.ablation_kind == "zero")]
        intact = self.main.merge(removed[[*models, "item_id"]].drop_duplicates()).groupby(models).margin.std()
        spread = removed.groupby([*models, "set", "draw"]).margin.std().groupby([*models, "set"]).mean()
        return spread.unstack("set").div(intact, axis=0)

    @cached_property
    def removals(self) -> pd.DataFrame:
        """Every effect that the explorer offers."""
        runs = [run for run in self.runs if (run.folder / "ablation.parquet").exists()]
        runs = [run for run in runs if run.objective in (*OBJECTIVES, MATCHED_ARM)]
        evaluation = read_table(runs, "evaluation", "02_evaluate")
        return explorer.removal_effects(read_table(runs, "ablation", "04_ablate"), evaluation)

    @cached_property
    def weight_cosine(self) -> float:
        """Of what training changed in the helpful and in the harmless model."""
        changes = read_table(list_pairs(self.measured), "weight_changes", "05b_part")
        return parting.weight_table(changes).set_index("pair").cosine["helpful / harmless"]

    def reading(self, **fields: object) -> pd.Series:
        """Return the one reading under control with these fields."""
        rows = self.ledger[self.ledger.way == "under control"]
        for name, value in fields.items():
            rows = rows[rows[name] == value]
        if len(rows) != 1:
            raise Unfounded(f"expected one reading with {fields}, found {len(rows)}")
        return rows.iloc[0]


FINDINGS: dict[str, Callable[[Study], str]] = {}


def finding(chapter: str) -> Callable:
    """Register the function that tells what a chapter of the study found."""

    def register(tell: Callable[[Study], str]) -> Callable[[Study], str]:
        FINDINGS[chapter] = tell
        return tell

    return register


def matrix_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the accuracy by training objective and test of evaluated rows: a row each, by both as index."""
    return tension_table(rows).set_index(["objective", "test"])


def parts_of(reading: pd.Series) -> dict[str, Part]:
    """Return what a reading pooled, by objective and by base model."""
    return {part.name: part for part in reading.parts}


def part_words(reading: pd.Series, name: str) -> str:
    """Return the number of one part of a reading with its interval."""
    _, *numbers = parts_of(reading)[name]
    return number_words(*numbers, reading.unit)


def flat(text: str) -> str:
    """Return a text with every paragraph on one line."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n"))


def _share(value: float, low: float, high: float) -> str:
    """Return a share with its interval."""
    return f"{percent(value)} [{percent(low)}, {percent(high)}]"


@finding("01_train")
def train(study: Study) -> str:
    """Every model learned what it was taught."""
    kept = study.kept
    single = kept[kept.objective.isin(SINGLE_OBJECTIVES)]
    mixed = kept[~kept.objective.isin(SINGLE_OBJECTIVES)]
    require((single.ci_low > 0.5).all(), "every single-objective model ranks its own validation pairs above chance")
    require(
        mixed.validation_accuracy.max() < single.validation_accuracy.min(),
        "every mixed model ranks fewer of its validation pairs right than every single-objective one",
    )
    matched, union = (mixed[mixed.objective == arm] for arm in (MATCHED_ARM, MIXED))
    require((matched.ci_low < 0.5).all(), "no model of half of each is surely above chance")
    require((union.ci_low > 0.5).all(), "models of all pairs of both are surely above chance")
    require((len(single), len(matched), len(union)) == (8, 4, 1), "four runs are finished, and one of the union")
    union = union.iloc[0]
    return flat(
        f"""
        **Yes, either objective can be learned; both together less well, and with half of the pairs of each hardly.** On
        their own validation pairs the {len(single)} models of one objective agree with people in
        {extent(single.validation_accuracy)}; the model of all pairs of both, of which there is one, in
        {_share(union.validation_accuracy, union.ci_low, union.ci_high)}; the {len(matched)} of half of each, with as
        many pairs as a single model has, in {extent(matched.validation_accuracy)} (n = {single.n.min():.0f} to
        {mixed.n.max():.0f} a model, the pairs that also chose the checkpoint). A coin gets 50 %. These are three runs
        of {NAMES[SMOLLM2]} and one of {NAMES[GEMMA]}, small language models ([from what](../book/about.md)), and people
        often disagree on such labels: what follows is about weak preferences.
        """
    )


@finding("02_evaluate")
def evaluate(study: Study) -> str:
    """A model of one objective is worse than a coin on the other."""
    cell, opposite = study.matrix, dict(zip(SINGLE_OBJECTIVES, SINGLE_OBJECTIVES[::-1], strict=True))
    for objective, other in opposite.items():
        require(cell.ci_low[objective, objective] > 0.5, f"the {objective} model is above chance on its own test")
        require(cell.ci_high[objective, other] < 0.5, f"the {objective} model is below chance on the {other} test")
    own, across = (
        [percent(cell.accuracy[o, test]) for o, test in pairs]
        for pairs in (zip(opposite, opposite, strict=True), opposite.items())
    )
    rows = study.evidence.evaluation
    row, gemma = cell.loc[HELPFUL, HARMLESS], matrix_of(rows[rows.base_model == GEMMA])
    require((gemma.n_seeds.max(), row.n_seeds) == (1, 4), "one run is of Gemma, and three are of SmolLM2")
    on_gemma = []
    for objective, other in opposite.items():
        one = gemma.loc[objective, other]
        require(one.ci_high < 0.5, f"the {objective} model is below chance on the {other} test on Gemma alone")
        on_gemma.append(_share(one.accuracy, one.ci_low, one.ci_high))
    return flat(
        f"""
        **A model of one objective ranks the other's pairs in reverse: on this data the two point in opposite
        directions.** The helpful model ranks {own[0]} of helpful pairs right and only {across[0]} of harmless ones; the
        harmless model {own[1]} and {across[1]}. Both are *reliably below* a coin on the other objective's test (n =
        {row.n_items:.0f} and {cell.n_items[HARMLESS, HELPFUL]:.0f}, {runs_text(row.n_seeds)}: three of
        {NAMES[SMOLLM2]}, one of {NAMES[GEMMA]}): the response that people called harmless is, as a rule, the one that a
        model of helpfulness likes less. On {NAMES[GEMMA]} alone the helpful model ranks {on_gemma[0]} of harmless
        pairs, the harmless one {on_gemma[1]} of helpful pairs. A model of both has to tell the two kinds of prompts
        apart, or give something up.

        {_cue(study)}
        """
    )


def _cue(study: Study) -> str:
    """Say that a cue on the surface would do, and name one."""
    signs = dict(zip(SINGLE_OBJECTIVES, (1, -1), strict=True))
    biases = [sign * study.lengths.length_bias[name, name] for name, sign in signs.items()]
    require(min(biases) > 0.1, "the helpful model likes the longer response, and the harmless one the shorter")
    lengths = [f"{100 * bias:.0f} points" for bias in biases]
    return f"""
        Why they are opposites these numbers cannot say: one cue on the surface, used in opposite ways, would do. Length
        is such a cue. Where the chosen response is the longer one, the helpful model is right on its own test more
        often by {lengths[0]}, the harmless one less often by {lengths[1]} ([more](b2_length_style_template.ipynb))."""


@finding("02b_tension")
def mixing(study: Study) -> str:
    """Mixing costs accuracy on both tests, pair for pair."""
    matched = study.reading(claim="C1", quantity="mixing", arm=MATCHED_ARM, test="own")
    union = study.reading(claim="C1", quantity="mixing", arm=MIXED, test="own")
    require(sorted(matched.bases) == [GEMMA, *3 * [SMOLLM2]], "three runs of SmolLM2 and one of Gemma are finished")
    require(set(union.bases) == {SMOLLM2} and union.n_seeds == 1, "one run has the model of all pairs")
    require(matched.ci_high < -SMALLEST["points"], "training on half of each costs more than the smallest effect")
    require(max(matched.by_seed) < -SMALLEST["points"], "it does so in every training run")
    require(matched.verdict == "supported", "the claims support that mixing costs accuracy")
    require(matched.false_positives < 0.05 < 0.9 < matched.power, "its test is rarely wrong in made-up worlds")
    by_run, cell = _by_run(study), study.matrix.accuracy
    require(parts_of(matched)[GEMMA].ci_high < 0, "mixing costs on Gemma, too")
    mixed, single = (
        percent(sum(cell[arm or test, test] for test in SINGLE_OBJECTIVES) / 2) for arm in (MATCHED_ARM, "")
    )
    return flat(
        f"""
        **Yes: a model of both objectives does worse than the two models of one.** Trained on as many pairs, half of
        each objective, it ranks {mixed} right where the model of one objective, on that one's own test, has {single}:
        {value_words(matched)} ({extent_words(matched)}); on {NAMES[GEMMA]}, in one run, {part_words(matched, GEMMA)}.
        Each run loses about as much, but not on the same test: helpful and harmless, run by run, on {NAMES[SMOLLM2]}
        {by_run[SMOLLM2]} points, on {NAMES[GEMMA]} {by_run[GEMMA]}. Every run gives something up; of which objective
        more differs. {_overall(study)}

        That mixing costs accuracy, claim C1, is *supported*. In made-up worlds where it costs nothing this test
        supports it in {100 * matched.false_positives:.0f} %, and where it does cost in {100 * matched.power:.0f} %.
        With all pairs of both, twice as many, it is {value_words(union)} in the one run that has them.

        {_split(study)}

        {_safety(study)}

        {_conflicts(study)}
        """
    )


def _overall(study: Study) -> str:
    """Say that a specialist loses on the other test what it wins on its own."""
    overall = [study.matrix.accuracy[arm, MIXED] for arm in (MATCHED_ARM, *SINGLE_OBJECTIVES)]
    require(overall[0] > max(overall[1:]) + 0.01, "over both tests together the mixed model does better than either")
    return f"""Over both tests together the model of both is ahead, with {percent(overall[0])} beside
        {percent(overall[1])} of the helpful and {percent(overall[2])} of the harmless one: what a specialist wins on
        its own test it loses on the other."""


def _by_run(study: Study) -> dict[str, str]:
    """Return in words what half of each costs in every run on the helpful and the harmless test, by base model."""
    rows = study.evidence.evaluation
    by = ["base_model", "seed", "group"]
    costs = mixed_against_single(rows[rows.benchmark == "hh-rlhf"], by=by, arm=MATCHED_ARM)
    costs = 100 * costs[costs.is_own].pivot(index=by[:2], columns="group", values="difference")
    require((costs < 0).all(axis=None), "every run loses on both tests")
    lean = costs[HELPFUL] - costs[HARMLESS]
    require(lean.min() < -5 < 5 < lean.max(), "some runs lose more on helpful pairs, and some on harmless ones")
    return {
        base: "; ".join(f"{row[HELPFUL]:+.1f} and {row[HARMLESS]:+.1f}" for _, row in costs.loc[base].iterrows())
        for base in NAMES
    }


def _safety(study: Study) -> str:
    """Say that single models lean to refusing or to answering, and that the mixed one tells the two kinds apart."""
    rows = study.evidence.evaluation
    rows = rows[(rows.benchmark == "rm-bench") & rows.objective.isin((*SINGLE_OBJECTIVES, MATCHED_ARM))]
    table = behavior_table(rows).set_index("objective")
    helpful, harmless, mixed = (table.loc[arm] for arm in (*SINGLE_OBJECTIVES, MATCHED_ARM))
    require(harmless.refuse_accuracy_ci_low > 0.8 and harmless.respond_accuracy_ci_high < 0.2, "one mostly refuses")
    require(helpful.respond_accuracy_ci_low > 0.6 and helpful.refuse_accuracy_ci_high < 0.4, "the other mostly answers")
    singles = table.loc[[*SINGLE_OBJECTIVES]]
    require((singles.balanced_accuracy_ci_low < 0.5).all(), "neither is surely above chance in both together")
    require(mixed.balanced_accuracy_ci_low > singles.balanced_accuracy_ci_high.max(), "the mixed model is better")
    require(mixed.n_seeds == 1, "one training run was tested on this benchmark")
    balanced = [
        _share(row.balanced_accuracy, row.balanced_accuracy_ci_low, row.balanced_accuracy_ci_high)
        for row in (harmless, helpful, mixed)
    ]
    return f"""
        A specialist's lead is not judgment. On the safety prompts of RM-Bench the harmless model prefers refusals: it
        is right in {percent(harmless.refuse_accuracy)} where one should refuse and in
        {percent(harmless.respond_accuracy)} where one should answer, and so {balanced[0]} in the mean of both, like a
        model that refuses everything; the helpful one leans the other way ({percent(helpful.refuse_accuracy)} and
        {percent(helpful.respond_accuracy)}; {balanced[1]}). The model of half of each has {balanced[2]}: it tells
        apart, a little, what neither does (n = {mixed.n_refuse_items:.0f} and {mixed.n_respond_items:.0f} pairs of
        {mixed.n_clusters:.0f} prompts, {runs_text(mixed.n_seeds)})."""


def _conflicts(study: Study) -> str:
    """Say whose side mixed models take where the single ones disagree; each beside the average of its own seeds."""
    words = {}
    for arm in MIXED_ARMS:
        rows = complete_models(study.evidence.evaluation, "objective", (arm, *SINGLE_OBJECTIVES))
        pairs = margins.conflicting_margins(rows)
        sides = margins.conflict_sides(pairs).set_index(["model", "test"])
        if arm == MATCHED_ARM:
            per_run = pairs[pairs.model == arm].groupby(list(MODEL_COLUMNS)).size()
            n_pairs = rows[rows.benchmark == "hh-rlhf"].item_id.nunique()
        both = sides.xs(margins.BOTH_TESTS, level="test")
        words[arm] = both.loc[arm], both.loc[margins.AVERAGE]
    (told, average), (of_all, beside) = words[MATCHED_ARM], words[MIXED]
    near = abs(told.share_with_own - average.share_with_own) < SMALLEST["points"] / 100
    require(near, "on conflicting pairs it does about as well as the average of both single models")
    require(of_all.ci_low > beside.share_with_own, "the model of all pairs does better there than that average")
    return f"""
        On human pairs there is no such sign. Where the helpful and the harmless model of a run disagree
        ({per_run.min()} to {per_run.max()} of {n_pairs} pairs a run; {told.n_items:.0f} in at least one of
        {runs_text(told.n_seeds)}), that of half of each sides with the model of the test's own objective in
        {_share(told.share_with_own, told.ci_low, told.ci_high)}, about as often as the average of both single models,
        which takes no joint training ({percent(average.share_with_own)}). The model of all pairs does so more often
        than their average: {_share(of_all.share_with_own, of_all.ci_low, of_all.ci_high)}, beside
        {percent(beside.share_with_own)} ({runs_text(of_all.n_seeds)})."""


def _split(study: Study) -> str:
    """Say that the cost is not one of fewer own pairs."""
    split = study.split
    require(split.n_seeds == 1, "one training run has models on half of the pairs")
    learned = study.kept[(study.kept.objective == MATCHED_ARM) & study.kept.base_model.isin(study.curve_bases)]
    learned = learned.sort_values("seed").iloc[0]  # of that run
    n_steps = study.sizes.n_steps[MATCHED_ARM]
    require(learned.ci_low < 0.5, "the model of half of each hardly ranks its own validation pairs above chance")
    require(learned.step < 0.75 * n_steps, "its best checkpoint is one of long before the end")
    rows = study.main_of(learned)
    tests = {test: percent(rows.credit[rows.group == test].mean()) for test in SINGLE_OBJECTIVES}
    own = _fewer_own_pairs(split)
    other = number_words(*(100 * split[f"other_pairs{end}"] for end in ("", "_ci_low", "_ci_high")), "points")
    accuracy = _share(learned.validation_accuracy, learned.ci_low, learned.ci_high)
    return f"""
        One run tells whether that is a want of own pairs. Its single models on half of their pairs, as many as the
        mixed one had of each, and half the steps, cost {own} beside those on all. The other objective's pairs cost
        {other}. That mixed model had hardly learned anything: it ranks {accuracy} of its validation pairs right,
        {tests[HELPFUL]} of the helpful and {tests[HARMLESS]} of the harmless test, and its best checkpoint is that of
        step {learned.step} of {n_steps:.0f}."""


def _fewer_own_pairs(split: pd.Series) -> str:
    """Return what half as many own pairs cost a model of one objective, which is hardly anything."""
    value, low, high = (100 * split[f"fewer_own_pairs{end}"] for end in ("", "_ci_low", "_ci_high"))
    smallest = SMALLEST["points"]
    require(-smallest < low and high < smallest, "half of the own pairs are as good as all of them")
    require(100 * split.other_pairs_ci_low > smallest, "the other objective's pairs cost more than the smallest effect")
    return number_words(value, low, high, "points")


@finding("03_identify")
def identify(study: Study) -> str:
    """The score decides which neurons are found."""
    both, halves, thirds = study.scores_agree, study.halves, study.thirds
    require(both.jaccard < 0.33, "the two scores share less than half of their neurons")
    require((halves.halves_lowest > 0.8).all(), "a set hardly depends on which half of the text was read")
    late = {kind: [row.last_third for name, row in thirds.loc[kind].iterrows() if name] for kind in KINDS}
    require(min(late["rms_change"]) > 0.8, "over 80 % of what training moved lies in the last third of the layers")
    found = " and ".join(f"{halves.halves[kind]:.2f}" for kind in KINDS)
    require((halves.n_seeds == 3).all(), "three training runs have neuron scores")
    again, by_chance = halves.other_seed, halves.jaccard_chance
    require((again > 2 * by_chance).all(), "sets of two training runs share over twice what their layers explain")
    require((halves.other_seed_highest < halves.halves_lowest - 0.1).all(), "and clearly less than two halves of one")
    return flat(
        f"""
        **The score decides which neurons are found, and the architecture where they lie.** The tenth of all neurons
        that training moved most and the tenth with the largest mean activation, one of the paper's scores, have a
        Jaccard overlap of {both.jaccard:.2f} (by chance {both.jaccard_chance:.2f}; {NAMES[SMOLLM2]},
        {both.n_models:.0f} models, {runs_text(both.n_seeds)}): they are answers to different questions. Each is a
        stable fact about its model, for either half of the text gives nearly the same set (overlap {found}). What
        training moved lies late: {percent(min(late["rms_change"]))} to {percent(max(late["rms_change"]))} of it in the
        last third of the layers, of the largest mean activations {percent(min(late["signed_mean"]))} to
        {percent(max(late["signed_mean"]))}.

        {_identified_on_gemma(study)}

        They are facts about the objective only in part: trained again, on nearly the same pairs from another start, it
        gives sets that overlap by {again[KINDS[0]]:.2f} and {again[KINDS[1]]:.2f} (sets of the same layers, drawn at
        random, by {by_chance[KINDS[0]]:.2f} and {by_chance[KINDS[1]]:.2f}; three runs). An overlap of two *objectives*
        has to be read beside these numbers ([chapter 5](05_overlap.ipynb)).
        """
    )


def _identified_on_gemma(study: Study) -> str:
    """Say that another architecture's sets are as stable, and lie elsewhere."""
    runs = study.scored_gemma
    both = overlap.agreement_table(overlap.kind_table(runs, KINDS, FRACTION, "all")).iloc[0]
    halves = overlap.half_table(runs, KINDS, FRACTION, "all").jaccard
    require(both.jaccard < 0.33 and halves.min() > 0.8, "on Gemma the scores differ as much, and sets are as stable")
    thirds = overlap.depth_table({kind: overlap.run_sets(runs, kind, FRACTION, "all") for kind in KINDS})
    early = thirds[thirds.score_kind == KINDS[0]].first_third
    require(early.min() > 0.5, "on Gemma over half of what training moved lies in the first third of the layers")
    return f"""
        On {NAMES[GEMMA]}, in one run, the same holds, except for where they lie: both scores have an overlap of
        {both.jaccard:.2f}, halves of the text {halves.min():.2f} or more, and of what training moved
        {percent(early.min())} to {percent(early.max())} lie in the *first* third of the layers, of either objective.
        The tables below are those of {NAMES[SMOLLM2]}."""


@finding("04_ablate")
def removed(study: Study) -> str:
    """The sets carry the learned preference; that they oppose the other objective is the same fact, where it is one."""
    own, opposing = (study.reading(claim=claim, is_primary=True) for claim in ("C2", "C3"))
    accuracy = study.reading(claim="C3", metric="accuracy", score_kind=KINDS[0])
    require((own.n_seeds, opposing.n_seeds) == (4, 4), "four training runs are finished, of both base models")
    require(own.verdict == "supported" and own.ci_high < 0, "without its neurons a model does worse on its own test")
    require(opposing.verdict == "undecided", "whether it does better on the opposing one is open")
    parts = parts_of(opposing)
    require(parts[SMOLLM2].ci_low > 0, "on SmolLM2 alone it does")
    width = {name: part.ci_high - part.ci_low for name, part in parts.items()}
    require(width[HARMLESS] > 2 * width[HELPFUL], "harmless models, one of which broke, make the interval wide")
    require(accuracy.ci_low > 0 and min(accuracy.by_seed) > 0, "accuracy there rises in every run")
    return flat(
        f"""
        **Yes on the own test; on the opposing one a broken model leaves it open.** Take from a model of one objective
        the tenth of its neurons that training moved most, and the margins of its own test change by {value_words(own)}
        beyond {own.n_draws:.0f} random sets as deep and as active ({extent_words(own)}): claim C2 is *supported*, by
        {NAMES[SMOLLM2]} above all ({part_words(own, SMOLLM2)}; {NAMES[GEMMA]}, in one run, {part_words(own, GEMMA)}).
        Those of the opposing test change by {value_words(opposing)}, and claim C3 is *undecided*. On {NAMES[SMOLLM2]}
        alone they rise ({part_words(opposing, SMOLLM2)}); and accuracy there rises in every run of either base model,
        by {value_words(accuracy)}.

        {_broken(study)}

        {_forgotten(study)}
        """
    )


def _broken(study: Study) -> str:
    """Say in which models the effect on the own test is small, and that one removal did more than silence neurons."""
    models, spread, random = study.by_model.own.sort_values(), study.spreads[KINDS[0]], study.spreads.random
    is_weak = models > -SMALLEST["SD"] / 2
    require((len(models), is_weak.sum()) == (8, 2) and models.max() < 0, "in two of eight models the effect is small")
    weak = [f"{value:+.2f}" for value in models[is_weak]]
    widest = spread.idxmax()
    require(widest[:2] == (HARMLESS, GEMMA), "the margins that spread most are those of Gemma's harmless model")
    others = spread.drop(widest)
    require(spread[widest] > 5 and others.max() < 1.5, "they spread five times as wide, no others do")
    return f"""
        It is not so in every model: of eight, six change by {models.min():+.2f} to
        {models[~is_weak].max():+.2f} on their own test, two by {weak[0]} and {weak[1]}, where random sets did nearly as
        much. And one removal broke its model, the harmless one on {NAMES[GEMMA]}: with that set removed, margins spread
        {spread[widest]:.1f} times as wide as intact, with random sets removed {random[widest]:.1f} times; the other
        seven models, without their sets, have {others.min():.1f} to {others.max():.1f} times. Margins that wide carry
        noise, and their mean says nothing: that is why the interval of the opposing test is so wide. A second run there
        would tell whether it is the rule."""


def _forgotten(study: Study) -> str:
    """Say that accuracies go toward chance, further than without random sets, which hold much of these."""
    targeted, random = study.slopes.loc["targeted"], study.slopes.loc["random"]
    require(targeted.ci_high < -0.65 < random.ci_low, "removals take most of the way to chance, random ones do not")
    published = study.ledger[(study.ledger.way == "as published") & (study.ledger.claim == "C2")]
    raw = published.set_index("score_kind").value[KINDS[0]]
    beyond = study.reading(claim="C2", metric="accuracy", score_kind=KINDS[0]).value
    require(0.3 < 1 - beyond / raw < 0.5, "over a third of the raw change on the own test is what random sets do")
    require(study.held.min() > 0.5, "a random set as deep and as active holds over half of the chosen one")
    return f"""
        Where the opposing test gains, it gains no more than forgetting would give. Damage alone takes every accuracy
        toward chance, up where a model is below it: the sets of this chapter take
        {_share(-targeted.slope, -targeted.ci_high, -targeted.ci_low)} of the way, random ones
        {_share(-random.slope, -random.ci_high, -random.ci_low)}. They carry what the model learned, more than other
        neurons of their depth and activity do; and as it learned the contrary of the other objective (chapter 2),
        forgetting helps there. No second mechanism is needed, and none is excluded.

        Of the {-raw:.1f} points lost on the own test, random sets lose {-(raw - beyond):.1f}. But these are largely the
        same neurons: the loudest of a layer are few, so a random set as deep and as active holds {extent(study.held)}
        of the chosen one. The effect is what the rest of it adds: a lower bound."""


@finding("08_explorer")
def explored(study: Study) -> str:
    """On one test the moved sets stand apart, on both together hardly."""
    effects = study.removals
    effects = effects[effects.objective.isin(SINGLE_OBJECTIVES) & (effects["set"] == KINDS[0])]
    effects = effects[effects.metric == "accuracy"]
    require((effects.n_seeds == 4).all(), "four training runs are finished")
    is_outside, is_both = effects.p_value <= 0.05, ~effects.test.isin(SINGLE_OBJECTIVES)
    single, pooled, both = is_outside[~is_both], is_outside[is_both], effects[is_both]
    require(single.all() and not pooled.any(), "on one test every effect is unusual, on both together none")
    require(both.effect.abs().max() < 0.1, "on both tests together no removal changes accuracy by 10 points")
    low, high = 100 * both.effect.min(), 100 * both.effect.max()
    return flat(
        f"""
        **On one test, yes; on both together, hardly.** Without what training moved most, all {len(single)} changes in
        accuracy on a single test are unusual among those without random sets (beyond 95 % of these); none of
        {len(pooled)} on *both* tests is. There accuracy moves by {low:+.1f} to {high:+.1f} points beyond random sets:
        most of what a removal takes on one test it gives back on the other ({runs_text(effects.n_seeds.max())}). In the
        mean margin one of four runs hides that ([chapter 4](04_ablate.ipynb), where all items speak together).
        """
    )


@finding("05_overlap")
def sharing(study: Study) -> str:
    """They share neurons, and no objective is needed for that."""
    claim = study.reading(claim="C4", is_primary=True)
    require(claim.n_seeds == 1 and claim.verdict == "undecided", "one training run is finished, and decides nothing")
    levels, two, sham = study.levels, overlap.TWO_OBJECTIVES, overlap.SHAM
    for kind in KINDS:
        row, again = levels.loc[kind, two], levels.loc[kind, overlap.OTHER_SEED]
        require(row.jaccard > 2 * row.jaccard_chance_by_layer, f"both models share twice what layers explain by {kind}")
        require(row.jaccard < levels.lowest[kind, sham] + 0.01, f"with coin flips they share as much or more by {kind}")
        require(row.highest < again.lowest, f"one objective learned twice shares more than two objectives by {kind}")
        require((row.n_seeds, again.n_seeds) == (3, 3), "three training runs have neuron scores")
    moved = levels.loc["rms_change", two]
    coins, here = levels.loc["rms_change", sham], study.beside_coins["rms_change"]
    require(abs(here - coins.jaccard - claim.value) < 0.001, "the claim's number is what both share beyond coin flips")
    cells = study.coins
    is_blind = (cells.ci_low < 0.5) & (cells.ci_high > 0.5)
    require(is_blind.all(), "models of coin-flip labels rank both tests like a coin")
    length = study.reading(claim="C4", score_kind="rms_change", control="longer")
    require(length.n_seeds == 1 and 0 < length.value < 0.05, "with models taught length they share hardly less")
    return flat(
        f"""
        **Both models use many of the same neurons, and no objective is needed for that.** Of the tenth that training
        moved most, the helpful and the harmless model share an overlap of {moved.jaccard:.2f}
        ({NAMES[SMOLLM2]}, sets of {moved.n_neurons:,.0f} neurons; with as many per layer, chance is
        {moved.jaccard_chance_by_layer:.2f}; {runs_text(moved.n_seeds)}). But as
        many are shared with models of *coin-flip labels*, which learned nothing of either objective (they rank
        {percent(cells.accuracy.min())} to {percent(cells.accuracy.max())} of the tests right). In the one run that has
        them, the two objectives share {here:.3f}; each shares {coins.jaccard:.3f} in the mean ({coins.lowest:.3f} and
        {coins.highest:.3f}) with the model of coin flips on the other's pairs: {claim.value:+.3f}. With models taught
        there only to prefer the longer response it is {here - length.value:.3f}, hardly less. What is shared is what
        any training on such text moves.

        {_loud_before(study)}

        {_learned_twice(study)}

        {_weighed(study)}
        """
    )


def _loud_before(study: Study) -> str:
    """Say what the untouched base model shares with itself on two texts, and that many moved neurons were loud."""
    levels, keystone = study.levels, study.keystone
    mean, sham, untrained = (
        levels.jaccard["signed_mean", level] for level in (overlap.TWO_OBJECTIVES, overlap.SHAM, overlap.BASE_TEXTS)
    )
    require(untrained > mean, "the base model on two texts shares more than both trained models")
    require((keystone.share[[*SINGLE_OBJECTIVES]] > 0.4).all(), "over 40 % of each set was loud before training")
    return f"""
        By mean activation that run has {study.beside_coins["signed_mean"]:.3f} beside {sham:.3f}, and the *untouched*
        base model, read on both texts, {untrained:.2f}; {percent(keystone.share[HELPFUL])} and
        {percent(keystone.share[HARMLESS])} of what training moved was loud on any text before it (by chance
        {percent(keystone.chance[HELPFUL])})."""


def _weighed(study: Study) -> str:
    """Say what came of weighing shared neurons against as many others."""
    weight, own = (study.reading(claim=claim, is_primary=True) for claim in ("C5", "C2"))
    require(weight.bases == (GEMMA, SMOLLM2), "one run of either base model was weighed")
    require(weight.reason == LITTLE_TO_LOSE, "the mixed models have less to lose than would matter")
    require(-SMALLEST["SD"] < weight.ci_low < 0 < weight.ci_high < SMALLEST["SD"], "the difference is about none")
    require(own.to_lose > 3 * SMALLEST["SD"], "the single-objective models have more than three times that")
    changes = shared_changes(study.evidence).set_index(["base_model", "test", "set", "draw"]).change.unstack("draw")
    targeted, random = changes[TARGETED], changes.drop(columns=TARGETED)
    is_above = targeted > random.max(axis=1)
    above = (SMOLLM2, HELPFUL, SHARED)
    require(list(is_above[is_above].index) == [above], "one set is beyond all of its random ones")
    require(not (targeted < random.min(axis=1)).any(), "without no set margins fall further than without random ones")
    return f"""
        Do the shared neurons *weigh* more than as many others, claim C5? *No verdict*: the mixed models had too little
        to lose. Their mean margin on these tests is {weight.to_lose:.2f} SD ({own.to_lose:.2f} SD of the
        single-objective models on theirs), and a fall of {SMALLEST["SD"]:g} SD is the least that would matter. So it
        says little that margins change by {value_words(weight)} more without the shared neurons than without as many
        of one objective alone, each set beside {weight.n_draws:.0f} random ones ({extent_words(weight)};
        {NAMES[SMOLLM2]} {part_words(weight, SMOLLM2)}, {NAMES[GEMMA]} {part_words(weight, GEMMA)}). No set, removed,
        lets margins fall further than its random sets do; without the shared neurons they even *rise* on
        {NAMES[SMOLLM2]}'s helpful test, by {targeted[above]:.2f} SD, where random sets reach
        {random.max(axis=1)[above]:.2f}. What would tell is a mixed model that has learned both."""


def _learned_twice(study: Study) -> str:
    """Say what one objective learned twice shares, and two objectives on one text."""
    moved, again = (study.levels.loc["rms_change", level] for level in (overlap.TWO_OBJECTIVES, overlap.OTHER_SEED))
    one_text, renamed = study.same_text["rms_change"], study.renamed
    require(renamed.p_value == renamed.smallest_p, "no renaming of the models sets the objectives apart as clearly")
    require(
        again.lowest < one_text < again.highest, "read on one text two objectives share as much as one learned twice"
    )
    return f"""
        One objective learned twice, on nearly the same pairs, has {again.jaccard:.2f} ({again.lowest:.2f} to
        {again.highest:.2f}), always more than the two objectives, {moved.lowest:.2f} to {moved.highest:.2f}
        ({runs_text(again.n_seeds)}; $p$ = {renamed.p_value:.2f}, the least that three runs can give). But there the
        text is the same, too: read on *one* text, the helpful and the harmless model have {one_text:.2f}. There is no
        sign here that the objective, beyond the text, makes the set.

        {_shared_on_gemma(study)} Claim C4 is open: models of coin flips exist in one run, and its test has no interval.
        As published it could not fail."""


def _shared_on_gemma(study: Study) -> str:
    """Say that on another architecture two objectives share less, and that the text matters little there."""
    moved = overlap.cross_design_table(study.scored_gemma, KINDS[:1], FRACTION).groupby("relation").jaccard
    (own,) = overlap.overlap_table(study.scored_gemma, KINDS[:1], FRACTION).itertuples()
    of_smollm2 = study.levels.loc[KINDS[0], overlap.TWO_OBJECTIVES]
    require(own.jaccard < of_smollm2.lowest, "on Gemma the two objectives share less than in any run of SmolLM2")
    require(own.jaccard > 2 * own.jaccard_chance_by_layer, "and twice what layers explain")
    one_text, one_model = moved.max()[overlap.SAME_TEXT], moved.min()[overlap.SAME_MODEL]
    require(one_text < own.jaccard + 0.05, "on Gemma both models share hardly more on one text")
    require(one_model > one_text + 0.3, "on Gemma a model keeps its set on the other text")
    return f"""
        On {NAMES[GEMMA]}, in one run, it is another picture: there both models share {own.jaccard:.2f} (chance
        {own.jaccard_chance_by_layer:.2f}), on one text {one_text:.2f}, while each keeps {one_model:.2f} or more of its
        set on the other's text. The model makes the set there, not the text; whether it is the objective, or whether
        any two trainings differ as much, only a second seed and coin flips can tell, which {NAMES[GEMMA]} lacks."""


@finding("05b_part")
def parts(study: Study) -> str:
    """The objectives part in the later layers, and not in the neurons that they share."""
    depths, shared = study.depths, study.signs.loc[MATCHED_ARM, parting.SHARED]
    helpful, harmless = depths.loc[HELPFUL], depths.loc[HARMLESS]
    require(helpful.ci_low > 0 and harmless.ci_high < 0, "both single models' tests lie apart at the last depth")
    first, last = min(helpful.parting_depth, harmless.parting_depth), helpful.last_depth
    require(first > last / 3, "the tests part after the first third of the layers")
    require(shared.ci_low < 0 < shared.ci_high, "shared neurons do not oppose surely more often than random ones")
    dilution = 1 / (1 - shared.held)
    most = dilution * max(abs(shared.ci_low), abs(shared.ci_high))
    smallest = SMALLEST["points"] / 100
    require(smallest < most < 0.1, "those that random sets lack may oppose more, by over 3 and less than 10 points")
    require(abs(study.weight_cosine) < 0.1, "the cosine of the two weight changes is small")
    require(shared.n_seeds == 1, "one training run is finished")
    effects = study.signs.loc[MATCHED_ARM].effect
    shams = effects[effects.index.str.endswith(tuple(SHAM_ARMS))]
    require(len(shams) == len(SHAM_ARMS), "both models share neurons with models of coin flips and of length")
    require(shams.min() < shared.effect < shams.max(), "sets shared with sham models are contested as often")
    effect = number_words(100 * shared.effect, 100 * shared.ci_low, 100 * shared.ci_high, "points")
    return flat(
        f"""
        **In the one run measured, the objectives part between a third and two thirds of the way; that the neurons they
        share are contested more than others is not seen, and cannot be excluded.** Read at every depth with the final
        reward head, the helpful model's accuracies on
        both tests lie apart from depth {helpful.parting_depth:.0f} of {last:.0f} on, the harmless model's from
        {harmless.parting_depth:.0f} on.

        If shared neurons carried the tension, many of them should raise the margin of one objective and lower that of
        the other. In the mixed model of half of each {percent(shared.share)} of the {shared.n_neurons:,.0f} shared
        neurons do so, of random ones, as deep and as active, {percent(shared.random_share)}: {effect}. What either
        model shares with models of coin flips, or of length, on the other's pairs has {100 * shams.min():+.1f} to
        {100 * shams.max():+.1f} points. But a random set holds {percent(shared.held)} of the shared one, so for the
        others the difference may be {dilution:.1f} times as large, up to {100 * most:.1f} points; and this model had
        hardly learned. The cosine of the two weight changes is small, {study.weight_cosine:+.2f}; what two seeds of one
        objective would have is not measured yet ({runs_text(shared.n_seeds)}). Attribution is measured without removing
        anything; chapter 4 removes neurons.
        """
    )


@finding("b1_calibration")
def calibration(study: Study) -> str:
    """Surely wrong on the other objective's pairs."""
    errors = study.errors
    for objective, other in zip(SINGLE_OBJECTIVES, SINGLE_OBJECTIVES[::-1], strict=True):
        low = errors.overconfidence_ci_low[objective, other]
        require(low > 0.1, f"the {objective} model is over 10 points too sure on the {other} test")
        high = errors.overconfidence_ci_high[objective, objective]
        require(high < 0.1, f"the {objective} model is less than 10 points too sure on its own test")
    own = [_surer(errors.loc[name, name]) for name in SINGLE_OBJECTIVES]
    across = [_surer(errors.loc[pair]) for pair in (SINGLE_OBJECTIVES, SINGLE_OBJECTIVES[::-1])]
    row = errors.loc[SINGLE_OBJECTIVES]
    n_helpful, n_harmless = (errors.n_items[test, test] for test in SINGLE_OBJECTIVES)
    return flat(
        f"""
        **Yes on its own objective's pairs, no on the other's.** The helpful model's certainty minus its accuracy is
        {own[0]} on its own test, the harmless one's {own[1]}; on the other's test {across[0]} and {across[1]}
        ({n_helpful:.0f} helpful and {n_harmless:.0f} harmless pairs, {runs_text(row.n_seeds)}). A model of one
        objective is wrong about the other with conviction: its margin gives no warning.
        """
    )


def _surer(row: pd.Series) -> str:
    """Return an overconfidence in words."""
    return number_words(*(100 * row[f"overconfidence{end}"] for end in ("", "_ci_low", "_ci_high")), "points")


@finding("b2_length_style_template")
def length(study: Study) -> str:
    """Helpful is long, harmless is short."""
    bias = study.lengths
    for test in SINGLE_OBJECTIVES:
        require(bias.ci_low[HELPFUL, test] > 0, f"the helpful model likes the longer response on the {test} test")
        require(bias.ci_high[HARMLESS, test] < 0, f"the harmless model likes the shorter response on the {test} test")
    words = {
        key: number_words(*(100 * row[["length_bias", "ci_low", "ci_high"]]), "points") for key, row in bias.iterrows()
    }
    row = bias.loc[SINGLE_OBJECTIVES]
    return flat(
        f"""
        **Length counts: the helpful model likes long responses, and the harmless one short ones.** Where the chosen
        response is the longer one, the helpful model is right more often by {words[HELPFUL, HELPFUL]} on its own
        test and {words[HELPFUL, HARMLESS]} on the other; the harmless model by {words[HARMLESS, HARMLESS]} and
        {words[HARMLESS, HELPFUL]}. Part of what sets the objectives against each other here is length
        (n = {row.n_longer + row.n_shorter:.0f} on the harmless test, {runs_text(row.n_seeds)}).

        {_taught_length(study)}

        {_of_one_length(study)}
        """
    )


def _taught_length(study: Study) -> str:
    """Say how far models come that were taught length alone, read backwards on the harmless test."""
    rows, words = study.evidence.evaluation, {}
    rows = rows[rows.benchmark == "hh-rlhf"]
    for objective in SINGLE_OBJECTIVES:
        arm = sham_arm(objective, LABELS[2])
        both = complete_models(rows[rows.group == objective], "objective", [objective, arm])
        is_read_backwards = (both.objective == arm) & (objective == HARMLESS)
        both = both.assign(credit=both.credit.where(~is_read_backwards, 1 - both.credit))
        accuracy = both.groupby("objective").credit.mean()
        ((_, more),) = difference_table(pair_differences(both, "objective", (objective, arm))).iterrows()
        require(more.n_seeds == 1, "one run has models that were taught length")
        require(more.ci_low > 0, f"the {objective} model knows more than length")
        words[objective] = (
            percent(accuracy[arm]),
            percent(accuracy[objective]),
            number_words(*(100 * more[["difference", "ci_low", "ci_high"]]), "points") + f" (n = {more.n_items:.0f})",
        )
    helpful, harmless = words.values()
    return f"""
        Taught length alone, models come less far. In one run of {NAMES[SMOLLM2]} two more were taught, on the same
        prompts, *only* to prefer the longer response. That ranks {helpful[0]} of helpful pairs right, where the
        helpful model of that run has {helpful[1]}: {helpful[2]}. Read backwards, so that the shorter response wins, it
        ranks {harmless[0]} of harmless pairs right, where the harmless model has {harmless[1]}: {harmless[2]}."""


def _of_one_length(study: Study) -> str:
    """Say that on pairs of about one length no single-objective model is shown to beat chance on its own test."""
    rows = accuracy_table(margins.of_one_length(study.main), ["objective", "group"]).set_index(["objective", "group"])
    own = [rows.loc[(single, single)] for single in SINGLE_OBJECTIVES]
    require(all(row.ci_low < 0.5 < row.ci_high for row in own), "neither beats chance there")
    helpful, harmless = (_share(row.accuracy, row.ci_low, row.ci_high) for row in own)
    return f"""
        Where both responses are about equally long, within 20 %, neither model is shown to beat chance on its own test:
        the helpful one has {helpful} (n = {own[0].n_items:.0f}), the harmless one {harmless}
        (n = {own[1].n_items:.0f}). These are few pairs, and may be harder ones."""


@finding("b3_transferability")
def transferability(study: Study) -> str:
    """It keeps a little more than its accuracy alone would."""
    kept = study.transfer
    low, high = kept.excess_transferability_ci_low, kept.excess_transferability_ci_high
    require((low > 0).all(), "the mixed model keeps more of the single models' successes than chance")
    require((high < 0.1).all(), "it keeps less than 10 points more")
    require((kept.n_seeds == 1).all(), "one run has a model of all pairs of both")
    parts = [
        f"on the {test} test {percent(row.transferability)} of their successes, where chance would keep "
        f"{percent(row.expected_transferability)} (excess {_kept(row)}, n = {row.n_items:.0f})"
        for test, row in kept.iterrows()
    ]
    return flat(
        f"""
        **Yes, but a few points.** The model of all pairs of both, in one run, keeps {"; ".join(parts)}. Most of the
        published number is the mixed model's accuracy; little of it says that it kept the *same* items, and of that a
        part may be items that any model finds easy.
        """
    )


def _kept(row: pd.Series) -> str:
    """Return an excess in words."""
    return number_words(*(100 * row[f"excess_transferability{end}"] for end in ("", "_ci_low", "_ci_high")), "points")


@finding("d1_more_pairs")
def grown(study: Study) -> str:
    """Mixing costs about as much on few pairs as on all; what it would cost on many more is open."""
    fewest, fewer = min(study.by_size), _fewer_own_pairs(study.split)
    across = matrix_of(study.by_size[fewest])
    helpful, harmless = across.loc[HELPFUL, HARMLESS], across.loc[HARMLESS, HELPFUL]
    require(max(helpful.ci_high, harmless.ci_high) < 0.5, "from few pairs on each is worse than a coin on the other's")
    return flat(
        f"""
        **No trend is seen: mixing costs about ten points on few pairs and on all; what it would cost on many more is
        open.**
        {_by_size(study)}

        The opposition is there as early, in the one run that was looked at: trained on {fewest} pairs, the helpful
        model ranks
        {_share(helpful.accuracy, helpful.ci_low, helpful.ci_high)} of the harmless test right, the harmless one
        {_share(harmless.accuracy, harmless.ci_low, harmless.ci_high)} of the helpful test. What costs is not a want of
        own pairs: for models of one objective half as many cost {fewer}, in the one run where that was split
        ([chapter 2b](02b_tension.ipynb)). Whether settings chosen for a mixed model would cost less was not tried, nor
        were other mixtures than half of each.
        """
    )


def _by_size(study: Study) -> str:
    """Say what mixing costs on how many pairs, and how little follows for many more."""
    rows = scaling.cost_rows({n: study.by_size[n] for n in scaling.sizes_of(study.by_size, CURVE_ARMS)})
    costs, outlook = scaling.cost_table(rows), scaling.cost_outlook(rows)
    per_doubling, _, goes_on = (row for _, row in outlook.iterrows())
    require((costs.ci_low > 0).all(), "mixing costs accuracy at every number of pairs")
    is_level = -SMALLEST["points"] < 100 * per_doubling.ci_low < 0 < 100 * per_doubling.ci_high < SMALLEST["points"]
    require(is_level, "a doubling of the pairs changes the cost by less than the smallest effect of interest")
    require(goes_on.ci_high - goes_on.ci_low > 0.2, "the line says little of what lies beyond")
    require(set(costs.n_seeds) == {1, 3} and costs.n_seeds.iloc[-1] == 3, "only the largest size has three seeds")
    require(study.curve_bases == {SMOLLM2}, "all sizes are those of one base model")
    listed = [
        f"{100 * row.cost:.1f} points [{100 * row.ci_low:.1f}, {100 * row.ci_high:.1f}] on {row.n_pairs:,.0f} pairs"
        for _, row in costs.iterrows()
    ]
    slopes = 100 * per_doubling[["cost", "ci_low", "ci_high"]].to_numpy(float)
    slope, doublings = number_words(*slopes, "points"), np.log2(costs.n_pairs.max() / costs.n_pairs.min())
    require(abs(100 * costs.cost - 10).max() < 3, "mixing costs about ten points at every number of pairs")
    return f"""A model of half of each loses {"; ".join(listed)} (n = {costs.n_items.max():,}; {NAMES[SMOLLM2]},
        {costs.n_seeds.max()} training runs at the largest size, one at each other): {slope} per doubling of the pairs,
        so that over the {doublings:.0f} doublings measured the cost may have fallen by {-doublings * slopes[1]:.1f}
        points or grown by {doublings * slopes[2]:.1f}. For the paper's {goes_on.n_pairs:,.0f} pairs that line allows
        anything from {100 * goes_on.ci_low:+.0f} to {100 * goes_on.ci_high:+.0f} points; only longer runs can tell."""


@finding("05c_dial")
def dial(study: Study) -> str:
    """Joint training does at least as well as two models averaged."""
    gaps = {
        (arm, control): study.reading(claim="C1", quantity="frontier", arm=arm, control=control)
        for arm in MIXED_ARMS
        for control in ("ensemble", "interpolation")
    }
    smallest = SMALLEST["points"]
    require(all(row.ci_low > -smallest for row in gaps.values()), "no mixed model loses 3 points to either frontier")
    matched, union = (gaps[arm, "ensemble"] for arm in (MATCHED_ARM, MIXED))
    require((matched.n_seeds, union.n_seeds) == (4, 1), "four runs are finished, and one of the model of all pairs")
    require(union.value > 0, "the model of all pairs lies above the ensemble of both single models")
    cell = study.matrix.accuracy
    special = sum(cell[test, test] for test in SINGLE_OBJECTIVES) / 2
    together = sum(cell[MATCHED_ARM, test] for test in SINGLE_OBJECTIVES) / 2
    require(special - together > smallest / 100, "two specialists do better than the mixed model")
    interpolated = [gaps[arm, "interpolation"] for arm in (MATCHED_ARM, MIXED)]
    require(all(row.n_seeds == 1 for row in interpolated), "weights were interpolated in one training run")
    weights = [value_words(row) for row in interpolated]
    return flat(
        f"""
        **So far, joint training does no worse than averaging two models.** Two models of one objective, combined
        afterwards, reach no better pair of accuracies than one model trained on both. Where the
        ensemble of both favors the objectives as the mixed model does, the model of half of each lies above it by
        {value_words(matched)} ({extent_words(matched)}), that of all pairs by {value_words(union)}
        ({runs_text(union.n_seeds)}). Above their interpolated weights, in one run, it is {weights[0]} and
        {weights[1]}.

        Both are far from two specialists, each on its own test: {percent(special)} in the mean, beside
        {percent(together)} of the model on as many pairs. No pair here has both labels, so one model that tells the
        two kinds of prompts apart could come near that; whether size, data or interference keeps it from there, this
        comparison cannot tell. If you want one reward model for both objectives, training it on both costs nothing
        beside averaging two.
        """
    )


@finding("09_ledger")
def together(study: Study) -> str:
    """Read together, the claims tell one story."""
    mixed, own, opposing, shared, weight = (study.reading(claim=claim, is_primary=True) for claim in CLAIMS)
    verdicts = [row.verdict for row in (mixed, own, opposing, shared, weight)]
    wanted = ["supported", "supported", "undecided", "undecided", "no verdict"]
    require(verdicts == wanted, "two claims are supported, two are undecided, and one has no verdict")
    runs = [row.n_seeds for row in (mixed, own, opposing, shared, weight)]
    require(runs == [4, 4, 4, 1, 2], "four training runs tell what mixing costs and removals do, one or two the rest")
    of_both = all(set(row.bases) == {*NAMES} for row in (mixed, own, opposing))
    require(of_both, "mixing and removals were measured on both base models")
    require(parts_of(opposing)[SMOLLM2].ci_low > 0, "on SmolLM2 the sets oppose")
    require(weight.reason == LITTLE_TO_LOSE, "the mixed models have less to lose than would matter")
    two, coins = (study.levels.loc["rms_change", level] for level in (overlap.TWO_OBJECTIVES, overlap.SHAM))
    require(two.jaccard < coins.lowest + 0.01, "with a model of coin flips each shares as much or more")
    safety = study.reading(claim="C1", quantity="mixing", arm=MATCHED_ARM, test="safety")
    require(safety.ci_low > SMALLEST["points"] and safety.n_seeds == 1, "on safety tests one mixed model does better")
    return flat(
        f"""
        **One model of both objectives does worse than two specialists; that shared neurons are the reason is not
        shown.** *Mixing costs* (C1) {value_words(mixed)} on the own test ({extent_words(mixed)}), in settings that
        were chosen on the specialists. On RM-Bench's safety prompts, where refusing and answering weigh the same, one
        mixed model is ahead instead: {value_words(safety)} ({extent_words(safety)}).

        The neurons that training moved most *carry* what a model learned ({value_words(own)} on its own test without
        them, C2; {extent_words(own)}). As each model learned the contrary of the other objective, they *stand against*
        it, too, the same fact read on another test: so it is on {NAMES[SMOLLM2]} ({part_words(opposing, SMOLLM2)});
        with {NAMES[GEMMA]}, where one removal broke the model, that is open (C3, {value_words(opposing)};
        [chapter 4](../study/04_ablate.ipynb)).

        *Shared neurons* (C4) are many, an overlap of {two.jaccard:.2f} on {NAMES[SMOLLM2]}; with a model of coin-flip
        labels on the other's pairs each model shares as many. One run does not decide that. Whether shared neurons
        *weigh more* than others (C5) cannot be seen in these mixed models: their mean margin is
        {weight.to_lose:.2f} SD, and without the shared neurons it would have to fall by {SMALLEST["SD"]:g} to matter.

        {_practice(study, mixed.n_seeds)}
        """
    )


def _practice(study: Study, n_seeds: int) -> str:
    """Say what follows for someone who trains a reward model."""
    gap = study.reading(claim="C1", quantity="frontier", arm=MATCHED_ARM, control="ensemble")
    require(gap.ci_low > -SMALLEST["points"], "the mixed model loses no 3 points to both single ones averaged")
    require(gap.n_seeds == n_seeds, "all runs tell what averaging two models would give")
    return f"""
        For practice: one model trained on both does no worse than two averaged ({value_words(gap)} above their
        ensemble, {runs_text(gap.n_seeds)}; [the dial](../study/05c_dial.ipynb)). And an overlap of neuron sets says
        nothing about objectives until it stands beside one that needs none."""


def main(arguments: list[str] | None = None) -> int:
    """Write the texts of chapters; an empty one, and a warning, where the results do not bear it out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chapters", nargs="*", help="names of chapters, such as 02_evaluate")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the stored runs")
    parser.add_argument("--output", type=Path, default=GENERATED, help="folder of the texts")
    options = parser.parse_args(arguments)
    study = Study(options.results)
    for chapter in options.chapters:
        text = ""
        try:
            text = FINDINGS[chapter](study) + "\n" if chapter in FINDINGS else ""
        except Unfounded as error:
            print(f"warning: book/_ext/findings.py, {chapter}: {error}", file=sys.stderr)
        with atomic_path(options.output / f"{chapter}.md") as temporary:
            temporary.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
