"""A language model in two views of the same weights: as transformers made it, and as TransformerLens wraps it."""

from __future__ import annotations

import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from helpers.models.canary import compare_views, reference_pass
from helpers.models.fingerprint import identity

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


class ModelUnavailable(RuntimeError):
    """The model can't be had here, or not in the view that was asked for; the message says what to do."""


class LanguageModel:
    """What `load_model` returns: a causal language model and its tokenizer.

    Attention rows come from the model as transformers made it. Patching and everything else that looks inside goes through
    TransformerLens, which wraps the same weights when it is first asked for (``model.lens``), and is then compared with
    the model, so that there are no two truths (`helpers.models.canary`). What this class does not have itself it has
    from the wrapper: ``model.run_with_cache(...)``, ``model.blocks``, ``model.cfg``.

    Attributes:
        hf: a causal language model of transformers, in evaluation mode, without gradients.
        tokenizer: its tokenizer, as it was loaded.
        name: what it is called in records, tables and messages.

    >>> from helpers import load_model
    >>> model = load_model("demo")
    >>> model.n_layers, model.n_heads, model.dtype
    (6, 8, torch.float32)
    """

    def __init__(self, hf: Any, tokenizer: Any, name: str = "") -> None:
        self.hf, self.tokenizer = hf.eval().requires_grad_(False), tokenizer
        self.name = name or str(hf.config.name_or_path or hf.config.model_type)
        self.weight_names = set(hf.state_dict())
        self.starts: dict[tuple[bool, int, int], Any] = {}  # see `helpers.models.forward.StoredRun`
        self._identity: tuple[list[tuple[int, int]], str] | None = None
        self._as_made: Any = None

    def __repr__(self) -> str:
        return (
            f"LanguageModel({self.name!r}, {self.n_layers} layers x {self.n_heads} heads, {self.dtype}, {self.device})"
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in (
            "lens",
            "hf",
            "tokenizer",
        ):  # not made (yet), so not to be had from the wrapper
            raise AttributeError(name)
        return getattr(self.lens, name)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.lens(*args, **options)

    def requires_grad_(self, requires_grad: bool = True) -> LanguageModel:
        """As of a torch module: whether weights take gradients, in both views."""
        self.lens.requires_grad_(requires_grad)
        self.hf.requires_grad_(requires_grad)
        return self

    def to(self, *place: Any, **options: Any) -> LanguageModel:
        """As of a torch module: another device or dtype. The wrapper, and hooks on it, are made anew when asked for."""
        self.hf.to(*place, **options)
        vars(self).pop("lens", None)
        self.starts.clear()
        return self

    @property
    def config(self) -> Any:
        """transformers' configuration, of the text part where there are several."""
        return self.hf.config.get_text_config()

    @property
    def n_layers(self) -> int:
        return int(self.config.num_hidden_layers)

    @property
    def n_heads(self) -> int:
        return int(self.config.num_attention_heads)

    @property
    def n_ctx(self) -> int | None:
        """The longest prompt, in tokens; None if there is no limit."""
        for name in ("max_position_embeddings", "max_seq_len", "seq_length"):
            if isinstance(found := getattr(self.config, name, None), int):
                return found
        return None

    @property
    def n_tokens(self) -> int:
        """Rows of the embedding: ids from there on are no tokens of this model."""
        return int(self.hf.get_input_embeddings().weight.shape[0])

    @property
    def has_sinks(self) -> bool:
        """Whether heads can attend to a learned sink that is no token."""
        return any(getattr(module, "sinks", None) is not None for module in self.hf.modules())

    @property
    def d_head(self) -> int:
        """Length of a head's output z; it makes the wrapper."""
        return int(self.lens.cfg.d_head)

    @property
    def dtype(self) -> torch.dtype:
        found: torch.dtype = self.hf.dtype
        return found

    @property
    def device(self) -> torch.device:
        """Where token ids go."""
        found: torch.device = self.hf.get_input_embeddings().weight.device
        return torch.device("cpu") if found.type == "meta" else found

    @property
    def is_spread(self) -> bool:
        """Whether accelerate moves weights or activations between devices; the wrapper is then made of the model itself."""
        return any(hasattr(module, "_hf_hook") for module in self.hf.modules())

    @cached_property
    def lens(self) -> TransformerBridge:
        """TransformerLens's `TransformerBridge` on the same weights.

        Raises:
            ModelUnavailable: one sentence, if TransformerLens can't wrap this architecture, or wraps it wrongly.
        """
        from transformer_lens.model_bridge import TransformerBridge

        expected = reference_pass(self)
        if self.config is not self.hf.config:  # for these it would install packages, unasked
            raise ModelUnavailable(
                f"model {self.name!r}: TransformerLens is given models of text alone, and this is more"
            )
        inner = self.hf if self.is_spread else _sharing_weights(self.hf)
        try:
            lens = TransformerBridge.boot_transformers(
                self.name, hf_model=inner, tokenizer=_copied(self.tokenizer), dtype=self.dtype,
                device=None if self.is_spread else str(self.device),
            )  # fmt: skip
        except Exception as error:  # adapters refuse in many ways, a failed assertion among them
            raise ModelUnavailable(
                f"model {self.name!r}: TransformerLens cannot wrap this architecture ({self.hf.config.model_type!r}): "
                f"{first_sentence(error)}"
            ) from error
        lens.eval().requires_grad_(False)
        lens.cfg.model_name = self.name
        try:
            compare_views(self, lens, expected)
        except ValueError as error:
            raise ModelUnavailable(
                f"model {self.name!r}: TransformerLens's wrapper is not this model: {error}"
            ) from error
        self._as_made = _state(lens)
        return lens

    @property
    def is_as_made(self) -> bool:
        """Whether rows may come from ``hf``: nobody has put hooks on the wrapper, or changed weights in it alone."""
        if self.is_spread:
            return False
        return "lens" not in vars(self) or _state(self.lens) == self._as_made

    @property
    def identity(self) -> str:
        """Which weights, tokenizer and configuration these are (`helpers.models.fingerprint`); kept until weights change."""
        state = [(tensor.data_ptr(), tensor._version) for tensor in self.hf.parameters()]
        if self._identity is None or self._identity[0] != state:
            self._identity = state, identity(self)
        return self._identity[1]


def first_sentence(error: Exception) -> str:
    """What a library says first."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line.split(". ")[0].rstrip(".")


def _sharing_weights(hf: Any) -> Any:
    """Modules of their own with the same tensors: TransformerLens may take them apart."""
    shared = {id(tensor): tensor for tensor in [*hf.parameters(), *hf.buffers()]}
    copied = copy.deepcopy(hf, shared)
    copied.config.architectures = copied.config.architectures or [type(hf).__name__]
    return copied


def _copied(tokenizer: Any) -> Any:
    """A tokenizer for the wrapper, which sets tokens in it, and would read it anew, from the hub if need be, to add a BOS."""
    own = copy.deepcopy(tokenizer)
    own.init_kwargs |= {"name_or_path": tokenizer.name_or_path, "add_bos_token": True}
    return own


def _state(lens: nn.Module) -> tuple[int, list[tuple[int, int]]]:
    """What tells a wrapper that somebody has changed: how many hooks there are, and where its weights are."""
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in lens.modules())
    return hooks, [(tensor.data_ptr(), tensor._version) for tensor in lens.parameters()]
