"""One table of supported architectures: where the layers, the MLP, its down projection and the heads are."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class Architecture:
    """Where the parts of a decoder are: dotted paths, from the backbone to ``layers`` and ``final_norm``, else a layer.

    A neuron is one input of ``down``. In a gated MLP it is ``activation(gate(x)) * up(x)``, otherwise
    ``activation(up(x))``; the output of ``activation`` is what ``site="gate"`` reads.
    """

    model_types: tuple[str, ...]
    layers: str
    up: str
    gate: str | None
    activation: str
    down: str
    attention_output: str
    final_norm: str = "norm"

    def final_norm_of(self, model: PreTrainedModel) -> nn.Module:
        """Return the norm between the last layer and the head."""
        return model.base_model.get_submodule(self.final_norm)

    def layers_of(self, model: PreTrainedModel) -> list[nn.Module]:
        """Return the decoder layers of a model with or without a reward head."""
        return list(model.base_model.get_submodule(self.layers))

    def parts_of(self, model: PreTrainedModel, part: str) -> list[nn.Module]:
        """Return one module per layer; ``part`` is a field of this class such as ``"down"``."""
        return [layer.get_submodule(getattr(self, part)) for layer in self.layers_of(model)]


_LLAMA = Architecture(
    model_types=("llama", "mistral", "qwen2", "qwen3"),
    layers="layers",
    up="mlp.up_proj",
    gate="mlp.gate_proj",
    activation="mlp.act_fn",
    down="mlp.down_proj",
    attention_output="self_attn.o_proj",
)

_OLMO2 = Architecture(**{**vars(_LLAMA), "model_types": ("olmo2",)})  # norms after attention and MLP

_GEMMA3 = Architecture(**{**vars(_LLAMA), "model_types": ("gemma3_text",)})  # norms before and after, scaled embeddings

_GPT2 = Architecture(
    model_types=("gpt2",),
    layers="h",
    up="mlp.c_fc",
    gate=None,
    activation="mlp.act",
    down="mlp.c_proj",
    attention_output="attn.c_proj",
    final_norm="ln_f",
)

_GPT_NEOX = Architecture(
    model_types=("gpt_neox",),
    layers="layers",
    up="mlp.dense_h_to_4h",
    gate=None,
    activation="mlp.act",
    down="mlp.dense_4h_to_h",
    attention_output="attention.dense",
    final_norm="final_layer_norm",
)

ARCHITECTURES = {name: row for row in (_GPT2, _LLAMA, _OLMO2, _GEMMA3, _GPT_NEOX) for name in row.model_types}


class RewardHead(nn.Linear):
    """A one-label head that computes in float32 whatever the dtype of the backbone."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Return rewards (..., 1) in float32 of hidden states (..., H)."""
        with torch.autocast(hidden_states.device.type, enabled=False):
            return nn.functional.linear(hidden_states.float(), self.weight.float())


def architecture_of(model: PreTrainedModel) -> Architecture:
    """Return the row of `ARCHITECTURES` for a model.

    Raises:
        ValueError: if the model type is not in the table, or its attention looks ahead.
    """
    return architecture_of_config(model.config, type(model).__name__)


def architecture_of_config(config: PretrainedConfig, name: str) -> Architecture:
    """Return the row of `ARCHITECTURES` for a configuration; ``name`` is what the error names."""
    model_type = getattr(config, "model_type", None)
    if model_type not in ARCHITECTURES:
        raise ValueError(
            f"{name}: model type {model_type!r} is not supported; expected one of {sorted(ARCHITECTURES)}. "
            "Choose such a model, or add a row to ARCHITECTURES: see 'An architecture' in CONTRIBUTING.md"
        )
    if getattr(config, "use_bidirectional_attention", None):
        raise ValueError(
            f"{name}: expected causal attention, got use_bidirectional_attention={config.use_bidirectional_attention!r}"
            " in its configuration; choose a decoder, whose prompts can be shared between responses"
        )
    return ARCHITECTURES[model_type]


def restore_embedding_scale(model: PreTrainedModel) -> None:
    """Set the factor that Gemma puts on its embeddings to what its configuration says, in float32.

    Loading a checkpoint in bfloat16 rounds it (25.30 to 25.25 at a width of 640), and it stays rounded in a model that
    goes on in float32, so that the same weights would give other rewards once they are saved and loaded in float32.
    The module rounds it to the dtype of its weights anew in every forward pass.
    """
    embeddings = model.get_input_embeddings()
    if hasattr(embeddings, "scalar_embed_scale"):
        embeddings.embed_scale = torch.tensor(
            embeddings.scalar_embed_scale, dtype=torch.float32, device=embeddings.weight.device
        )


def mean_embedding(model: PreTrainedModel) -> torch.Tensor:
    """Return the mean over the vocabulary (H,), float32, of what the embeddings give the first layer."""
    embeddings = model.get_input_embeddings()
    return embeddings.weight.detach().float().mean(0) * getattr(embeddings, "scalar_embed_scale", 1.0)


def neuron_shape(model: PreTrainedModel) -> tuple[int, int]:
    """Return (L, N): layers, and neurons per layer."""
    return _input_shape(model, "down")


def _input_shape(model: PreTrainedModel, part: str) -> tuple[int, int]:
    widths = [projection_weight(projection).shape[1] for projection in architecture_of(model).parts_of(model, part)]
    if len(set(widths)) != 1:
        raise ValueError(f"expected layers of one width, got {widths}; use the model before neurons were cut out")
    return len(widths), widths[0]


def head_shape(model: PreTrainedModel) -> tuple[int, int, int]:
    """Return (layers, attention heads per layer, width of a head)."""
    n_layers, n_channels = _input_shape(model, "attention_output")
    n_heads = model.config.num_attention_heads
    return n_layers, n_heads, n_channels // n_heads


def projection_weight(projection: nn.Module) -> torch.Tensor:
    """Return a projection's weight as a view (outputs, inputs), also for GPT-2's transposed ``Conv1D``."""
    return projection.weight if isinstance(projection, nn.Linear) else projection.weight.T


def reward_head(model: PreTrainedModel) -> nn.Linear:
    """Return the one-label head.

    Raises:
        ValueError: if the model has none.
    """
    head = getattr(model, "score", None)
    if not isinstance(head, nn.Linear) or head.out_features != 1:
        raise ValueError(
            f"expected a reward model with a one-label head `score`, got {type(model).__name__}; "
            "load it with load_reward_model, or make one from a base model with new_reward_model"
        )
    return head
