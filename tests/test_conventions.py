"""What others expect of this repository: a workflow that Snakemake's linter and catalog read, and careful CI."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from schema import readme

ROOT = Path(__file__).parents[1]
# Lints that stay: make builds one environment for all rules, and the interpreter is that of the pipeline.
ACCEPTED = ("Specify a conda environment or container for each rule", "directly uses variable PYTHON")
ACTIONS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_the_linter_finds_nothing_but_what_is_accepted() -> None:
    command = [sys.executable, "-m", "snakemake", "--snakefile", "workflow/Snakefile", "--lint"]
    done = subprocess.run([*command, "--configfile", "config/tiny.yaml"], cwd=ROOT, capture_output=True, text=True)
    lints = re.findall(r"^    \* (.*)", done.stdout + done.stderr, flags=re.MULTILINE)
    assert lints, done.stderr
    assert not [lint for lint in lints if not any(text in lint for text in ACCEPTED)]


def test_the_catalog_finds_workflow_and_profile() -> None:
    flags = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]["mandatory-flags"]["flags"]
    assert all((ROOT / word).is_file() for word in flags.split() if not word.startswith("-"))
    assert (ROOT / "config" / "README.md").read_text(encoding="utf-8") == readme()


@pytest.mark.parametrize("path", ACTIONS, ids=lambda path: path.name)
def test_actions_are_pinned_and_only_the_job_that_publishes_may_write(path: Path) -> None:
    text = path.read_text()
    used = re.findall(r"uses: (\S+)(.*)", text)
    assert used
    for action, comment in used:
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action) and re.search(r"# v\d", comment), action
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        may_write = "write" in str(job.get("permissions", {}))
        assert may_write == (name == "deploy")
        assert not (may_write and any("run" in step for step in job["steps"]))
