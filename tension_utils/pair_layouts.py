"""The public layouts of preference pairs: what one row of each says, as a prompt, a chosen and a rejected response."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

ROLE_NAMES = {"human": "Human", "assistant": "Assistant"}

ROLES = {name: role for role, name in ROLE_NAMES.items()}

CHAT_ROLES = {"user": "human", "assistant": "assistant", "system": "system"}

ANSWER_MARK = "\n\nAssistant:"

TURN_PATTERN = re.compile(r"\n\n(Human|Assistant):")


@dataclass(frozen=True)
class Turn:
    """One turn of a dialogue: ``role`` is a key of `ROLE_NAMES`, ``content`` its text without surrounding space."""

    role: str
    content: str


class BadPairError(ValueError):
    """A row that is no usable preference pair; ``reason`` is a short key for counting."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Pair:
    """What a row says: the turns before the response, the chosen and the rejected response, and the row's layout."""

    prompt: tuple[Turn, ...]
    chosen: str
    rejected: str
    layout: str


def parse_dialogue(text: str) -> tuple[tuple[Turn, ...], str]:
    r"""Split a dialogue into the turns before the last answer, and that answer.

    >>> parse_dialogue("\n\nHuman: Hi\n\nAssistant: Hello")
    ((Turn(role='human', content='Hi'),), 'Hello')
    """
    before, mark, response = text.rpartition(ANSWER_MARK)
    start, *parts = TURN_PATTERN.split(before)
    turns = tuple(Turn(ROLES[role], said.strip()) for role, said in zip(parts[::2], parts[1::2], strict=True))
    is_answer = mark and not TURN_PATTERN.search(response)
    if not is_answer or start.strip() or not turns or turns[-1].role != "human":
        raise BadPairError(
            "no dialogue", "expected turns '\\n\\nHuman: ...\\n\\nAssistant: ...' that end with an answer"
        )
    return turns, response.strip()


def read_messages(messages: object, name: str = "messages") -> tuple[Turn, ...]:
    """Turn chat messages {role, content} into turns.

    A system message stays a turn: a chat template writes it as its own, `data.render_prompt` before a human one.

    Raises:
        BadPairError: if there is none, or a message has another form, role or no text.
    """
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise BadPairError(
            "no messages", f"expected a list of messages with role and content as {name}; got {type(messages).__name__}"
        )
    turns = []
    for number, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if not isinstance(content, str):
            got = type(content).__name__
            raise BadPairError("no messages", f"expected content of message {number} to be a text; got {got}")
        if not content.strip() and number < len(messages) - 1:
            raise BadPairError("empty text", f"expected a non-empty content of message {number}")
        if not isinstance(role, str) or role not in CHAT_ROLES:
            raise BadPairError("no messages", f"expected a role of {', '.join(CHAT_ROLES)}; got {role!r}")
        turns.append(Turn(CHAT_ROLES[role], content.strip()))
    roles = [turn.role for turn in turns]
    if "system" in roles and "human" not in roles[len(roles) - roles[::-1].index("system") :]:
        raise BadPairError("no messages", f"expected a user's message after the system's; got {len(messages)} messages")
    return tuple(turns)


def read_prompt(value: object, name: str = "prompt") -> tuple[Turn, ...]:
    r"""Return the turns of a prompt that is a question, a dialogue up to its last ``Assistant:``, or messages.

    Raises:
        BadPairError: if it is something else, has no text, or does not end with a human turn.

    >>> read_prompt("\n\nHuman: Hi\n\nAssistant:") == read_prompt("Hi") == (Turn("human", "Hi"),)
    True
    """
    if isinstance(value, str):
        is_dialogue = TURN_PATTERN.match(f"\n\n{value.lstrip()}")
        text = f"\n\n{value.strip()}"
        text = text if text.endswith(ANSWER_MARK) else text + ANSWER_MARK
        turns = parse_dialogue(text)[0] if is_dialogue else (Turn("human", value.strip()),)
    else:
        turns = read_messages(value, name)
    if not turns or turns[-1].role != "human" or not all(turn.content for turn in turns):
        raise BadPairError("no prompt", f"expected a {name} that ends with a user's message, each with text")
    return turns


def read_response(value: object, name: str) -> str:
    """Return a response as a text without surrounding white space; it may be empty.

    Raises:
        BadPairError: if it is no text, or holds turns of a dialogue.
    """
    if not isinstance(value, str):
        raise BadPairError("missing field", f"expected a text {name!r}; got {type(value).__name__}")
    if TURN_PATTERN.search(value):
        raise BadPairError("no dialogue", f"expected {name} to be one answer; got turns of a dialogue")
    return value.strip()


def read_label(row: dict, column: str, allowed: Sequence[int]) -> int:
    """Return a whole number that says which response is better.

    Raises:
        BadPairError: if it is something else.
    """
    value = row.get(column)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or value not in allowed:
        raise BadPairError("unknown label", f"expected {column} to be one of {list(allowed)}; got {value!r}")
    return int(value)


def is_prompt_of(given: tuple[Turn, ...], prompt: tuple[Turn, ...]) -> bool:
    """Say whether a column's prompt is a dialogue's, or its first or last turn, system messages aside."""
    said, asked = (tuple(turn for turn in turns if turn.role != "system") for turns in (given, prompt))
    return said in (asked, asked[:1], asked[-1:])


def dialogues(row: dict, objective: str) -> Pair:
    """Parse two whole dialogues, the layout of Anthropic/hh-rlhf; a prompt beside them must be what they share."""
    (prompt, chosen), (other_prompt, rejected) = parse_dialogue(row["chosen"]), parse_dialogue(row["rejected"])
    if prompt != other_prompt:
        raise BadPairError("different prompts", "expected chosen and rejected to answer the same prompt")
    if row.get("prompt") is not None and not is_prompt_of(read_prompt(row["prompt"]), prompt):
        raise BadPairError("different prompts", "expected the column prompt to be the prompt of both dialogues")
    return Pair(prompt, chosen, rejected, "dialogues")


def explicit_prompt(row: dict, objective: str) -> Pair:
    """Parse a prompt and two answers as texts, TRL's explicit layout."""
    prompt = read_prompt(row["prompt"])
    return Pair(prompt, *(read_response(row[side], side) for side in ("chosen", "rejected")), "explicit prompt")


def messages(row: dict, objective: str) -> Pair:
    """Parse two lists of messages, TRL's conversational layouts: whole dialogues, or answers beside a prompt."""
    sides = [read_messages(row[side], side) for side in ("chosen", "rejected")]
    for side in sides:
        if not side or side[-1].role != "assistant":
            raise BadPairError("no dialogue", "expected messages that end with an assistant's answer")
    before = [side[:-1] for side in sides]
    if before[0] != before[1]:
        raise BadPairError("different prompts", "expected chosen and rejected to answer the same prompt")
    prompt, layout = before[0], "messages"
    if row.get("prompt") is not None:
        given = read_prompt(row["prompt"])
        if prompt and not is_prompt_of(given, prompt):
            raise BadPairError("different prompts", "expected the column prompt to be the prompt of both lists")
        prompt, layout = prompt or given, layout if prompt else "messages with a prompt"
    if not prompt or prompt[-1].role != "human":
        raise BadPairError("no prompt", "expected a prompt, in a column of this name or before both answers")
    return Pair(prompt, sides[0][-1].content, sides[1][-1].content, layout)


LABELS = {"helpful": "better_response_id", "harmless": "safer_response_id"}  # of PKU-SafeRLHF


def pku_safe(row: dict, objective: str) -> Pair:
    """Parse a row of PKU-Alignment/PKU-SafeRLHF, which labels both objectives; ``objective`` says which is taken."""
    if objective not in LABELS:
        raise ValueError(
            f"expected a subset that belongs to one of {', '.join(LABELS)}, since rows have a label for each; got "
            f"objective {objective!r}"
        )
    better = read_label(row, LABELS[objective], (0, 1))
    sides = [read_response(row[name], name) for name in (f"response_{better}", f"response_{1 - better}")]
    return Pair(read_prompt(row["prompt"]), *sides, f"PKU-SafeRLHF, {LABELS[objective]}")


def helpsteer3(row: dict, objective: str) -> Pair:
    """Parse a row of the preferences of nvidia/HelpSteer3; a negative number prefers the first response."""
    preference = read_label(row, "overall_preference", range(-3, 4))
    if not preference:
        raise BadPairError("tie", "expected one response to be preferred; got overall_preference 0")
    names = ("response1", "response2") if preference < 0 else ("response2", "response1")
    return Pair(read_prompt(row["context"], "context"), *(read_response(row[n], n) for n in names), "HelpSteer3")


def shp(row: dict, objective: str) -> Pair:
    """Parse a row of stanfordnlp/SHP; the label 1 prefers A."""
    names = ("human_ref_B", "human_ref_A")
    names = names[::-1] if read_label(row, "labels", (0, 1)) else names
    return Pair(read_prompt(row["history"], "history"), *(read_response(row[name], name) for name in names), "SHP")


# Columns that tell a layout, and how its rows are parsed; the first whose columns a row has.
BY_COLUMNS: tuple[tuple[tuple[str, ...], Callable[[dict, str], Pair]], ...] = (
    (("prompt", "response_0", "response_1"), pku_safe),
    (("context", "response1", "response2", "overall_preference"), helpsteer3),
    (("history", "human_ref_A", "human_ref_B", "labels"), shp),
)


def layout_of(row: dict) -> Callable[[dict, str], Pair]:
    """Return the parser of a row, by its columns and what they hold.

    Raises:
        BadPairError: if it is of no known layout.
    """
    sides = [row.get(side) for side in ("chosen", "rejected")]
    if all(isinstance(side, list) for side in sides):
        return messages
    if all(isinstance(side, str) for side in sides):
        has_prompt = row.get("prompt") is not None
        return explicit_prompt if has_prompt and not any(map(TURN_PATTERN.search, sides)) else dialogues
    for columns, parse in BY_COLUMNS:
        if not {"chosen", "rejected"} & set(row) and all(row.get(column) is not None for column in columns):
            return parse
    got = {name: type(value).__name__ for name, value in row.items() if value is not None}
    missing = "chosen" if not isinstance(sides[0], str | list) else "rejected"
    raise BadPairError("missing field", f"expected a text field {missing!r}; got {got}")


# Columns by which data sets name what comes before a response, besides the prompt that layouts read.
CONTEXTS = ("prompt", "question", "query", "instruction", "input", "context", "history", "system", "system_prompt")
READ = {explicit_prompt: "prompt", messages: "prompt", dialogues: "prompt", pku_safe: "prompt", helpsteer3: "context"}
READ |= {shp: "history"}


def check_contexts(row: dict, pair: Pair, read: str) -> None:
    """Check that no other column holds something that comes before the responses and is not in the prompt.

    Args:
        row: its columns.
        pair: what was read of it.
        read: the column that the row's layout reads.

    Raises:
        BadPairError: names the column.
    """
    said = "\n".join(turn.content for turn in pair.prompt)
    for name, value in row.items():
        is_read = name == read or name.casefold() not in CONTEXTS
        if is_read or not isinstance(value, str | list) or not value:
            continue
        if not (
            value.strip() in said if isinstance(value, str) else is_prompt_of(read_prompt(value, name), pair.prompt)
        ):
            raise BadPairError(
                "unread column",
                f"expected column {name} to be part of the prompt; got something else, which would not be read; put it "
                "into the prompt or take the column out",
            )


def read_pair(row: dict, objective: str = "") -> Pair:
    """Return what a row of any known layout says.

    Args:
        row: its columns.
        objective: whose label is taken where a row has several.

    Raises:
        BadPairError: if it is no usable pair.
        ValueError: if the row has labels of several objectives and ``objective`` is none of them.
    """
    parse = layout_of(row)
    pair = parse(row, objective)
    check_contexts(row, pair, READ[parse])
    if not pair.chosen or not pair.rejected:
        raise BadPairError("empty response", "expected two non-empty responses")
    if pair.chosen == pair.rejected:
        raise BadPairError("identical responses", "expected chosen and rejected to differ")
    return pair
