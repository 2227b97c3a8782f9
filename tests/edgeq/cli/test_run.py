"""``edgeq run``: the same greedy text from every engine, sampling, the two streams."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

PROMPT = "def main("
NEEDS_LLAMA = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="the [llama] extra is not installed"
)


def _run(edgeq, model, *options):
    done = edgeq("run", model, "-p", PROMPT, "-n", 24, "--threads", 1, "--json", *options)
    assert (done.code, done.err) == (0, ""), done.err
    return json.loads(done.out)


@pytest.fixture(scope="module")
def expected(edgeq, tinylm):
    return _run(edgeq, tinylm)


def test_json(expected):
    assert expected["engine"] == "embedded"
    assert expected["prompt"] == PROMPT
    assert 0 < len(expected["tokens"]) <= 24
    assert expected["text"]
    assert expected["prompt_tokens"] > 0
    assert expected["decode_tokens_per_second"] > 0


def test_gguf_embedded(edgeq, floats, expected):
    found = _run(edgeq, floats.gguf, "--engine", "embedded")
    assert (found["tokens"], found["text"]) == (expected["tokens"], expected["text"])


@NEEDS_LLAMA
def test_gguf_llama_cpp(edgeq, floats, expected):
    found = _run(edgeq, floats.gguf, "--engine", "llama.cpp")
    assert found["engine"] == "llama.cpp"
    assert (found["tokens"], found["text"]) == (expected["tokens"], expected["text"])


def test_onnx(edgeq, floats, expected):
    found = _run(edgeq, floats.onnx)
    assert found["engine"] == "onnxruntime"
    assert (found["tokens"], found["text"]) == (expected["tokens"], expected["text"])


@NEEDS_LLAMA
def test_q4_k_m_embedded_and_llama_cpp_agree(edgeq, exported):
    """Their arithmetic differs (llama.cpp rounds activations to 8 bits), and the third token is nearly a tie."""
    embedded, llama = (_run(edgeq, exported.gguf, "--engine", e)["tokens"] for e in ("embedded", "llama.cpp"))
    assert embedded[:2] == llama[:2]


def test_int8_onnx_runs(edgeq, exported, expected):
    assert _run(edgeq, exported.onnx)["tokens"][:2] == expected["tokens"][:2]


@pytest.mark.parametrize("engine", ["embedded", "llama.cpp"])
def test_sampling_is_reproducible_by_its_seed(edgeq, exported, engine):
    if engine == "llama.cpp":
        pytest.importorskip("llama_cpp")
    options = ("--engine", engine, "--temp", 1.5, "--top-k", 50, "--top-p", 0.95)
    first, again, other = (_run(edgeq, exported.gguf, *options, "--seed", s)["text"] for s in (7, 7, 8))
    assert first == again != other


@pytest.mark.parametrize("options", [("--top-k", 1), ("--top-p", 1e-9), ("--temp", 1e-300)])
def test_sampling_narrowed_to_one_token_is_greedy(edgeq, tinylm, expected, options):
    """A temperature of 1 leaves nothing to chance where one token is left."""
    assert _run(edgeq, tinylm, "--temp", 1, *options)["tokens"] == expected["tokens"]


def test_text_on_stdout_speed_on_stderr(edgeq, tinylm, expected):
    done = edgeq("run", tinylm, "-p", PROMPT, "-n", 24)
    assert done.code == 0
    assert done.out == f"{PROMPT}{expected['text']}\n"
    assert done.err.startswith("edgeq: embedded: ")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    "prompt", ["naïve café 模型 🦙", "\u202eabc\u0000def\u200b", "e\u0301" * 20, "\ufffd\uffff", " "]
)
def test_prompts_of_odd_unicode(edgeq, exported, floats, prompt):
    texts = []
    for model in (exported.gguf, floats.onnx):
        done = edgeq("run", model, "-p", prompt, "-n", 2, "--json")
        assert done.code == 0, done.err
        texts.append(json.loads(done.out)["prompt"])
    assert texts == [prompt, prompt]


def test_a_text_longer_than_the_model_was_trained_for_is_warned_of(edgeq, tinylm, tmp_path):
    for file in tinylm.iterdir():
        if file.name != "config.json":
            (tmp_path / file.name).symlink_to(file)
    config = json.loads((tinylm / "config.json").read_text("utf-8")) | {"max_position_embeddings": 16}
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    done = edgeq("run", tmp_path, "-p", PROMPT, "-n", 20, "--json")
    assert done.code == 0
    assert "more than the 16 the model was trained for" in done.err


def test_stop_strings_end_the_text(edgeq, tinylm, expected):
    text = expected["text"]
    cut = text[4:7]
    assert _run(edgeq, tinylm, "--stop", "never there", "--stop", cut)["text"] == text[: text.index(cut)]


def test_a_repetition_penalty_changes_a_repetitive_text(edgeq, tinylm, expected):
    assert _run(edgeq, tinylm, "--repetition-penalty", 1)["tokens"] == expected["tokens"]
    found = _run(edgeq, tinylm, "--repetition-penalty", 5)["tokens"]
    assert len(set(found)) > len(set(expected["tokens"]))


@pytest.fixture(scope="module")
def chatty(tinylm, tmp_path_factory):
    """TinyLM with a template that joins the messages."""
    folder = tmp_path_factory.mktemp("chatty")
    for file in tinylm.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    config["chat_template"] = "{% for m in messages %}{{ m.content }}{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    return folder


def test_chat_answers_one_message(edgeq, chatty, expected):
    found = _run(edgeq, chatty, "--chat")
    assert (found["prompt"], found["text"]) == (PROMPT, expected["text"])
    after = _run(edgeq, chatty, "--chat", "--system", "import sys")
    assert after["prompt_tokens"] > found["prompt_tokens"]


def test_a_conversation_reads_lines_until_they_end(chatty, expected):
    command = [sys.executable, "-m", "edgeq", "run", str(chatty), "--chat", "-n", "8", "-t", "1"]
    done = subprocess.run(command, input=f"{PROMPT}\n\nimport\n", capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    first = done.stdout[: len(expected["text"])]
    assert expected["text"].startswith(first[:8].rstrip())
    continued = [
        sys.executable,
        "-m",
        "edgeq",
        "run",
        str(chatty),
        "-p",
        PROMPT,
        "-n",
        "8",
        "-t",
        "1",
        "--json",
    ]
    answer = json.loads(subprocess.run(continued, capture_output=True, text=True, timeout=300).stdout)["text"]
    second = ["-p", f"{PROMPT}{answer}import", "-n", "8", "-t", "1", "--json"]
    again = subprocess.run([*continued[:5], *second], capture_output=True, text=True, timeout=300)
    assert done.stdout == f"{answer}\n{json.loads(again.stdout)['text']}\n"


def test_a_conversation_longer_than_its_context_is_one_line(edgeq, chatty):
    done = edgeq("run", chatty, "--chat", "-p", PROMPT * 20, "-n", 8, "-c", 50)
    assert done.code == 1
    assert "--context 50 does not hold" in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "give --prompt, the text to continue, or --chat"),
        (("--chat", "--json"), "give --prompt"),
        (("-p", "x", "--system", "y"), "belong to --chat"),
        (("-p", "x", "-c", "9"), "belong to --chat"),
        (("-p", "x", "--stop", ""), "--stop"),
        (("-p", "x", "--repetition-penalty", "0"), "repetition penalty"),
    ],
)
def test_options_that_contradict_each_other(edgeq, tinylm, options, said):
    done = edgeq("run", tinylm, *options)
    assert done.code == 2
    assert said in done.err
