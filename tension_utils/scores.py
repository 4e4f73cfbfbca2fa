"""Stored scores of all neurons of one model: how they are named, kept and read, without the model that has them."""

import json
from collections.abc import Container, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from tension_utils.artifacts import OWN_SCORES, VIEWS, parse_json, require, save_tensors
from tension_utils.config import Run

SIDES = ("chosen", "rejected")

ACTIVATION_KINDS = ("signed_mean", "mean_abs", "frequency")  # those that a base model has as well

UNSIDED_KINDS = ("contrast", "absolute_contrast", "attribution")  # differences of the sides, stored as side "both"

HEADS = "heads"  # site and view of attention heads

HEAD_KINDS = ("signed_mean", "rms")  # of the norms of what training changed: their mean, as published, and RMS

GENERIC, BASE_GENERIC = "generic", "base-generic"  # views on text without labels


@dataclass(frozen=True)
class NeuronScores:
    """Scores of all neurons of one model.

    Args:
        tensors: (kind, side, scope) -> (L, N), float32. Side is "chosen", "rejected" or "both", the mean of the two;
            "relative_change" is the ratio of two such means, "contrast", "absolute_contrast" and "attribution" have
            "both" alone, and so has every kind on plain texts.
        site: where activations were read, "down_input" or "gate".
        n_items: items seen.
        n_tokens: tokens of their sequences, the shared ones once per sequence.
    """

    tensors: dict[tuple[str, str, str], np.ndarray] = field(repr=False)
    site: str
    n_items: int
    n_tokens: int

    def get(self, kind: str, side: str = "both", scope: str = "all") -> np.ndarray:
        """Return the scores (L, N), float32, of one kind, side and scope.

        Raises:
            KeyError: if they were not computed; the message lists what there is.
        """
        found = self.find(kind, side, scope)
        if found is None:
            there = ", ".join("/".join(key) for key in sorted(self.tensors))
            raise KeyError(f"no scores {kind}/{side}/{scope}; there are {there}. Compute them with neuron_scores")
        return found

    def find(self, kind: str, side: str = "both", scope: str = "all") -> np.ndarray | None:
        """Return the same, or None if there are none: of later seeds an export keeps fewer scores than of the first."""
        return self.tensors.get((kind, side, scope))

    def only(self, kinds: Container[str], sides: Container[str], scopes: Container[str]) -> "NeuronScores":
        """Return the scores of some kinds, sides and scopes."""
        kept = {
            key: t
            for key, t in self.tensors.items()
            if all(k in c for k, c in zip(key, (kinds, sides, scopes), strict=True))
        }
        return replace(self, tensors=kept)

    def save(self, path: str | Path, *, is_half: bool = False) -> None:
        """Write a safetensors file with the keys "kind/side/scope".

        Args:
            path: where to.
            is_half: write float16, each tensor over its largest absolute value, which the metadata keeps. Ranks that
                float16 does not tell apart become ties.
        """
        tensors = {"/".join(key): t for key, t in self.tensors.items()}
        metadata = {"site": self.site, "n_items": str(self.n_items), "n_tokens": str(self.n_tokens)}
        if is_half:
            scales = {key: float(np.abs(t).max()) or 1.0 for key, t in tensors.items()}
            tensors = {key: (t / scales[key]).astype(np.float16) for key, t in tensors.items()}
            metadata["scales"] = json.dumps(scales, sort_keys=True)
        save_tensors(path, tensors, metadata)

    @classmethod
    def load(cls, path: str | Path) -> "NeuronScores":
        """Read what `save` wrote.

        Raises:
            ValueError: if the file is something else.
        """
        try:
            with safe_open(path, framework="np") as file:
                metadata = file.metadata() or {}
                tensors = {tuple(key.split("/")): file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            for key, scale in parse_json(metadata.get("scales", "{}")).items():
                tensors[tuple(key.split("/"))] = tensors[tuple(key.split("/"))].astype(np.float32) * np.float32(scale)
            facts = metadata["site"], int(metadata["n_items"]), int(metadata["n_tokens"])
            is_whole = all(len(key) == 3 and t.ndim == 2 and t.dtype.kind == "f" for key, t in tensors.items())
            if not tensors or not is_whole:
                raise ValueError(f"got {sorted(tensors)[:3]}")
        except (SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: expected neuron scores as NeuronScores.save writes; {error}; remove it and run 03_identify "
                "again, or copy it again"
            ) from error
        return cls(tensors, *facts)


def own_scores(run: Run) -> NeuronScores:
    """Return a run's scores on its own training pairs.

    Raises:
        FileNotFoundError: names the missing file and the chapter to run.
    """
    return NeuronScores.load(require(run.folder / OWN_SCORES, "03_identify", run))


def load_view(run: Run, view: str) -> NeuronScores:
    """Return one of a run's further scores.

    Args:
        run: the reward model.
        view: "half-0", "half-1", "gate", "heads", "text-helpful", "text-harmless"; in the folder of a single-objective
            run "base-text-<its objective>"; and where generic text was asked for, "generic" and "base-generic".

    Raises:
        FileNotFoundError: names the missing file and the chapter to run.
    """
    return NeuronScores.load(require(_view_file(run, view), "03_identify", run))


def load_views(runs: Iterable[Run], *views: str) -> dict[Run, tuple[NeuronScores, ...]]:
    """Return some of the further scores of every run that has them.

    Raises:
        FileNotFoundError: if no run has them; names the missing file of the first one and the chapter to run.
    """
    runs = list(runs)
    having = [run for run in runs if all(_view_file(run, view).exists() for view in views)]
    return {run: tuple(load_view(run, view) for view in views) for run in having or runs}


def _view_file(run: Run, view: str) -> Path:
    return run.folder / VIEWS / f"{view}.safetensors"
