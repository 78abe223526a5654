"""Build, read and write text models of transformers, with their tokenizers."""

from __future__ import annotations

import copy
from abc import ABC
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import GenerationConfig

from compt.errors import ConfigError, did_you_mean
from compt.interfaces import ExportFormat, Member
from compt.interfaces.paradigm import MAX_SHARD
from compt.paradigms._checkpoints import copy_files, left_behind, said_otherwise
from compt.paradigms._shared import Agreement, Sourced
from compt.paradigms.text import folder as files, models, settings
from compt.paradigms.text.family import Family
from compt.paradigms.text.members import ATTRIBUTE, SHARED, MemberTokenizers, key_of, source_of
from compt.paradigms.text.tokenizer import UNKNOWN, LmTokenizer, open_tokenizer, quiet
from compt.weights import load_state, read_state

ATTENTIONS = ("sdpa", "eager")
CARRIED = (files.CONFIG_FILE, files.GENERATION_FILE, *files.TOKENIZER_PATTERNS)
"""Match what an export writes beside weights."""


class TextModels(Sourced, ABC):
    """A paradigm whose members are text models of transformers, before it is said what is trained.

    Args:
        context: tokens that the models read at once; by default their max_position_embeddings.
        tokenizer: folder or name that ``AutoTokenizer`` loads; None reads bytes.
        tokenizers: the same by name of a member, in place of ``tokenizer``.
        attention: one of :data:`ATTENTIONS`.
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

    def __init__(
        self,
        *,
        context: int | None,
        tokenizer: str | None,
        tokenizers: Mapping[str, str | None] | None,
        attention: str,
    ) -> None:
        if attention not in ATTENTIONS:
            near = did_you_mean(attention, ATTENTIONS)
            raise ConfigError(
                f"No attention '{attention}'.{near}",
                where=f"paradigm {self.name}",
                do=f"One of {ATTENTIONS}.",
            )
        self.context, self.attention, self._tokenizer = context, attention, tokenizer
        self.tokenizers = MemberTokenizers(tokenizers)
        self._opened: dict[str, LmTokenizer] = {}
        self._reading: str | None = None
        self._input = Agreement()
        self._vocabularies: dict[str, Agreement] = defaultdict(Agreement, {SHARED: self._input})
        self._tokenizer_folder = None if tokenizer is None else Path(tokenizer)
        self._followed: Mapping[str, Any] = {}
        self._bare = False

    @property
    def tokenizer(self) -> LmTokenizer:
        """Return the tokenizer that data is read with."""
        return self._tokenizer_of(self._reading or SHARED)

    def _tokenizer_of(self, key: str) -> LmTokenizer:
        """Return the tokenizer of a key of :mod:`compt.paradigms.text.members`."""
        if key not in self._opened:
            self._opened[key] = self._open_tokenizer(self._source(key))
        return self._opened[key]

    def _is_here(self, key: str) -> bool:
        """Say whether a tokenizer can be opened without asking a server for it."""
        source = self._source(key)
        return key in self._opened or source is None or Path(source).is_dir()

    def _source(self, key: str) -> str | None:
        return self._tokenizer if key == SHARED else source_of(key)

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
        key = self.tokenizers.key(member.name, self._tokenizer)
        planned = torch.get_default_device().type == "meta" and self._source(key) is not None
        says_size = isinstance(member.model, Mapping) and "vocab_size" in member.model
        # A plan may be made where the tokenizer is not, if the config says what it is needed for.
        absent = (planned and says_size) or (self._bare and key == SHARED)
        tokenizer = UNKNOWN if absent else self._tokenizer_of(key)
        size = self._vocabularies[key].get("vocab_size") or tokenizer.size
        followed = self._followed_by(key)
        config = models.model_config(self.family, member, tokenizer, size, self.context, followed)
        self._note_differences(member, config, followed)
        context = self.context or getattr(config, models.POSITIONS, None)
        # Where a checkpoint is grown alone, nothing is taught: both may become longer.
        taught = self.data is not None or self.like is None
        own = self._vocabularies[key]
        own.hold(member.name, "vocab_size", config.vocab_size, binding=taught)
        self._input.hold(
            member.name,
            "context",
            context,
            binding=taught,
            or_else=", or the paradigm one that all can read, such as context=512",
        )
        model = models.build(self.family, member.name, config, self.attention)
        self.check_model(model, member.name)
        return self._noted(model, key)

    def _noted(self, model: nn.Module, key: str) -> nn.Module:
        """Return a model that knows its tokenizer, where members have tokenizers of their own."""
        if self.tokenizers:
            setattr(model, ATTRIBUTE, key)
            self._reading = key if self._reading is None else self._reading
        return model

    def _followed_by(self, key: str) -> Mapping[str, Any]:
        """Return what the followed folder says to members with a tokenizer."""
        of_vocabulary = settings.OF_VOCABULARY if key != SHARED else ()
        return {k: value for k, value in self._followed.items() if k not in of_vocabulary}

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
        self._opened.pop(SHARED, None)
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
            self._opened[SHARED] = own

    def _note_differences(self, member: Member, config: Any, followed: Mapping[str, Any]) -> None:
        """Note what a member says otherwise than the folder that is followed."""
        if config.model_type != followed.get("model_type"):
            return
        owner, said = f"Member '{member.name}'", settings.said(member, config)
        self.note(*said_otherwise(owner, said, f"'{self.like}'", followed))
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

    def export(self, model: nn.Module, folder: Path, *, max_shard_size: int = MAX_SHARD) -> None:
        """Write a folder that transformers loads.

        It holds config, generation config, safetensors and the tokenizer.
        """
        theirs: Any = model
        key = key_of(model)
        is_shared = key == SHARED
        generates = theirs.can_generate()
        own_config, own_generation = theirs.config, generates and theirs.generation_config
        try:
            theirs.config = copy.deepcopy(theirs.config)
            theirs.config.use_cache = True  # off in training, but generation is slow without
            # None where padding is the end of a text.
            if theirs.config.pad_token_id is None and is_shared:
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
        if self.like is not None and is_shared:  # it has ids of special tokens
            copy_files(self.like, folder, [files.GENERATION_FILE])
        self._export_tokenizer(key, folder)

    def _export_tokenizer(self, key: str, folder: Path) -> None:
        """Write a tokenizer, in the files that it came in if they hold all of it."""
        is_bare = self._bare and key == SHARED
        own = source_of(key)
        named = None if own is None else Path(own)
        source = self._tokenizer_folder if key == SHARED else named
        is_whole = is_bare or source is None or not self._tokenizer_of(key).is_extended
        if source is not None and files.has_tokenizer(source) and is_whole:
            copy_files(source, folder, files.TOKENIZER_PATTERNS)
        elif not is_bare:
            self._tokenizer_of(key).save(folder)

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
        key = self._key_of_folder(path)
        tokenizer = UNKNOWN if self._bare and key == SHARED else self._tokenizer_of(key)
        member = Member(path.name, str(path))
        config = models.model_config(self.family, member, tokenizer, tokenizer.size, None)
        model = models.load(self.family, path, config, self.attention)
        self.check_model(model, path.name)
        self._vocabularies[key].hold(path.name, "vocab_size", config.vocab_size)
        return self._noted(model, key)

    def _key_of_folder(self, path: Path) -> str:
        """Return the key of the tokenizer that a folder's model reads with."""
        if not self.tokenizers or not files.has_tokenizer(path):
            return SHARED
        vocabulary = self._open_tokenizer(path).inner.get_vocab()
        for key in self.tokenizers.keys(self._tokenizer):
            if self._tokenizer_of(key).inner.get_vocab() == vocabulary:
                return key
        return str(path)

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
        key = key_of(model)
        if (self._bare and key == SHARED) or not files.has_tokenizer(path):
            return
        theirs = self._open_tokenizer(path)
        if theirs.inner.get_vocab() != self._tokenizer_of(key).inner.get_vocab():
            is_shared = key == SHARED
            option = f"tokenizer='{path}'" if is_shared else f"tokenizers=dict(MEMBER='{path}')"
            raise ConfigError(
                f"The tokenizer of '{path}' is not the {'paradigm' if is_shared else 'member'}'s.",
                where="paradigm.tokenizer" if is_shared else "paradigm.tokenizers",
                do="Train on with the one it had: "
                f"paradigm=dict(type='{self.name}', {option}, ...).",
            )

    def _adopt(self, path: Path) -> None:
        """Follow a folder, where the paradigm has neither data nor a tokenizer nor another."""
        if self.like is None and self.data is None and self._tokenizer is None:
            self.follow(path)
