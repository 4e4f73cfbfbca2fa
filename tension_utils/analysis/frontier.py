"""The plane of helpful and harmless accuracy: frontiers between the single models, and what lies off them."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from tension_utils.conditions import CONTROL
from tension_utils.config import MATCHED_ARM, MIXED_ARMS, REMOVAL, SHAM_ARMS, SINGLE_OBJECTIVES
from tension_utils.statistics import (
    ITEM_COLUMNS,
    MODEL_COLUMNS,
    Bootstrap,
    accuracy_table,
    benjamini_hochberg,
    bounded,
    contrast_draws,
    crossed_parts,
    paired_bootstrap,
    require_columns,
    sizes,
    two_sided_p,
)

HELPFUL, HARMLESS = SINGLE_OBJECTIVES

INTERPOLATION, ENSEMBLE = FRONTIERS = ("interpolation", "ensemble")

ENSEMBLE_WEIGHTS = tuple(step / 8 for step in range(9))

SHOWN_WEIGHTS = (0.25, 0.5, 0.75)  # of the frontiers, among the options

MODEL_ITEM = [*MODEL_COLUMNS, *ITEM_COLUMNS]

OPTION_COLUMNS = ["option", *MODEL_ITEM, "cluster", "group", "margin", "credit", "chance", "is_truncated"]


def hh_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the HH-RLHF tests."""
    return table[table.benchmark == "hh-rlhf"]


def on_items_of(rows: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the items that other rows have for the same base model and seed."""
    return rows[pd.MultiIndex.from_frame(rows[MODEL_ITEM]).isin(pd.MultiIndex.from_frame(others[MODEL_ITEM]))]


def ensemble_rows(evaluation: pd.DataFrame, weights: Sequence[float] = ENSEMBLE_WEIGHTS) -> pd.DataFrame:
    r"""Return the HH-RLHF items as judged by both single-objective models together, a row per item and weight.

    .. math:: m_a = (1 - a) \, m_{helpful} / s_{helpful} + a \, m_{harmless} / s_{harmless}

    with s the standard deviation of a model's margins on these items, since Bradley-Terry fixes no scale.

    Args:
        evaluation: rows of evaluation.parquet.
        weights: a, of the harmless model, in [0, 1].

    Returns:
        The columns of the helpful model's rows without objective, and harmless_weight; margin and credit are the
        ensemble's.

    Raises:
        ValueError: a model lacks an item that the other of its base model and seed has.
    """
    rows = hh_rows(evaluation[evaluation.objective.isin(SINGLE_OBJECTIVES)])
    require_columns(rows, ["objective", *MODEL_ITEM, "margin", "credit"])
    spread = rows.groupby(["objective", *MODEL_COLUMNS]).margin.transform("std")
    units = rows.assign(unit=rows.margin / spread).pivot(index=MODEL_ITEM, columns="objective", values="unit")
    units = units.reindex(columns=list(SINGLE_OBJECTIVES))
    n_missing = int(units.isna().sum().sum())
    if n_missing:
        raise ValueError(f"expected the helpful and the harmless model on the same items; {n_missing} are missing")
    own = rows[rows.objective == HELPFUL].drop(columns="objective").set_index(MODEL_ITEM).loc[units.index].reset_index()
    tables = []
    for weight in weights:
        margin = ((1 - weight) * units[HELPFUL] + weight * units[HARMLESS]).to_numpy()
        credit = (margin > 0) + 0.5 * (margin == 0)
        tables.append(own.assign(margin=margin, credit=credit, harmless_weight=weight))
    return pd.concat(tables, ignore_index=True)


def frontier_rows(evaluation: pd.DataFrame, interpolation: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the HH-RLHF rows of every frontier between the single-objective models, with a column ``frontier``.

    Args:
        evaluation: rows of evaluation.parquet.
        interpolation: rows of interpolation.parquet, of which those on evaluated items are kept; None leaves that
            frontier out.
    """
    tables = [ensemble_rows(evaluation).assign(frontier=ENSEMBLE)]
    if interpolation is not None:
        tables.insert(0, on_items_of(hh_rows(interpolation), hh_rows(evaluation)).assign(frontier=INTERPOLATION))
    return pd.concat(tables, ignore_index=True)


def plane_table(rows: pd.DataFrame, by: Sequence[str], bootstrap: Bootstrap | None = None) -> pd.DataFrame:
    """Return the place of every condition in the plane.

    Args:
        rows: HH-RLHF rows of both tests.
        by: columns that name a condition.

    Returns:
        ``by``, helpful and harmless (accuracy on the test of that name), each with _ci_low and _ci_high, n_items (of
        both tests) and n_seeds.
    """
    by = list(by)
    table = accuracy_table(rows, [*by, "group"], bootstrap)
    wide = None
    for test in SINGLE_OBJECTIVES:
        names = {"accuracy": test, "ci_low": f"{test}_ci_low", "ci_high": f"{test}_ci_high", "n_items": f"n_{test}"}
        part = table[table.group == test].rename(columns=names)[[*by, *names.values(), "n_seeds"]]
        wide = part if wide is None else wide.merge(part.drop(columns="n_seeds"), on=by, validate="one_to_one")
    wide["n_items"] = wide.pop(f"n_{HELPFUL}") + wide.pop(f"n_{HARMLESS}")
    return wide[[column for column in wide if column not in ("n_items", "n_seeds")] + ["n_items", "n_seeds"]]


def gap(arm: np.ndarray, frontier: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Return how far a point lies beyond a frontier, and where the frontier favors the objectives as it does.

    With (x, y) the accuracies on both tests, the point is compared with the place of the frontier where x - y is the
    same, found on the lines between its points:

    .. math:: \mathrm{gap} = \frac{(x + y) - (x_f + y_f)}{2}

    A point that favors one objective more than the frontier's end does is compared with that end.

    Args:
        arm (R, 2): the point, in R resamples.
        frontier (R, K, 2): points of the frontier in the order of their weights.

    Returns:
        gap (R,) and the place (R,) between 0 and K - 1, in steps.

    >>> frontier = np.array([[[0.8, 0.4], [0.7, 0.7], [0.4, 0.8]]])
    >>> [value.round(3).tolist() for value in gap(np.array([[0.7, 0.5]]), frontier)]  # x - y is 0.2, halfway: .75, .55
    [[-0.05], [0.5]]
    """
    balance, level = (arm @ np.array([1.0, sign]) for sign in (-1, 1))  # (R,)
    balances, levels = (frontier @ np.array([1.0, sign]) for sign in (-1, 1))  # (R, K)
    gaps, places = np.empty(len(arm)), np.empty(len(arm))
    steps = np.arange(frontier.shape[1])
    for draw in range(len(arm)):
        order = np.argsort(balances[draw], kind="stable")
        gaps[draw] = (level[draw] - np.interp(balance[draw], balances[draw][order], levels[draw][order])) / 2
        places[draw] = np.interp(balance[draw], balances[draw][order], steps[order])
    return gaps, places


def frontier_gaps(
    evaluation: pd.DataFrame,
    frontiers: pd.DataFrame,
    arms: Sequence[str] = MIXED_ARMS,
    bootstrap: Bootstrap | None = None,
) -> pd.DataFrame:
    """Return how far reward models lie beyond each frontier between the single ones, see `gap`.

    Below zero, joint training does worse than the two models that know one objective each; at zero, what it loses
    against either is what the data's disagreement costs. Items, by cluster, are crossed with seeds, and every resample
    finds the place of comparison anew.

    Args:
        evaluation: rows of evaluation.parquet.
        frontiers: of `frontier_rows`.
        arms: of the reward models; those without rows are left out.

    Returns:
        frontier, objective (the arm), helpful and harmless (accuracies of the arm), harmless_weight (of the
        frontier, where it favors the objectives as the arm does), gap (share), ci_low, ci_high, p_value (two-sided),
        n_items, n_clusters, n_seeds.
    """
    own, bootstrap = hh_rows(evaluation), bootstrap or Bootstrap()
    records = [
        {"frontier": frontier, "objective": arm} | _gap_row(own[own.objective == arm], line, bootstrap)
        for arm in arms
        if (own.objective == arm).any()
        for frontier, line in frontiers.groupby("frontier", sort=True)
    ]
    return pd.DataFrame(records)


def _gap_row(rows: pd.DataFrame, line: pd.DataFrame, bootstrap: Bootstrap) -> dict[str, float]:
    """Return one row of `frontier_gaps`, on the items and seeds that the arm and the frontier have."""
    line = on_items_of(line, rows)
    rows = on_items_of(rows, line)
    weights = np.sort(line.harmless_weight.unique())
    both = pd.concat([rows.assign(place=-1.0), line.assign(place=line.harmless_weight)], ignore_index=True)
    sums, counts, names = crossed_parts(both, "credit", ["place", "group"])
    order = [names.index((place, test)) for place in (-1.0, *weights) for test in SINGLE_OBJECTIVES]
    estimates, draws = contrast_draws(sums, counts, np.eye(len(names))[:, order], bootstrap, is_shared=True)
    points = np.concatenate([estimates[None], draws]).reshape(1 + len(draws), 1 + len(weights), 2)
    gaps, places = gap(points[:, 0], points[:, 1:])
    row = dict(zip(SINGLE_OBJECTIVES, points[0, 0], strict=True))
    row["harmless_weight"] = float(np.interp(places[0], np.arange(len(weights)), weights))
    row |= bounded("gap", float(gaps[0]), gaps[1:], "") | {"p_value": float(two_sided_p(gaps[1:, None])[0])}
    return row | sizes(rows)


# What could be done instead of the mixed model.

REFERENCE = MATCHED_ARM

SCALED = " × "  # between a neuron set and what its activations are multiplied by


def option_rows(
    evaluation: pd.DataFrame,
    interpolation: pd.DataFrame | None = None,
    ablation: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return the HH-RLHF rows of everything that could stand in for a mixed model, with a column ``option``.

    Options are the trained arms (by name; none of sham labels, which nobody would train instead), an ensemble and
    interpolated weights at `SHOWN_WEIGHTS` of the harmless model, and the matched mixed model with neuron sets scaled.

    Args:
        evaluation: rows of evaluation.parquet.
        interpolation: rows of interpolation.parquet.
        ablation: rows of ablation.parquet; random sets are left out.
    """
    rows = hh_rows(evaluation)
    rows = rows[~rows.objective.isin(SHAM_ARMS)]
    tables = [rows.assign(option=rows.objective)]
    frontiers = frontier_rows(evaluation, interpolation)
    shown = frontiers[frontiers.harmless_weight.isin(SHOWN_WEIGHTS)]
    tables.append(shown.assign(option=shown.frontier + " " + shown.harmless_weight.map("{:g}".format)))
    if ablation is not None:
        tables.append(_scaled_rows(evaluation, ablation))
    found = pd.concat(tables, ignore_index=True)
    return found.reindex(columns=OPTION_COLUMNS)


def _scaled_rows(evaluation: pd.DataFrame, ablation: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the matched mixed model whose shared or only neurons were scaled, but not removed."""
    is_it = (ablation.objective == MATCHED_ARM) & (ablation["scale"] != REMOVAL) & (ablation["set"] != CONTROL)
    rows = hh_rows(ablation[is_it])
    facts = evaluation[["objective", *MODEL_ITEM, "cluster", "group", "chance", "is_truncated"]]
    rows = rows.drop(columns=["cluster", "group", "chance", "is_truncated"], errors="ignore")
    rows = rows.merge(facts, on=["objective", *MODEL_ITEM], how="left", validate="many_to_one")
    return rows.assign(option=[f"{row.set}{SCALED}{row.scale:g}" for row in rows.itertuples()])


def option_table(options: pd.DataFrame, reference: str = REFERENCE, bootstrap: Bootstrap | None = None) -> pd.DataFrame:
    """Compare every option with a mixed model on both tests, item by item and seed by seed.

    Args:
        options: of `option_rows`.
        reference: the option that the others are compared with.

    Returns:
        option, n_trainings (reward models it takes), n_passes (of models per judgment), helpful and harmless (accuracy;
        where an option has fewer items, the reference's on all plus the difference), helpful_change and harmless_change
        (option minus reference) each with _ci_low and _ci_high, helpful_p and harmless_p (two-sided,
        Benjamini-Hochberg over the table), better_on ("both", the test on which it is better and not worse on the
        other, or ""), n_items, n_seeds.

    Raises:
        ValueError: the reference has no rows.
    """
    base = options[options.option == reference]
    if base.empty:
        raise ValueError(f"reference: expected an option with rows, got {reference!r}")
    level, records, bootstrap = base.groupby("group").credit.mean(), [], bootstrap or Bootstrap()
    for option, rows in options[options.option != reference].groupby("option", sort=False):
        same = on_items_of(base, rows)
        rows = on_items_of(rows, same)
        if rows.empty or set(rows.group) != set(SINGLE_OBJECTIVES):
            continue
        both = pd.concat([rows, same], ignore_index=True)
        table = paired_bootstrap(both, "option", (option, reference), ["group"], bootstrap=bootstrap).set_index("group")
        record = (
            {"option": option}
            | _costs(option)
            | {test: level[test] + table.difference[test] for test in SINGLE_OBJECTIVES}
        )
        for test, row in table.loc[list(SINGLE_OBJECTIVES)].iterrows():
            record |= {f"{test}_change": row.difference, f"{test}_change_ci_low": row.ci_low}
            record |= {f"{test}_change_ci_high": row.ci_high, f"{test}_p": row.p_value}
        records.append(record | {"n_items": int(table.n_items.sum()), "n_seeds": int(table.n_seeds.max())})
    found = pd.DataFrame(records)
    p_names = [f"{test}_p" for test in SINGLE_OBJECTIVES]
    if len(found):
        found[p_names] = benjamini_hochberg(found[p_names].to_numpy().ravel()).reshape(-1, 2)
        found.insert(len(found.columns) - 2, "better_on", [_better_on(row) for _, row in found.iterrows()])
    return found


def _better_on(row: Mapping) -> str:
    """Return on which tests an option beats its reference, and is not worse on the other."""
    sign = {test: np.sign(row[f"{test}_change"]) * (row[f"{test}_p"] <= 0.05) for test in SINGLE_OBJECTIVES}
    if min(sign.values()) > 0:
        return "both"
    return next((test for test in sign if sign[test] > 0 and min(sign.values()) == 0), "")


def _costs(option: str) -> dict[str, int]:
    """Return how many trainings an option takes, and how many forward passes one judgment takes.

    Scaling a neuron set takes the mixed model and both single ones, whose scores name the neurons.
    """
    kind = option.split()[0]
    n_trainings = 3 if SCALED in option else 2 if kind in FRONTIERS else 1
    return {"n_trainings": n_trainings, "n_passes": 2 if kind == ENSEMBLE else 1}
