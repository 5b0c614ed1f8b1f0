"""Folders of other tools that hold no model that can be read, told from each other by the names of their files."""

from pathlib import Path

from slm.errors import UserError, first_few

_TAKE_HF = "take its Hugging Face files"
# what must lie in the folder, a pattern each: what it is, and what to do
_TOOLS = (
    (("model_*.pt", "meta_*.json"), "a checkpoint of nanochat", (
        "slm has no model for it (norms without weights, also over queries and keys once they are turned, and value "
        "embeddings with gates of their own); take an export to Hugging Face's form of one that has these"
    )),
    (("params.json", "consolidated*"), "a model as its makers' own code reads it", _TAKE_HF),
    ((".metadata", "*.distcp"), "a sharded checkpoint of torch", (
        "put it together first: python -m torch.distributed.checkpoint.format_utils dcp_to_torch DIR FILE"
    )),
    (("zero_to_fp32.py",), "a checkpoint of DeepSpeed", "put it together first: python zero_to_fp32.py . OUT"),
    (("lit_model.pth.lora",), "an adapter of litgpt", "merge it first: litgpt merge_lora DIR"),
    (("model_index.json",), "a pipeline of diffusers", "slm has text models alone"),
    (("modules.json", "config_sentence_transformers.json"), "a model of sentence-transformers", "it writes no text"),
    (("*.onnx",), "a model for ONNX", _TAKE_HF),
    (("*.mlpackage",), "a model for Core ML", _TAKE_HF),
    (("*.ckpt",), "a checkpoint of Lightning that another project wrote", "export its weights as safetensors"),
    (("dataset_info.json",), "a data set", "it goes to data=datasets data.path=…"),
    (("dataset_dict.json",), "a data set", "it goes to data=datasets data.path=…"),
)  # fmt: skip
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")


def refuse_other_tools(folder: Path) -> None:
    """Raise `UserError` if `folder` is one of another tool, or holds models and is none."""
    for patterns, what, mend in _TOOLS:
        if all(any(folder.glob(pattern)) for pattern in patterns):
            raise UserError(f"'{folder}' is {what}; {mend}")
    if below := _models_below(folder):
        raise UserError(f"'{folder}' holds no model itself, but its folders do; give one: {first_few(below)}")
    if any((folder / name).is_file() for name in _TOKENIZERS):
        raise UserError(
            f"'{folder}' holds a tokenizer and no model: config.json and weights are missing; fetch them too"
        )


def _models_below(folder: Path) -> list[str]:
    """Checkpoints of a trainer, or the snapshots of the hub's cache."""
    names = ("config.json", "adapter_config.json", "lit_model.pth")
    files = [file for depth in ("*/", "snapshots/*/") for name in names for file in folder.glob(f"{depth}{name}")]
    return sorted({str(file.parent) for file in files})
