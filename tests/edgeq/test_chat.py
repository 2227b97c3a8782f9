"""Chat templates: transformers' own renders, where templates are found, and what a bad one may do."""

from __future__ import annotations

import json
import re
import shutil
from datetime import datetime
from pathlib import Path

import pytest
from oracle import chats

from edgeq import chat
from edgeq.chat import ChatTemplate
from edgeq.errors import FormatError, InputError
from edgeq.formats.gguf.reader import GGUFFile

MESSAGES = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize("case", chats.cases(), ids=lambda case: chats.key(*case))
def test_renders_are_those_of_transformers(case: tuple[str, str, bool, bool]) -> None:
    name, conversation, prompt, tool = case
    template = ChatTemplate(Path("model"), chats.TEMPLATES[name], chats.SPECIAL)
    variables = {"tools": [chats.TOOL]} if tool else {}
    expected = chats.golden()[chats.key(*case)]
    if expected is None:
        with pytest.raises(FormatError, match="must come first"):
            template.render(chats.CONVERSATIONS[conversation], prompt, **variables)
    else:
        assert template.render(chats.CONVERSATIONS[conversation], prompt, **variables) == expected


def test_the_time_is_formatted() -> None:
    before = datetime.now().year
    assert int(ChatTemplate(Path("m"), "{{ strftime_now('%Y') }}", {}).render([])) in (before, before + 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{% for m in messages %}", "Unexpected end of template"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[0].content + 1 }}", "can only concatenate str"),
        ("{{ 1 // 0 }}", "by zero"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{% for i in range(10 ** 9) %}x{% endfor %}", "too big"),
        ("{% include '/etc/passwd' %}", "no loader"),
    ],
)
def test_a_bad_template_is_one_line_that_names_the_file(text: str, said: str) -> None:
    with pytest.raises(FormatError, match=re.escape(said)) as caught:
        ChatTemplate(Path("some/model.gguf"), text, {}).render(MESSAGES)
    assert str(caught.value).startswith("some/model.gguf: the chat template says: ")
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def folder(tinylm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TinyLM with a chat template."""
    own = tmp_path_factory.mktemp("chat")
    for file in tinylm.iterdir():
        shutil.copyfile(file, own / file.name)
    config = json.loads((own / "tokenizer_config.json").read_text("utf-8"))
    config |= {"chat_template": chats.TEMPLATES["turns"], "bos_token": {"content": "<|endoftext|>"}}
    (own / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    return own


def test_directory_and_gguf_render_alike(folder: Path, make_gguf) -> None:
    path = make_gguf(folder, "F16")
    with GGUFFile.open(path) as file:
        from_file = chat.needed(chat.of_gguf(path, file.metadata), path).render(MESSAGES)
    assert from_file == chat.needed(chat.of_directory(folder), folder).render(MESSAGES)
    assert from_file == "<|endoftext|><|user|>\nHi<|endoftext|>\n<|assistant|>\n"


def test_a_model_without_a_template_says_so(tinylm: Path) -> None:
    with pytest.raises(InputError, match="has no chat template"):
        chat.needed(chat.of_directory(tinylm), tinylm)


def test_a_template_that_is_no_text_is_refused() -> None:
    with pytest.raises(FormatError, match=r"tokenizer\.chat_template is not a text"):
        chat.of_gguf(Path("m.gguf"), {"tokenizer.chat_template": 3})
