"""Preference data as files: it loads as the public dataset does, its texts survive, and unusable rows are found.

The rows of ``tests/data`` are written for these tests. A sample of HH-RLHF in ``../shared/data`` is read as well, where
it is there.
"""

import gzip
from collections import Counter
from pathlib import Path

import datasets
import pytest

from tension_utils.benchmarks.load import load_hh_test
from tension_utils.config import DataConfig
from tension_utils.data import Split, read_split, render_prompt, render_response, training_pairs
from tension_utils.pair_layouts import read_pair

ROOT = Path(__file__).parents[1]
OWN = ROOT / "tests" / "data" / "hh-rlhf"
SAMPLE = ROOT.parent / "shared" / "data" / "hh-rlhf"
SUBSETS = ("helpful-base", "harmless-base")
UNUSABLE = {"identical responses", "empty response", "different prompts", "no dialogue"}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


@pytest.fixture(scope="module", params=[OWN, *([SAMPLE] if SAMPLE.is_dir() else [])], ids=lambda path: path.parts[-3])
def source(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture(scope="module")
def splits(cache: None, source: Path) -> dict[tuple[str, str], Split]:
    return {
        (subset, split): read_split(str(source), subset, split, bad_pairs="drop")
        for subset in SUBSETS
        for split in ("train", "test")
    }


def file_of(source: Path, subset: str, split: str) -> Path:
    (path,) = (source / subset).glob(f"{split}.jsonl*")
    return path


def test_every_row_is_kept_or_counted(source: Path, splits: dict[tuple[str, str], Split]) -> None:
    for (subset, name), split in splits.items():
        path = file_of(source, subset, name)
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        n_dropped = sum(split.n_dropped.values())
        assert len(split.items) + n_dropped == content.count(b"\n")
        assert source == OWN or n_dropped <= 0.02 * content.count(b"\n"), f"{subset}/{name}: {split.n_dropped}"
    reasons = sum((Counter(split.n_dropped) for split in splits.values()), Counter())
    assert set(reasons) <= UNUSABLE and reasons, "the public data has unusable rows, and they must be found"
    if source == OWN:
        assert reasons == {"identical responses": 2, "empty response": 2, "different prompts": 1}


def test_dialogues_survive_parsing_and_rendering(splits: dict[tuple[str, str], Split]) -> None:
    same = [
        render_prompt(item.prompt) + render_response(response) == row[side]
        for split in splits.values()
        for item, row in zip(split.items, split.rows, strict=True)
        for side, response in (("chosen", item.chosen[0]), ("rejected", item.rejected[0]))
    ]
    assert sum(same) / len(same) > 0.95, f"{len(same) - sum(same)} of {len(same)} texts changed"


def test_what_changes_is_white_space_alone(splits: dict[tuple[str, str], Split]) -> None:
    for split in splits.values():
        for item, row in zip(split.items, split.rows, strict=True):
            text = render_prompt(item.prompt) + render_response(item.chosen[0])
            assert "".join(text.split()) == "".join(row["chosen"].split())


def test_turns_alternate_but_for_a_few(splits: dict[tuple[str, str], Split]) -> None:
    items = [item for split in splits.values() for item in split.items]
    roles = [[turn.role for turn in item.prompt] for item in items]
    regular = [turns == (["human", "assistant"] * len(turns))[: len(turns)] for turns in roles]
    assert sum(regular) / len(regular) > 0.99
    assert all(turns[-1] == "human" for turns in roles)


def test_first_unusable_row_is_named_with_its_line(source: Path, splits: dict[tuple[str, str], Split]) -> None:
    subset, name = next(key for key, split in splits.items() if split.n_dropped)
    rows = datasets.load_dataset(str(source), data_dir=subset, split=name)
    n_usable = 0
    for row in rows:
        try:
            read_pair(row)
        except ValueError:
            break
        n_usable += 1
    with pytest.raises(ValueError, match=f"{file_of(source, subset, name)}, line {n_usable + 1}: expected"):
        read_split(str(source), subset, name)


def test_objectives_and_their_tests(source: Path, splits: dict[tuple[str, str], Split]) -> None:
    n_train, n_validation = (400, 50) if source == SAMPLE else (12, 2)
    data = DataConfig(
        source=str(source), n_train_pairs=n_train, n_validation_pairs=n_validation, bad_pairs="drop", max_length=1024
    )
    mixed = training_pairs(data, "helpful-harmless-matched", 0)
    assert len(mixed.train) == n_train and len(mixed.validation) == n_validation
    assert Counter(item.item_id.split("/")[0] for item in mixed.train) == dict.fromkeys(SUBSETS, n_train // 2)
    items, _ = load_hh_test(data.source, data.subsets, data.bad_pairs)
    assert len(items) == sum(len(splits[subset, "test"].items) for subset in SUBSETS)
    tested = {render_prompt(item.prompt) + item.chosen[0] for item in items}
    assert not [item for item in mixed.train if render_prompt(item.prompt) + item.chosen[0] in tested]
