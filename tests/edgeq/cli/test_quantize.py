"""``edgeq quantize`` against llama.cpp's own quantization, and as a user meets it."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import heldout
import numpy as np
import pytest

from edgeq.engine.model import open_model
from edgeq.formats.gguf.imatrix import ImportanceMatrix
from edgeq.formats.gguf.reader import GGUFFile
from edgeq.formats.gguf.split import open_gguf
from edgeq.formats.gguf.writer import GGUFWriter, TensorPlan, Typed, ValueType

MakeGGUF = Callable[[Path, str], Path]
TOKENS = list(range(100, 116))
OURS = {"general.file_type", "general.quantization_version"}
NAN_TENSOR, NAN_ROW = "blk.0.ffn_down.weight", 5


def quantized(edgeq, source: Path, out: Path, quant: str, *options: object) -> dict[str, Any]:
    done = edgeq(
        "quantize", source, "-o", out, "-q", quant, "--json", "--threads", 1, "--effort", "ggml", *options
    )
    assert done.code == 0, done.err
    return json.loads(done.out)


def refused(edgeq, code: int, *arguments: object) -> str:
    done = edgeq("quantize", *arguments)
    assert (done.code, done.out) == (code, ""), done
    return " ".join(done.err.split())


@pytest.fixture(scope="session")
def f16(tinylm: Path, make_gguf: MakeGGUF) -> Path:
    return make_gguf(tinylm, "F16")


def assert_same_tensors(ours: Path, theirs: Path) -> None:
    with open_gguf(ours) as a, open_gguf(theirs) as b:
        assert {t.name: t.type_name for t in a.tensors.values()} == {
            t.name: t.type_name for t in b.tensors.values()
        }
        assert [name for name in a.tensors if not np.array_equal(a.rows(name), b.rows(name))] == []


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def silent(level: int, message: bytes, data: int) -> None:
    pass


def llama_quantize(source: Path, out: Path, quant: str, matrix: ImportanceMatrix | None = None) -> Path:
    llama_cpp = pytest.importorskip("llama_cpp")
    llama_cpp.llama_log_set(silent, None)
    parameters = llama_cpp.llama_model_quantize_default_params()
    name = quant if quant == "ALL_F32" else f"MOSTLY_{quant}"
    parameters.ftype, parameters.nthread = gguf.LlamaFileType[name].value, 1
    if matrix is not None:
        entry = llama_cpp.llama_model_imatrix_data
        weights = {name: matrix.importance(name) for name in matrix.entries}
        entries = [
            entry(name.encode(), values.ctypes.data_as(ctypes.POINTER(ctypes.c_float)), values.size)
            for name, values in weights.items()
        ]
        parameters.imatrix = (entry * (len(entries) + 1))(*entries, entry(None, None, 0))
    assert llama_cpp.llama_model_quantize(str(source).encode(), str(out).encode(), parameters) == 0
    return out


# Together these have every encoder but the ternary ones.
@pytest.mark.parametrize(
    "quant", ["Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_S", "Q8_0", "Q4_0", "Q5_1", "IQ4_XS", "TQ2_0"]
)
def test_bytes_are_llama_cpps(edgeq, f16: Path, tmp_path: Path, quant: str):
    ours, theirs = tmp_path / "ours.gguf", llama_quantize(f16, tmp_path / "theirs.gguf", quant)
    record = quantized(edgeq, f16, ours, quant)
    assert_same_tensors(ours, theirs)
    assert record["written_bytes"] == ours.stat().st_size
    with GGUFFile.open(ours) as a, GGUFFile.open(theirs) as b:
        assert {key: a.metadata[key] for key in OURS} == {key: b.metadata[key] for key in OURS}
        assert {t["name"]: t["type_name"] for t in record["tensors"]} == {
            t.name: t.type_name for t in a.tensors.values()
        }


@pytest.mark.parametrize("quant", ["Q4_K_M", "IQ4_XS"])
def test_fallbacks_are_llama_cpps(edgeq, minilm: Path, make_gguf: MakeGGUF, tmp_path: Path, quant: str):
    source = make_gguf(minilm, "F16")
    done = edgeq("quantize", source, "-o", tmp_path / "ours.gguf", "-q", quant, "--effort", "ggml", "--json")
    assert done.code == 0
    assert "fall back from" in done.err
    assert json.loads(done.out)["fallbacks"]
    assert_same_tensors(tmp_path / "ours.gguf", llama_quantize(source, tmp_path / "theirs.gguf", quant))


@pytest.fixture(scope="session")
def imatrix(edgeq, tinylm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imatrix")
    (folder / "code.txt").write_text(heldout.code()[:20_000], encoding="utf-8")
    done = edgeq(
        "calibrate", tinylm, "--data", folder / "code.txt", "-o", folder / "i.gguf", "--max-tokens", 512
    )
    assert done.code == 0, done.err
    return folder / "i.gguf"


@pytest.mark.parametrize("quant", ["Q4_K_M", "Q2_K", "IQ4_XS", "Q5_0"])
def test_bytes_with_an_importance_matrix_are_llama_cpps(
    edgeq, f16: Path, imatrix: Path, tmp_path: Path, quant: str
):
    matrix = ImportanceMatrix.read(imatrix)
    theirs = llama_quantize(f16, tmp_path / "theirs.gguf", quant, matrix)
    quantized(edgeq, f16, tmp_path / "ours.gguf", quant, "--imatrix", imatrix)
    assert_same_tensors(tmp_path / "ours.gguf", theirs)
    with GGUFFile.open(tmp_path / "ours.gguf") as ours:
        assert ours.metadata["quantize.imatrix.entries_count"] == len(matrix.entries)
        assert ours.metadata["quantize.imatrix.file"] == imatrix.name


@pytest.mark.parametrize("quant", ["Q4_0", "IQ4_NL"])
def test_bytes_of_experts_are_llama_cpps(
    edgeq,
    oracle_folder: Callable[[str], Path],
    make_gguf: MakeGGUF,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    quant: str,
):
    """Each expert has its own weights, and pieces of rows do not end where an expert ends."""
    monkeypatch.setattr("edgeq.convert.gguf_sources.PIECE_VALUES", 5000)
    source = make_gguf(oracle_folder("mixtral"), "F16")
    (tmp_path / "text.txt").write_text("the cat sat on the mat " * 60)
    limits = ("--chunk-size", 128, "--max-tokens", 512)
    done = edgeq("calibrate", source, "--data", tmp_path / "text.txt", "-o", tmp_path / "i.gguf", *limits)
    assert done.code == 0, done.err
    matrix = ImportanceMatrix.read(tmp_path / "i.gguf")
    assert len(np.unique(matrix.importance("blk.0.ffn_up_exps.weight").reshape(4, -1), axis=0)) == 4
    theirs = llama_quantize(source, tmp_path / "theirs.gguf", quant, matrix)
    quantized(edgeq, source, tmp_path / "ours.gguf", quant, "--imatrix", tmp_path / "i.gguf")
    assert_same_tensors(tmp_path / "ours.gguf", theirs)


def test_an_importance_matrix_of_another_model_is_refused(edgeq, imatrix: Path, minilm: Path, tmp_path: Path):
    error = refused(edgeq, 1, minilm, "-o", tmp_path / "o.gguf", "-q", "Q4_K_M", "--imatrix", imatrix)
    assert imatrix.name in error
    assert "another model" in error
    assert not list(tmp_path.iterdir())


def test_a_directory_gives_the_bytes_of_export(edgeq, tinylm: Path, make_gguf: MakeGGUF, tmp_path: Path):
    record = quantized(edgeq, tinylm, tmp_path, "q4_k_m")
    assert record["files"] == [str(tmp_path / "model-Q4_K_M.gguf")]
    assert (tmp_path / "model-Q4_K_M.gguf").read_bytes() == make_gguf(tinylm, "Q4_K_M").read_bytes()


def test_dry_run(edgeq, f16: Path, minilm: Path, tmp_path: Path):
    planned = quantized(edgeq, f16, tmp_path / "new" / "m.gguf", "Q3_K_M", "--dry-run")
    quantized(edgeq, minilm, tmp_path / "out", "Q4_K_M", "--dry-run")
    assert list(tmp_path.iterdir()) == []
    made = quantized(edgeq, f16, tmp_path / "m.gguf", "Q3_K_M")
    assert planned["tensors"] == made["tensors"]
    assert planned["tensor_bytes"] == sum(t["nbytes"] for t in made["tensors"]) > 0
    assert {"type_name", "stored_type", "wanted_type", "reason", "shape"} <= planned["tensors"][0].keys()
    assert "seconds" not in planned


def test_dry_run_prints_types_and_fallbacks(edgeq, minilm: Path, tmp_path: Path):
    done = edgeq("quantize", minilm, "-o", tmp_path, "-q", "Q4_K_M", "--dry-run")
    assert done.code == 0
    assert "blk.0.ffn_up.weight" in done.out
    assert "(not Q4_K)" in done.out
    assert "fall back from Q4_K" in done.err


def test_overrides(edgeq, f16: Path, tmp_path: Path):
    options = ("--tensor-type", r"blk\.0\.ffn_down=q8_0", "--tensor-type", "ffn_down|attn_v=IQ4_NL")
    quantized(edgeq, f16, tmp_path / "m.gguf", "Q4_K_S", *options)
    with GGUFFile.open(tmp_path / "m.gguf") as file:
        types = {t.name: t.type_name for t in file.tensors.values()}
    assert types["blk.0.ffn_down.weight"] == "Q8_0"
    assert {types["blk.1.ffn_down.weight"], types["blk.0.attn_v.weight"]} == {"IQ4_NL"}
    assert types["blk.0.attn_q.weight"] == "Q4_K"


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--tensor-type", "ffn_dwon=Q6_K"), 1, "override ffn_dwon=Q6_K: no tensor's name matches"),
        (("--tensor-type", "ffn_down=Q9_Z"), 2, "--tensor-type"),
        (("--tensor-type", "ffn_down"), 2, "--tensor-type"),
        (("--tensor-type", "ffn_down=IQ2_XS"), 2, "--tensor-type"),
        (("--split-max-size", "2X"), 2, "--split-max-size"),
        (("--quant", "Q4_X"), 2, "--quant Q4_X: no such file type"),
        (("--nan", "maybe"), 2, "--nan"),
    ],
)
def test_wrong_options(edgeq, f16: Path, tmp_path: Path, options: tuple[str, ...], code: int, message: str):
    quant = () if "--quant" in options else ("-q", "Q4_K_M")
    assert message in refused(edgeq, code, f16, "-o", tmp_path / "m.gguf", *quant, *options)
    assert list(tmp_path.iterdir()) == []


def test_shards_run_in_the_engine(edgeq, f16: Path, tmp_path: Path):
    record = quantized(edgeq, f16, tmp_path / "m.gguf", "Q4_K_M", "--split-max-size", "600K")
    paths = [Path(path) for path in record["files"]]
    assert len(paths) > 2
    assert paths == sorted(tmp_path.iterdir())
    assert record["written_bytes"] == sum(path.stat().st_size for path in paths)
    whole = tmp_path / "whole.gguf"
    quantized(edgeq, f16, whole, "Q4_K_M")
    assert_same_tensors(paths[1], whole)
    expected = open_model(whole).logits(TOKENS)
    assert all(np.array_equal(open_model(path).logits(TOKENS), expected) for path in (paths[0], paths[-1]))
    inspected = json.loads(edgeq("inspect", paths[0], "--json").out)
    assert inspected["bytes"] == record["written_bytes"]
    assert len(inspected["tensors"]) == len(record["tensors"])
    done = edgeq("run", paths[0], "-p", "def main(", "-n", 4, "--threads", 1, "--json")
    assert done.code == 0, done.err
    # Shards are a source too: those of F16 give the same bytes as the whole file.
    halves = quantized(edgeq, f16, tmp_path / "half.gguf", "F16", "--split-max-size", "2M")["files"]
    quantized(edgeq, Path(halves[0]), tmp_path / "again.gguf", "Q4_K_M")
    assert_same_tensors(tmp_path / "again.gguf", whole)


@pytest.fixture(scope="module")
def damaged(f16: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The F16 file with NaN in one row of a matrix and infinity in a norm."""
    path = tmp_path_factory.mktemp("damaged") / "m.gguf"
    content = bytearray(f16.read_bytes())
    with GGUFFile.open(f16) as file:
        matrix, norm = file.info(NAN_TENSOR), file.info("output_norm.weight")
        at = matrix.offset + NAN_ROW * matrix.row_bytes
        content[at : at + 2] = np.float16(np.nan).tobytes()
        content[norm.offset : norm.offset + 4] = np.float32(np.inf).tobytes()
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("quant", ["Q4_K_M", "F16"])
@pytest.mark.parametrize("out", ["m.gguf", "new/folder"])
def test_nan_is_an_error(edgeq, damaged: Path, tmp_path: Path, quant: str, out: str):
    message = refused(edgeq, 1, damaged, "-o", tmp_path / out, "-q", quant)
    rows = {"output_norm.weight": 0, NAN_TENSOR: NAN_ROW}
    assert any(f"tensor {name}, row {row}: holds NaN or infinity" in message for name, row in rows.items())
    assert "--nan zero" in message
    assert list(tmp_path.iterdir()) == []


def test_nan_becomes_zero(edgeq, damaged: Path, f16: Path, tmp_path: Path):
    quantized(edgeq, damaged, tmp_path / "zero.gguf", "F16", "--nan", "zero")
    with GGUFFile.open(tmp_path / "zero.gguf") as ours, GGUFFile.open(f16) as clean:
        for name in clean.tensors:
            expected = clean.decode(name).copy()
            if name == NAN_TENSOR:
                expected[NAN_ROW, 0] = 0
            elif name == "output_norm.weight":
                expected[0] = 0
            assert np.array_equal(ours.decode(name), expected), name
    quantized(edgeq, damaged, tmp_path / "q4.gguf", "Q4_K_M", "--nan", "zero")
    quantized(edgeq, tmp_path / "zero.gguf", tmp_path / "expected.gguf", "Q4_K_M")
    assert_same_tensors(tmp_path / "q4.gguf", tmp_path / "expected.gguf")


def test_rounding_twice_must_be_asked_for(edgeq, tinylm: Path, make_gguf: MakeGGUF, tmp_path: Path):
    source, out = make_gguf(tinylm, "Q4_K_M"), tmp_path / "m.gguf"
    message = refused(edgeq, 1, source, "-o", out, "-q", "Q4_K_S")
    assert "is quantized already (Q4_K, Q6_K)" in message
    assert "--allow-requantize" in message
    quantized(edgeq, source, out, "Q4_K_S", "--allow-requantize")
    with GGUFFile.open(source) as before, GGUFFile.open(out) as after:
        same = [n for n in before.tensors if before.info(n).type_name == after.info(n).type_name]
        assert 0 < len(same) < len(before.tensors)
        assert all(np.array_equal(before.rows(name), after.rows(name)) for name in same)
        assert {t.type_name for t in after.tensors.values()} == {"F32", "Q4_K", "Q5_K", "Q6_K"}


def test_an_output_that_is_there(edgeq, f16: Path, tmp_path: Path):
    out = tmp_path / "m.gguf"
    out.write_bytes(b"mine")
    assert "--force" in refused(edgeq, 1, f16, "-o", out, "-q", "Q8_0")
    assert out.read_bytes() == b"mine"
    quantized(edgeq, f16, out, "Q8_0", "--force")
    assert out.read_bytes()[:4] == b"GGUF"


@pytest.mark.parametrize("options", [(), ("--split-max-size", "2M")])
def test_the_source_is_no_output(edgeq, f16: Path, tmp_path: Path, options: tuple[str, ...]):
    record = quantized(edgeq, f16, tmp_path / "m.gguf", "F16", *options)
    before = [Path(path).read_bytes() for path in record["files"]]
    first = Path(record["files"][-1])
    message = refused(edgeq, 1, first, "-o", tmp_path / "m.gguf", "-q", "F16", "--force", *options)
    assert "is the file being read" in message
    assert [Path(path).read_bytes() for path in record["files"]] == before


@pytest.mark.parametrize("source", ["missing.gguf", "text.gguf"])
def test_a_source_that_is_none(edgeq, tmp_path: Path, source: str):
    (tmp_path / "text.gguf").write_text("no model")
    assert source in refused(edgeq, 1, tmp_path / source, "-o", tmp_path / "m.gguf", "-q", "Q8_0")


METADATA: dict[str, Any] = {
    "general.name": "other",
    "gpt2.context_length": Typed(64, ValueType.UINT32),
    "gpt2.embedding_length": Typed(256, ValueType.UINT32),
    "gpt2.feed_forward_length": Typed(512, ValueType.UINT32),
    "gpt2.block_count": Typed(2, ValueType.UINT32),
    "gpt2.attention.head_count": Typed(4, ValueType.UINT32),
    "gpt2.attention.layer_norm_epsilon": Typed(1e-5, ValueType.FLOAT32),
    "x.double": Typed(0.1, ValueType.FLOAT64),
    "x.wide": Typed(-(2**60), ValueType.INT64),
    "x.flag": True,
    "x.shorts": Typed([1, -2, 3], ValueType.INT16),
    "x.bytes": Typed([0, 255], ValueType.UINT8),
    "x.texts": ["a", "", "ä"],
}


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 in F16, which edgeq cannot run."""
    random = np.random.default_rng(5)
    shapes = {"token_embd.weight": (96, 256), "position_embd.weight": (64, 256), "output_norm.weight": (256,)}
    for i in range(2):
        shapes |= {f"blk.{i}.attn_qkv.weight": (768, 256), f"blk.{i}.attn_qkv.bias": (768,)}
        shapes |= {f"blk.{i}.ffn_up.weight": (512, 256), f"blk.{i}.ffn_down.weight": (256, 512)}
    plans = [TensorPlan(n, "F16" if len(shape) > 1 else "F32", shape) for n, shape in shapes.items()]
    path = tmp_path_factory.mktemp("other") / "gpt2.gguf"
    with GGUFWriter(path, "gpt2", METADATA, plans) as writer:
        for plan in plans:
            dtype = np.float16 if plan.type_name == "F16" else np.float32
            writer.write_rows(plan.name, random.standard_normal(plan.shape).astype(dtype).view(np.uint8))
    return path


@pytest.mark.parametrize("quant", ["Q4_K_M", "Q2_K", "Q5_0", "F16"])
def test_an_architecture_that_edgeq_cannot_run(edgeq, other: Path, tmp_path: Path, quant: str):
    ours = tmp_path / "ours.gguf"
    record = quantized(edgeq, other, ours, quant)
    assert record["architecture"] == "gpt2"
    assert_same_tensors(ours, llama_quantize(other, tmp_path / "theirs.gguf", quant))
    with GGUFFile.open(other) as before, GGUFFile.open(ours) as after:
        copied = {key: value for key, value in after.typed_metadata().items() if key not in OURS}
        assert copied == before.typed_metadata()


def test_effort(edgeq, f16, tmp_path):
    """Each effort's error is below the one before, at the same size; ggml's is what the others start from."""
    sizes, errors = [], []
    with GGUFFile.open(f16) as source:
        for effort in ("ggml", "normal", "best"):
            out = tmp_path / f"{effort}.gguf"
            record = quantized(edgeq, f16, out, "Q4_K_S", "--effort", effort)
            assert record["effort"] == effort
            sizes.append(out.stat().st_size)
            with GGUFFile.open(out) as made:
                names = [n for n, t in made.tensors.items() if t.type_name == "Q4_K"]
                errors.append([float(np.square(made.decode(n) - source.decode(n)).sum()) for n in names])
    assert len(set(sizes)) == 1
    ggml, normal, best = np.array(errors)
    assert (normal <= ggml).all()
    assert (best <= normal).all()
    assert normal.sum() < 0.97 * ggml.sum()


def test_normal_is_the_default(edgeq, f16, tmp_path):
    done = edgeq("quantize", f16, "-o", tmp_path / "m.gguf", "-q", "Q4_K_S", "--dry-run", "--json")
    assert json.loads(done.out)["effort"] == "normal"
