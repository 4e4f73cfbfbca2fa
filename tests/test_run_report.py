"""The page of run times: from the runner's records and the manifests, nothing invented."""

import json
import sys
from pathlib import Path

import nbformat
import pytest

from tension_utils.config import Run
from tension_utils.show import run_report

RECORD = {
    "parameters": {"profile": "tiny", "text": "a`b|c"},
    "commit": "0123456789ab",
    "python": "3.11.7",
    "packages": {"torch": "2.0"},
    "platform": "Linux x86_64",
    "device": "Some CPU",
    "notebook_sha256": "f" * 64,
    "started": "2026-01-02T03:04:05+00:00",
    "seconds": 70.0,
}


def write(path: Path, record: dict | None) -> Path:
    notebook = nbformat.v4.new_notebook(metadata={} if record is None else {"provenance": record})
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def test_page_shows_time_device_commit_versions_and_parameters(tmp_path: Path) -> None:
    other = RECORD | {"seconds": 5.0, "commit": "0123456789ab+changes", "packages": {"torch": "2.1"}}
    paths = [write(tmp_path / f"{name}.ipynb", record) for name, record in (("01_a", RECORD), ("02_b", other))]
    page = run_report.run_page(run_report.read_provenance(paths), [])
    assert "| [01_a](../../executed/01_a.ipynb) | 1 min 10 s | 2026-01-02 03:04 | `Some CPU` | `0123456789ab` |" in page
    assert "`0123456789ab+changes`" in page and "All 2 together: 1 min 15 s." in page
    assert "| torch | 2.0 (01_a); 2.1 (02_b) |" in page and "| python | 3.11.7 |" in page
    assert "a'b/c" in page and "a`b" not in page, "a value cannot end its code or its cell"
    assert "## Stages" not in page and "## The real run" not in page


def test_stages_add_up_over_reward_models(tmp_path: Path) -> None:
    runs = [Run("runs/x", "toy", "helpful", seed) for seed in (0, 1, 2)]
    for run, seconds in zip(runs[:2], (10.0, 20.5), strict=True):
        (tmp_path / run.folder).mkdir(parents=True)
        section = {"seconds": seconds, "n_tokens": 1000, "device": "cpu"}
        (tmp_path / run.folder / "manifest.json").write_text(json.dumps({"train": section}))
    assert "| train | 2 | 30.5 s | 20.5 s | 2,000 | `cpu` |" in run_report.stage_section(runs, tmp_path)
    assert run_report.stage_section(runs[2:], tmp_path) == ""


def test_speed_by_hand() -> None:
    train = {"seconds": 100.0, "n_tokens": 2000, "n_train": 10, "device": "cpu"}
    page = run_report.speed_section({"about": "A test.", "runs": {"a": {"train": train}, "b": {"train": train}}})
    assert "| train | 2 | 3 min 20 s | 4,000 | 20 | `cpu` |" in page
    # 200 tokens a pair at 20 tokens a second: ten seconds a pair.
    assert "had 200 tokens" in page and "would take 27 h 46 min per reward model" in page


def test_every_committed_run_has_its_cost() -> None:
    train = {"seconds": 100.0, "n_tokens": 2000, "n_train": 10, "device": "cpu"}
    manifests = [{"about": f"Run <{name}>.", "runs": {"a": {"train": train}}} for name in "xy"]
    page = run_report.run_page({"01_a": RECORD}, [], manifests)
    assert page.count("## The real runs") == 1 and page.count("| train | 1 |") == 2
    assert page.index("Run &lt;x&gt;.") < page.index("Run &lt;y&gt;.")


def test_a_notebook_without_a_record_is_named_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "03_c.ipynb", None)
    monkeypatch.setattr(sys, "argv", ["run_report", str(path), "--output", str(tmp_path / "runs.md")])
    with pytest.raises(SystemExit):
        run_report.main()
    assert "03_c.ipynb has no record of its run" in capsys.readouterr().err
    assert not (tmp_path / "runs.md").exists()
