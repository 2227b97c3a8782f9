"""Bundles in the libraries that they are for: ``make apps`` prepares those; without them these tests are skipped.

transformers.js, onnxruntime-web and wllama run in headless Chromium, node-llama-cpp in Node. Ollama, LM Studio,
llama.rn and onnxruntime-react-native cannot run here: their bundles pass their lints (tests/edgeq/apps), and the last
one's file is loaded by onnxruntime-web, which is the same runtime behind the same interface.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import minilm as minilm_package
import numpy as np
import pytest
from browser import Site, ask
from numpy.typing import NDArray

from edgeq.apps.layouts import wllama
from edgeq.apps.manifest import read_manifest
from edgeq.apps.pack import Bundle, pack
from edgeq.apps.registry import find
from edgeq.export import Request, run
from edgeq.formats.effort import Effort
from edgeq.runtimes.onnxruntime import OnnxSession, encoder_feeds
from edgeq.tokenization import from_directory

ROOT = Path(__file__).parents[2]
APPS = ROOT / ".apps"
CHROMIUM, MODULES = APPS / "chromium", APPS / "node_modules"
PROMPTS, TOKENS = ["def main(", "import numpy as"], 6  # longer texts differ between builds of llama.cpp
TEXTS = ["How do I bake bread?", "The committee met in Geneva on Tuesday.", "A recipe for sourdough"]
SHARD_BYTES = 2_500_000  # TinyLM is smaller than wllama's 512 MB

pytestmark = [
    pytest.mark.skipif(not (APPS / "ready").exists(), reason="make apps has not prepared Chromium and Node"),
    pytest.mark.timeout(600),
]


def _exported(out: Path, model: Path, to: Any, quant: str, dialect: str = "standard") -> Path:
    request = Request(model, to, quant, out, dialect=dialect, effort=Effort.ggml, proof=False)
    return run(request).path


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _exported(tmp_path_factory.mktemp("gguf"), ROOT / "tests/assets/tinylm", "gguf", "Q4_K_M")


@pytest.fixture(scope="module", params=["ort", "standard"])
def decoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp(request.param)
    return _exported(out, ROOT / "tests/assets/tinylm", "onnx", "int4", request.param)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _exported(tmp_path_factory.mktemp("minilm"), minilm_package.folder(), "onnx", "int8")


def _packed(model: Path, app: str, out: Path) -> Bundle:
    bundle = pack(model, find(app), out, name="model")
    assert not bundle.errors() + bundle.warnings()
    return bundle


def _python_texts(model: Path, engine: str) -> list[str]:
    """What Python's runtime goes on with."""
    texts = []
    for prompt in PROMPTS:
        command = [
            sys.executable,
            "-m",
            "edgeq",
            "run",
            str(model),
            "-p",
            prompt,
            "-n",
            str(TOKENS),
            "--json",
        ]
        done = subprocess.run([*command, "--engine", engine], capture_output=True, check=True)
        texts.append(json.loads(done.stdout)["text"])
    return texts


def _transformers_js(bundle: Bundle, job: dict[str, Any]) -> Any:
    own = "/node_modules/@huggingface/transformers"
    runtime = f"{own}/node_modules/onnxruntime-web/dist/"
    imports = {
        "@huggingface/transformers": f"{own}/dist/transformers.web.js",
        "onnxruntime-common": f"{own}/node_modules/onnxruntime-common/dist/esm/index.js",
        "onnxruntime-web/webgpu": f"{runtime}ort.webgpu.bundle.min.mjs",
    }
    job |= {"model": bundle.folder.name, "wasm": runtime}
    return ask(CHROMIUM, Site(MODULES, bundle.folder.parent, imports, "transformers_js", job))


def test_transformers_js_embeds(encoder: Path, tmp_path: Path) -> None:
    """By the pipeline's defaults: it finds the 8-bit file by itself."""
    bundle = _packed(encoder, "transformers.js", tmp_path)
    vectors = np.array(_transformers_js(bundle, {"task": "feature-extraction", "texts": TEXTS}))
    # Python's runtime fuses more, and one activation that rounds to another of 256 steps may cost 0.002.
    cosines = (vectors * _sentence_vectors(bundle)).sum(1)
    assert cosines.min() > 0.99
    assert np.median(cosines) > 0.9999


def _sentence_vectors(bundle: Bundle) -> NDArray[np.float32]:
    """The same file in Python's ONNX Runtime: the mean of the tokens' vectors, of unit length."""
    session = OnnxSession(bundle.folder / bundle.manifest["main"])
    tokenizer = from_directory(bundle.folder)
    feeds = encoder_feeds([tokenizer.encode(text).ids for text in TEXTS])
    hidden = session.run(feeds, ["last_hidden_state"])[0]
    mask = feeds["attention_mask"][:, :, None]
    mean = (hidden * mask).sum(1) / mask.sum(1)
    return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True))


def test_transformers_js_generates(decoder: Path, tmp_path: Path) -> None:
    """With a KV cache, 4-bit weights and a gathered table in 8 bits, on WebAssembly."""
    bundle = _packed(decoder, "transformers.js", tmp_path)
    job = {"task": "text-generation", "texts": PROMPTS, "tokens": TOKENS}
    expected = _python_texts(decoder, "onnxruntime")
    assert _transformers_js(bundle, job) == [a + b for a, b in zip(PROMPTS, expected, strict=True)]


@pytest.mark.parametrize("app", ["onnxruntime-web", "onnxruntime-react-native"])
def test_onnxruntime_in_a_browser(encoder: Path, tmp_path: Path, app: str) -> None:
    bundle = _packed(encoder, app, tmp_path)
    main = bundle.folder / bundle.manifest["main"]
    feeds = encoder_feeds([from_directory(bundle.folder).encode(TEXTS[0]).ids])
    inputs = {name: {"shape": list(v.shape), "values": v.ravel().tolist()} for name, v in feeds.items()}
    folder = "/node_modules/onnxruntime-web/dist/"
    imports = {"onnxruntime-web": f"{folder}ort.wasm.bundle.min.mjs"}
    job = {"wasm": folder, "inputs": inputs, "output": "sentence_embedding"}
    found = ask(CHROMIUM, Site(MODULES, bundle.folder, imports, "onnxruntime_web", job))
    manifest = read_manifest(bundle.folder)
    assert found["inputs"] == [one["name"] for one in manifest["inputs"]]
    assert found["outputs"] == [one["name"] for one in manifest["outputs"]]
    expected = OnnxSession(main).run(feeds, ["sentence_embedding"])[0][0]
    assert (
        np.dot(found["values"], expected) / np.linalg.norm(found["values"]) / np.linalg.norm(expected) > 0.99
    )


def test_onnxruntime_web_reads_external_data(tmp_path: Path) -> None:
    """The manifest says what ``externalData`` has to be."""
    model = ROOT / "tests/assets/tinylm"
    request = Request(model, "onnx", "int4", tmp_path / "out", dialect="ort", external_from="1K", proof=False)
    bundle = _packed(run(request).path, "onnxruntime-web", tmp_path)
    assert bundle.manifest["external_data"]
    session = OnnxSession(bundle.folder / bundle.manifest["main"])
    feeds: dict[str, NDArray[Any]] = {name: np.arange(4)[None] for name in ("input_ids", "position_ids")}
    feeds |= {"attention_mask": np.ones((1, 4), np.int64), **session.empty_past()}
    inputs = {name: {"shape": list(v.shape), "values": v.ravel().tolist()} for name, v in feeds.items()}
    folder = "/node_modules/onnxruntime-web/dist/"
    imports = {"onnxruntime-web": f"{folder}ort.wasm.bundle.min.mjs"}
    job = {"wasm": folder, "inputs": inputs, "output": "logits"}
    found = ask(CHROMIUM, Site(MODULES, bundle.folder, imports, "onnxruntime_web", job))
    expected = session.run(feeds, ["logits"])[0].ravel()
    assert np.corrcoef(found["values"], expected)[0, 1] > 0.999


def test_wllama_loads_shards(gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wllama, "SHARD_BYTES", SHARD_BYTES)
    bundle = _packed(gguf, "wllama", tmp_path)
    assert bundle.manifest["main"] == "model-Q4_K_M-00001-of-00002.gguf"
    folder = "/node_modules/@wllama/wllama/esm/"
    job = {"wasm": f"{folder}wasm/wllama.wasm", "texts": PROMPTS, "tokens": TOKENS}
    site = Site(MODULES, bundle.folder, {"@wllama/wllama": f"{folder}index.js"}, "wllama", job)
    texts = ask(CHROMIUM, site)
    assert "/bundle/model-Q4_K_M-00002-of-00002.gguf" in site.asked
    assert texts == _python_texts(gguf, "llama.cpp")


def test_node_llama_cpp_knows_the_quant(gguf: Path, tmp_path: Path) -> None:
    bundle = _packed(gguf, "node-llama-cpp", tmp_path)
    command = [str(APPS / "node"), str(Path(__file__).with_name("node.mjs")), str(MODULES)]
    model = str(bundle.folder / bundle.manifest["main"])
    done = subprocess.run(
        [*command, model, str(TOKENS), *PROMPTS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["name"]["name"], found["name"]["quantization"]) == ("model", "Q4_K_M")
    assert found["texts"] == _python_texts(gguf, "llama.cpp")
