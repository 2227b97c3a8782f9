"""A chat template taken apart: the texts before and after each kind of message, where that is all there is to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeq.chat import ChatTemplate
from edgeq.errors import FormatError

_SYSTEM, _USER, _USER_2, _ANSWER = "SystemText0", "UserText1", "UserText2", "AnswerText3"
Turn = Mapping[str, str]


@dataclass(frozen=True)
class ChatPieces:
    """A conversation is ``begin`` (which tokenizers add by themselves), then of each message before, content, after.

    ``roles`` has (before, after) by role; ``default_system`` is what the template says where no message does.
    """

    begin: str
    roles: Mapping[str, tuple[str, str]]
    answer_begins: str
    default_system: str

    def render(self, messages: Sequence[Turn]) -> str:
        """The text up to where the next answer begins."""
        said = list(messages)
        if self.default_system and said[0]["role"] != "system":
            said.insert(0, {"role": "system", "content": self.default_system})
        parts = [self.begin]
        for message in said:
            before, after = self.roles[message["role"]]
            parts += (before, message["content"], after)
        return "".join((*parts, self.answer_begins))


def pieces_of(template: ChatTemplate) -> ChatPieces | None:
    """The pieces of a template that has nothing else to it; None for one that does more, or fails.

    They are read off short conversations and tried on longer ones, with a system message and without.
    """
    try:
        found = _found(template)
        if found is None:
            return None
        for messages in _trials(with_system="system" in found.roles):
            if found.render(messages) != template.render(messages):
                return None
    except (FormatError, _Dropped):
        return None
    return found


def _found(template: ChatTemplate) -> ChatPieces | None:
    user, answer = _turn("user", _USER), _turn("assistant", _ANSWER)
    one = template.render([user], add_generation_prompt=False)
    asked = template.render([user])
    talk = template.render([user, answer, _turn("user", _USER_2)], add_generation_prompt=False)
    head, user_after = _cut(one, _USER)
    between, rest = _cut(_cut(talk, _USER)[1], _ANSWER)
    answer_after_user_before = _cut(rest, _USER_2)[0]
    if not asked.startswith(one) or not between.startswith(user_after):
        return None
    answer_begins, answer_before = asked[len(one) :], between[len(user_after) :]
    answer_after = _cut(template.render([user, answer], add_generation_prompt=False), _ANSWER)[1]
    if not answer_after_user_before.startswith(answer_after):
        return None
    user_before = answer_after_user_before[len(answer_after) :]
    begin = template.special.get("bos_token", "")
    begin = begin if begin and head.startswith(begin) else ""
    roles = {"user": (user_before, user_after), "assistant": (answer_before, answer_after)}
    if not head.endswith(user_before):
        return None
    before_user = head[len(begin) : len(head) - len(user_before)]
    system = _system(template, begin, user_before)
    if system is None:
        return None if before_user else ChatPieces(begin, roles, answer_begins, "")
    before, after = system
    default = before_user[len(before) : len(before_user) - len(after)]
    if before_user and before_user != before + default + after:
        return None
    return ChatPieces(begin, {**roles, "system": system}, answer_begins, default)


def _system(template: ChatTemplate, begin: str, user_before: str) -> tuple[str, str] | None:
    """The texts around a system message; None where the template refuses one or mixes it with the user's."""
    try:
        text = template.render([_turn("system", _SYSTEM), _turn("user", _USER)])
        head, rest = _cut(text, _SYSTEM)
        after_and_user = _cut(rest, _USER)[0]
    except (FormatError, _Dropped):
        return None
    if not head.startswith(begin) or not after_and_user.endswith(user_before):
        return None
    return head[len(begin) :], after_and_user[: len(after_and_user) - len(user_before)]


def _trials(with_system: bool) -> list[list[Turn]]:
    talk = [_turn("user", "How?"), _turn("assistant", "So."), _turn("user", "And\nthen?")]
    long = [*talk, _turn("assistant", "Done."), _turn("user", "Why?")]
    found = [talk[:1], talk, long]
    system = _turn("system", "Be brief.")
    return [*found, *([system, *one] for one in found)] if with_system else found


class _Dropped(Exception):
    """The template left a message out, or changed its text."""


def _turn(role: str, content: str) -> Turn:
    return {"role": role, "content": content}


def _cut(text: str, marker: str) -> tuple[str, str]:
    """What stands before and after the marker; raises _Dropped where it is not there."""
    before, found, after = text.partition(marker)
    if not found:
        raise _Dropped
    return before, after
