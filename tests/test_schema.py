"""Profiles are checked whole before any job starts, and the page about them says what is checked."""

import copy
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
import yaml
from conftest import MICRO
from hypothesis import given, settings
from hypothesis import strategies as st

import pipeline
import schema
from run_notebook import declared_parameters, matches
from tension_utils.benchmarks.load import BENCHMARKS
from tension_utils.config import BENCHMARKS as NAMES
from tension_utils.config import SCOPES

ROOT = Path(__file__).parents[1]
PROFILES = sorted(path.stem for path in (ROOT / "config").glob("*.yaml"))
STUDY = schema.read_profile(ROOT, "smollm2-135m")
SECTIONS = {  # of a profile: the notebook whose parameters it sets
    "train": ("01_train", schema.Train),
    "evaluate": ("02_evaluate", schema.Evaluate),
    "tension": ("02b_tension", schema.Tension),
    "identify": ("03_identify", schema.Identify),
    "ablate": ("04_ablate", schema.Ablate),
    "masked_training": ("04b_masked_training", schema.MaskedTraining),
    "overlap": ("05_overlap", schema.Overlap),
    "part": ("05b_part", schema.Part),
    "dial": ("05c_dial", schema.Dial),
    "curve": ("d1_more_pairs", schema.Curve),
    "explorer": ("08_explorer", schema.Explorer),
    "own_pair": ("c1_own_pair", schema.OwnPair),
}
SHARED = {"root", "base_models", "objectives", "seeds"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project that holds one profile and a workflow that must not start."""
    for name in ("config", "workflow"):
        (tmp_path / name).mkdir()
    (tmp_path / "workflow" / "Snakefile").write_text("raise SystemExit('a job was started')\n")
    return tmp_path


def refused(root: Path, text: str, capsys: pytest.CaptureFixture, *arguments: str) -> str:
    """Run a profile with this text; return the message after its start, and check that nothing was started."""
    (root / "config" / "mine.yaml").write_text(text, encoding="utf-8")
    assert pipeline.main(["--profile", "mine", "--root", str(root), "--cores", "1", *arguments]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.endswith("\n") and not (root / ".snakemake").exists()
    return message.removeprefix("error: ").rstrip("\n")


@pytest.mark.parametrize("name", PROFILES)
def test_committed_profiles_are_valid(name: str) -> None:
    assert schema.read_profile(ROOT, name)["seeds"]


def edited(change: Callable[[dict], object], values: dict = STUDY) -> dict:
    values = copy.deepcopy(values)
    change(values)
    return values


FAULTS = [
    (lambda v: v.update(trains={}), "trains: unknown name; did you mean 'train'? Known: base_models, objectives, "),
    (lambda v: v.update(profile="x"), "profile: expected no such key, the file's name says it; got 'x'"),
    (lambda v: v.update(seeds=0), "seeds: expected a list; got 0"),
    (lambda v: v.update(seeds=[]), "seeds: expected at least one value and none twice; got []"),
    (lambda v: v.update(seeds=[0, 0]), "seeds: expected at least one value and none twice; got [0, 0]"),
    (lambda v: v.update(seeds=[2**32]), "seeds[0]: expected at most 4294967295; got 4294967296"),
    (lambda v: v.update(job="seeds"), "job: expected one of seed, reward_model; got 'seeds'; did you mean 'seed'?"),
    (lambda v: v.update(threads=0), "threads: expected at least 1; got 0"),
    (lambda v: v.update({3: 4}), "[3]: expected a text as the name; got 3"),
    (lambda v: v.pop("train"), "train: expected a value; got nothing"),
    (
        lambda v: v["objectives"].append("helpfulness"),
        "objectives[3]: expected one of helpful, harmless, helpful-harmless; got 'helpfulness'; did you mean ",
    ),
    (lambda v: v["arms"].append("helpful"), "arms[1]: expected one of helpful-harmless-matched, "),
    (lambda v: v["arms"].append("matched-without-shared"), "arms[1]: expected one of helpful-harmless-matched, "),
    (
        lambda v: v.update(base_models=["a/x", "b/X"]),
        "base_models: expected different short names; two of ['a/x', 'b/X']",
    ),
    (lambda v: v.update(base_models=["models/.."]), "base_models[0]: expected letters, digits, '.', '_' or '-', "),
    (lambda v: v.update(base_models=["a;rm -r b"]), "base_models[0]: expected letters, digits, '.', '_' or '-', "),
    (lambda v: v.update(base_models=["toy"]), "toy: expected a section for the base model or data 'toy'"),
    (
        lambda v: v["train"].update(learning_rates=1e-4),
        "train.learning_rates: unknown name; did you mean 'learning_rate'?",
    ),
    (lambda v: v["train"].update(learning_rate="1e-4"), "train.learning_rate: expected a number; got '1e-4'; in YAML "),
    (lambda v: v["train"].update(batch_size=True), "train.batch_size: expected a whole number; got True"),
    (lambda v: v["train"].update(subsets={"helpful": ["a"]}), "train.subsets: expected a list of folders for each of "),
    (
        lambda v: v["train"]["train_options"].update(dtype="x"),
        "train.train_options.dtype: unknown name. Known: n_epochs",
    ),
    (lambda v: v["evaluate"].update(benchmark_items={"rmb": 3}), "evaluate.benchmark_items: expected one of hh-rlhf, "),
    (lambda v: v["ablate"].update(benchmarks=["rmb"]), "ablate.benchmarks: expected one of hh-rlhf, rm-bench, "),
    (lambda v: v.update(masked_training={"seeds": [3]}), "masked_training.seeds: expected one of 0, 247, 932; got 3"),
    (lambda v: v.update(part={"n_pairs": 7}), "part.n_pairs: expected a multiple of 2; got 7"),
    (lambda v: v["curve"].update(seeds=[3]), "curve.seeds: expected one of 0, 247, 932; got 3"),
    (lambda v: v["curve"].update(n_pairs=[5]), "curve.n_pairs[0]: expected a multiple of 2; got 5"),
    (
        lambda v: v["curve"].update(n_pairs=[1392]),
        "curve.n_pairs: expected fewer than train.n_train_pairs, 1392; got 13",
    ),
    (lambda v: v["curve"].update(mixture_pairs=7), "curve.mixture_pairs: expected 0 or one of curve.n_pairs, [174, 3"),
    (lambda v: v.pop("arms"), "arms: expected helpful-harmless-matched among them, which chapter 4b trains again"),
    (lambda v: v.update(objectives=["helpful"]), "objectives: expected helpful and harmless among them, which the ch"),
    (lambda v: v["evaluate"].update(benchmarks=["rm-bench"]), "evaluate.benchmarks: expected hh-rlhf among them, on "),
    (lambda v: v.update(tension={"reference": "rmb"}), "tension.reference: expected one of hh-rlhf, rm-bench, "),
    (lambda v: v["evaluate"].update(n_items=7), "ablate.n_items: expected 1 to 7, the items of hh-rlhf that are eval"),
    (
        lambda v: v["ablate"].update(score_kinds=["relative_change"]),
        "ablate.score_kinds: expected one of signed_mean, mean_abs, rms, frequency, rms_change, contrast, attribution; "
        "got 'relative_change'",
    ),
    (
        lambda v: v["identify"].update(score_kinds=["signed_mean", "attribution", "rms_change", "frequency"]),
        "identify.score_kinds: expected mean_abs too, which chapters read; got ['signed_mean', ",
    ),
    (lambda v: v["identify"].update(scopes=["last"]), "identify.scopes: expected all too, which chapters read; got ['"),
    (
        lambda v: v["overlap"].update(main_kind="contrast"),
        "overlap.main_kind: expected one of signed_mean, mean_abs, f",
    ),
    (lambda v: v.update(part={"score_kind": "absolute_contrast"}), "part.score_kind: expected one of signed_mean, mea"),
    (
        lambda v: v.update(own_pair={"prompts": ["a"]}),
        "own_pair: expected as many responses of either kind as prompts; got {'prompts': 1, 'responses_a': 2, 'resp",
    ),
    (lambda v: v["study"]["candidates"].append({"n_epoch": 2}), "study.candidates[2].n_epoch: unknown name; did you "),
    (
        lambda v: v["study"]["ablate_matched"][0].update(scales=[1]),
        "study.ablate_matched[0]: scales: expected no 1, which",
    ),
    (lambda v: v["study"].update(ablate_single=[]), "study.ablate_single: expected at least 1; got []"),
]


@pytest.mark.parametrize("change, message", FAULTS, ids=[message.split(":")[0] for _, message in FAULTS])
def test_a_fault_is_one_line_with_file_and_key_and_starts_nothing(
    change: Callable, message: str, root: Path, capsys: pytest.CaptureFixture
) -> None:
    found = refused(root, yaml.safe_dump(edited(change)), capsys)
    assert found.startswith(f"config/mine.yaml: {message}") and "\n" not in found


def test_every_fault_has_its_line(root: Path, capsys: pytest.CaptureFixture) -> None:
    text = yaml.safe_dump(edited(lambda v: v.update(threads=0, gpus="one")))
    lines = refused(root, text, capsys).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["threads", "gpus"]


def test_a_misspelt_name_is_told_before_what_it_leaves_missing(root: Path, capsys: pytest.CaptureFixture) -> None:
    lines = refused(root, "evaluates: {benchmarks: [rm-bench]}\n", capsys).splitlines()
    assert lines[0].startswith("config/mine.yaml: evaluates: unknown name; did you mean 'evaluate'?")


DEEP = 20_000
DOUBLING = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))


@pytest.mark.parametrize(
    "text, message",
    [
        (DOUBLING, "line 2: expected YAML; write the value again, not *alias"),
        (
            "seeds: " + "[" * DEEP + "]" * DEEP,
            "expected sections of keys; got lists or mappings too deep in each other",
        ),
        ("{a: " * DEEP + "1" + "}" * DEEP, "expected sections of keys; got lists or mappings too deep in each other"),
        ("seeds: [0\njob: seed\n", "line 2: expected YAML; "),
        ("seeds: [0]\nseeds: [1]\n", "line 2: expected YAML; the key 'seeds' comes twice"),
        ("seeds: [" + "9" * 5000 + "]", "expected YAML; Exceeds the limit"),
        ("!!python/object/apply:os.system [true]", "line 1: expected YAML; could not determine a constructor"),
        ("", "expected a mapping; got None"),
        ("- 1\n", "expected a mapping; got [1]"),
    ],
)
def test_files_that_are_no_profile_end_at_once(
    text: str, message: str, root: Path, capsys: pytest.CaptureFixture
) -> None:
    started = time.monotonic()
    assert refused(root, text, capsys).startswith(f"config/mine.yaml: {message}")
    assert time.monotonic() - started < 10


def test_a_file_that_is_no_text_is_named(root: Path, capsys: pytest.CaptureFixture) -> None:
    (root / "config" / "other.yaml").write_bytes(b"\xff\xfe\x00")
    assert pipeline.main(["--profile", "other", "--root", str(root)]) == 2
    assert capsys.readouterr().err.startswith("error: config/other.yaml: expected a YAML file; ")


@settings(max_examples=200)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from(sorted(STUDY)),
    st.booleans(),
)
def test_any_value_is_taken_or_told_by_its_key(value: object, key: str, is_inside: bool) -> None:
    section = copy.deepcopy(STUDY[key])
    if is_inside and isinstance(section, dict):
        section[sorted(section)[0]] = value
    else:
        section = value
    try:
        schema.check_profile(STUDY | {key: section})
    except ValueError as error:
        assert all(
            line.startswith((key, "curve")) and "; got " in line or "unknown name" in line
            for line in str(error).split("\n")
        )


def test_the_name_of_a_profile_is_one_that_a_folder_and_a_shell_take(root: Path, capsys: pytest.CaptureFixture) -> None:
    (root / "config" / "a b.yaml").write_text(yaml.safe_dump(STUDY))
    assert pipeline.main(["--profile", "a b", "--root", str(root)]) == 2
    assert "config/a b.yaml: expected letters, digits, '.', '_' or '-'" in capsys.readouterr().err


@pytest.mark.parametrize("form", [["--workflow-profile", "cluster"], ["--workflow-profile=cluster/"]])
def test_placeholders_of_the_cluster_are_refused(form: list[str], root: Path, capsys: pytest.CaptureFixture) -> None:
    (root / "cluster").mkdir()
    text = (ROOT / "workflow" / "profiles" / "slurm" / "config.yaml").read_text()
    (root / "cluster" / "config.yaml").write_text(text)
    found = refused(root, yaml.safe_dump(STUDY), capsys, *form)
    keys = "default-resources.slurm_account, default-resources.slurm_partition"
    assert found == f"cluster/config.yaml: {keys}: expected the values of your cluster; got CHANGE_ME"
    nested = text.replace("CHANGE_ME", "mine") + '\nslurm-extra: ["--qos=CHANGE_ME"]\n'
    (root / "cluster" / "config.yaml").write_text(nested)
    assert "cluster/config.yaml: slurm-extra: expected" in refused(root, yaml.safe_dump(STUDY), capsys, *form)
    schema_text = text.replace("CHANGE_ME", "mine")
    (root / "cluster" / "config.yaml").write_text(schema_text)
    schema.check_cluster(root, "cluster", is_submitted=False)


def test_values_that_the_command_line_changes_are_checked_too(root: Path) -> None:
    done = subprocess.run(
        [
            *pipeline._snakemake()[:3],
            "--snakefile",
            str(ROOT / "workflow" / "Snakefile"),
            "--configfile",
            str(ROOT / "config" / "tiny.yaml"),
            "--dry-run",
            "--config",
            "trains=1",
        ],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "trains: unknown name; did you mean 'train'?" in done.stdout + done.stderr


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_has_the_parameters_of_its_notebook(section: str) -> None:
    name, kind = SECTIONS[section]
    declared = declared_parameters(nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4))
    own = {"masked_training": {"objectives", "seeds"}, "curve": {"seeds"}}.get(section, set())
    assert set(schema.get_type_hints(kind)) == set(declared) - SHARED | own, f"make workflow/schema.py and {name} agree"
    for profile in PROFILES:
        for key, value in schema.read_profile(ROOT, profile).get(section, {}).items():
            assert matches(value, declared[key].annotation), f"config/{profile}.yaml: {section}.{key}"


def test_what_the_schema_takes_for_unsaid_is_what_the_notebooks_take() -> None:
    def default(section: str, key: str) -> object:
        notebook = nbformat.read(ROOT / "notebooks" / f"{SECTIONS[section][0]}.ipynb", as_version=4)
        return declared_parameters(notebook)[key].default

    for (section, key), value in (schema.KINDS_READ | schema.SCOPES_READ).items():
        assert default(section, key) == (value if isinstance(value, str) else list(value)), f"{section}.{key}"
    assert default("identify", "score_kinds") == list(schema.KINDS_TAKEN)
    assert default("identify", "scopes") == list(SCOPES)
    assert default("evaluate", "benchmarks") == list(schema.EVALUATED)
    assert default("ablate", "benchmarks") == [schema.HH] and default("ablate", "n_items") == schema.N_ABLATED
    assert {len(default("own_pair", key)) for key in schema.OWN_PAIR} == {schema.N_OWN_PAIRS}


def test_benchmarks_are_those_that_can_be_loaded() -> None:
    assert set(NAMES) == set(BENCHMARKS)


def test_the_page_about_profiles_is_that_of_the_schema() -> None:
    page = (ROOT / "config" / "README.md").read_text(encoding="utf-8")
    assert page == schema.readme(), "run `python workflow/schema.py > config/README.md`"
    for kind in (schema.Profile, *(kind for _, kind in SECTIONS.values()), schema.Study):
        about = schema.documented(kind)
        missing = [key for key in schema.get_type_hints(kind) if key not in about]
        assert set(missing) <= {*SECTIONS, "study"}, f"{kind.__name__}: {missing} are not described"


def test_the_profile_of_these_tests_is_valid() -> None:
    assert schema.check_profile(MICRO) == MICRO
