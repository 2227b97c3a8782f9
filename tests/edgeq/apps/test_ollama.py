"""Modelfiles: what is written is read back, chat templates become Go templates that say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgeq.apps.chat_pieces import pieces_of
from edgeq.apps.modelfile import ModelfileError, check_template, go_template, parse, write
from edgeq.chat import ChatTemplate

CHATML = """{% if messages[0].role != 'system' %}<|im_start|>system
You help.<|im_end|>
{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
LLAMA_3 = """{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>

{{ m.content }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

{% endif %}"""
NO_SYSTEM = """{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}
<{{ 'model' if m.role == 'assistant' else 'user' }}>{{ m.content }}{% endfor %}
{% if add_generation_prompt %}<model>{% endif %}"""
# Content is changed; the last question is told apart; the system text goes into the question.
OTHERS = {
    "numbered": "{% for m in messages %}{{ loop.index }} {{ m.role }}: {{ m.content }}\n{% endfor %}",
    "upper": "{% for m in messages %}{{ m.role }}: {{ m.content | upper }}\n{% endfor %}",
    "broken": "{{ 1 / 0 }}",
}
TALKS = [
    [{"role": "user", "content": "Hi"}],
    [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Go"},
    ],
]


def _template(text: str) -> ChatTemplate:
    return ChatTemplate(Path("model"), text, {"bos_token": "<s>"})


def _go(template: str, messages: list[dict[str, str]]) -> str:
    """The few actions of Go templates that ours are made of, done."""
    body = re.fullmatch(r"\{\{ range \$i, \$_ := \.Messages \}\}(.*)\{\{ end \}\}", template, re.S)
    assert body is not None
    said = []
    for index, message in enumerate(messages):
        known = {"$last": index == len(messages) - 1, ".Role": message["role"]}
        showing, decided = [True], [True]
        for literal, action in re.findall(r"((?:(?!\{\{).)*)(?:\{\{ (.*?) \}\}|$)", body[1], re.S):
            said += [literal] if all(showing) else []
            if action.startswith("if "):
                showing.append(_holds(action[3:], known))
                decided.append(showing[-1])
            elif action.startswith("else if "):
                showing[-1] = not decided[-1] and _holds(action[8:], known)
                decided[-1] = decided[-1] or showing[-1]
            elif action == "end":
                showing.pop(), decided.pop()
            elif action == ".Content":
                said += [message["content"]] if all(showing) else []
            else:
                assert action in ("", "$last := eq (len (slice $.Messages $i)) 1")
    return "".join(said)


def _holds(condition: str, known: dict[str, object]) -> bool:
    if condition == "not $last":
        return not known["$last"]
    if condition == 'and $last (ne .Role "assistant")':
        return bool(known["$last"]) and known[".Role"] != "assistant"
    role = re.fullmatch(r'eq \.Role "(\w+)"', condition)
    assert role is not None, condition
    return known[".Role"] == role[1]


@pytest.mark.parametrize("text", [CHATML, LLAMA_3, NO_SYSTEM])
def test_a_go_template_says_what_the_chat_template_says(text: str) -> None:
    template = _template(text)
    pieces = pieces_of(template)
    assert pieces is not None
    go = go_template(pieces.roles, pieces.answer_begins)
    check_template(go)
    system = [{"role": "system", "content": pieces.default_system}] if pieces.default_system else []
    for talk in TALKS:
        assert pieces.begin + _go(go, system + talk) == template.render(talk)
        if "system" in pieces.roles:
            own = [{"role": "system", "content": "Be brief."}, *talk]
            assert pieces.begin + _go(go, own) == template.render(own)


def test_the_default_system_text_is_found() -> None:
    pieces = pieces_of(_template(CHATML))
    assert pieces is not None
    assert pieces.default_system == "You help."


@pytest.mark.parametrize("name", OTHERS)
def test_other_templates_are_left_to_ollama(name: str) -> None:
    assert pieces_of(_template(OTHERS[name])) is None


def test_what_is_written_is_read() -> None:
    template = 'a "b"\n{{ .Prompt }} c'
    text = write(
        "./x.gguf", [("num_ctx", "512"), ("stop", "<|end|>"), ("stop", "a\nb")], template, "Be brief."
    )
    found = parse(f"# a comment\n\n{text}")
    assert found.commands == {"from": "./x.gguf", "template": template, "system": "Be brief."}
    assert found.parameters == [("num_ctx", "512"), ("stop", "<|end|>"), ("stop", "a\nb")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("PARAMETER num_ctx 5", "no FROM"),
        ("FROM x\nPARAMETERS a 1", "no command"),
        ("FROM x\nPARAMETER num_ctxt 1", "no parameter"),
        ("FROM x\nPARAMETER num_ctx many", "cannot be"),
        ('FROM x\nTEMPLATE """{{ .Prompt }}', "not closed"),
        ('FROM x\nTEMPLATE "{{ if .Prompt }}a"', "without end"),
        ('FROM x\nTEMPLATE "{{ .Prompt }}{{ end }}"', "too many"),
        ('FROM x\nTEMPLATE "{{ .Prompt }"', "braces"),
        ('FROM x\nTEMPLATE "hello"', "neither"),
        ('FROM x\nSYSTEM "a" b', "behind"),
        ("FROM x\nSYSTEM", "no value"),
    ],
)
def test_what_ollama_refuses(text: str, said: str) -> None:
    with pytest.raises(ModelfileError, match=said):
        parse(text)


def test_texts_with_a_modelfiles_quotes_are_refused() -> None:
    for text in ('a"""b', 'ends in "'):
        with pytest.raises(ModelfileError):
            write("./x.gguf", [], text)
