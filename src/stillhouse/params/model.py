"""What a model is called and how large it is."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import pydantic

from stillhouse.params.base import Frozen

__all__ = [
    "NAME",
    "BidirectionalSpec",
    "ComputeSpec",
    "CrossFittedSpec",
    "EaseSpec",
    "EnsembleSpec",
    "FittedSpec",
    "GruSpec",
    "ItemKnnSpec",
    "MemberSpec",
    "ModelSpec",
    "PopularitySpec",
    "ProductSpec",
    "SequenceSpec",
    "TeacherSpec",
    "TrainingSpec",
    "TransformerSpec",
]


#: What a student or a member may be called: it becomes part of file names.
NAME = r"^[a-z0-9][a-z0-9_-]{0,63}$"


class ComputeSpec(Frozen):
    """What the arithmetic runs on."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto``: a GPU where there is one."""
    precision: Literal["32-true", "64-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Lightning Fabric's name. None whose weights are halves: of small steps towards a mean, or of a gradient's square,
    they would keep nothing. What only scores does so as weights are kept, in float32, or in mixed precision."""
    threads: int = pydantic.Field(1, ge=1, le=256)
    """Threads for training and scoring, set on purpose so that results repeat."""


class _Sized(Frozen):
    """What every architecture has."""

    width: int = pydantic.Field(ge=4, le=4096)
    """Numbers of an item's vector and of a state."""
    blocks: int = pydantic.Field(ge=1, le=64)
    """Layers, one on another."""
    length: int = pydantic.Field(ge=2, le=4096)
    """Longest history that the model looks at, in events."""
    dropout: float = pydantic.Field(ge=0.0, lt=1.0)
    """Share of numbers left out at random while training."""


class _Attentive(_Sized):
    """What every transformer has."""

    heads: int = pydantic.Field(ge=1, le=64)
    """Attention heads; they divide ``width``."""

    @pydantic.model_validator(mode="after")
    def _divides(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads must divide width, got {self.heads} heads of width {self.width}")
        return self


class ProductSpec(Frozen):
    """An item table of shared parts (`stillhouse.models.product_items`)."""

    splits: int = pydantic.Field(ge=1, le=256)
    """Parts of a row, which is a code each; they divide ``width``."""
    codes: int = pydantic.Field(256, ge=2, le=256)
    """Vectors that the items share for each part; a code is served in as many bits as tell them apart."""


class _Servable(_Sized):
    """What every architecture has that may be a student: how few bytes it can be served in."""

    weights: Literal["float32", "int8"] = "float32"
    """What its matrices are served in; with ``int8`` it learns with them rounded (`stillhouse.models.quantised`)."""
    items: ProductSpec | None = None
    """How items share the parts of their vectors; ``null``: each has a vector of its own."""
    queries: int = pydantic.Field(1, ge=1, le=16)
    """Vectors that ask the item table at each position; an item's score is the best of its products with them."""

    @pydantic.model_validator(mode="after")
    def _splits(self) -> Self:
        if self.items is not None and self.width % self.items.splits:
            raise ValueError(f"items.splits must divide width, got {self.items.splits} splits of width {self.width}")
        return self

    @property
    def state_width(self) -> int:
        """Numbers of the state at a position: all its queries."""
        return self.width * self.queries


class TransformerSpec(_Attentive, _Servable):
    """A causal transformer (`stillhouse.models.transformer`)."""

    kind: Literal["transformer"]
    positions: Literal["learned", "rotary"] = "learned"
    """How it knows where an event stands: a vector for each place, or attention that turns with the distance."""
    norm: Literal["before", "after"] = "before"
    """Where a layer's norms stand: before each of its two parts, or after what each is added to."""
    gated: bool = False
    """Whether each part of a layer is let through by a gate that is learnt."""

    @pydantic.model_validator(mode="after")
    def _turns(self) -> Self:
        if self.positions == "rotary" and self.width // self.heads % 2:
            raise ValueError(
                f"rotary positions turn pairs, so heads must have an even width, got {self.width // self.heads}"
            )
        return self


class GruSpec(_Servable):
    """A gated recurrent network (`stillhouse.models.gru`)."""

    kind: Literal["gru"]


class BidirectionalSpec(_Attentive):
    """A transformer that fills gaps (`stillhouse.models.bidirectional`); it teaches, and is no student."""

    kind: Literal["bidirectional"]
    mask_share: float = pydantic.Field(0.3, gt=0.0, lt=1.0)
    """Share of a row's events that are hidden and to be named."""
    last_share: float = pydantic.Field(0.3, ge=0.0, le=1.0)
    """Share of rows that are cut at a random event, which alone is hidden: the task that the model will be set."""


class _Fitted(Frozen):
    """What every model in closed form has."""

    length: int = pydantic.Field(ge=2, le=4096)
    """Longest history that the model looks at, in events."""
    folds: int = pydantic.Field(5, ge=2, le=20)
    """Parts of the users; each is scored at training positions by weights fitted on the other parts."""


class _Neighbourly(_Fitted):
    """What every model has that keeps a few weights an item."""

    neighbours: int = pydantic.Field(200, ge=1, le=10_000)
    """Weights kept an item: its largest."""
    decay: float = pydantic.Field(gt=0.0, le=1.0)
    """What an event counts for in a history, as a multiple of the one after it."""


class ItemKnnSpec(_Neighbourly):
    """What people took after an item (`stillhouse.models.item_knn`)."""

    kind: Literal["item_knn"]
    shrink: float = pydantic.Field(10.0, ge=0.0)
    """Added to the denominator of a similarity: how little rare pairs are believed."""


class EaseSpec(_Neighbourly):
    """A linear model over whole histories (`stillhouse.models.ease`)."""

    kind: Literal["ease"]
    l2: float = pydantic.Field(300.0, gt=0.0)
    """Weight of the squared weights, in events."""


class PopularitySpec(_Fitted):
    """The same most popular items for everyone (`stillhouse.models.popularity`): the floor."""

    kind: Literal["popularity"]


ModelSpec = Annotated[TransformerSpec | GruSpec, pydantic.Field(discriminator="kind")]
"""One architecture and its size, chosen by ``kind``: what a student may be."""

SequenceSpec = Annotated[TransformerSpec | GruSpec | BidirectionalSpec, pydantic.Field(discriminator="kind")]
"""A model that is trained by gradient steps."""

FittedSpec = ItemKnnSpec | EaseSpec | PopularitySpec
"""A model that is fitted in closed form."""


class CrossFittedSpec(Frozen):
    """One architecture, trained once a fold without the fold's users (`stillhouse.models.cross_fitted`)."""

    kind: Literal["cross_fitted"]
    folds: int = pydantic.Field(ge=2, le=20)
    """Parts of the users, and models trained."""
    model: SequenceSpec
    """What is trained in each fold."""

    @property
    def length(self) -> int:
        """Longest history that the models look at, in events."""
        return self.model.length

    @property
    def parts(self) -> dict[str, TransformerSpec | GruSpec | BidirectionalSpec]:
        """The models that it consists of, by name and in the order of the folds."""
        return {f"without-{fold:02d}": self.model for fold in range(self.folds)}


class TrainingSpec(Frozen):
    """How long and how fast a model is trained."""

    epochs: int = pydantic.Field(30, ge=1, le=10_000)
    """Most epochs of a cold start."""
    warm_epochs: int = pydantic.Field(8, ge=1, le=10_000)
    """Most epochs when last night's weights are the start."""
    batch_size: int = pydantic.Field(128, ge=1, le=65_536)
    """Sequences a step."""
    learning_rate: float = pydantic.Field(1e-3, gt=0.0, le=1.0)
    """Of AdamW, after its rise."""
    warmup_steps: int = pydantic.Field(50, ge=0)
    """Steps in which the learning rate rises from 0."""
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    """What the learning rate does after its rise: stays, or falls to 0 at the last planned step."""
    candidates: Literal["unseen", "all"] = "unseen"
    """What the hard loss's softmax runs over; where items repeat, all are candidates whatever stands here."""
    negatives: int | None = pydantic.Field(None, ge=1)
    """Items drawn a step that stand for the whole catalogue in the loss (sampled softmax); ``null``: all items."""
    windows: Literal["last", "random", "all"] = "last"
    """Which training events of a longer history are a row: the last, a window drawn anew every epoch, or all."""
    average: float = pydantic.Field(0.0, ge=0.0, le=1000.0)
    """Epochs that the running mean of the weights reaches back; the mean is what is validated and kept. 0: none."""
    own_rows: float = pydantic.Field(0.0, ge=0.0, lt=1.0)
    """First share of a cold start's epochs in which items that are to share parts have rows of their own; the parts
    are then fitted to what these have become (`stillhouse.train.own_rows`). It changes nothing for other items."""
    weight_decay: float = pydantic.Field(0.0, ge=0.0, le=1.0)
    """Of AdamW."""
    clip_norm: float = pydantic.Field(1.0, gt=0.0)
    """Longest gradient that a step follows; a longer one is shortened to it."""
    patience: int = pydantic.Field(5, ge=1)
    """Epochs without a better NDCG@10 on the validation split before training stops."""
    valid_users: int = pydantic.Field(2000, ge=1)
    """Most users that early stopping looks at (the same ones every epoch)."""


class MemberSpec(Frozen):
    """One member of an ensemble."""

    model: Annotated[
        TransformerSpec | GruSpec | BidirectionalSpec | ItemKnnSpec | EaseSpec | PopularitySpec | CrossFittedSpec,
        pydantic.Field(discriminator="kind"),
    ]
    """What the member is."""
    training: TrainingSpec | None = None
    """In place of ``train_teacher.training``."""


class EnsembleSpec(Frozen):
    """Several models, calibrated and heard together (`stillhouse.models.ensemble`)."""

    kind: Literal["ensemble"]
    combine: Literal["mean", "weighted", "confidence"] = "mean"
    """Members count alike, as the validation split says, or each where it is sure."""
    members: dict[Annotated[str, pydantic.Field(pattern=NAME)], MemberSpec] = pydantic.Field(min_length=2)
    """Name → member, two at least."""

    @pydantic.field_validator("members")
    @classmethod
    def _in_order(cls, members: dict[str, MemberSpec]) -> dict[str, MemberSpec]:
        """Sort members by name: how params.yaml orders them changes no bit of a sum."""
        return dict(sorted(members.items()))

    @pydantic.model_validator(mode="after")
    def _one_length(self) -> Self:
        lengths = {name: member.model.length for name, member in self.members.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"members must look equally far back, got lengths {lengths}")
        return self

    @property
    def length(self) -> int:
        """Longest history that every member looks at, in events."""
        return next(iter(self.members.values())).model.length

    @property
    def parts(self) -> dict[str, SequenceSpec | FittedSpec | CrossFittedSpec]:
        """The models that it consists of, by name and in order."""
        return {name: member.model for name, member in self.members.items()}


TeacherSpec = Annotated[
    TransformerSpec
    | GruSpec
    | BidirectionalSpec
    | ItemKnnSpec
    | EaseSpec
    | PopularitySpec
    | CrossFittedSpec
    | EnsembleSpec,
    pydantic.Field(discriminator="kind"),
]
"""Every kind of model that there is, and its size: what a teacher may be."""
