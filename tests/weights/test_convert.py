"""`slm-convert`: in from TensorFlow and Hugging Face, out again, and nothing written where something is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from safetensors.torch import load_file, save_file
from test_gpt2_tf import gpt2_logits
from test_hugging_face_parity import CASES, LLAMA, their_model

import slm
from slm.errors import UserError

transformers = pytest.importorskip("transformers", reason="the extra slm[hf] is not installed")
TEXT = "The cat sat on the mat, and saw that the dog\nwas old. Zoë!"


@pytest.fixture(scope="module")
def tokenizer_folder(gpt2_tf_folder: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GPT-2's kind of tokenizer with a small vocabulary, as `transformers` saves it."""
    folder = tmp_path_factory.mktemp("tokenizer")
    for theirs, ours in (("encoder.json", "vocab.json"), ("vocab.bpe", "merges.txt")):
        shutil.copy(gpt2_tf_folder[0] / theirs, folder / ours)
    tokenizer = transformers.GPT2Tokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    tokenizer.save_pretrained(folder / "saved")
    return folder / "saved"


@pytest.fixture
def save(tokenizer_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """``save(settings)`` makes a model with `transformers` and saves it, with its tokenizer, into a new folder."""

    def make(settings: dict[str, Any], name: str = "theirs", **how: Any) -> Path:
        folder = tmp_path / name
        their_model({"vocab_size": 263, **settings}).to(how.pop("dtype", torch.float32)).save_pretrained(folder, **how)
        for file in tokenizer_folder.iterdir():
            shutil.copy(file, folder)
        return folder

    return make


def converted(run_cli: Any, source: Path, out: str, *settings: str) -> dict[str, Any]:
    outcome = run_cli("convert", f"source={source}", f"out={out}", *settings)
    assert outcome.status == 0, outcome.err
    said: dict[str, Any] = json.loads(outcome.out)
    return said


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def assert_same_tensors(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype
        assert torch.equal(tensor, other[name]), name


# ---- TensorFlow ----


def test_openais_checkpoint_is_its_definition(
    run_cli: Any, gpt2_tf_folder: tuple[Path, dict[str, Any]], gpt2_hparams: dict[str, int], tmp_path: Path
) -> None:
    """Bundle and released files alike, against numpy in double precision; and transformers reads what goes out."""
    folder, variables = gpt2_tf_folder
    said = converted(run_cli, folder, "ours", "format=gpt2_tf", "to=slm")
    assert said["parameters"] == sum(values.size for values in variables.values())
    ids = np.random.default_rng(1).integers(0, gpt2_hparams["n_vocab"], (2, gpt2_hparams["n_ctx"]))
    expected = torch.tensor(gpt2_logits(variables, gpt2_hparams["n_head"], ids))
    for source in (tmp_path / "ours", folder):
        lm = slm.load(source, device="cpu")
        assert (lm.model(torch.tensor(ids)).double() - expected).abs().max() < 1e-4
        assert lm.model.head_weight is lm.model.token_embedding.weight
        assert lm.tokenizer.decode(lm.tokenizer.encode(TEXT)) == TEXT
    converted(run_cli, tmp_path / "ours", "theirs", "to=hf")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "theirs")
    assert (theirs(torch.tensor(ids)).logits.double() - expected).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model/h1/mlp/c_fc/w": None}, "'model/h1/mlp/c_fc/w' is missing"),
        ({"model/extra": np.zeros(3, np.float32)}, "'model/extra' is not the model's"),
        ({"model/wpe": np.zeros((5, 16), np.float32)}, "'model/wpe' has shape (5, 16), expected (12, 16)"),
    ],
)
def test_every_variable_is_accounted_for(
    run_cli: Any, gpt2_tf_folder: tuple[Path, dict[str, Any]], save_tf_checkpoint: Any, tmp_path: Path,
    change: dict[str, Any], message: str,
) -> None:  # fmt: skip
    folder, variables = gpt2_tf_folder
    for name in ("hparams.json", "encoder.json", "vocab.bpe"):
        (tmp_path / "wrong").mkdir(exist_ok=True)
        shutil.copy(folder / name, tmp_path / "wrong")
    save_tf_checkpoint(tmp_path / "wrong", {k: v for k, v in {**variables, **change}.items() if v is not None})
    outcome = run_cli("convert", f"source={tmp_path / 'wrong'}", "out=ours")
    assert (outcome.status, outcome.out) == (2, "")
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert not (tmp_path / "ours").exists()


def test_a_pickled_dump_is_refused(run_cli: Any, tmp_path: Path) -> None:
    (tmp_path / "dump").mkdir()
    (tmp_path / "dump" / "params.pkl").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    outcome = run_cli("convert", "source=dump", "out=ours")
    assert outcome.status == 2
    assert "slm-convert source=gpt2-124m format=gpt2_tf to=slm out=" in outcome.err
    assert {file.name for file in tmp_path.iterdir()} == {"dump"}


# ---- Hugging Face ----


@pytest.mark.parametrize("case", CASES)
def test_there_and_back_to_the_last_bit(run_cli: Any, save: Callable[..., Path], tmp_path: Path, case: str) -> None:
    """hf -> slm -> hf: tensors, logits, tokenizer and special tokens are what they were."""
    source = save(CASES[case])
    converted(run_cli, source, "ours")
    converted(run_cli, tmp_path / "ours", "back", "to=hf")
    assert_same_tensors(tensors_of(tmp_path / "back"), tensors_of(source))
    before, after = (transformers.AutoModelForCausalLM.from_pretrained(f) for f in (source, tmp_path / "back"))
    ids = torch.arange(1, 40)[None]
    assert torch.equal(before(ids).logits, after(ids).logits)
    assert (slm.load(tmp_path / "ours", device="cpu").model(ids) - before(ids).logits).abs().max() < 1e-4
    old, new = (transformers.AutoTokenizer.from_pretrained(f) for f in (source, tmp_path / "back"))
    assert (old(TEXT).input_ids, old.eos_token, old.chat_template) == (
        new(TEXT).input_ids,
        new.eos_token,
        new.chat_template,
    )
    assert new.decode(new(TEXT).input_ids) == TEXT
    # a text ends where the vocabulary says and where the model's files do
    assert after.generation_config.eos_token_id == [new.eos_token_id, before.generation_config.eos_token_id]


@pytest.mark.parametrize(
    ("theirs", "ours", "told"),
    [
        (
            {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "no_repeat_ngram_size": 7},
            {"temperature": 0.6, "top_p": 0.9, "top_k": 50, "no_repeat_ngram": 7},
            "temperature=0.6, top_k=50, top_p=0.9, no_repeat_ngram=7",
        ),
        ({"do_sample": False}, {"greedy": True}, "greedy=true"),
        ({"temperature": -1.0}, {"temperature": 0.8, "top_k": 50}, "left aside: temperature should be greater than 0"),
        ({}, {"temperature": 0.8, "top_k": 50, "top_p": 1.0}, ""),
    ],
    ids=str,
)
def test_its_makers_sampling_is_the_model_s(
    run_cli: Any, save: Callable[..., Path], tmp_path: Path, theirs: dict[str, Any], ours: dict[str, Any], told: str
) -> None:
    """Nothing read it, and Python's default was another than the command's: one default, the model's own first."""
    source = save(LLAMA)
    (source / "generation_config.json").write_text(json.dumps({"eos_token_id": 2, **theirs}))
    converted(run_cli, source, "ours")
    converted(run_cli, tmp_path / "ours", "back", "to=hf")
    for folder in (source, tmp_path / "ours", tmp_path / "back"):
        lm = slm.load(folder, device="cpu")
        command = ("generate", f"model_dir={folder}", "prompt=a", "generation.seed=3", "generation.max_new_tokens=8")
        outcome = run_cli(*command)
        settings = lm.settled(None, {})
        assert {name: getattr(settings, name) for name in ours} == ours
        assert outcome.out == lm.generate("a", seed=3, max_new_tokens=8)
        assert told in outcome.err and (told or not outcome.err)  # noqa: PT018
        if told.startswith("left"):
            break  # and is not carried on
        asked = run_cli(*command, "generation.temperature=9.5", "generation.top_k=0")
        assert asked.out == lm.generate("a", seed=3, max_new_tokens=8, temperature=9.5, top_k=0) != outcome.out
    again = transformers.GenerationConfig.from_pretrained(tmp_path / "back")
    kept = {name: getattr(again, name) for name in theirs if name != "temperature" or "do_sample" in theirs}
    assert kept == {name: value for name, value in theirs.items() if name in kept}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_and_shards_keep_their_bits(run_cli: Any, save: Callable[..., Path], tmp_path: Path, dtype: Any) -> None:
    source = save(LLAMA, dtype=dtype, max_shard_size="20KB")
    assert len(list(source.glob("*.safetensors"))) > 2
    said = converted(run_cli, source, "ours")
    assert said["dtype"] == str(dtype).removeprefix("torch.")
    converted(run_cli, tmp_path / "ours", "back", "to=hf")
    assert_same_tensors(tensors_of(tmp_path / "back"), tensors_of(source))
    converted(run_cli, source, "wide", "to=hf", "dtype=float32")
    assert {tensor.dtype for tensor in tensors_of(tmp_path / "wide").values()} == {torch.float32}


def chat_model(folder: Path) -> dict[str, Any]:
    """Make of a saved model one like SmolLM2-Instruct; the ids that its files tell, by file."""
    names = {"eos_token": "<|im_end|>", "bos_token": "<|im_start|>", "pad_token": "<|im_end|>"}
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    begin, end = (backend.token_to_id(token) for token in ("<|im_start|>", "<|im_end|>"))
    backend.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text("{{ messages }}<|im_end|>")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    ids = {"bos_token_id": begin, "eos_token_id": end, "pad_token_id": end}
    said = {"config.json": ids, "generation_config.json": {**ids, "eos_token_id": [end, 0, 5]}}
    for name, values in said.items():
        found = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**found, **values}))
    return said


def test_a_chat_model_leaves_with_the_ids_and_the_dtype_it_came_with(
    run_cli: Any, save: Callable[..., Path], tmp_path: Path, tiny: tuple[str, ...]
) -> None:
    """Directly, by way of a bundle, and after tuning; its documents end with the end of a text, or with what is named.

    An export once made bos_token_id of eos_token_id, lost pad_token_id, and tuned bf16 weights left as fp32.
    """
    source = save({**LLAMA, "vocab_size": 265}, dtype=torch.bfloat16)
    said = chat_model(source)
    converted(run_cli, source, "direct", "to=hf")
    converted(run_cli, source, "ours")
    own = [s for s in tiny if not s.startswith(("model.", "tokenizer"))]
    outcome = run_cli("train", *own, f"model.weights={source}", "run_dir=tuned", "data.seq_len=16")
    assert outcome.status == 0, outcome.err
    assert run_cli("train", "resume=tuned", "trainer.max_steps=7", "scheduler.on_extend=hold").status == 0
    for name in ("ours", "tuned"):
        converted(run_cli, tmp_path / name, f"{name} back", "to=hf")
    for name in ("direct", "ours back", "tuned back"):
        for file, ids in said.items():
            found = json.loads((tmp_path / name / file).read_text())
            assert {key: found[key] for key in ids} == ids, (name, file)
        assert {tensor.dtype for tensor in tensors_of(tmp_path / name).values()} == {torch.bfloat16}
        names = json.loads((tmp_path / name / "tokenizer_config.json").read_text())
        assert (names["eos_token"], names["bos_token"], names["pad_token"]) == (
            "<|im_end|>",
            "<|im_start|>",
            "<|im_end|>",
        )
    assert converted(run_cli, tmp_path / "tuned", "wide", "to=hf", "dtype=float32")["dtype"] == "float32"


@pytest.mark.parametrize(("setting", "end"), [([], "<|endoftext|>"), (['eos_token="<|im_end|>"'], "<|im_end|>")])
def test_documents_of_a_chat_model_end_as_texts_do(
    run_cli: Any, save: Callable[..., Path], tmp_path: Path, setting: list[str], end: str
) -> None:
    """In evaluation: the loss of each document is that of its text and of that end, by transformers' logits."""
    source = save({**LLAMA, "vocab_size": 265})
    chat_model(source)
    texts = ["the cat sat", "on the old mat"]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    asked = ["data=jsonl", "data.path=texts.jsonl", "data.val_fraction=0.5", "split=train", "data.seq_len=64"]
    outcome = run_cli("evaluate", f"model_dir={source}", *asked, *setting)
    assert outcome.status == 0, outcome.err
    figures = json.loads(outcome.out)
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    model = transformers.AutoModelForCausalLM.from_pretrained(source).eval()
    losses = []
    for text in texts:
        ids = torch.tensor([[*tokenizer(text).input_ids, tokenizer.convert_tokens_to_ids(end)]])
        losses.append(model(ids, labels=ids).loss.item())
    assert min(abs(figures["loss"] - loss) for loss in losses) < 1e-4


def test_a_model_without_a_tokenizer_reads_ids(
    run_cli: Any, save: Callable[..., Path], tmp_path: Path, tiny: tuple[str, ...]
) -> None:
    """It could not be loaded at all. What needs text says what is missing; training may bring a tokenizer."""
    source = save(LLAMA)
    for file in [*source.glob("tokenizer*"), *source.glob("vocab*"), *source.glob("special*"), *source.glob("*.jinja")]:
        file.unlink()
    ids = torch.arange(1, 40)[None]
    expected = transformers.AutoModelForCausalLM.from_pretrained(source)(ids).logits
    lm = slm.load(source, device="cpu")
    assert (lm.model(ids) - expected).abs().max() < 1e-4
    with pytest.raises(UserError, match=r"a model without a tokenizer.*tokenizer\.json"):
        lm.generate("the cat")
    outcome = run_cli("generate", f"model_dir={source}", "prompt=a")
    assert (outcome.status, outcome.out, len(outcome.err.splitlines())) == (2, "", 1)
    own = [s for s in tiny if not s.startswith("model.")]
    outcome = run_cli("train", *own, f"model.weights={source}", "run_dir=tuned", "data.seq_len=16")
    assert outcome.status == 0, outcome.err
    assert run_cli("train", "resume=tuned", "trainer.max_steps=7", "scheduler.on_extend=hold").status == 0
    assert slm.load(tmp_path / "tuned", device="cpu").generate("the", max_new_tokens=2, greedy=True) is not None


def test_a_run_goes_out_and_comes_back(run_cli: Any, tiny_run: Path, tmp_path: Path) -> None:
    """slm -> hf -> slm: the default model's modules are ones that transformers has; the card says what trained it."""
    converted(run_cli, tiny_run, "theirs", "to=hf")
    converted(run_cli, tmp_path / "theirs", "back")
    before, after = slm.load(tiny_run, device="cpu"), slm.load(tmp_path / "back", device="cpu")
    for name, tensor in before.model.state_dict().items():
        real = before.model.config.vocab_size if name == "token_embedding.weight" else len(tensor)
        assert torch.equal(after.model.state_dict()[name], tensor[:real]), name
    for lm in (after, slm.load(tmp_path / "theirs", device="cpu")):
        assert lm.generate("the cat", greedy=True, max_new_tokens=8) == before.generate(
            "the cat", greedy=True, max_new_tokens=8
        )
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "theirs")
    ids = torch.tensor([before.tokenizer.encode("the cat sat")])
    torch.testing.assert_close(theirs(ids).logits, before.model(ids), rtol=1e-4, atol=1e-4)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")
    assert tokenizer("the cat sat").input_ids == ids[0].tolist()
    card = (tmp_path / "theirs/README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n")
    assert "library_name: transformers\n" in card
    assert all(f"| {key} | {value} |" in card for key, value in before.facts.items() if not isinstance(value, dict))


@pytest.mark.parametrize("kind", ["model_dir", "run"])
def test_generation_from_any_source(run_cli: Any, save: Callable[..., Path], tiny_run: Path, kind: str) -> None:
    source = {"model_dir": lambda: save(LLAMA), "run": lambda: tiny_run}[kind]()
    outcome = run_cli("generate", f"{kind}={source}", "prompt=the", "generation.max_new_tokens=5", "generation=greedy")
    assert outcome.status == 0, outcome.err
    assert outcome.out == slm.load(source, device="cpu").generate("the", max_new_tokens=5, greedy=True)


# ---- what is refused ----


def without(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        del weights[name]
        save_file(weights, folder / "model.safetensors")

    return change


def with_tensor(name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        save_file({**weights, name: torch.zeros(shape, dtype=dtype)}, folder / "model.safetensors")

    return change


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def with_setting(**settings: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))

    return change


def only_pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "consolidated.00.pth")


def no_tokenizer(folder: Path) -> None:
    for file in folder.glob("*token*"):
        file.unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("model.norm.weight"), "'model.norm.weight' is missing"),
        (with_tensor("model.layers.0.surplus", 3), "'model.layers.0.surplus' is not the model's"),
        (with_tensor("model.norm.weight", 7), "'model.norm.weight' has shape (7,), expected (48,)"),
        (cut, "model.safetensors is damaged"),
        (with_setting(model_type="bert"), "model_type 'bert' is not one that slm can read (known: gpt2, gpt_neox"),
        (with_setting(model_type="gpt2"), "does not fit its configuration"),
        (with_setting(hidden_act="xielu"), "slm has no model for hidden_act='xielu'"),
        (with_setting(rope_parameters={"rope_type": "longrope", "rope_theta": 1e4}), "_parameters.long_factor=None"),
        (with_setting(rope_parameters={"rope_type": "proportional", "rope_theta": 1e4}), "rope_type='proportional'"),
        (with_setting(quantization_config={"quant_method": "gptq"}), "quantized weights cannot be read"),
        (with_setting(num_key_value_heads=5), "must be a multiple of n_kv_heads (5)"),
        (only_pickled, "only as consolidated.00.pth, a pickle"),
        (no_tokenizer, "tokenizer"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is damaged"),
        (lambda folder: (folder / "config.json").write_text("[" * 100_000), "config.json is damaged"),
        (lambda folder: (folder / "tokenizer_config.json").write_text("[]"), "it holds no JSON object"),
        (with_tensor("embed_tokens.weight", 3), "holds 'model.embed_tokens.weight' twice, as "),
        (with_tensor("model.norm.weight", 48, dtype=torch.int8), "'model.norm.weight' is torch.int8, no weight"),
        (with_setting(model_type=["llama"]), "is not one that slm can read"),
        (with_setting(num_attention_heads=0), "num_attention_heads=0 (a whole number above 0 is expected)"),
        (with_setting(hidden_size="48"), "hidden_size='48' (a whole number above 0 is expected)"),
        (with_setting(hidden_act={}), "hidden_act={} (known: gelu_new"),
        (with_setting(attention_bias=1), "attention_bias=1 (allowed are true and false)"),
        (with_setting(rope_scaling=[2.0]), "rope_scaling=[2.0] (an object is expected)"),
        (with_setting(rope_scaling={"rope_type": "linear"}), "rope_scaling.factor (missing)"),
        (with_setting(rope_parameters={"rope_theta": "1e4"}), "rope_parameters.rope_theta='1e4' (a number above 0"),
        (with_setting(partial_rotary_factor=0.5), "partial_rotary_factor=0.5 (only 1.0 can be followed)"),
        (with_setting(num_hidden_layers=10**9), "no model is so large: modules.transformer.n_layers"),
        (with_setting(num_hidden_layers=1025), "no model is so large: modules.transformer.n_layers"),
        (with_setting(intermediate_size=10**15), "no model is so large: modules.transformer.mlp_dim"),
        (with_setting(intermediate_size=10**30), "modules.transformer.mlp_dim should be less than or equal to"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_and_nothing_written(
    run_cli: Any, save: Callable[..., Path], tmp_path: Path, change: Callable[[Path], Any], message: str
) -> None:
    change(save(LLAMA))
    outcome = run_cli("convert", "source=theirs", "out=ours")
    assert (outcome.status, outcome.out) == (2, "")
    assert message in outcome.err, outcome.err
    assert len(outcome.err.splitlines()) == 1, outcome.err
    assert {file.name for file in tmp_path.iterdir()} == {"theirs"}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", "3", "config.json is damaged (it holds no JSON object)"),
        ("config.json", "{}", "is not a bundle's: it has no 'facts'"),
        ("slm_tokenizer.json", "[]", "slm_tokenizer.json is damaged"),
        ("slm_tokenizer.json", '{"kind": ["byte"]}', "is not a saved tokenizer"),
        ("slm_tokenizer.json", '{"kind": "bpe", "tokenizer": {}}', "is not a saved tokenizer"),
    ],
)  # fmt: skip
def test_a_damaged_bundle_is_named(
    run_cli: Any, tiny_run: Path, tmp_path: Path, file: str, content: str, message: str
) -> None:
    """What a tokenizer's kind raised of its damaged state came out as a traceback."""
    shutil.copytree(tiny_run / "model", tmp_path / "bundle")
    (tmp_path / "bundle" / file).write_text(content)
    outcome = run_cli("convert", "source=bundle", "out=ours")
    assert (outcome.status, outcome.out) == (2, "")
    assert message in outcome.err, outcome.err
    assert len(outcome.err.splitlines()) == 1, outcome.err


@pytest.mark.parametrize("to", ["slm", "hf"])
def test_others_may_read_what_is_written(run_cli: Any, tiny_run: Path, tmp_path: Path, to: str) -> None:
    """safetensors makes its files their owner's alone, so that a server under another account could not load them."""
    converted(run_cli, tiny_run, "out", f"to={to}")
    modes = {file.stat().st_mode for file in (tmp_path / "out").iterdir()}
    assert len(modes) == 1, modes


def test_no_room_and_no_place_are_said_in_a_line(run_cli: Any, tiny_run: Path, tmp_path: Path) -> None:
    """What the system answers to a write came out as a traceback."""
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    for out, message in (("file/x", "cannot write 'file/x'"), ("dangling", "exists already"), ("x" * 300, "too long")):
        outcome = run_cli("convert", f"source={tiny_run}", f"out={out}")
        assert (outcome.status, outcome.out) == (2, ""), out
        assert message in outcome.err, outcome.err
    assert {file.name for file in tmp_path.iterdir()} == {"file", "dangling"}
    assert "cannot be read (File name too long)" in run_cli("convert", f"source={'x' * 300}", "out=x").err


def test_a_number_too_large_for_fp16_is_no_infinity(run_cli: Any, save: Callable[..., Path], tmp_path: Path) -> None:
    """``dtype=float16`` made weights above 65504 infinite without a word."""
    folder = save(LLAMA)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] = 1e5
    save_file(weights, folder / "model.safetensors")
    outcome = run_cli("convert", "source=theirs", "out=half", "dtype=float16")
    assert outcome.status == 2
    assert "nothing above 65504, and 'transformer.final_norm.weight' does" in outcome.err
    converted(run_cli, folder, "bf16", "dtype=bfloat16")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("source=RUN",), "out is missing; set it: out=…"),
        (("source=RUN", "out=x", "to=onnx"), "to should be 'slm', 'hf', 'gguf', 'peft' or 'revisions'; got 'onnx'"),
        (("source=RUN", "out=x", "format=hf"), "is of the format slm, not hf"),
        (("source=RUN", "out=x", "dtype=int8"), "dtype should be 'float32', 'bfloat16' or 'float16'"),
        (("source=missing/x/y", "out=x"), "there is no folder 'missing/x/y'"),
        (("source=RUN", "out=."), "out: '.' exists already"),
        (("source=RUN", "out=x", "form=hf"), "did you mean 'format'?"),
        (("source=OWN", "out=x", "to=gguf"), "no family of models has this shape; the nearest"),
    ],
)
def test_mistakes(
    run_cli: Any, tiny: tuple[str, ...], tiny_run: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    if "source=OWN" in arguments:
        own = ("model.modules.output_projection.softcap=30", "run_dir=own", "trainer.max_steps=3")
        assert run_cli("train", *tiny, *own).status == 0
    outcome = run_cli("convert", *(a.replace("RUN", str(tiny_run)).replace("OWN", "own") for a in arguments))
    assert (outcome.status, outcome.out) == (2, "")
    assert message in outcome.err, outcome.err
    assert not (tmp_path / "x").exists()
