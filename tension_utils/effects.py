"""What removing a neuron set does, against matched random sets."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tension_utils.bootstrap import N_RESAMPLES
from tension_utils.checks import check_choice
from tension_utils.config import CONTROLS, REMOVAL
from tension_utils.statistics import ITEM_COLUMNS, MODEL_COLUMNS, mean_table, require_columns

RM_COLUMNS = ("objective", *MODEL_COLUMNS)
METRICS = {"accuracy": "credit", "margin": "margin"}  # name in tables -> item-level column


def compared_rows(ablation: pd.DataFrame, control: str = CONTROLS[0], scale: float = REMOVAL) -> pd.DataFrame:
    """Return the rows that one comparison with random sets is about; every analysis takes its rows through here.

    Args:
        ablation: rows of ablation.parquet.
        control: of `config.CONTROLS`: the random sets that are kept; those that match otherwise are left out.
        scale: of the activations; 0, a removal, leaves out sets that were only scaled.

    Raises:
        ValueError: if the control is unknown, or the rows are of an earlier table that names neither.
    """
    require_columns(ablation, ["family", "control", "scale"])
    check_choice("control", control, CONTROLS)
    return ablation[ablation.control.isin(["", control]) & (ablation["scale"] == scale)]


def ablation_changes(ablation: pd.DataFrame, evaluation: pd.DataFrame) -> pd.DataFrame:
    """Set every ablated row beside the intact model on the same item.

    Margins are divided by the standard deviation of the reward model's intact margins on that benchmark, because
    Bradley-Terry fixes no scale across reward models.

    Args:
        ablation: rows of ablation.parquet.
        evaluation: rows of evaluation.parquet of the same reward models.

    Returns:
        The ablation rows with cluster, group, direction, accuracy_change (credit, in [-1, 1]) and margin_change (intact
        standard deviations).

    Raises:
        ValueError: an ablated item has no intact row.
    """
    keys = [*RM_COLUMNS, *ITEM_COLUMNS]
    require_columns(ablation, [*keys, "margin", "credit"])
    require_columns(evaluation, [*keys, "margin", "credit", "cluster"])
    spread = evaluation.groupby([*RM_COLUMNS, "benchmark"]).margin.transform("std").astype(float)
    extra = [
        column
        for column in ("cluster", "group", "direction")
        if column not in ablation.columns and column in evaluation.columns
    ]
    intact = evaluation[[*keys, *extra]].assign(
        intact_credit=evaluation.credit, intact_margin=evaluation.margin.astype(float), intact_std=spread
    )
    joined = ablation.merge(intact, on=keys, how="left", validate="many_to_one")
    lost = joined.intact_credit.isna()
    if lost.any():
        raise ValueError(
            f"expected an intact row in evaluation for every ablated item; {lost.sum()} have none, "
            f"such as {joined.loc[lost, keys].iloc[0].to_dict()}; evaluate the same items first"
        )
    joined["accuracy_change"] = joined.credit - joined.intact_credit
    joined["margin_change"] = (joined.margin.astype(float) - joined.intact_margin) / joined.intact_std
    return joined.drop(columns=["intact_credit", "intact_margin", "intact_std"])


def item_effects(
    changes: pd.DataFrame, match: Sequence[str], control: str = "random"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Set every item of a targeted set beside the mean over the random draws that match the set.

    Args:
        changes: of `ablation_changes`.
        match: columns on which a set meets its controls, besides reward model and item.
        control: name of the random sets.

    Returns:
        The targeted rows with, per metric, <metric>_control (mean change over the draws), <metric>_effect (change minus
        that) and n_draws; and the rows of the random draws.

    Raises:
        ValueError: no control row, or a set without its control.
    """
    is_control = changes.set == control
    if not is_control.any():
        raise ValueError(f"expected rows with set = {control!r}; got {', '.join(map(str, changes.set.unique()))}")
    keys = [*RM_COLUMNS, *ITEM_COLUMNS, *match]
    draws = changes[is_control].groupby(keys, observed=True)
    means = draws[[f"{metric}_change" for metric in METRICS]].mean().set_axis([f"{m}_control" for m in METRICS], axis=1)
    rows = changes[~is_control].merge(
        means.assign(n_draws=draws.size()).reset_index(), on=keys, how="left", validate="many_to_one"
    )
    lost = rows.n_draws.isna()
    if lost.any():
        raise ValueError(f"expected random draws for every set; none for {rows.loc[lost, keys].iloc[0].to_dict()}")
    for metric in METRICS:
        rows[f"{metric}_effect"] = rows[f"{metric}_change"] - rows[f"{metric}_control"]
    return rows, changes[is_control]


def ablation_effects(
    ablation: pd.DataFrame,
    evaluation: pd.DataFrame,
    by: Sequence[str],
    rng: np.random.Generator,
    control: str = "random",
    match: Sequence[str] = ("fraction", "ablation_kind"),
    n_resamples: int = N_RESAMPLES,
) -> pd.DataFrame:
    """Return what removing a neuron set does, against matched random sets.

    effect = change with the set - mean change over the control draws, on the same items, seeds and settings.

    Args:
        ablation: rows of ablation.parquet; rows with ``set == control`` are the random draws.
        evaluation: rows of evaluation.parquet of the same reward models.
        by: columns that name a condition; must hold "set" and every column of ``match``.
        rng: source of the bootstrap draws.
        control: name of the random sets.
        match: columns on which a set meets its controls, besides reward model and item. Add "matched_to" when the
            controls were drawn anew for every targeted set.
        n_resamples: bootstrap draws.

    Returns:
        Two rows per condition, metric "accuracy" (share) and "margin" (intact standard deviations): ``by``, metric,
        change, change_ci_low, change_ci_high, control, control_low, control_high (2.5 % and 97.5 % of the draws),
        effect, ci_low, ci_high, p_value (rank among the draws, two-sided), n_draws, n_items, n_clusters, n_seeds.

    Raises:
        ValueError: no control row, a set without its control, or ``by`` lacks a column.
    """
    by, match = list(by), list(match)
    require_columns(ablation, ["set", "draw", *match])
    if not {"set", *match} <= set(by):
        raise ValueError(f"expected `by` to hold set, {', '.join(match)}; got {', '.join(by)}")
    changes = ablation_changes(ablation, evaluation)
    rows, controls = item_effects(changes, match, control)
    names = [f"{metric}_change" for metric in METRICS]
    columns = [f"{metric}_{part}" for metric in METRICS for part in ("change", "control", "effect")]
    wide = mean_table(rows, columns, by, rng, n_resamples)
    draws = _draw_means(controls, rows, names, by, match)
    return pd.concat([_of_metric(wide, draws, metric, by) for metric in METRICS], ignore_index=True).sort_values(
        [*by, "metric"], ignore_index=True
    )


def _draw_means(
    controls: pd.DataFrame, rows: pd.DataFrame, names: list[str], by: list[str], match: list[str]
) -> dict[tuple, pd.DataFrame]:
    """Return per condition the mean change of each random draw, over the condition's reward models and items."""
    shared = [column for column in by if column != "set" or column in match]
    of_shared = {key: part.groupby("draw")[names].mean() for key, part in controls.groupby(shared)}
    conditions = rows[by].drop_duplicates()
    return {
        tuple(condition): of_shared[tuple(condition[column] for column in shared)]
        for _, condition in conditions.iterrows()
    }


def _of_metric(wide: pd.DataFrame, draws: dict[tuple, pd.DataFrame], metric: str, by: list[str]) -> pd.DataFrame:
    """Narrow the wide table to one metric and add the spread and rank among the random draws."""
    name = f"{metric}_change"
    table = wide[by].assign(
        metric=metric,
        change=wide[name],
        change_ci_low=wide[f"{name}_ci_low"],
        change_ci_high=wide[f"{name}_ci_high"],
        control=wide[f"{metric}_control"],
    )
    spread = []
    for condition, change in zip(wide[by].itertuples(index=False, name=None), wide[name], strict=True):
        values = draws[condition][name].to_numpy()
        low, high = np.quantile(values, [0.025, 0.975])
        fewer = min((values <= change).sum(), (values >= change).sum())
        spread.append(
            {
                "control_low": low,
                "control_high": high,
                "p_value": min(1.0, 2 * (1 + fewer) / (1 + len(values))),
                "n_draws": len(values),
            }
        )
    spread = pd.DataFrame(spread)
    table[["control_low", "control_high"]] = spread[["control_low", "control_high"]]
    table = table.assign(
        effect=wide[f"{metric}_effect"],
        ci_low=wide[f"{metric}_effect_ci_low"],
        ci_high=wide[f"{metric}_effect_ci_high"],
    )
    return table.join(spread[["p_value", "n_draws"]]).join(wide[["n_items", "n_clusters", "n_seeds"]])
