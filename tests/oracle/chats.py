"""Chat templates and conversations, in the styles that models come with; and what transformers makes of them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[1] / "assets/oracle/chats.json"
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}

TEMPLATES = {
    "turns": """{{ bos_token }}{% for message in messages %}
<|{{ message.role }}|>
{{ message['content'] | trim }}{{ eos_token }}
{% endfor %}
{% if add_generation_prompt %}
<|assistant|>
{% endif %}""",
    "inline": "{%- for m in messages -%}{{ '[' ~ m.role.upper() ~ '] ' ~ m.content ~ '\\n' }}{%- endfor -%}"
    "{{ '[ASSISTANT]' if add_generation_prompt else eos_token }}",
    "system first": """{%- set ns = namespace(system='', count=0) %}
{%- if messages[0]['role'] == 'system' %}
    {%- set ns.system = messages[0]['content'] %}
    {%- set messages = messages[1:] %}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'system' %}
        {{- raise_exception('the system message must come first') }}
    {%- endif %}
    {%- set ns.count = ns.count + 1 %}
    {%- if loop.first and ns.system %}{{ '<<' + ns.system + '>>\\n' }}{% endif %}
    {{- ns.count ~ ': ' + message.content.strip() + ('\\n' if not loop.last else '') }}
{%- endfor %}""",
    "tools": """{% if tools %}Tools: {{ tools | tojson(indent=2) }}
{% endif %}
{% for message in messages %}
    {% if message.tool_calls is defined %}
        {% for call in message.tool_calls %}
call {{ call.function.name }}({{ call.function.arguments | tojson }})
        {% endfor %}
        {% continue %}
    {% endif %}
    {% if message.content is string and 'enough' in message.content %}{% break %}{% endif %}
{{ loop.index0 }}/{{ loop.length }} {{ message.role }}: {{ message.content }}
{% endfor %}""",
    "generation": """{% for message in messages %}
{% if message.role == 'assistant' %}
{% generation %}
{{ message.content }}{{ eos_token }}
{% endgeneration %}
{% else %}
{{ message.role }} says {{ message.content }}
{% endif %}
{% endfor %}
{% if unknown_name %}never{% endif %}{{ missing_name }}""",
    "macro": """{% macro turn(role, text) %}
<start>{{ role }}
{{ text }}<end>
{% endmacro %}
{# a comment #}
{% for message in messages if message.role != 'system' %}
{{ turn(message.role | replace('assistant', 'model'), message.content) }}
{%- endfor %}
{{- '<start>model\\n' if add_generation_prompt }}""",
}

CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "one": [{"role": "user", "content": "Hello"}],
    "odd text": [{"role": "user", "content": "  <b>\"tea\" & 'cake'</b> 茶 🍵\n\n{{ not.a.variable }} "}],
    "with system": [
        {"role": "system", "content": "Answer briefly."},
        {"role": "user", "content": "What is 2+2?"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "And 3+3, enough?"},
    ],
    "late system": [{"role": "user", "content": "Hi"}, {"role": "system", "content": "Be kind."}],
    "calls": [
        {"role": "user", "content": "Weather in Köln?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "type": "function",
                    "function": {"name": "weather", "arguments": {"city": "Köln", "days": 2}},
                }
            ],
        },
        {"role": "tool", "name": "weather", "content": "rain"},
    ],
}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather <now>",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def cases() -> list[tuple[str, str, bool, bool]]:
    """(template, conversation, whether an answer is to begin, whether there is a tool)."""
    plain = [
        (template, conversation, prompt, False)
        for template, conversation, prompt in itertools.product(TEMPLATES, CONVERSATIONS, (True, False))
    ]
    return [*plain, ("tools", "calls", True, True)]


def key(template: str, conversation: str, prompt: bool, tool: bool) -> str:
    """What a case is called in ``GOLDEN``."""
    return f"{template} | {conversation} | {'prompt' if prompt else 'whole'}{' | tool' * tool}"


def golden() -> dict[str, str | None]:
    """What transformers made of each case; None where the template refused."""
    stored: dict[str, str | None] = json.loads(GOLDEN.read_text("utf-8"))
    return stored
