"""The local sample of HH-RLHF, where it is there: it loads as the public dataset does, and its texts survive."""

from collections import Counter
from pathlib import Path

import datasets
import pytest

from tension_utils.benchmarks.load import load_hh_test
from tension_utils.config import DataConfig
from tension_utils.data import Split, parse_pair, read_split, render_prompt, render_response, training_pairs

ROOT = Path(__file__).parents[1]
SOURCE = ROOT.parent / "shared" / "data" / "hh-rlhf"
SUBSETS = ("helpful-base", "harmless-base")
N_ROWS = {"train": 1500, "test": 500}

pytestmark = pytest.mark.skipif(not SOURCE.is_dir(), reason=f"no sample of HH-RLHF at {SOURCE}")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


@pytest.fixture(scope="module")
def splits(cache: None) -> dict[tuple[str, str], Split]:
    return {
        (subset, split): read_split(str(SOURCE), subset, split, bad_pairs="drop")
        for subset in SUBSETS
        for split in N_ROWS
    }


def test_every_row_is_kept_or_counted(splits: dict[tuple[str, str], Split]) -> None:
    for (subset, name), split in splits.items():
        n_dropped = sum(split.n_dropped.values())
        assert len(split.items) + n_dropped == N_ROWS[name]
        assert n_dropped <= 0.02 * N_ROWS[name], f"{subset}/{name}: {split.n_dropped}"
    reasons = sum((Counter(split.n_dropped) for split in splits.values()), Counter())
    assert set(reasons) <= {"identical responses", "empty response", "different prompts", "no dialogue"}
    assert reasons, "the public data has unusable rows, and they must be found"


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


def test_first_unusable_row_is_named_with_its_line(splits: dict[tuple[str, str], Split]) -> None:
    subset, name = next(key for key, split in splits.items() if split.n_dropped)
    rows = datasets.load_dataset(str(SOURCE), data_dir=subset, split=name)
    n_usable = 0
    for row in rows:
        try:
            parse_pair(row, "here")
        except ValueError:
            break
        n_usable += 1
    with pytest.raises(ValueError, match=f"{SOURCE}/{subset}/{name}.jsonl.gz, line {n_usable + 1}: expected"):
        read_split(str(SOURCE), subset, name)


def test_objectives_and_their_tests(splits: dict[tuple[str, str], Split]) -> None:
    data = DataConfig(source=str(SOURCE), n_train_pairs=400, bad_pairs="drop")
    mixed = training_pairs(data, "helpful-harmless-matched", 0)
    assert len(mixed.train) == 400 and len(mixed.validation) == 50
    assert Counter(item.item_id.split("/")[0] for item in mixed.train) == dict.fromkeys(SUBSETS, 200)
    items, _ = load_hh_test(data.source, data.subsets, data.bad_pairs)
    assert len(items) == sum(len(splits[subset, "test"].items) for subset in SUBSETS)
    tested = {render_prompt(item.prompt) + item.chosen[0] for item in items}
    assert not [item for item in mixed.train if render_prompt(item.prompt) + item.chosen[0] in tested]
