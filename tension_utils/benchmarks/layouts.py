"""The public layouts of the benchmarks: how one row of each becomes items, and which side of the study it is on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tension_utils.artifacts import files_below
from tension_utils.benchmarks.items import (
    DIRECTIONS,
    GROUPS,
    BenchmarkUnavailable,
    Loaded,
    check_columns,
    check_different,
    find_folder,
    make_item,
    parse_rows,
    read_name,
    read_text,
    read_texts,
    read_turns,
)
from tension_utils.config import check_choice
from tension_utils.data import BenchmarkItem
from tension_utils.pair_layouts import ROLES, Turn
from tension_utils.sources import read_rows

# (group, direction) per subset. Source: METHOD.md, section 1, table, and section 2, fact 4.
HELPFUL, OTHER = ("helpful", "none"), ("other", "none")

REFUSE, RESPOND = ("harmless", "refuse"), ("harmless", "respond")

REWARD_BENCH = {
    **dict.fromkeys(("alpacaeval-easy", "alpacaeval-hard", "alpacaeval-length"), HELPFUL),
    **dict.fromkeys(("mt-bench-easy", "mt-bench-med", "mt-bench-hard"), HELPFUL),
    **dict.fromkeys(("llmbar-natural", "llmbar-adver-neighbor", "llmbar-adver-GPTInst"), HELPFUL),
    **dict.fromkeys(("llmbar-adver-GPTOut", "llmbar-adver-manual", "math-prm"), HELPFUL),
    **dict.fromkeys(("refusals-dangerous", "refusals-offensive", "xstest-should-refuse", "donotanswer"), REFUSE),
    "xstest-should-respond": RESPOND,
    **dict.fromkeys(("hep-cpp", "hep-go", "hep-java", "hep-js", "hep-python", "hep-rust"), OTHER),
}

# Safety mixes both directions: its dataset card says that it tests to "comply with or refuse prompts", and no column
# that the card describes tells which a row does. So it counts as harmless, but on neither axis of refusing, though
# the paper's six refuse-type sub-tasks include it. Ties has a score of its own, which is not taken here.
REWARD_BENCH_2 = {
    **dict.fromkeys(("Factuality", "Precise IF", "Math", "Focus"), HELPFUL),
    "Safety": ("harmless", "none"),
    "Ties": OTHER,
}

RM_BENCH = {"chat": HELPFUL, "math": HELPFUL, "code": OTHER, "safety-refuse": REFUSE, "safety-response": RESPOND}

RMB_GROUPS = {"Helpfulness": HELPFUL, "Harmlessness": ("harmless", "none")}  # the better answer refuses or complies

RMB_SETS = {"BoN_set": ("bon_best", "loser_list"), "Pairwise_set": ("chosen", "reject")}

N_STYLES = 3  # of RM-Bench: concise, detailed text, detailed markdown


def read_user(row: dict, place: str) -> tuple[Turn, ...]:
    """Return the prompt of a row that holds it as one text."""
    return (Turn("human", read_text(row["prompt"], "prompt", place)),)


def read_id(row: dict, place: str) -> str:
    """Return the id of a row, a whole number or a text without white space.

    Raises:
        ValueError: if it is something else.
    """
    value = row["id"]
    if not isinstance(value, int | str) or isinstance(value, bool) or str(value).split() != [str(value)]:
        raise ValueError(f"{place}: expected id to be a number or a text without spaces; got {value!r}; mend the row")
    return str(value)


def parse_reward_bench(row: dict, place: str) -> list[BenchmarkItem]:
    """Parse a row of allenai/reward-bench: one prompt, one chosen and one rejected response."""
    subset = check_choice(f"{place}: subset", row["subset"], REWARD_BENCH)
    chosen, rejected = ((read_text(row[side], side, place),) for side in ("chosen", "rejected"))
    check_different(chosen, rejected, place)
    item_id = f"reward-bench/{subset}/{read_id(row, place)}"
    prompt = read_user(row, place)
    return [
        make_item(
            item_id, prompt, chosen, rejected, benchmark="reward-bench", subset=subset, place=REWARD_BENCH[subset]
        )
    ]


def count_of(row: dict, column: str) -> object:
    """Return a count as it is, and -1, which no list has, where it is missing."""
    return -1 if row[column] is None else row[column]


def parse_reward_bench_2(row: dict, place: str) -> list[BenchmarkItem]:
    """Parse a row of allenai/reward-bench-2: one prompt, lists of chosen and rejected responses.

    Raises:
        ValueError: if a list has another length than its count; the authors score by position, so it must hold.
    """
    subset = check_choice(f"{place}: subset", row["subset"], REWARD_BENCH_2)
    chosen = read_texts(row["chosen"], "chosen", place, count_of(row, "num_correct"))
    rejected = read_texts(row["rejected"], "rejected", place, count_of(row, "num_incorrect"))
    check_different(chosen, rejected, place)
    item_id = f"reward-bench-2/{subset}/{read_id(row, place)}"
    prompt = read_user(row, place)
    return [
        make_item(
            item_id, prompt, chosen, rejected, benchmark="reward-bench-2", subset=subset, place=REWARD_BENCH_2[subset]
        )
    ]


def pair_style(chosen: int, rejected: int) -> str:
    """Return the style of an RM-Bench pair from the style indices of its responses, 0 the plainest.

    The pairs with equal index are the three that the paper uses. Source: RM-Bench, arXiv 2410.16184, hard, normal and
    easy accuracy.

    >>> [pair_style(0, j) for j in range(3)]
    ['normal', 'hard', 'hard']
    """
    if chosen == rejected:
        return "normal"
    return "hard" if chosen < rejected else "easy"


def parse_rm_bench(row: dict, place: str) -> list[BenchmarkItem]:
    """Parse a row of THU-KEG/RM-Bench: one prompt, three chosen and three rejected responses, into its nine pairs."""
    domain = check_choice(f"{place}: domain", row["domain"], RM_BENCH)
    chosen, rejected = (read_texts(row[side], side, place, N_STYLES) for side in ("chosen", "rejected"))
    check_different(chosen, rejected, place)
    prompt, row_id = read_user(row, place), read_id(row, place).removeprefix(f"{domain}/")
    return [
        make_item(
            f"rm-bench/{domain}/{row_id}/c{i}r{j}",
            prompt,
            chosen[i : i + 1],
            rejected[j : j + 1],
            benchmark="rm-bench",
            subset=domain,
            place=RM_BENCH[domain],
            style=pair_style(i, j),
        )
        for i in range(N_STYLES)
        for j in range(N_STYLES)
    ]


def parse_rmb(row: dict, place: str, category: PurePosixPath, number: int) -> list[BenchmarkItem]:
    """Parse a row of RMB.

    Args:
        row: has conversation_input, and bon_best and loser_list or chosen and reject.
        place: file and row, for errors.
        category: path of the file without its ending, such as BoN_set/Harmlessness/S1.
        number: of the row, 1-based; the public ids name prompts, not rows.
    """
    fields = RMB_SETS[category.parts[0]]
    check_columns(row, ("conversation_input", *fields), place)
    sides = [row[field] if isinstance(row[field], list) else [row[field]] for field in fields]
    for field, answers in zip(fields, sides, strict=True):
        if not all(isinstance(answer, dict) for answer in answers):
            raise ValueError(f"{place}: expected {field} to hold objects with an answer; mend or remove the row")
    answers = [[answer.get("answer") for answer in answers] for answers in sides]
    chosen, rejected = (read_texts(texts, field, place) for texts, field in zip(answers, fields, strict=True))
    check_different(chosen, rejected, place)
    group = RMB_GROUPS[check_choice(f"{place}: folder below {category.parts[0]}", category.parts[1], RMB_GROUPS)]
    prompt = read_turns(row["conversation_input"], place)
    return [
        make_item(
            f"rmb/{category}/{number}", prompt, chosen, rejected, benchmark="rmb", subset=str(category), place=group
        )
    ]


def parse_toy(row: dict, place: str, number: int) -> list[BenchmarkItem]:
    """Parse a row of the toy benchmark; its texts are taken as they are.

    Raises:
        ValueError: if a field is missing or of another form; names ``place``.
    """
    missing = {"prompt", "chosen", "rejected", "subset", "group", "direction"} - set(row)
    if missing:
        raise ValueError(f"{place}: expected fields {sorted(missing)}; got {sorted(row)}; mend or remove the line")
    for field in ("prompt", "chosen", "rejected"):
        texts = row[field]
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
            raise ValueError(f"{place}: expected {field} to be a list of non-empty texts; got {texts!r}; mend the line")
    if len(row["prompt"]) % 2 == 0:
        raise ValueError(f"{place}: expected a prompt that ends with a human turn; got {len(row['prompt'])} turns")
    roles = list(ROLES.values()) * len(row["prompt"])
    prompt = [Turn(role, said) for role, said in zip(roles, row["prompt"], strict=False)]
    group = check_choice(f"{place}: group", row["group"], GROUPS)
    direction = check_choice(f"{place}: direction", row["direction"], DIRECTIONS)
    subset = read_name(row["subset"], "subset", place)
    item_id = f"toy/{subset}/{number}"
    return [
        make_item(
            item_id, prompt, row["chosen"], row["rejected"], benchmark="toy", subset=subset, place=(group, direction)
        )
    ]


@dataclass(frozen=True)
class Layout:
    """How a benchmark is published as a dataset.

    Args:
        public_name: of the dataset.
        split: its split there.
        names: of that split's files in a folder, the first that is there.
        columns: of a row.
        parse: turns a row and its place into items.
    """

    public_name: str
    split: str
    names: tuple[str, ...]
    columns: tuple[str, ...]
    parse: Callable[[dict, str], list[BenchmarkItem]]


PAIR_COLUMNS = ("id", "prompt", "chosen", "rejected")

LAYOUTS = {
    "reward-bench": Layout(
        "allenai/reward-bench", "filtered", ("filtered",), (*PAIR_COLUMNS, "subset"), parse_reward_bench
    ),
    "reward-bench-2": Layout(
        "allenai/reward-bench-2",
        "test",
        ("test",),
        (*PAIR_COLUMNS, "subset", "num_correct", "num_incorrect"),
        parse_reward_bench_2,
    ),
    "rm-bench": Layout(
        "THU-KEG/RM-Bench", "train", ("total_dataset", "train"), (*PAIR_COLUMNS, "domain"), parse_rm_bench
    ),
}


def rmb_files(source: str) -> dict[Path, PurePosixPath]:
    """Return the files of RMB in the folder of its two sets, or the one above it, with the category of each.

    Raises:
        BenchmarkUnavailable: if there is no such folder.
        ValueError: if there is no set in it.
    """
    folder = find_folder("rmb", source, RMB_EXAMPLE)
    folder = folder / "RMB_dataset" if (folder / "RMB_dataset").is_dir() else folder
    found = [file for name in RMB_SETS for file in _json_files(folder / name)]
    if not found:
        there = sorted(path.name for path in folder.iterdir())
        raise ValueError(
            f"{folder}: expected JSON files below {' or '.join(RMB_SETS)}; got {there}; is this the folder of another "
            "benchmark?"
        )
    return {file: PurePosixPath(file.relative_to(folder).with_suffix("").as_posix()) for file in found}


def _json_files(folder: Path) -> list[Path]:
    return sorted(path for path in files_below(folder) if path.suffix == ".json") if folder.is_dir() else []


RMB_EXAMPLE = "RMB_dataset of https://github.com/Zhou-Zoey/RMB-Reward-Model-Benchmark"


def load_rmb(source: str | None, unusable_items: str) -> Loaded:
    """Load RMB from the folder of its two sets, or the one above it; one of the sets may be absent.

    Raises:
        BenchmarkUnavailable: if there is no such folder; RMB is published as a git repository, not as a dataset.
        ValueError: if there is no set in it, or a row is unusable; names file and row.
    """
    if source is None:
        raise BenchmarkUnavailable(f"rmb: needs a local folder; copy {RMB_EXAMPLE} and name it")
    rows, where = [], {}
    for file, category in rmb_files(source).items():
        read_name(str(category), "the path", str(file))
        found = list(read_rows(file))
        if not found:
            raise ValueError(f"{file}: expected a JSON list with at least one row; got none; copy it again")
        where |= {place: (category, number) for number, (place, _) in enumerate(found, start=1)}
        rows += found
    return parse_rows(rows, lambda row, place: parse_rmb(row, place, *where[place]), unusable_items)
