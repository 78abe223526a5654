"""Train text models of transformers, whatever they predict."""

from __future__ import annotations

import copy
from abc import ABC
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from torch import nn
from torch.utils.data import Dataset, Subset
from transformers import GenerationConfig

from compt.data.text import NEEDS, open_blocks
from compt.errors import ConfigError, did_you_mean
from compt.interfaces import Batch, ExportFormat, Member
from compt.interfaces.paradigm import MAX_SHARD
from compt.paradigms._checkpoints import copy_files, left_behind, said_otherwise
from compt.paradigms._shared import Agreement, Sourced
from compt.paradigms.text import folder as files, models, settings
from compt.paradigms.text.family import Family
from compt.paradigms.text.tokenizer import UNKNOWN, LmTokenizer, open_tokenizer, quiet
from compt.registry import DATA, Range
from compt.weights import load_state, read_state

MAX_CONTEXT = 10**7
ATTENTIONS = ("sdpa", "eager")
CARRIED = (files.CONFIG_FILE, files.GENERATION_FILE, *files.TOKENIZER_PATTERNS)
"""Match what an export writes beside weights."""


class TextParadigm(Sourced, ABC):
    """A base of paradigms that train text models of transformers.

    It builds members from a config dict with ``model_type``, a folder with a config.json, or a name
    that is in the cache or can be downloaded, always with fresh weights. What a dict leaves out of
    vocabulary, special tokens and positions is filled in from the tokenizer and the context. It
    opens data and tokenizers, writes folders that transformers loads, reads them, and takes over
    what a checkpoint that is followed says. All members share the vocabulary, so that teacher and
    student read the same tokens.

    A subclass says which models these are, and writes what it trains: ``outputs``, ``features``,
    ``prepare``, ``forward``, ``loss`` and ``metrics``; see ``docs/plugins.md``.

    Args:
        data: what to train on and measure on; see :mod:`compt.data.text`. ``num_samples`` in it is
            the size of the training set, in blocks of ``context`` tokens, for plans made where the
            data is not.
        context: tokens that the model reads at once; by default the members'
            max_position_embeddings.
        tokenizer: folder or name that ``AutoTokenizer`` loads; None reads the bytes of UTF-8,
            without any download.
        attention: 'sdpa' (torch's fused kernels) or 'eager', for models that have no other.
        eval_blocks: blocks of each held-out split to measure, evenly spaced; None measures all.
    """

    family: ClassVar[Family]
    """The models that are built and loaded."""
    name: ClassVar[str]
    """The paradigm's type in configs, for messages."""
    model_defaults: ClassVar[Mapping[str, Any]] = {}
    """Keys of a member's dict that it may leave out."""
    special_tokens: ClassVar[Mapping[str, str]] = {}
    """Special tokens that a tokenizer gets where it has none, such as ``mask_token='[MASK]'``."""
    streams_weights = True
    needs = NEEDS
    example = "data=dict(type='stdlib')"

    def __init__(
        self,
        *,
        data: Annotated[Mapping[str, Any], DATA] | None = None,
        context: Annotated[int, Range(minimum=1, maximum=MAX_CONTEXT)] | None = None,
        tokenizer: str | None = None,
        attention: str = "sdpa",
        eval_blocks: Annotated[int, Range(minimum=1)] | None = None,
    ) -> None:
        if attention not in ATTENTIONS:
            near = did_you_mean(attention, ATTENTIONS)
            raise ConfigError(
                f"No attention '{attention}'.{near}",
                where=f"paradigm {self.name}",
                do=f"One of {ATTENTIONS}.",
            )
        for key, number in (("context", context), ("eval_blocks", eval_blocks)):
            if number is not None and number < 1:
                raise ConfigError(f"{key}={number} is below 1.", where=f"paradigm {self.name}")
        self._use(data)
        self.context, self.attention, self._tokenizer = context, attention, tokenizer
        self.eval_blocks = eval_blocks
        self._input = Agreement()
        self._tokenizer_folder = None if tokenizer is None else Path(tokenizer)
        self._followed: Mapping[str, Any] = {}
        self._bare = False
        self._tokens_a_byte: dict[str, float | None] = {}

    @cached_property
    def tokenizer(self) -> LmTokenizer:
        """Return the members' tokenizer."""
        return self._open_tokenizer(self._tokenizer)

    def _open_tokenizer(self, source: str | Path | None) -> LmTokenizer:
        tokenizer = open_tokenizer(source)
        tokenizer.add_special_tokens(**self.special_tokens)
        return tokenizer

    def build_model(self, member: Member) -> nn.Module:
        """Build a model of transformers, with float32 weights.

        Raises:
            ConfigError: unknown model or key, sizes that transformers refuses, or a vocabulary or
                positions that the tokenizer, the context or the members before do not agree with.
        """
        if isinstance(member.model, Mapping):
            member = Member(member.name, {**self.model_defaults, **member.model})
        planned = torch.get_default_device().type == "meta" and self._tokenizer is not None
        says_size = isinstance(member.model, Mapping) and "vocab_size" in member.model
        # A plan may be made where the tokenizer is not, if the config says what it is needed for.
        absent = (planned and says_size) or self._bare
        tokenizer = UNKNOWN if absent else self.tokenizer
        size = self._input.get("vocab_size") or tokenizer.size
        config = models.model_config(
            self.family, member, tokenizer, size, self.context, self._followed
        )
        self._note_differences(member, config)
        context = self.context or getattr(config, models.POSITIONS, None)
        # Where a checkpoint is grown alone, nothing is taught: both may become longer.
        taught = self.data is not None or self.like is None
        self._input.hold(member.name, "vocab_size", config.vocab_size, binding=taught)
        self._input.hold(
            member.name,
            "context",
            context,
            binding=taught,
            or_else=", or the paradigm one that all can read, such as context=512",
        )
        model = models.build(self.family, member.name, config, self.attention)
        self.check_model(model, member.name)
        return model

    def check_model(self, model: nn.Module, name: str) -> None:
        """Raise ConfigError where the paradigm cannot train a model that was built or loaded.

        By default it can train all of its family.

        Args:
            model: of the family.
            name: of the member or folder, for the message.
        """

    def follow(self, path: Path) -> None:
        """Take over a folder's special tokens, positions, tokenizer and settings of generation.

        The tokenizer is taken where the paradigm names none. Without data a paradigm takes none
        where the folder has none, to write it out again as it came.
        """
        super().follow(path)
        self._followed = settings.settings(path)
        if self._tokenizer is None:
            self._take_tokenizer(path)
        if self._followed:
            self.note(*left_behind(path, CARRIED))
        elif not self.recognises(path):
            self.note(
                f"'{path}' holds weights alone: special tokens, tokenizer and settings of "
                "generation are not known from it."
            )
        if files.read_config(path).get("auto_map"):
            self.note(f"'{path}' names code of its own (auto_map), which is not carried over.")

    def weight_dtype(self, path: Path) -> torch.dtype | None:
        """Return the number format of most weights in a folder of transformers, or a file."""
        return files.weight_dtype(path)

    def _take_tokenizer(self, path: Path) -> None:
        """Take a folder's tokenizer, or without data none where it has none that can be opened."""
        has_own = files.has_tokenizer(path)
        self._bare = self.data is None and not has_own
        if not has_own:
            return
        self._tokenizer_folder = path
        self.__dict__.pop("tokenizer", None)
        try:
            own = self._open_tokenizer(path)
        except ConfigError as error:
            if self.data is not None:
                raise
            self._bare = True
            self.note(f"{error.one_line} Its files are carried over as they are.")
            return
        # Bytes are read without a tokenizer's help, and faster.
        is_bytes = own.inner.get_vocab() == self._open_tokenizer(None).inner.get_vocab()
        if self.data is None or not is_bytes:
            self._tokenizer = str(path)
            self.__dict__["tokenizer"] = own

    def _note_differences(self, member: Member, config: Any) -> None:
        """Note what a member says otherwise than the folder that is followed."""
        if config.model_type != self._followed.get("model_type"):
            return
        owner, said = f"Member '{member.name}'", settings.said(member, config)
        self.note(*said_otherwise(owner, said, f"'{self.like}'", self._followed))
        folder = member.model if isinstance(member.model, str) else ""
        beside = files.read_json(Path(folder) / files.GENERATION_FILE)
        generation = files.read_json(self.like / files.GENERATION_FILE)  # type: ignore[operator]
        self.note(*said_otherwise(f"'{self.like}'", generation, owner, beside))
        own, theirs = (
            content.get("dtype") or content.get("torch_dtype")
            for content in (said, files.read_config(self.like))  # type: ignore[arg-type]
        )
        if own and theirs and str(own).removeprefix("torch.") != str(theirs):
            self.note(f"{owner} has dtype={own!r}, '{self.like}' {theirs!r}.")

    def _length(self) -> int:
        length = self.context or self._input["context"]
        if length is None:
            raise ConfigError(
                "The models name no context.",
                where="paradigm.context",
                do="For example context=512.",
            )
        return length

    def build_dataset(self, split: str) -> Dataset[Any]:
        """Open a split as ``dict(tokens=int64 [context + 1])`` samples."""
        blocks = open_blocks(self.data_source, split, self.tokenizer, self._length())
        self._tokens_a_byte[split] = (
            blocks.num_tokens / blocks.num_bytes if blocks.num_bytes else None
        )
        if split == "train" or self.eval_blocks is None or self.eval_blocks >= len(blocks):
            return blocks
        chosen = torch.linspace(0, len(blocks) - 1, self.eval_blocks, dtype=torch.float64)
        return Subset(blocks, chosen.round().long().tolist())

    def example_batch(self, model: nn.Module, batch_size: int) -> Batch:
        """Return zeros for tokens [B, context] on the model's device.

        On the meta device they come with a mask for attention.
        """
        weight, length = next(model.parameters()), self._length()
        tokens = torch.zeros(batch_size, length, device=weight.device, dtype=torch.long)
        batch = {"input_ids": tokens, "labels": tokens}
        if weight.device.type == "meta" and hasattr(model.config, "num_attention_heads"):
            # Without a mask transformers looks for packed texts in the values of the positions,
            # which meta tensors do not have.
            mask = torch.zeros(
                batch_size, 1, length, length, device=weight.device, dtype=weight.dtype
            )
            batch["attention_mask"] = mask
        return batch

    def tokens_per_byte(self, split: str) -> float | None:
        """Return the mean number of tokens of a byte of a split, None where it has none to count.

        The bytes of data that is tokenised already are not known.
        """
        if split not in self._tokens_a_byte:
            self.build_dataset(split)
        return self._tokens_a_byte[split]

    def export(self, model: nn.Module, folder: Path, *, max_shard_size: int = MAX_SHARD) -> None:
        """Write a folder that transformers loads.

        It holds config, generation config, safetensors and the tokenizer.
        """
        theirs: Any = model
        generates = theirs.can_generate()
        own_config, own_generation = theirs.config, generates and theirs.generation_config
        try:
            theirs.config = copy.deepcopy(theirs.config)
            theirs.config.use_cache = True  # off in training, but generation is slow without
            if theirs.config.pad_token_id is None:  # as where padding is the end of a text
                theirs.config.pad_token_id = self._followed.get("pad_token_id")
            with quiet():
                if generates:
                    theirs.generation_config = GenerationConfig.from_model_config(theirs.config)
                    self._add_generation(theirs.generation_config)
                theirs.save_pretrained(folder, max_shard_size=max_shard_size)
        finally:
            theirs.config = own_config
            if generates:
                theirs.generation_config = own_generation
        if self.like is not None:
            copy_files(self.like, folder, [files.GENERATION_FILE])
        source = self._tokenizer_folder
        is_whole = self._bare or source is None or not self.tokenizer.is_extended
        if source is not None and files.has_tokenizer(source) and is_whole:
            copy_files(source, folder, files.TOKENIZER_PATTERNS)
        elif not self._bare:
            self.tokenizer.save(folder)

    def export_format(self, folder: Path) -> ExportFormat:
        """Say how transformers loads a folder."""
        if not files.read_config(folder):
            return ExportFormat()
        name = self.family.auto_name
        usage = (
            f"from transformers import {name}, AutoTokenizer\n\n"
            f"model = {name}.from_pretrained('FOLDER')\n"
            "tokenizer = AutoTokenizer.from_pretrained('FOLDER')\n"
        )
        return ExportFormat(loaded_by="transformers", usage=usage, task=self.family.task)

    def _add_generation(self, config: GenerationConfig) -> None:
        """Add settings of generation that the followed folder has in its config.json, as of old."""
        if self.like is None or not files.read_config(self.like):
            return
        old = GenerationConfig.from_pretrained(self.like, config_file_name=files.CONFIG_FILE)
        ids = ("bos_token_id", "eos_token_id", "pad_token_id")
        changes = {k: v for k, v in old.to_diff_dict().items() if k not in ids}
        merged = GenerationConfig(**{**config.to_diff_dict(), **changes})
        try:
            merged.validate(strict=True)
        except ValueError as error:
            first_line = str(error).partition("\n")[0]
            self.note(f"Generation settings in '{self.like}' are not written: {first_line}")
        else:
            config.update(**changes)

    def recognises(self, path: Path) -> bool:
        """Say whether the path is a folder of transformers with a model of the family.

        It must hold the config and the weights.
        """
        return files.recognises(path, self.family)

    def load(self, path: Path) -> nn.Module:
        """Load a folder of transformers in float32.

        A paradigm that has neither data nor tokenizer takes the folder's, to write it out again;
        none if it has none.

        Raises:
            ConfigError: it has no weights, or they are damaged or another model's.
        """
        files.refuse(path, self.family)
        if self._input.get("vocab_size") is None:
            self._adopt(path)
        tokenizer = UNKNOWN if self._bare else self.tokenizer
        member = Member(path.name, str(path))
        config = models.model_config(self.family, member, tokenizer, tokenizer.size, None)
        model = models.load(self.family, path, config, self.attention)
        self.check_model(model, path.name)
        self._input.hold(path.name, "vocab_size", config.vocab_size)
        return model

    def load_weights(self, model: nn.Module, path: Path) -> None:
        """Fill a model from a folder of transformers, or a file of weights.

        Raises:
            ConfigError: they are of another model, or the folder has another tokenizer than the
                paradigm.
        """
        self._adopt(path)
        if self.recognises(path):
            super().load_weights(model, path)
        else:
            state, own = read_state(path), model.state_dict().keys()
            names = files.without_old_buffers(state.keys() - own) | (state.keys() & own)
            load_state(model, {name: state[name] for name in state if name in names}, path)
        if self._bare or not files.has_tokenizer(path):
            return
        if self._open_tokenizer(path).inner.get_vocab() != self.tokenizer.inner.get_vocab():
            raise ConfigError(
                f"The tokenizer of '{path}' is not the paradigm's.",
                where="paradigm.tokenizer",
                do="Train on with the one it had: "
                f"paradigm=dict(type='{self.name}', tokenizer='{path}', ...).",
            )

    def _adopt(self, path: Path) -> None:
        """Follow a folder, where the paradigm has neither data nor a tokenizer nor another."""
        if self.like is None and self.data is None and self._tokenizer is None:
            self.follow(path)
