"""Checks of values that people choose; each error names the parameter, what was expected and what came."""

import dataclasses
from collections.abc import Collection, Mapping
from numbers import Real


def check_choice(name: str, value: str, choices: Collection[str]) -> str:
    """Return ``value`` if it is one of ``choices``.

    Raises:
        ValueError: names the parameter, what came and every valid choice.

    >>> check_choice("objective", "helpful", ("helpful", "harmless"))
    'helpful'
    """
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(map(str, choices))}; got {value!r}")
    return value


def check_choices(name: str, values: Collection[str], choices: Collection[str]) -> None:
    """Check a non-empty collection without repeats, each a valid choice.

    Raises:
        ValueError: names the parameter and what is wrong with it.
    """
    if isinstance(values, str):
        raise ValueError(f"{name}: expected a list of values; got the text {values!r}")
    if not values or len(set(values)) != len(values):
        raise ValueError(f"{name}: expected at least one value and none twice; got {list(values)!r}")
    for value in values:
        check_choice(name, value, choices)


def check_range(name: str, value: float, low: float, high: float = float("inf")) -> None:
    """Check ``low <= value <= high``.

    Raises:
        ValueError: names the parameter, the range and what came.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not low <= value <= high:
        raise ValueError(f"{name}: expected a number from {low} to {high}; got {value!r}")


def check_values(name: str, values: Collection[float], low: float, high: float = float("inf")) -> None:
    """Check a non-empty collection of numbers without repeats, each from ``low`` to ``high``.

    Raises:
        ValueError: names the parameter and what is wrong with it.
    """
    if not values or len(set(values)) != len(values):
        raise ValueError(f"{name}: expected at least one value and none twice; got {list(values)!r}")
    for value in values:
        check_range(name, value, low, high)


def check_fields(name: str, values: Mapping[str, object], config_class: type) -> Mapping[str, object]:
    """Return ``values`` if every key is a field of the dataclass ``config_class``.

    Raises:
        ValueError: names the parameter, the unknown keys and the fields there are.

    >>> from tension_utils.config import EngineConfig
    >>> check_fields("engine", {"n_items": 4}, EngineConfig)
    {'n_items': 4}
    """
    fields = [field.name for field in dataclasses.fields(config_class)]
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ValueError(f"{name}: expected fields of {config_class.__name__} ({', '.join(fields)}); got {unknown}")
    return values
