"""Ollama: the GGUF file and a Modelfile that names it; ``ollama create NAME -f Modelfile`` does the rest.

Source: Ollama's docs/modelfile.md and docs/template.md. A file in shards is put together: FROM takes one file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgeq import tokenization
from edgeq.apps import modelfile
from edgeq.apps.chat_pieces import pieces_of
from edgeq.apps.gguf_lint import gguf_findings
from edgeq.apps.gguf_model import GGUFModel
from edgeq.apps.registry import GGUFLayout, layout
from edgeq.apps.write import whole_gguf
from edgeq.formats.atomic import write_text
from edgeq.formats.gguf.vocab.keys import TOKENS
from edgeq.inspection.findings import Finding, error, note, warning

NAME = "Modelfile"
_MOST_CONTEXT = 4096  # what Ollama takes where nothing is said; more costs memory, so the user asks for it


@layout
class Ollama(GGUFLayout):
    """``NAME-QUANT.gguf`` and ``Modelfile`` with the template, the system text, the stop texts and the context."""

    name = "ollama"

    def pack(self, model: GGUFModel, folder: Path) -> str:
        whole_gguf(model, folder / model.file_name)
        write_text(folder / NAME, modelfile_of(model), force=False)
        return model.file_name

    def lint(self, folder: Path) -> Iterator[Finding]:
        path = folder / NAME
        try:
            found = modelfile.parse(path.read_text(encoding="utf-8"))
        except OSError as failure:
            yield error(
                NAME, f"cannot be read ({failure.strerror})", "edgeq pack MODEL.gguf --app ollama writes one"
            )
            return
        except ValueError as breach:  # also what is not UTF-8
            yield error(NAME, str(breach), "mend that line")
            return
        target = folder / found.commands["from"]
        if not target.is_file() or not target.resolve().is_relative_to(folder.resolve()):
            yield error(
                NAME, f"FROM {found.commands['from']}: is no file of this folder", "name the GGUF file there"
            )
            return

        def rule(where: str, model: GGUFModel) -> Iterator[Finding]:
            yield from _template_findings(found, model)

        yield from gguf_findings(folder, [target], rule)


def _template_findings(found: modelfile.Modelfile, model: GGUFModel) -> Iterator[Finding]:
    if model.is_encoder:
        return
    context = next((int(value) for name, value in found.parameters if name == "num_ctx"), 0)
    if model.context and context > model.context:
        what = f"num_ctx {context} is more than the {model.context} tokens that the model was made for"
        yield warning(NAME, what, "lower it")
    if "template" not in found.commands:
        has_one = model.chat() is not None
        what = "has no TEMPLATE: " + (
            "Ollama guesses one by the file's own" if has_one else "the model has no chat format"
        )
        yield note(NAME, what)


def modelfile_of(model: GGUFModel) -> str:
    """The Modelfile of a model: no TEMPLATE where the chat template does more than to put texts around messages."""
    parameters: list[tuple[str, str]] = []
    template = system = ""
    if not model.is_encoder:
        context = model.planned_context or min(model.context or _MOST_CONTEXT, _MOST_CONTEXT)
        parameters.append(("num_ctx", str(context)))
        parameters += [("stop", text) for text in _stops(model)]
        chat = model.chat()
        pieces = pieces_of(chat) if chat else None
        if pieces is not None:
            template, system = (
                modelfile.go_template(pieces.roles, pieces.answer_begins),
                pieces.default_system,
            )
    try:
        return modelfile.write(f"./{model.file_name}", parameters, template, system)
    except modelfile.ModelfileError:  # quotes in the template: Ollama has its own for the well-known ones
        return modelfile.write(f"./{model.file_name}", parameters)


def _stops(model: GGUFModel) -> list[str]:
    """The texts of the tokens that end an answer."""
    tokens = model.file.metadata.get(TOKENS)
    if not isinstance(tokens, list):
        return []
    ends = sorted(tokenization.end_tokens(model.file.path, model.file.metadata))
    return [str(tokens[number]) for number in ends if number < len(tokens) and '"' not in str(tokens[number])]
