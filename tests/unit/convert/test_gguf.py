"""GGUF -> Hugging Face folder, on a tiny Llama written with gguf.GGUFWriter, and on SmolLM2 where it is there."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
from support.gguf_cases import TOKENS, Q, load_weights, refused_in_one_line, run, sha256, tensors_of, write_gguf
from support.paths import SMOLLM2

from convert.gguf import convert_gguf

gguf = pytest.importorskip("gguf")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


# The weights


def test_logits_survive_the_round_trip_through_llama_cpps_rope_order(tiny_gguf, torch_llama, tmp_path):
    convert_gguf(tiny_gguf, tmp_path / "out")
    converted = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    ids = torch.arange(3, 43)[None]
    with torch.no_grad():
        assert torch.equal(converted(ids).logits, torch_llama(ids).logits)


def test_a_file_without_output_weight_gives_tied_embeddings(torch_llama, tmp_path):
    tensors = tensors_of(torch_llama)
    del tensors["output.weight"]
    convert_gguf(write_gguf(tmp_path / "tied.gguf", tensors), tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["tie_word_embeddings"] is True
    assert "lm_head.weight" not in load_weights(tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()


def test_q8_0_and_q4_1_weights_come_back_within_half_a_quantization_step(torch_llama, tmp_path):
    types = {"blk.0.attn_q.weight": Q.Q4_1, "blk.1.ffn_up.weight": Q.Q8_0}
    convert_gguf(write_gguf(tmp_path / "q.gguf", tensors_of(torch_llama), types=types), tmp_path / "out")
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
    convert_gguf(tiny_gguf, tmp_path / "out", dtype="bfloat16")
    assert {weight.dtype for weight in load_weights(tmp_path / "out").values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "bfloat16"


def test_config_carries_the_metadatas_numbers(tiny_gguf, tmp_path):
    convert_gguf(tiny_gguf, tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_text())
    wanted = {"rope_theta": 50000.0, "rms_norm_eps": 1e-05, "num_key_value_heads": 2, "head_dim": 16}
    assert {key: config[key] for key in wanted} == wanted
    generation = json.loads((tmp_path / "out/generation_config.json").read_text())
    assert generation == {"bos_token_id": 1, "pad_token_id": 2, "eos_token_id": [2, 0]}


# The tokenizer


def test_digits_are_split_even_where_a_merge_would_join_them(tiny_gguf, tmp_path):
    convert_gguf(tiny_gguf, tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.tokenize("he 2020") == ["he", "Ġ", "2", "0", "2", "0"]


def test_without_the_digit_splitter_the_same_merge_applies(torch_llama, tmp_path):
    convert_gguf(write_gguf(tmp_path / "gpt2.gguf", tensors_of(torch_llama), pre="gpt-2"), tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.tokenize("he 2020") == ["he", "Ġ", "20", "20"]


def test_texts_round_trip_and_special_tokens_are_single(tiny_gguf, tmp_path):
    convert_gguf(tiny_gguf, tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in ("  two  spaces\n\n", "naïve café — 漢字 🎉", '{"score": 87}'):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("<|end|>he") == [0, TOKENS.index("he")]
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "he"}], return_dict=False)
    assert ids == [1, TOKENS.index("he"), 2]
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == (
        "<|im_end|>",
        "<|im_end|>",
        "<|im_start|>",
    )


# Sources, and a folder that is whole or absent


def test_a_wheel_with_one_gguf_gives_the_same_folder_whatever_its_member_is_called(tiny_gguf, tmp_path):
    convert_gguf(tiny_gguf, tmp_path / "plain")
    nest = tmp_path / "nest"
    nest.mkdir()
    with zipfile.ZipFile(nest / "model.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tiny_gguf, "../../escaped.gguf")
        archive.writestr("package/__init__.py", "")
    convert_gguf(nest / "model.whl", nest / "out", sha256=sha256(tiny_gguf).upper())
    assert sorted(path.name for path in nest.iterdir()) == ["model.whl", "out"]
    assert list(tmp_path.rglob("escaped.gguf")) == []
    for path in (tmp_path / "plain").iterdir():
        assert (nest / "out" / path.name).read_bytes() == path.read_bytes()


def test_a_finished_conversion_is_left_alone_and_said_so(tiny_gguf, tmp_path):
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


def test_a_damaged_folder_or_another_dtype_is_converted_anew(tiny_gguf, tmp_path):
    out = tmp_path / "out"
    convert_gguf(tiny_gguf, out)
    (out / "model.safetensors").write_bytes(b"")
    assert convert_gguf(tiny_gguf, out)[1] and len(load_weights(out)) == 21
    assert convert_gguf(tiny_gguf, out, dtype="float16")[1]
    assert load_weights(out)["model.norm.weight"].dtype == torch.float16
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "tiny.gguf"]


def test_a_folder_with_somebody_elses_files_is_refused_and_kept(tiny_gguf, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("precious")
    assert "choose an empty or new folder" in refused_in_one_line(tiny_gguf, tmp_path / "out")
    assert (tmp_path / "out/thesis.txt").read_text() == "precious"


def test_a_failure_while_writing_leaves_no_folder(torch_llama, tmp_path):
    tensors = tensors_of(torch_llama) | {"output_norm.weight": np.ones(64, np.int32)}
    source = write_gguf(tmp_path / "int.gguf", tensors)
    assert "output_norm.weight has the unsupported type I32" in refused_in_one_line(source, tmp_path / "out")


# The model that the examples run on


@pytest.mark.skipif(not (SMOLLM2 / "conversion.json").is_file(), reason=f"no {SMOLLM2}: run convert.gguf first")
def test_smollm2_tokenizes_as_its_makers_say_and_knows_the_capital_of_france():
    import mlx_lm

    from convert.torch_eval import generate

    model, tokenizer = mlx_lm.load(str(SMOLLM2))
    assert tokenizer.encode("In 2024") == [788, 216, 34, 32, 34, 36]
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True)
    completion = generate(SMOLLM2, [prompt], max_new_tokens=12, stop_ids=[2], device="cpu")[0]
    assert tokenizer.decode(completion) == "The capital of France is Paris.<|im_end|>"
    tokens = [token.token for token in mlx_lm.stream_generate(model, tokenizer, prompt, max_tokens=12)]
    assert tokens == completion
