"""Greedy completions in PyTorch: the same whatever the batch, cut at the stop token, in order."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from convert.torch_eval import generate, pick_device
from mlx_grpo.errors import UserError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

PROMPTS = [[7 * i + j for j in range(length)] for i, length in enumerate((3, 40, 1, 17, 8, 29, 2, 12))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A random Llama whose own generation_config samples and punishes repetition, and stops at ids 0 to 255."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        eos_token_id=list(range(256)),
    )
    model = transformers.LlamaForCausalLM(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.generation_config = transformers.GenerationConfig(
        do_sample=True, temperature=3.0, repetition_penalty=2.0, eos_token_id=list(range(256))
    )
    out = tmp_path_factory.mktemp("torch") / "model"
    model.save_pretrained(out)
    return out


@pytest.fixture(scope="module")
def greedy(folder) -> list[list[int]]:
    """20 tokens after each prompt by the definition: the arg max of a whole forward pass, without cache or batch."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    completions = []
    for prompt in PROMPTS:
        ids = list(prompt)
        for _ in range(20):
            with torch.no_grad():
                ids.append(model(torch.tensor([ids])).logits[0, -1].argmax().item())
        completions.append(ids[len(prompt) :])
    return completions


def complete(folder: Path, **options: object) -> list[list[int]]:
    settings = {"max_new_tokens": 20, "stop_ids": [], "device": "cpu"} | options
    return generate(folder, PROMPTS, **settings)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_completions_are_the_arg_max_whatever_the_batch(folder, greedy, batch_size):
    assert len({tuple(completion) for completion in greedy}) == len(PROMPTS)
    assert complete(folder, batch_size=batch_size) == greedy


def test_each_completion_ends_with_its_first_stop_token(folder, greedy):
    stop = greedy[0][4]
    wanted = [row[: row.index(stop) + 1] if stop in row else row for row in greedy]
    assert len(wanted[0]) <= 5 and max(map(len, wanted)) == 20
    assert complete(folder, stop_ids=[stop, 511]) == wanted


def test_a_batch_ends_when_all_its_rows_have(folder, greedy, monkeypatch):
    calls = []
    forward = transformers.LlamaForCausalLM.forward
    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", lambda *a, **k: calls.append(1) or forward(*a, **k))
    assert complete(folder, stop_ids=range(512)) == [row[:1] for row in greedy]
    assert len(calls) == 1


def test_batches_are_handed_on_in_order_as_they_finish(folder):
    batches = []
    whole = complete(folder, max_new_tokens=2, batch_size=3, on_batch=batches.append)
    assert [len(batch) for batch in batches] == [3, 3, 2]
    assert [ids for batch in batches for ids in batch] == whole


def test_nothing_is_printed_or_warned(folder, capfd, recwarn):
    complete(folder, max_new_tokens=2)
    assert capfd.readouterr() == ("", "")
    assert [str(warning.message) for warning in recwarn] == []


def test_no_prompts_need_no_torch(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert generate(folder, [], max_new_tokens=5, stop_ids=[]) == []


def test_without_torch_the_remedy_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r"needs torch: pip install 'mlx-grpo\[torch\]'.* or use --backend mlx"):
        complete(folder)


def test_auto_takes_the_accelerator_where_there_is_one():
    accelerators = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    assert pick_device("auto") == next((name for name, there in accelerators.items() if there), "cpu")
    assert pick_device("cpu") == "cpu"
    for name in (name for name, there in accelerators.items() if not there):
        with pytest.raises(UserError, match=f"'{name}' is not available .*available: .*cpu"):
            pick_device(name)
    with pytest.raises(UserError, match="'tpu' is not one of auto, cuda, mps, cpu"):
        pick_device("tpu")


def test_unusable_arguments_are_all_named_at_once(tmp_path):
    with pytest.raises(UserError) as caught:
        generate(tmp_path, [[1], []], max_new_tokens=0, stop_ids=[], dtype="int8")
    assert [problem.split(" ")[0] for problem in caught.value.problems[:3]] == ["prompt", "max_new_tokens", "dtype"]
    assert "no config.json" in caught.value.problems[3]


def test_openblas_gets_its_threads_back(folder):
    import ctypes

    from mlx_grpo.backend import openblas

    if openblas.BLAS is None or not hasattr(ctypes.CDLL(openblas.BLAS), "openblas_get_num_threads"):
        pytest.skip("no OpenBLAS is loaded on this machine")
    library = ctypes.CDLL(openblas.BLAS)
    before, during = library.openblas_get_num_threads(), []
    complete(folder, max_new_tokens=1, on_batch=lambda _: during.append(library.openblas_get_num_threads()))
    assert during == [1] and library.openblas_get_num_threads() == before > 1


def test_all_prompts_are_completed_together_in_a_cache_of_one_size(folder, monkeypatch):
    rows, sizes = [], []
    forward = transformers.LlamaForCausalLM.forward

    def recorded(*args, **options):
        output = forward(*args, **options)
        rows.append(len(options["input_ids"]))
        sizes.append(options["past_key_values"].layers[0].keys.shape[2])
        return output

    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", recorded)
    complete(folder, max_new_tokens=3)
    assert rows == [8, 8, 8]
    assert len(set(sizes)) == 1, "a cache that grows is copied for each position"
