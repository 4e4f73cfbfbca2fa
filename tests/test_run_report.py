"""The page of run times: from the runner's records and the manifests, nothing invented."""

import json
from pathlib import Path

import nbformat
import numpy as np
import pytest

from tension_utils.config import Run
from tension_utils.show.provenance import chapter_table, read_provenance, seconds_per_pair, stage_table, version_table

RECORD = {"commit": "0123456789ab", "python": "3.11.7", "packages": {"torch": "2.0"}, "device": "Some CPU"}
RECORD |= {"started": "2026-01-02T03:04:05+00:00", "seconds": 70.0}


def write(path: Path, record: dict | None) -> Path:
    nbformat.write(nbformat.v4.new_notebook(metadata={} if record is None else {"provenance": record}), path)
    return path


def test_chapters_show_time_device_commit_and_versions(tmp_path: Path) -> None:
    other = RECORD | {"seconds": 5.0, "commit": "0123456789ab+changes", "packages": {"torch": "2.1"}}
    paths = [write(tmp_path / f"{name}.ipynb", record) for name, record in (("01_a", RECORD), ("02_b", other))]
    records = read_provenance(paths)
    table = chapter_table(records).set_index("chapter")
    assert table["run time"].tolist() == ["1 min 10 s", "5.0 s", "1 min 15 s"]
    assert table.commit.tolist()[:2] == [RECORD["commit"], other["commit"]]
    assert version_table(records).set_index("package").version.to_dict() == {
        "python": "3.11.7",
        "torch": "2.0 (01_a); 2.1 (02_b)",
    }
    with pytest.raises(ValueError, match="03_c.ipynb has no record of its run"):
        read_provenance([write(tmp_path / "03_c.ipynb", None)])


def test_stages_add_up_over_reward_models(tmp_path: Path) -> None:
    runs = [Run(tmp_path, "toy", "helpful", seed) for seed in (0, 1, 2)]
    for run, seconds in zip(runs[:2], (10.0, 20.0), strict=True):
        run.folder.mkdir(parents=True)
        section = {"seconds": seconds, "n_tokens": 900, "n_train": 10, "device": "cpu"}
        manifest = {"train": section, "export": {"schema_version": 1}}
        (run.folder / "manifest.json").write_text(json.dumps(manifest))
    (row,) = stage_table(runs).to_dict("records")
    assert row == {"stage": "train", "n_models": 2, "seconds": 30.0, "longest": 20.0, "n_tokens": 1800,
                   "tokens_per_second": 60.0, "device": "cpu"}  # fmt: skip
    assert seconds_per_pair(runs) == 1.5
    assert stage_table(runs[2:]).empty and np.isnan(seconds_per_pair(runs[2:]))
