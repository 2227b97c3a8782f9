"""RoBERTa and its multilingual and French kin: BERT's graph with positions that begin after the padding's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from edgeq.errors import InputError
from edgeq.families.bert import Bert
from edgeq.families.encoder import Classifier


class Roberta(Bert):
    """Rows 0 to ``pad_token_id`` of its table of positions are never used; GGUF does not hold them."""

    model_types = ("roberta", "xlm-roberta", "camembert")
    architecture = "bert"
    source_prefixes = ("roberta.", "")
    reads_segments = False
    defaults: ClassVar[Mapping[str, Any]] = {"type_vocab_size": 2, "pad_token_id": 1}
    classifiers: ClassVar[Mapping[str, Classifier]] = {
        "sequence": Classifier("classifier.out_proj", dense="classifier.dense"),
        "tokens": Classifier("classifier"),
    }

    def _position_offset(self, config: Mapping[str, Any]) -> int:
        padding = config["pad_token_id"]
        if not isinstance(padding, int) or isinstance(padding, bool) or padding < 0:
            raise InputError(f"config.json: pad_token_id must be a token's number, not {padding!r}")
        return padding + 1
