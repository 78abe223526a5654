"""The plug-in contract of growers, transferers, paradigms, layouts and data sources.

A plug-in author needs this file and nothing else of the core. Words: a *chain* trains *members*
small to large; weights grow from *source* to *target*, features are learned by a *student* from its
*teacher* (the previous, smaller member).
"""

from __future__ import annotations

import functools
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from compt.api import API_VERSION
from compt.errors import ConfigError, did_you_mean
from compt.weights import load_state, load_weights

Batch = Mapping[str, Any]
Outputs = Mapping[str, Tensor]
Status = Literal["copied", "expanded", "initialised", "shared"]
Role = Literal["stream", "hidden", "output", "fixed"]
Group = tuple[str, ...]
Schedule = Literal["constant", "linear", "cosine"]
SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
}
"""How a transferer's weight falls: fraction of its time -> factor."""
Objective = Callable[[Mapping[str, Tensor]], Tensor]
"""Parameters of the target by name -> the loss, [], on the next batch; those not given keep their
values.
"""


def renamed_method(old: str, new: Callable[..., Any]) -> Callable[..., Any]:
    """Make the forwarder that stands under a method's old name for one minor version.

    Calls go to the method under its new name, with a warning. Where a subclass still overrides the
    old name, its override is reached by the new one (see :class:`Plugin`), so a call that arrives
    here is its ``super()`` call and goes to the base's own code.
    """

    @functools.wraps(new)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        warn_renamed(f"{type(self).__name__}.{old}", new.__name__)
        overridden = getattr(type(self), old) is not forward
        method = functools.partial(new, self) if overridden else getattr(self, new.__name__)
        return method(*args, **kwargs)

    forward.__doc__ = f"Call :meth:`{new.__name__}`, as this is named now."
    return forward


def warn_renamed(old: str, new: str) -> None:
    """Warn that a public name has another one now; the old one goes with the next minor version."""
    text = f"{old} is called {new} since plug-in API {API_VERSION}; the old name will go."
    warnings.warn(text, FutureWarning, stacklevel=3)


class Plugin:
    """What all kinds of plug-in can say of themselves."""

    api_version: ClassVar[str] = ""
    """The plug-in API it was written for, ``compt.API_VERSION`` then: a compt without it refuses it
    by name.
    """
    renamed: ClassVar[Mapping[str, str]] = {}
    """Old argument names of the constructor, by new ones: configs may use them, with a warning."""
    renamed_methods: ClassVar[Mapping[str, str]] = {}
    """Old method names of the interface, by new ones: subclasses may override them, with a warning."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Give what a subclass defines under an old name its new name."""
        super().__init_subclass__(**kwargs)
        for old, new in cls.renamed_methods.items():
            method = vars(cls).get(old)
            if method is not None and new not in vars(cls):
                warn_renamed(f"{cls.__name__}.{old}", new)
                setattr(cls, new, method)


@dataclass(frozen=True)
class Member:
    """One size of the family: its name, and its model as the paradigm reads it (dict, name or
    path).
    """

    name: str
    model: Any


@dataclass(frozen=True)
class Metric:
    """One held-out value.

    ``chance`` is what guessing would reach, None where that has no meaning. ``unit`` says what the
    value counts: ``"share"`` of a whole, from 0 to 1, which reads as per cent, ``"nats"``,
    ``"bits/byte"``, ``"count"`` or a name of its own; empty for a plain number.
    """

    value: float
    chance: float | None = None
    higher_is_better: bool = True
    unit: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the metric as JSON types, as manifests hold it."""
        return asdict(self)


@dataclass(frozen=True)
class ParamAxes:
    """What the axes of one parameter or buffer are.

    ``groups`` has one entry per tensor dimension, in memory order; an entry lists the axes folded
    into that dimension, slowest first: a fused ``qkv.weight`` is ``(("3", "heads", "head_dim"),
    ("embed",))``. ``reads`` and ``writes`` hold the indices of the groups through which the tensor
    reads and writes activations. A norm's gain has ``writes == ()`` unless its result is itself a
    residual stream.
    """

    name: str
    kind: str
    groups: tuple[Group, ...]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    template: str
    """The name with every block index replaced by ``{block}``."""
    scope: str | None = None
    """What stands before ``{block}``, None outside a stack of blocks."""
    block: int | None = None
    tied_to: str | None = None
    """The first name of the same tensor, where several names share it."""
    buffer: bool = False
    scaled_by: str | None = None
    """The parameter (layer scale) that multiplies what this one writes, if any."""
    norm_axis: str | None = None
    """For a norm's gain or bias: the axis that it normalises over."""
    read_by: str | None = None
    """For a norm's gain or bias: the parameter, if any, that is known to be all that reads the
    norm's result.
    """

    @property
    def axes(self) -> tuple[str, ...]:
        """All axes, flattened over the groups."""
        return tuple(axis for group in self.groups for axis in group)

    @property
    def directions(self) -> tuple[tuple[str, str], ...]:
        """Each of ``axes`` with ``"reads"``, ``"writes"`` or ``""``: what the parameter does
        through it.
        """
        does = dict.fromkeys(self.reads, "reads") | dict.fromkeys(self.writes, "writes")
        return tuple(
            (axis, does.get(i, "")) for i, group in enumerate(self.groups) for axis in group
        )


@dataclass(frozen=True)
class Architecture:
    """A module seen as named axes: what growers, plans and projection heads are made from.

    ``sizes`` maps an axis to its length, ``roles`` to how it may grow: ``stream`` (a residual width
    that many parameters write and read), ``hidden`` (units inside one sub-layer, such as ``mlp`` or
    ``heads``), ``output`` (a feature width that leaves the model), ``fixed``. ``whole`` are axes
    that keep the function only at whole multiples, as ``Layout.whole`` says. ``depths`` maps the
    scope of each stack of blocks to its number of blocks. ``outputs`` maps the outputs of the
    paradigm to their widths, ``features`` those that transferers compare by default; both are empty
    outside a chain.
    """

    module: str
    sizes: Mapping[str, int]
    roles: Mapping[str, Role]
    depths: Mapping[str, int]
    params: Mapping[str, ParamAxes]
    features: Mapping[str, int] = field(default_factory=dict)
    outputs: Mapping[str, int] = field(default_factory=dict)
    whole: frozenset[str] = frozenset()

    def shape(self, param: ParamAxes) -> tuple[int, ...]:
        """The unfolded shape of a parameter: one dimension per atomic axis."""
        return tuple(self.size(axis) for axis in param.axes)

    def size(self, axis: str) -> int:
        """The length of an axis; a number is its own length."""
        return int(axis) if axis.isdigit() else self.sizes[axis]


@dataclass(frozen=True)
class Growth:
    """What a grower made of one source and one target, with every target parameter and buffer named
    once.

    ``params`` tells how each came about: ``copied`` (equal to a source tensor), ``expanded`` (holds
    source values and more), ``initialised`` (nothing from the source), ``shared`` (another name of
    a tensor already listed). ``tensors`` are the new values, by name; those not listed keep what
    the target had. ``dropped`` names the source tensors that were not used. ``function_preserving``
    is the truth for this pair, with ``reason`` where it is False; ``error`` is the largest relative
    difference of the outputs, where it could be measured.
    """

    params: Mapping[str, Status]
    tensors: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    dropped: tuple[str, ...] = ()
    function_preserving: bool = False
    reason: str = ""
    error: float | None = None

    @property
    def counts(self) -> dict[str, int]:
        """How many tensors have each status."""
        statuses = list(self.params.values())
        return {s: statuses.count(s) for s in ("copied", "expanded", "initialised", "shared")}

    def to_dict(self) -> dict[str, Any]:
        """The report without the tensors, as JSON types."""
        return {
            "counts": self.counts,
            "params": dict(self.params),
            "dropped": list(self.dropped),
            "function_preserving": self.function_preserving,
            "reason": self.reason,
            "error": self.error,
        }


class Grower(Plugin, ABC):
    """Parameter space: makes the weights of a larger model from those of a smaller one, once a
    stage.
    """

    function_preserving: ClassVar[bool] = False
    """What it aims at; ``Growth.function_preserving`` is the truth for a pair."""
    objective_calls: int = 0
    """How often ``grow`` calls its objective at most, for growers that learn: planned and charged
    as training steps.

    Every process then takes part, each on its own batches; all get the mean of losses and
    gradients.
    """

    @abstractmethod
    def check(self, source: Architecture, target: Architecture) -> None:
        """Raise GrowthError, with tensor, axis and sizes, where this grower cannot grow source to
        target.
        """

    @abstractmethod
    def grow(
        self,
        source: nn.Module,
        target: nn.Module,
        *,
        source_arch: Architecture,
        target_arch: Architecture,
        generator: torch.Generator,
        objective: Objective | None = None,
    ) -> Growth:
        """Return the grown weights; must leave both modules and the global random state as they
        are.

        ``objective(params)`` is the loss of the target with these parameters on the stage's next
        batch, with gradients for them, for growers that learn or probe; None outside a chain.
        ``generator`` is the CPU's; the modules are on the device that the stage is trained on where
        ``objective_calls`` is not 0.
        """


class Transferer(Plugin, nn.Module, ABC):
    """Feature space: what the student learns from its teacher, at every step.

    Args:
        weight: factor of the loss terms.
        until: fraction of the stage after which the weight is 0 and the teacher is no longer run.
        schedule: 'constant' until then, or falling to zero there: 'linear' or 'cosine'.
    """

    needs: frozenset[str] = frozenset()
    """Outputs of the paradigm that it reads, complete once ``bind`` has run; the teacher need give
    no others.
    """
    limit: float | None = None
    """Largest share of the task loss the weighted terms may reach; the core scales them down to
    it.
    """

    def __init__(
        self,
        *,
        weight: float = 1.0,
        until: float = 1.0,
        schedule: Schedule = "constant",
    ) -> None:
        super().__init__()
        if schedule not in SCHEDULES:
            raise ConfigError(
                f"schedule={schedule!r} is not known.", do=f"One of {tuple(SCHEDULES)}."
            )
        if not (0 <= weight < math.inf and 0 <= until <= 1):
            raise ConfigError(
                f"weight={weight}, until={until}: a weight is not negative, and until is between 0 and 1."
            )
        self.weight, self.until, self.schedule = weight, until, schedule

    def strength(self, progress: float) -> float:
        """The weight at ``progress`` (0 to 1) through the stage; at 0 the teacher is not run."""
        return (
            self.weight * SCHEDULES[self.schedule](progress / self.until)
            if progress < self.until
            else 0.0
        )

    def bind(self, teacher: Architecture, student: Architecture) -> None:
        """Make what depends on the two models, such as projection heads."""

    @abstractmethod
    def forward(self, student: Outputs, teacher: Outputs, *, progress: float) -> dict[str, Tensor]:
        """Return the loss terms, unweighted scalars by name."""


class Paradigm(Plugin, ABC):
    """What is trained, on what, with which loss, and how it is measured and written out."""

    renamed_methods = {"teach": "teacher_forward"}

    outputs: frozenset[str]
    """Names that ``forward`` returns."""
    features: tuple[str, ...] = ()
    """The outputs that transferers compare by default, ``[batch, ..., width]`` each."""
    splits: tuple[str, ...] = ("val",)
    """Held-out splits, in the order of the report."""

    @abstractmethod
    def build_model(self, member: Member) -> nn.Module:
        """Build the member's model with fresh weights; must also work under
        ``torch.device('meta')``.
        """

    @abstractmethod
    def build_dataset(self, split: str) -> Dataset:
        """Build the map-style data set of 'train' or of one of ``splits``; raise DataError if it is
        missing.

        Where a data set puts others in the place of samples it cannot read, it counts them in
        ``broken_count``, which the stage reports.
        """

    def collate(self, samples: Sequence[Any]) -> Batch:
        """Put samples of the data set together into one batch of CPU tensors."""
        return default_collate(list(samples))

    def prepare(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Finish a batch on the training device; what is random here is drawn once for teacher and
        student.
        """
        return batch

    @abstractmethod
    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        """Run the model on a prepared batch."""

    def teacher_forward(self, model: nn.Module, batch: Batch, needs: frozenset[str]) -> Outputs:
        """Run a teacher: at least the outputs in ``needs``; override it where that is cheaper than
        ``forward``.
        """
        return self.forward(model, batch)

    teach = renamed_method("teach", teacher_forward)

    @abstractmethod
    def loss(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the loss terms of the task, scalars by name; their sum is minimised."""

    @abstractmethod
    def metrics(self, model: nn.Module, split: str, batches: Iterable[Batch]) -> dict[str, Metric]:
        """Measure the model, in eval mode without gradients, on the prepared batches of a held-out
        split.

        The first metric of the first split is the main figure of the report.
        """

    @abstractmethod
    def export(self, model: nn.Module, folder: Path) -> None:
        """Write the model into an empty folder in the format of its own library."""

    @abstractmethod
    def load(self, path: Path) -> nn.Module:
        """Read a model, with its weights, from what ``export`` or its own library wrote."""

    def recognises(self, path: Path) -> bool:
        """Whether ``load`` can read this path."""
        return False

    def load_weights(self, model: nn.Module, path: Path) -> None:
        """Fill a member's model, strictly, from a checkpoint that need not say what model it is of.

        Override it to read what else the paradigm's own library writes.

        Raises:
            ConfigError: the file is damaged, or another model's.
        """
        if self.recognises(path):
            load_state(model, self.load(path).state_dict(), path)
        else:
            load_weights(model, path)

    def num_samples(self, split: str) -> int:
        """The number of samples of a split; override it to answer without building the data set."""
        return len(self.build_dataset(split))  # type: ignore[arg-type]

    def example_batch(self, model: nn.Module, batch_size: int) -> Batch:
        """A prepared batch of the right shapes on the model's device (meta included); values do not
        matter.
        """
        dataset = self.build_dataset("train")
        batch = self.collate([dataset[0]] * batch_size)
        device = next(model.parameters()).device
        prepared = self.prepare(batch, generator=torch.Generator().manual_seed(0))
        return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in prepared.items()}

    def after_step(self, model: nn.Module) -> None:
        """Keep parameters in their range after an optimizer step (CLIP clamps its logit scale)."""


class Layout(Plugin, ABC):
    """Says, for one module class, what each of its parameters' axes are.

    A layout is registered under the path of the module class it describes, such as
    ``timm.models.vision_transformer.VisionTransformer``.
    """

    renamed_methods = {"same": "axis_aliases"}
    patterns: Mapping[str, str] = {}
    """Parameter name -> pattern; see :mod:`compt.growth.axes` for the notation."""
    parts: tuple[str, ...] = ()
    """Child modules that their own layouts describe; their axes are prefixed with the child's
    name.
    """
    roles: Mapping[str, Role] = {}
    """How axes may grow, where their name does not already say it."""
    whole: frozenset[str] = frozenset()
    """Axes whose units all pass through the same weights, as the channels of a token mixer do: such
    weights see the pads that other widths need, so that growing keeps the function at whole
    multiples only."""

    def axis_aliases(self, module: nn.Module) -> Mapping[str, str]:
        """Axes that are one and the same in this module, as name -> name kept (``visual.feature``
        -> ``feature``).
        """
        return {}

    same = renamed_method("same", axis_aliases)

    def sizes(self, module: nn.Module) -> Mapping[str, int]:
        """The sizes that shapes alone cannot tell, such as the number of heads."""
        return {}

    def probe(self, module: nn.Module, generator: torch.Generator) -> Outputs | None:
        """Run the module on small random input and return its outputs, to measure what growth
        changed.

        The input may depend only on the generator and on fixed sizes. None: this module cannot be
        probed.
        """
        return None


class DataSource(Plugin, ABC):
    """A source of data that a config names, opened split by split.

    The constructor takes the config's options by keyword. It reads no data, as plans are made where
    there is none.

    Args:
        num_samples: size of the training split, for plans made where the data is not.

    Raises:
        ConfigError: num_samples is no whole number from 1 on.
    """

    provides: frozenset[str] = frozenset()
    """What samples hold, as paradigms ask for it: 'image', 'captions', 'label', 'text', 'tokens'.

    The class names all that it can give; a source whose options leave something out says so in an
    attribute of its own.
    """
    splits: tuple[str, ...]
    """Names of its splits, 'train' among them, held-out ones in the order of the report."""
    cache_dir: str | Path | None = None
    """Where what is made of the data once, such as tokens, is kept; None for COMPT_CACHE_DIR, else
    the user's cache folder.
    """

    def __init__(self, *, num_samples: int | None = None) -> None:
        if num_samples is not None and not _counts(num_samples):
            raise ConfigError(f"num_samples={num_samples!r} is not a number of samples from 1 on.")
        self.declared_samples = None if num_samples is None else int(num_samples)

    @property
    def held_out(self) -> tuple[str, ...]:
        """The splits that are measured on."""
        return tuple(split for split in self.splits if split != "train")

    def check_split(self, split: str) -> None:
        """Raise ConfigError, with the nearest names, unless the source has this split."""
        if split not in self.splits:
            raise ConfigError(
                f"The data has no split '{split}'.{did_you_mean(split, self.splits)}",
                do=f"Splits: {', '.join(self.splits) or 'none'}.",
            )

    def num_samples(self, split: str) -> int | None:
        """Return the number of samples of a split, None where only opening it can tell."""
        return self.declared_samples if split == "train" else None

    @abstractmethod
    def open(self, split: str) -> Any:
        """Open one split, always with the same samples in the same order.

        Raises:
            ConfigError: there is no such split, or an option that cannot be.
            DataError: the data is missing or damaged.
        """


def _counts(value: Any) -> bool:
    """Whether a value is a whole number from 1 on, 1e6 among them."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value >= 1 and value == int(value)


class Images(Dataset, ABC):
    """One split of a source of images, by number.

    Items are ``dict(image=..., captions=(str, ...), label=int)``: a PIL image in RGB of any size;
    captions, none where the source has none; an index into ``classes``, -1 for none. They are the
    same at every call. The data set pickles, as worker processes take copies.
    """

    classes: tuple[str, ...] = ()
    """Names of this split's classes."""

    @property
    def broken_count(self) -> int:
        """How many samples could not be read so far, by all worker processes."""
        return 0

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Any: ...

    def check(self) -> int:
        """Read some samples before anything is trained on them.

        Returns:
            How many of them are broken.

        Raises:
            DataError: too many are.
        """
        return 0


class ImageSource(DataSource):
    """A source of images, with captions and labels where ``provides`` names them."""

    provides = frozenset({"image"})

    @abstractmethod
    def open(self, split: str, *, captions: bool = True, image_size: int | None = None) -> Images:
        """Open one split.

        Args:
            split: one of ``splits``.
            captions: whether they are read; where not, samples need none.
            image_size: height and width in pixels that models take, for sources that draw their
                images; others give them as they are.
        """


class Text(ABC):
    """The documents of one split, read from the beginning at every iteration."""

    fingerprint: str
    """Another one whenever the documents are others, those of another split too: tokens are kept
    under it."""
    where: str = ""
    """What it is read from, for messages."""
    num_bytes: int = 0
    """Size of what is read, 0 where it is not known."""
    num_read: int = 0
    """How much of it was read so far, about."""
    skipped: int = 0
    """Documents left out so far, as they hold no text."""

    @abstractmethod
    def __iter__(self) -> Iterator[str]:
        """Yield the documents, one after the other."""

    def pieces(self) -> Iterator[tuple[str, bool]]:
        """Yield the documents in pieces, and with each whether its document ends there.

        Override it where a document may be too large for memory. Blank documents are left out.
        """
        self.skipped = 0
        for document in self:
            if document.strip():
                yield document, True
            else:
                self.skipped += 1


class TextSource(DataSource):
    """A source of documents, which are tokenised once and then kept."""

    provides = frozenset({"text"})

    @abstractmethod
    def open(self, split: str) -> Text:
        """Open one split."""


@dataclass(frozen=True)
class TokenSpan:
    """``count`` tokens of a NumPy integer type in a local file, from a byte on."""

    file: Path
    dtype: str
    offset: int
    count: int


@dataclass(frozen=True)
class Tokens:
    """The tokens of one split, one sequence that lies in several files.

    ``num_bytes`` counts the UTF-8 bytes of their text, None where that is not known; ``skipped``
    the documents left out, as they hold no text.
    """

    spans: tuple[TokenSpan, ...]
    num_bytes: int | None = None
    skipped: int = 0

    @property
    def num_tokens(self) -> int:
        """Tokens of all files, end marks with them."""
        return sum(span.count for span in self.spans)


class TokenSource(DataSource):
    """A source of tokens that were made elsewhere, with what separates documents."""

    provides = frozenset({"tokens"})

    @abstractmethod
    def open(self, split: str) -> Tokens:
        """Open one split."""
