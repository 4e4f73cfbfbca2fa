"""The explorer's states: every removal beside its random sets, and every test of a claim in planted worlds."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pandas as pd

from tension_utils.analysis.accuracy import runs_text
from tension_utils.analysis.findings import CLAIMS, LEVEL
from tension_utils.analysis.removal import MATCH, TEST, effect_table, placed, smallest_p_value
from tension_utils.conditions import CONTROL, MIXED_SETS, set_label
from tension_utils.config import ABLATION_KINDS, ARMS, CONTROLS, FAMILIES, MIXED, OBJECTIVES, REMOVAL, SINGLE_OBJECTIVES
from tension_utils.planted.rates import COUNTED, DESIGN, ENDPOINT, design_words, error_rates
from tension_utils.show.choices import Choices
from tension_utils.show.ledger import subject_of
from tension_utils.show.style import OBJECTIVE_COLORS, OTHER_COLORS
from tension_utils.show.tables import P_VALUE, format_value
from tension_utils.statistics import METRICS, MODEL_COLUMNS, Bootstrap, ablation_changes, compared_rows, wilson_interval

NOTHING = "expected neuron sets removed on the HH-RLHF tests beside random ones; found none: run chapter 4 first"

TESTS = {test: test for test in SINGLE_OBJECTIVES} | {MIXED: "both"}

MATCHED_BY = dict(zip(CONTROLS, ("as many in every layer", "as many and as active in every layer"), strict=True))

REPLACED = dict(zip(ABLATION_KINDS, ("set to zero", "set to their mean", "taken from other text"), strict=True))

UNITS = MappingProxyType({"accuracy": (100, 1, "points"), "margin": (1, 2, "SD")})  # factor, decimals, word

DIGITS = 5  # significant digits of a number that is drawn


def removal_effects(
    ablation: pd.DataFrame, evaluation: pd.DataFrame, bootstrap: Bootstrap | None = None
) -> pd.DataFrame:
    """Return the effect of every removed or scaled set on the HH-RLHF tests, and what each random set and seed changes.

    The three objectives of chapter 4 are one table, as there, and every further arm is one of its own, so that an
    effect has the interval that it has in chapter 4.

    Args:
        ablation: rows of ablation.parquet.
        evaluation: rows of evaluation.parquet of the same reward models.

    Returns:
        The columns of `effect_table`; control_kind (of `config.CONTROLS`), scale, and two lists: random_changes, the
        mean change without each random set, over reward models, and seed_changes, that of each without the set;
        smallest_p, the least that p_value can be.

    Raises:
        ValueError: no set was removed beside random ones.
    """
    hh, tables = ablation[ablation.benchmark == "hh-rlhf"], []
    arms = [name for name in ARMS if name not in OBJECTIVES and name in set(hh.objective)]
    for control in CONTROLS:
        for scale in sorted(hh["scale"].unique()):
            for group in (OBJECTIVES, *([arm] for arm in arms)):
                rows = _with_draws(compared_rows(hh[hh.objective.isin(group)], control, scale))
                if len(rows):
                    settings = {"bootstrap": bootstrap, "control": control, "scale": scale}
                    table = effect_table(rows, evaluation, **settings).assign(control_kind=control, scale=scale)
                    tables.append(_with_changes(table, rows, evaluation))
    if not tables:
        raise ValueError(NOTHING)
    return pd.concat(tables, ignore_index=True)


def _with_draws(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the sets that have random ones to be compared with, and these."""
    keys = ["objective", *MODEL_COLUMNS, *MATCH]
    drawn = pd.MultiIndex.from_frame(rows.loc[rows.set == CONTROL, keys].drop_duplicates())
    return rows[pd.MultiIndex.from_frame(rows[keys]).isin(drawn)]


def _with_changes(table: pd.DataFrame, rows: pd.DataFrame, evaluation: pd.DataFrame) -> pd.DataFrame:
    """Add to effects the changes that they are means of: one per random set, and one per reward model."""
    names, by = {f"{metric}_change": metric for metric in METRICS}, ["objective", *TEST, *MATCH]
    changes = placed(ablation_changes(rows, evaluation), evaluation)
    is_control = changes.set == CONTROL
    for column, part, unit in (
        ("random_changes", changes[is_control], ["draw"]),
        ("seed_changes", changes[~is_control], list(MODEL_COLUMNS)),
    ):
        means = part.groupby([*by, *unit])[list(names)].mean().groupby(level=by).agg(list).rename(columns=names)
        found = means.rename_axis(columns="metric").stack().rename(column).reset_index()
        table = table.merge(found.rename(columns={"matched_to": "set"}), how="left", validate="one_to_one")
    sizes = zip(table.n_draws, table.seed_changes.map(len), strict=True)
    return table.assign(smallest_p=[smallest_p_value(n_draws, n_models) for n_draws, n_models in sizes])


def removal_choices(effects: pd.DataFrame, score_kind: str, fraction: float) -> Choices:
    """Return a state per effect.

    Args:
        effects: of `removal_effects`.
        score_kind: of the set that is shown first, if it was removed.
        fraction: of that set.
    """
    effects = _in_order(effects)
    labels = pd.DataFrame(
        {
            "Reward model": effects.objective,
            "Its neurons": [set_words(row) for row in effects.itertuples()],
            "Share of all": [percent(row.fraction) for row in effects.itertuples()],
            "Activations": [done_words(row) for row in effects.itertuples()],
            "Random sets": effects.control_kind.map(MATCHED_BY),
            "Test": effects.test.map(TESTS),
            "Measured by": effects.metric,
        }
    )
    wanted = [effects.set == score_kind, np.isclose(effects.fraction, fraction), effects.test == effects.objective]
    start = int(np.argmax(sum(np.asarray(each, int) for each in wanted)))
    return Choices("removal", labels, [_removal_state(row) for row in effects.itertuples()], start=start)


def _in_order(effects: pd.DataFrame) -> pd.DataFrame:
    """Sort effects as their lists are read: arms, scores before shared sets, removed before scaled, accuracy first."""
    orders = {"objective": list(ARMS), "control_kind": list(CONTROLS), "test": list(TESTS), "metric": list(METRICS)}
    orders |= {"ablation_kind": list(ABLATION_KINDS), "family": ["", *FAMILIES]}
    orders |= {"set": [*sorted(set(effects.set) - set(MIXED_SETS)), *MIXED_SETS]}
    keys = ["objective", "family", "set", "fraction", "is_scaled", "ablation_kind", "scale", "control_kind"]
    effects = effects.assign(is_scaled=effects["scale"] != REMOVAL)
    return effects.sort_values(
        [*keys, "test", "metric"],
        key=lambda column: column.map(orders[column.name].index) if column.name in orders else column,
        ignore_index=True,
    )


def set_words(row: pd.Series) -> str:
    """Return what is removed, in words that fit behind "its".

    >>> set_words(pd.Series({"set": "rms", "family": ""})), set_words(pd.Series({"set": "shared", "family": "natural"}))
    ('top by rms', 'shared')
    """
    return set_label(row.set, row.family) if row.family else f"top by {row.set}"


def done_words(row: pd.Series) -> str:
    """Return what is done to the activations of a set."""
    return REPLACED[row.ablation_kind] if row.scale == REMOVAL else f"times {row.scale:g}"


def percent(share: float) -> str:
    r"""Return a share as a percentage.

    >>> percent(0.1), percent(0.025)
    ('10\xa0%', '2.5\xa0%')
    """
    return f"{100 * share:g}\u00a0%"


def _removal_state(row: Mapping) -> dict:
    """Return what is drawn and said of one effect."""
    factor, _, unit = UNITS[row.metric]

    def drawn(values: Sequence[float]) -> list[float]:
        return [float(f"{factor * value:.{DIGITS}g}") for value in values]

    return {
        "say": removal_sentence(row),
        "name": set_words(row),
        "unit": f"change in {row.metric} ({'percentage points' if row.metric == 'accuracy' else unit})",
        "color": OBJECTIVE_COLORS.get(row.objective, OTHER_COLORS[0]),
        "set": drawn([row.change, row.change_ci_low, row.change_ci_high]),
        "seeds": drawn(row.seed_changes),
        "random": drawn(row.random_changes),
    }


def removal_sentence(row: Mapping) -> str:
    """Say what one row of `removal_effects` shows.

    A set is unusual among random ones where its p-value is at most 0.05.
    """
    factor, digits, unit = UNITS[row.metric]

    def number(value: float) -> str:
        return f"{factor * value:+z.{digits}f}"

    def interval(low: float, high: float) -> str:
        if number(low) == number(high):
            return f"[less than {10**-digits:.{digits}f} wide]"
        return f"[{number(low)}, {number(high)}]"

    def lost(value: float) -> str:
        verb = "loses" if number(value).startswith("-") else "gains"
        return f"{verb} {number(value)[1:]}"

    share = f"top {percent(row.fraction)} by {row.set}" if not row.family else f"{set_words(row)} neurons"
    how = "without" if row.scale == REMOVAL and row.ablation_kind == ABLATION_KINDS[0] else "with"
    done = "" if how == "without" else f" {done_words(row)}"
    on = "both tests" if row.test == MIXED else f"the {row.test} test"
    of = " of its margins" if row.metric == "margin" else ""
    mean = lost(row.control).replace("loses", "lose").replace("gains", "gain")
    ends = f"{number(min(row.random_changes))} to {number(max(row.random_changes))}"
    p = format_value(row.p_value, P_VALUE)
    found = "unusual among random sets" if row.p_value <= LEVEL else "not unusual among random sets"
    return (
        f"The {row.objective} model {how} its {share}{done} {lost(row.change)} {unit}{of} on {on} "
        f"{interval(row.change_ci_low, row.change_ci_high)}; {row.n_draws} random sets, "
        f"{MATCHED_BY[row.control_kind]}, {mean} on average ({ends}). Beyond them "
        f"{number(row.effect)} {unit} {interval(row.ci_low, row.ci_high)}, p {_equals(p)}: {found}. "
        f"{row.n_neurons:,.0f} neurons, {runs_text(row.n_seeds)}, n\u00a0=\u00a0{row.n_items:,}."
    )


def _equals(p: str) -> str:
    return p if p.startswith("<") else f"= {p}"


def removal_table(effects: pd.DataFrame) -> pd.DataFrame:
    """Return the numbers of `removal_effects` as a page shows them, a row per state of `removal_choices`."""
    table = _in_order(effects)
    table["removed"] = [f"{set_words(row)}, {percent(row.fraction)}, {done_words(row)}" for row in table.itertuples()]
    table = table.assign(test=table.test.map(TESTS), random_sets=table.control_kind.map(MATCHED_BY))
    columns = ["objective", "removed", "random_sets", "test", "metric"]
    for name in ("change", "control", "effect"):
        columns += [column for column in table if column == name or column.startswith(f"{name}_")]
    columns.remove("control_kind")
    return table[[*columns, "ci_low", "ci_high", "p_value", "n_draws", "n_items", "n_seeds"]]


def world_choices(claims: pd.DataFrame) -> Choices:
    """Return a state per kind of world and deciding test: how often the test says "supported", and whether it errs.

    Args:
        claims: of `planted.rates.read_study`; columns that it may have besides are further lists to choose from.
    """
    claims, keys, further = world_rates(claims), [*ENDPOINT, *DESIGN], further_columns(claims)
    pooled = error_rates(claims).set_index(keys)
    states, bars, labels = [], [], []
    for key, rows in claims.groupby([*keys, *further], sort=False):
        bars.append([_bar(row) for row in rows.itertuples()])
        for marked, row in enumerate(rows.itertuples()):
            say = world_sentence(row, pooled.loc[key[: len(keys)]])
            states.append({"say": say, "bars": len(bars) - 1, "marked": marked})
            kind = f"{row.scenario} (claim {'true' if row.is_true else 'false'})"
            labels.append(
                _test_labels(rows.iloc[0]) | {name: str(rows[name].iloc[0]) for name in further} | {WORLD: kind}
            )
    return Choices("worlds", pd.DataFrame(labels), states, {"bars": bars})


WORLD = "Kind of world"

WORLD_COLUMNS = ("scenario", "is_true", "n_worlds", "value", *COUNTED, "supported", "ci_low", "ci_high")


def further_columns(claims: pd.DataFrame) -> list[str]:
    """Return the columns that tell worlds apart besides those of every study."""
    return [name for name in claims if name not in {*ENDPOINT, *DESIGN, *WORLD_COLUMNS}]


def _test_labels(row: pd.Series) -> dict[str, str]:
    """Return the claim, how it is read, and the size of the study, as lists offer them."""
    named = row.copy()
    named["n_draws"] = "matched" if row.n_draws else 0
    size = design_words(row).split(", ", 1)[1]
    return {
        "Claim": f"{row.claim}. {CLAIMS[row.claim].title}",
        "Read": row.way,
        "Test": subject_of(named),
        "Items": size,
        "Training runs": str(row.n_seeds),
    }


def world_rates(claims: pd.DataFrame) -> pd.DataFrame:
    """Return the counts of the deciding tests with supported (share of worlds) and its Wilson interval, in order."""
    claims = claims[claims.is_primary]
    low, high = np.transpose([wilson_interval(row.n_supported, row.n_worlds) for row in claims.itertuples()])
    rates = claims.assign(supported=claims.n_supported / claims.n_worlds, ci_low=low, ci_high=high)
    order = ["claim", "way", *ENDPOINT[3:], *DESIGN[1:], "n_seeds", *further_columns(claims), "is_true"]
    ascending = [name not in ("way", *DESIGN, "is_true") for name in order]  # control, large studies and truth first
    return rates.sort_values(order, ascending=ascending, kind="stable", ignore_index=True)  # kinds stay in order


def _bar(row: Mapping) -> list:
    numbers = [float(f"{value:.{DIGITS}g}") for value in (row.supported, row.ci_low, row.ci_high)]
    return [row.scenario, *numbers, int(row.n_worlds), bool(row.is_true)]


def world_sentence(row: Mapping, pooled: pd.Series) -> str:
    """Say what a test does in one kind of world, and in all.

    Args:
        row: of `world_rates`.
        pooled: its rates over all kinds, of `error_rates`.
    """
    truth, word = ("true", "rightly") if row.is_true else ("false", "wrongly")
    everywhere = [
        f"{100 * share:.0f} % of all worlds where it is {name}"
        for share, name in ((pooled.power, "true"), (pooled.false_positives, "false"))
        if not np.isnan(share)
    ]
    return (
        f"In {row.scenario} worlds, where {row.claim} is {truth}, this test {word} says \u201csupported\u201d in "
        f"{100 * row.supported:.0f} % ({row.n_supported} of {row.n_worlds} worlds; 95 % interval "
        f"{100 * row.ci_low:.0f} to {100 * row.ci_high:.0f} %), and \u201crefuted\u201d in "
        f"{100 * row.n_refuted / row.n_worlds:.0f} %. It says \u201csupported\u201d in {' and in '.join(everywhere)}."
    )


def world_table(claims: pd.DataFrame) -> pd.DataFrame:
    """Return the numbers of `world_choices` as a page shows them, a row per state."""
    rates = world_rates(claims)
    labels = pd.DataFrame([_test_labels(row) for _, row in rates.iterrows()])
    table = labels.drop(columns="Claim").rename(columns=str.lower)
    table.insert(0, "claim", rates.claim)
    numbers = ["scenario", "is_true", "supported", "ci_low", "ci_high", "n_worlds"]
    return pd.concat([table, rates[[*further_columns(claims), *numbers]].rename(columns={"supported": "rate"})], axis=1)
