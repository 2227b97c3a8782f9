"""Answers that must be JSON of a schema."""

from __future__ import annotations

import json

import pytest

from edgeq.errors import InputError
from edgeq.evaluation.structured import Prompt, check_answers, problem, read_prompts

pytest.importorskip("jsonschema")

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ('{"name": "Ada", "age": 36}', None),
        (' \n{"name": "Ada", "age": 36} and more', None),
        ('```json\n{"name": "Ada", "age": 36}\n```', None),
        ('{"name": "Ada"}', "'age' is a required property"),
        ('{"name": "Ada", "age": -1}', "$.age: -1 is less than the minimum"),
        ('Here: {"name": "Ada", "age": 36}', "does not begin with JSON"),
        ('{"name": "Ada", "age": ', "does not begin with JSON"),
        ("", "does not begin with JSON"),
        ("[" * 100_000, "does not begin with JSON"),
    ],
)
def test_what_is_valid(answer, said) -> None:
    found = problem(answer, PERSON)
    assert found is None if said is None else said in str(found)


def test_nothing_is_fetched() -> None:
    with pytest.raises(InputError, match=r"refers to http://localhost:1/x"):
        problem("{}", {"$ref": "http://localhost:1/x"})


def test_a_schema_without_an_end() -> None:
    with pytest.raises(InputError, match="refers to itself without an end"):
        problem("{}", {"$ref": "#"})


def test_the_share_of_valid_answers() -> None:
    answers = iter(['{"name": "a", "age": 1}', "no", "{}", '{"name": "b", "age": 2}'])
    found = check_answers(lambda prompt: next(answers), [Prompt("x", PERSON)] * 4)
    assert (found["prompts"], found["valid"], found["json"]) == (4, 0.5, 0.75)
    assert found["valid_low"] < 0.5 < found["valid_high"]
    assert [one["prompt"] for one in found["wrong"]] == [2, 3]


def _written(tmp_path, *lines: object):
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def test_prompts_are_texts_or_messages(tmp_path) -> None:
    messages = [{"role": "user", "content": "Who?"}]
    path = _written(tmp_path, {"prompt": "a", "schema": {}}, {"messages": messages, "schema": PERSON})
    assert read_prompts(path) == [Prompt("a", {}), Prompt(tuple(messages), PERSON)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2 is no JSON"),
        ([1], "line 2: write"),
        ({"prompt": "a"}, "line 2: write"),
        ({"prompt": "a", "messages": [], "schema": {}}, "line 2: write"),
        ({"prompt": "", "schema": {}}, "must be a text"),
        ({"messages": [{"role": "user"}], "schema": {}}, "must be a text"),
        ({"prompt": "a", "schema": {"type": "thing"}}, "the schema is none"),
        ({"prompt": "a", "schema": 3}, "the schema is none"),
        ({"prompt": "a", "schema": {}, "more": 1}, "unknown key 'more'"),
    ],
)
def test_what_is_no_prompt(tmp_path, line, said) -> None:
    with pytest.raises(InputError, match=said):
        read_prompts(_written(tmp_path, {"prompt": "a", "schema": {}}, line))
