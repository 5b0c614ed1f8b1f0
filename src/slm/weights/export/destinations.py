"""What a model can leave as, told before it is trained."""

from slm.errors import UserError
from slm.models.config import ModelConfig
from slm.tokenizers.base import Tokenizer
from slm.weights.custom_code import unknown_parts
from slm.weights.export.llama_cpp import architecture_of
from slm.weights.export.vocabulary import cut_of
from slm.weights.hugging_face import cannot_say, nearest_family


def destinations(config: ModelConfig, tokenizer: Tokenizer, adapter: bool = False) -> str:
    """A line: the forms that slm-convert can give the model, and why not the others; `adapter` says that what is
    trained lies beside weights that stay."""
    if unknown := unknown_parts(config):
        return f"leaves as: slm alone, which has parts of your own: {', '.join(unknown)}"
    family, lost = nearest_family(config)
    said = f"hf ({family.model_type})"
    if lost:
        said = f"hf with its own modelling file (the nearest family, {family.model_type}, {cannot_say(lost)})"
    if adapter:
        said += ", peft"
    try:
        architecture_of(config)
        cut_of(tokenizer)
    except UserError as error:
        return f"leaves as: {said}; no gguf{'' if lost else f': {error}'}"
    return f"leaves as: {said}, gguf"
