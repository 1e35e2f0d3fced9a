"""What a model is called and how large it is."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from stillhouse.params.base import Frozen

__all__ = ["ComputeSpec", "GruSpec", "ModelSpec", "TrainingSpec", "TransformerSpec"]


class ComputeSpec(Frozen):
    """What the arithmetic runs on."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto``: a GPU where there is one."""
    precision: Literal["32-true", "64-true", "bf16-mixed", "bf16-true", "16-mixed", "16-true"] = "32-true"
    """Lightning Fabric's name."""
    threads: int = pydantic.Field(2, ge=1, le=256)
    """Threads for training and scoring, set on purpose so that results repeat."""


class _Sized(Frozen):
    """What every architecture has."""

    width: int = pydantic.Field(ge=4, le=4096)
    blocks: int = pydantic.Field(ge=1, le=64)
    """Layers, one on another."""
    length: int = pydantic.Field(ge=2, le=4096)
    """Longest history that the model looks at, in events."""
    dropout: float = pydantic.Field(ge=0.0, lt=1.0)


class TransformerSpec(_Sized):
    """A causal transformer (`stillhouse.models.transformer`)."""

    kind: Literal["transformer"]
    heads: int = pydantic.Field(ge=1, le=64)
    """Attention heads; they divide ``width``."""

    @pydantic.model_validator(mode="after")
    def _divides(self) -> TransformerSpec:
        if self.width % self.heads:
            raise ValueError(f"heads must divide width, got {self.heads} heads of width {self.width}")
        return self


class GruSpec(_Sized):
    """A gated recurrent network (`stillhouse.models.gru`)."""

    kind: Literal["gru"]


ModelSpec = Annotated[TransformerSpec | GruSpec, pydantic.Field(discriminator="kind")]
"""One architecture and its size, chosen by ``kind``."""


class TrainingSpec(Frozen):
    """How long and how fast a model is trained."""

    epochs: int = pydantic.Field(30, ge=1, le=10_000)
    """Most epochs of a cold start."""
    warm_epochs: int = pydantic.Field(8, ge=1, le=10_000)
    """Most epochs when last night's weights are the start."""
    batch_size: int = pydantic.Field(128, ge=1, le=65_536)
    """Sequences a step."""
    learning_rate: float = pydantic.Field(1e-3, gt=0.0, le=1.0)
    warmup_steps: int = pydantic.Field(50, ge=0)
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    """What the learning rate does after its rise: stays, or falls to 0 at the last planned step."""
    windows: Literal["last", "random", "all"] = "last"
    """Which training events of a longer history are a row: the last, a window drawn anew every epoch, or all."""
    weight_decay: float = pydantic.Field(0.0, ge=0.0, le=1.0)
    clip_norm: float = pydantic.Field(1.0, gt=0.0)
    """Longest gradient that a step follows; a longer one is shortened to it."""
    patience: int = pydantic.Field(5, ge=1)
    """Epochs without a better NDCG@10 on the validation split before training stops."""
    valid_users: int = pydantic.Field(2000, ge=1)
    """Most users that early stopping looks at (the same ones every epoch)."""
