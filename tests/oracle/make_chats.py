"""Chat templates as transformers renders them: made anew and compared with the stored, or stored (``--write``)."""

from __future__ import annotations

import argparse
import json
import sys

import chats
from jinja2 import TemplateError
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast


def main() -> int:
    """0 where every case is as stored."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="store what transformers gives")
    write = parser.parse_args().write
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), **chats.SPECIAL)
    made = {chats.key(*case): _render(tokenizer, *case) for case in chats.cases()}
    if write:
        text = json.dumps(made, indent=1, ensure_ascii=False, sort_keys=True)
        chats.GOLDEN.write_text(text + "\n", encoding="utf-8")
    stored = chats.golden()
    wrong = [name for name in made.keys() | stored.keys() if made.get(name, "") != stored.get(name, "")]
    print(f"chat templates: {len(made) - len(wrong)} of {len(made)} renders as stored")
    return bool(wrong)


def _render(
    tokenizer: PreTrainedTokenizerFast, template: str, conversation: str, prompt: bool, tool: bool
) -> str | None:
    try:
        text: str = tokenizer.apply_chat_template(
            chats.CONVERSATIONS[conversation],
            tools=[chats.TOOL] if tool else None,
            chat_template=chats.TEMPLATES[template],
            add_generation_prompt=prompt,
            tokenize=False,
        )
    except TemplateError:
        return None
    return text


if __name__ == "__main__":
    sys.exit(main())
