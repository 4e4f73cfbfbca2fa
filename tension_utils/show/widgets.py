"""A scored pair as a page shows it, and the form that scores another where a kernel runs; every text is escaped."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import ipywidgets as ipw
import pandas as pd
from IPython.display import display

from tension_utils.show.tables import formatted_table, table_html, text_html

SPACE = "\u2423"  # stands for a token of nothing but space

N_TOKENS = 3  # named on either side

MIN_SHARE = 0.05  # of a model's strongest token: a weaker one is not named

WIDE = {"description_width": "initial"}

NEEDS_KERNEL = (
    "Scoring needs a running kernel, which a page in a browser has not. Run make lab in the project's folder, open "
    "notebooks/c1_own_pair.ipynb and run all cells: there, editing a text wakes the button."
)


class TokensLike(Protocol):
    """What `pair_table` reads of a response; see `tension_utils.show.own_pair.TokenContributions`."""

    pieces: Sequence[str]
    values: Sequence[float]


class PairLike(Protocol):
    """What `pair_table` reads of a scored pair; see `tension_utils.show.own_pair.PairScores`."""

    rewards: pd.DataFrame
    tokens: Mapping[tuple[str, str], TokensLike]


def strongest(tokens: TokensLike, sign: int, scale: float) -> str:
    """Return the tokens that raise (sign 1) or lower (-1) a reward most, the strongest first, with their contributions.

    Args:
        tokens: pieces of text and their contributions.
        sign: 1 or -1.
        scale: the model's strongest contribution; tokens below `MIN_SHARE` of it are left out.
    """
    order = sorted(range(len(tokens.values)), key=lambda i: -sign * tokens.values[i])
    named = [i for i in order if sign * tokens.values[i] > 0 and abs(tokens.values[i]) >= MIN_SHARE * scale][:N_TOKENS]
    return ", ".join(f"\u201c{tokens.pieces[i].strip() or SPACE}\u201d\u00a0{tokens.values[i]:+.2f}" for i in named)


def pair_table(pair: PairLike) -> pd.DataFrame:
    """Return a row per model and response: its reward, and the tokens that raise and lower it most."""
    rows = []
    for scores in pair.rewards.itertuples():
        own = {side: pair.tokens[scores.objective, side] for side in ("A", "B")}
        scale = max((abs(value) for tokens in own.values() for value in tokens.values), default=0.0)
        rewards = {"A": scores.reward_A, "B": scores.reward_B}
        rows += [
            {"model": scores.objective, "response": side + (", preferred" if scores.prefers == side else "")}
            | {"reward": f"{rewards[side]:+.2f}"}
            | {"raise it most": strongest(tokens, 1, scale), "lower it most": strongest(tokens, -1, scale)}
            for side, tokens in own.items()
        ]
    return pd.DataFrame(rows)


def pair_html(pair: PairLike) -> str:
    """Return what every model says of both responses as a table, all of it escaped."""
    return table_html(formatted_table(pair_table(pair)), "Rewards compare within a model, not between models")


def show_pair(pair: PairLike) -> None:
    """Show what `pair_html` says, in a page or in Jupyter."""
    display({"text/html": pair_html(pair), "text/plain": pair_table(pair).to_string(index=False)}, raw=True)


def pair_form(score: Callable[[str, str, str], PairLike], start: tuple[str, str, str]) -> ipw.VBox:
    """Return a form for a prompt and two responses that scores them, where a kernel runs.

    The button is off until a kernel answers an edit, so it stays off in a page.

    Args:
        score: prompt, response A, response B -> a scored pair; a ValueError of it is shown as text.
        start: the texts that stand there at first.
    """
    names = ("Prompt", "Response A", "Response B")
    width = ipw.Layout(width="100%")
    texts = [
        ipw.Textarea(value=text, description=name, layout=width, style=WIDE)
        for name, text in zip(names, start, strict=True)
    ]
    button, output = ipw.Button(description="Score", disabled=True), ipw.HTML(text_html(NEEDS_KERNEL))

    def wake(change: dict) -> None:
        button.disabled = False

    def answer(clicked: ipw.Button) -> None:
        try:
            output.value = pair_html(score(*(text.value for text in texts)))
        except ValueError as error:
            output.value = text_html(str(error), title="Not scored")

    for text in texts:
        text.observe(wake, "value")
    button.on_click(answer)
    return ipw.VBox([*texts, button, output])
