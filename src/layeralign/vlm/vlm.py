"""The interface to a vision-language model: encode -> exit at l -> project -> language model.

`Vlm` serves every family whose transformers class can return picture features (`get_image_features`) and
accept them (`mm_encoder_outputs`). Subclasses in `families` implement what differs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from inspect import signature
from typing import Any, ClassVar, NoReturn, cast

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel, ProcessorMixin
from transformers.modeling_outputs import BaseModelOutputWithPooling

from layeralign._util.text import printable
from layeralign.errors import LayeralignError
from layeralign.exits import Exits
from layeralign.vlm import rope, tower
from layeralign.vlm.checkpoint import Adapter, Checkpoint
from layeralign.vlm.feature import Feature
from layeralign.vlm.rope import Regime, Rope
from layeralign.vlm.text import reasoning, template
from layeralign.vlm.text.ends import Ends, ends
from layeralign.vlm.text.reasoning import Marks

_TOKENS = {"picture_token_id": "picture", "eos_tokens": "end", "pad_token": "padding"}


class Vlm:
    """A loaded model of one family. A new family subclasses this; see CONTRIBUTING.

    No method changes the wrapped model.
    """

    family: ClassVar[str]
    """The `model_type` of the checkpoints that this class serves."""
    variants: ClassVar[Mapping[str, str]]
    """Name -> how the family reads "exit at l", in one sentence; the first is the default."""
    blocks_at: ClassVar[str] = "encoder.layers"
    """Name of the tower's submodule with its blocks, an `nn.ModuleList`."""
    one_tensor: bool = False
    """Whether transformers' forward takes a batch's features as one tensor instead of a list."""
    reads_plainly: ClassVar[bool] = False
    """Whether `vision_feature_layer` l in the config is equivalent to an exit at l, for every l."""
    replaces_picture_token: ClassVar[bool] = False
    """Whether the forward embeds another id for the picture token, which then needs no embedding."""
    tuples: bool = False
    """Whether the tower's blocks return tuples that start with the state."""
    exits_together: bool = False
    """Whether the code after the blocks can process many exits of a picture like many pictures."""
    streams: bool = True
    """Whether `hidden` and `decode_step` can continue from a cache; if not, `generate` is used."""
    lead_alone: bool = False
    """Whether `hidden` can continue from the text before a picture, which is then read once for all."""
    answers_alone: bool = False
    """Whether `generate` answers row by row, since the model's own batches change its logits; see `proof`."""
    places_are_bos: ClassVar[bool] = False
    """Whether the id of the BOS also holds the places of a picture's features."""
    asks_otherwise: ClassVar[bool] = False
    """Whether the class's own `generate` changes the prompt, so that `doctor` cannot compare with it."""
    reads_ahead: bool = False
    """Whether attention to a prompt's start depends on its end, so that prompts cannot share a prefix."""

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin | None,
        checkpoint: Checkpoint,
        variant: str | None = None,
    ) -> None:
        # Any: a family's model and processor have more attributes than their base classes declare
        self.model: Any = model
        self.processor: Any = processor
        self.checkpoint = checkpoint
        self.adapter: Adapter | None = None
        self.other_base = ""  # the different model that the adapter was trained on, if that was allowed
        self.quantize: str | None = None
        self.check(variant)
        self.reading = next(iter(self.variants)) if variant is None else variant

    def __repr__(self) -> str:
        exits, dtype = self.exits, str(self.model.dtype).removeprefix("torch.")
        ends = f"exits {exits.name(exits.all[0])} to {exits.name(exits.all[-1])}"
        return (
            f"<{printable(self.name, 80)}: family {self.family}, {ends}, "
            f"default exit {exits.name(exits.default)}, {dtype}, {self.device}>"
        )

    @classmethod
    def check(cls, variant: str | None) -> None:
        """Check that the family has this variant.

        Raises:
            LayeralignError: It has not.
        """
        if variant is not None and variant not in cls.variants:
            raise LayeralignError(
                f"variant {variant!r}: family {cls.family} has no such variant; "
                f"expected {', '.join(cls.variants)}"
            )

    @property
    def reads_cut(self) -> bool:
        """Whether a config with fewer blocks is equivalent to this variant's exits."""
        return not self.captured_layers

    @property
    def variant(self) -> str:
        """How this model reads "exit at l", in one sentence, for a run's identity."""
        sentence = self.variants[self.reading]
        if len(self._layers_read) > 1:
            sentence += f"; of the joined layers {list(self._layers_read)}, those past l are read at l"
        return f"{self.reading}: {sentence}" if len(self.variants) > 1 else sentence

    @property
    def name(self) -> str:
        """Names of the model and its adapter, as given."""
        return f"{self.checkpoint.name} + {self.adapter.name}" if self.adapter else self.checkpoint.name

    # --- the encoder and its exits

    @property
    def tower(self) -> Any:
        """The image encoder, an `nn.Module`."""
        return self.model.get_encoder(modality="image")

    @property
    def blocks(self) -> nn.ModuleList:
        """The encoder's blocks on the main track: at `blocks_at`, else the tower's only list of blocks.

        Raises:
            LayeralignError: The tower has no such blocks, or several lists of them.
        """
        if self.own_tower:
            return cast(nn.ModuleList, self.tower.get_submodule(self.blocks_at))
        found = self.lists_of_blocks
        if len(found) != 1:
            names = f" ({', '.join(found)})" if found else ""
            self.refuse(f"has {len(found)} lists of blocks in its vision tower{names} instead of one")
        return next(iter(found.values()))

    @property
    def lists_of_blocks(self) -> dict[str, nn.ModuleList]:
        """By name, the lists of a tower that the family does not know."""
        return tower.lists_of_blocks(self.tower)

    @property
    def own_tower(self) -> bool:
        """Whether the family says where this tower's blocks are; any other tower is checked by `proof`."""
        if type(self).blocks is not Vlm.blocks:
            return True
        try:
            return isinstance(self.tower.get_submodule(self.blocks_at), nn.ModuleList)
        except AttributeError:
            return False

    def refuse(self, what: str) -> NoReturn:
        """Refuse a model whose tower this family does not know.

        Raises:
            LayeralignError: Always.
        """
        raise LayeralignError(
            f"model {self.checkpoint.name}: family {self.family} does not know its vision tower "
            f"({type(self.tower).__name__}), and the model {what}; CONTRIBUTING explains how to add a family"
        )

    @property
    def all_blocks(self) -> list[nn.Module]:
        """The blocks of all stages, in execution order."""
        return list(self.blocks)

    def unused_blocks(self, exit: int) -> list[nn.Module]:
        """The blocks that do not run if the encoder exits at `exit`."""
        return list(self.blocks)[exit:]

    def unused_parts(self, exit: int) -> list[nn.Module]:
        """The encoder's modules, including blocks, that are not needed if it exits at `exit`."""
        return self.unused_blocks(exit)

    unit: ClassVar[str] = "picture"
    """Description of `sample`."""

    def sample(self) -> dict[str, Tensor]:
        """Inputs of the tower's forward for a black picture (or tile), to count and time its cost."""
        config = self.tower.config
        size = config.image_size
        height, width = (size, size) if isinstance(size, int) else size
        return {"pixel_values": torch.zeros(1, getattr(config, "num_channels", 3), height, width)}

    @property
    def states(self) -> int | None:
        """Number of states per block for `sample`: patches, plus a class token if the tower has one.

        None if they cannot be counted.
        """
        config = self.tower.config
        sides = (config.image_size, config.patch_size)
        (height, width), (down, right) = ((s, s) if isinstance(s, int) else s for s in sides)
        named = {name.split(".")[-1] for name, _ in self.tower.named_parameters()}
        return (height // down) * (width // right) + bool(named & {"class_embedding", "cls_token"})

    def span(self, block: int, states: int) -> int:
        """Number of the `states` that each one attends to in a block (numbered from 0)."""
        return states

    @property
    def exits(self) -> Exits:
        """The exits of this model's encoder.

        The default exit is the deepest layer that the model reads: that of `vision_feature_layer` in families
        that have it, else the last.

        Raises:
            LayeralignError: The encoder has no blocks, or the config names no layer of it.
        """
        if len(self.blocks) == 0:
            raise LayeralignError(f"model {self.checkpoint.name}: its encoder has no blocks, so no exits")
        return Exits(len(self.blocks), max(self._layers_read))

    @property
    def _layers_read(self) -> tuple[int, ...]:
        """The layers, numbered as exits, whose states the model reads; several if it joins them."""
        layers = len(self.blocks)
        named = self.model.config.vision_feature_layer if self._reads_a_layer else layers
        read = list(named) if isinstance(named, list | tuple) else [named]
        if not read or any(not isinstance(layer, int) or isinstance(layer, bool) for layer in read):
            raise LayeralignError(
                f"model {self.checkpoint.name}: vision_feature_layer is {named!r}; expected one or more "
                "whole numbers"
            )
        return tuple(Exits(layers, layers).resolve(layer) for layer in read)

    @cached_property
    def _takes(self) -> tuple[str, ...]:
        """Parameters of `get_image_features`; empty if there is no such method."""
        own = getattr(self.inner, "get_image_features", None)
        return () if own is None else tuple(signature(own).parameters)

    @property
    def _reads_a_layer(self) -> bool:
        """Whether the family reads the config's `vision_feature_layer`; other families ignore it."""
        return "vision_feature_layer" in self._takes

    def encode(
        self, pictures: Sequence[Image.Image], exits: Sequence[int], *, gradients: bool = False
    ) -> dict[int, list[Feature]]:
        """Picture features at each exit, projected to the language model's width.

        Args:
            pictures: n RGB pictures.
            exits: Exits, numbered as in `Exits`; blocks after the deepest do not run.
            gradients: Whether the features keep the graph of the parameters that require gradients.

        Returns:
            Exit -> n features.
        """
        with torch.set_grad_enabled(gradients):
            return self._encode(pictures, exits)

    def _encode(self, pictures: Sequence[Image.Image], exits: Sequence[int]) -> dict[int, list[Feature]]:
        inputs, texts = self.prepare(pictures)
        run = partial(self.inner.get_image_features, **inputs, return_dict=True)
        deepest = max(exits)
        states = tower.states(
            run, self.blocks, {*exits, *(tap for tap in self.captured_layers if tap < deepest)}
        )
        if self.exits_together and not self.captured_layers:
            stacked = torch.cat([states.pop(exit) for exit in exits])
            with tower.held(self.blocks, {deepest: stacked}, deepest, tuples=self.tuples):
                rows = iter(self.features(run(), inputs, texts * len(exits), deepest))
            return {exit: [next(rows) for _ in texts] for exit in exits}
        found = {}
        for exit in exits:
            known = {at: states[at] for at in (*self.captured_layers, exit) if at in states}
            with tower.held(self.blocks, known, exit, tuples=self.tuples):
                found[exit] = self.features(run(), inputs, texts, exit)
        return found

    @property
    def captured_layers(self) -> tuple[int, ...]:
        """Further layers whose states the model reads, as deepstack or a model that joins layers does.

        Those past an exit are read at the exit.
        """
        return self._layers_read if len(self._layers_read) > 1 else ()

    def prepare(self, pictures: Sequence[Image.Image]) -> tuple[dict[str, Any], list[str]]:
        """Inputs of `get_image_features` for pictures, and the text that replaces each placeholder."""
        texts = [self.text_around] * len(pictures)
        settings = {"return_text_replacement_offsets": True, "return_tensors": None}
        made = self.processed(pictures, self.processor, text=texts, **settings)
        texts = self.replacements(made)
        unused = [name for name in made if name not in self._takes]
        made = made.convert_to_tensors("pt", skip_tensor_conversion=unused)
        inputs = {name: self._put(made[name]) for name in self._takes if name in made}
        if self._reads_a_layer and self.exits.default == 0:
            inputs["vision_feature_layer"] = 1  # transformers cannot read 0; `tower.held` makes 1 equivalent
        return inputs, texts

    @property
    def text_around(self) -> str:
        """The text with one placeholder that the processor gets with a picture."""
        return self.placeholder

    def replacements(self, made: Any) -> list[str]:
        """The text that replaces each picture's placeholder, which is taken out of the processor's output."""
        return [found[0]["replacement"] for found in made.pop("text_replacement_offsets")]

    def picture_text(self, picture: Image.Image) -> str:
        """The text that replaces the picture's placeholder; the picture is not encoded."""
        return self.prepare([picture])[1][0]

    def processed(self, pictures: Sequence[Image.Image], by: Callable[..., Any], **settings: Any) -> Any:
        """Output of the processor, or of its image processor, for pictures.

        Raises:
            LayeralignError: It refuses a picture, as Qwen's does very elongated ones.
        """
        try:
            return by(images=[[picture] for picture in pictures], **settings)
        except Exception as error:  # a processor that refuses, or belongs to another family
            sizes = ", ".join(sorted({f"{picture.width} × {picture.height}" for picture in pictures}))
            raise LayeralignError(
                f"model {self.checkpoint.name}: its processor fails on a picture "
                f"({printable(str(error), 200) or type(error).__name__}; pixels: {sizes})"
            ) from error

    def _put(self, given: Any) -> Any:
        if not isinstance(given, Tensor):
            return given
        dtype = next(self.tower.parameters()).dtype if given.is_floating_point() else None
        return given.to(_device_of(self.tower), dtype)

    def features(
        self, output: Any, inputs: Mapping[str, Any], texts: Sequence[str], exit: int
    ) -> list[Feature]:
        """Split the output of `get_image_features` into features per picture.

        Args:
            output: Output of `get_image_features` for n pictures.
            inputs: Its inputs.
            texts: Per picture, the text that replaces its placeholder.
            exit: The exit of the encoder.

        Raises:
            LayeralignError: The texts and the output have different numbers of picture tokens.
        """
        flat = torch.cat([part.flatten(end_dim=-2) for part in output.pooler_output])
        counts = [text.count(self.picture_token) for text in texts]
        if sum(counts) != len(flat):
            raise LayeralignError(
                f"model {self.checkpoint.name}: its processor writes {sum(counts)} placeholders for "
                f"{len(flat)} picture tokens"
            )
        extras = self.extras(output, inputs, len(texts), exit)
        return [Feature(*made) for made in zip(flat.split(counts), texts, extras, strict=True)]

    def extras(self, output: Any, inputs: Mapping[str, Any], n: int, exit: int) -> list[dict[str, Tensor]]:
        """Further inputs of the language model for each of n pictures."""
        return [{} for _ in range(n)]

    def image_embeds(self, feature: Feature) -> dict[str, Tensor]:
        """A picture's feature as vLLM reads it, by the names of its inputs; `image_embeds` alone in most."""
        return {"image_embeds": feature.tokens}

    # --- prompts

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer."""
        return self.processor.tokenizer

    @property
    def pad_token(self) -> int:
        """Id of the padding token; masks come from lengths, so any id would do."""
        names = self.tokenizer
        return int(names.eos_token_id if names.pad_token_id is None else names.pad_token_id)

    @cached_property
    def ends(self) -> Ends:
        """The tokens that end an answer, with their sources; see `layeralign.vlm.text.ends`."""
        return ends(self)

    @property
    def eos_tokens(self) -> frozenset[int]:
        """Ids that end an answer."""
        return frozenset(self.ends)

    @property
    def unsayable(self) -> list[int]:
        """Ids that an answer must not contain: special tokens, including picture tokens, except ends."""
        special = {*self.tokenizer.all_special_ids, self.picture_token_id} - self.eos_tokens
        vocabulary = self.head.weight.shape[0]  # mllama has no logit for a picture
        return sorted(token for token in special if token < vocabulary)

    def check_names(self) -> None:
        """Check the picture, end and padding tokens.

        Raises:
            LayeralignError: One of them is unknown to the tokenizer, or has no embedding.
        """
        for what in ("picture_token_id", "eos_tokens", "pad_token"):
            try:
                found = getattr(self, what)
                tokens = [found] if isinstance(found, int) else list(found)
                fine = all(isinstance(token, int) and 0 <= token < len(self.tokenizer) for token in tokens)
            except (TypeError, ValueError, AttributeError):
                fine = False
            if not fine:
                raise LayeralignError(
                    f"model {self.checkpoint.name}: its {_TOKENS[what]} token is unknown to its tokenizer; "
                    "correct config.json, generation_config.json or tokenizer_config.json"
                )
        rows = self.embedding_rows
        for what in ("pad_token",) if self.replaces_picture_token else ("picture_token_id", "pad_token"):
            if (token := getattr(self, what)) >= rows:
                raise LayeralignError(
                    f"model {self.checkpoint.name}: its {_TOKENS[what]} token is {token}, but it has only "
                    f"{rows} embeddings; correct config.json or tokenizer_config.json"
                )

    @property
    def placeholder(self) -> str:
        """The placeholder of a picture in a templated prompt, such as `<image>`."""
        return str(self.processor.image_token)

    @property
    def picture_token(self) -> str:
        """The text of the token that picture features replace; usually the placeholder itself."""
        return str(self.tokenizer.convert_ids_to_tokens(self.picture_token_id))

    @property
    def picture_token_id(self) -> int:
        """The id of `picture_token`."""
        return int(self.model.config.image_token_id)

    def prompt(self, text: str, *, picture: bool, system: str = "", date: str = "") -> str:
        """Format `text` as the user's turn in the model's own chat template, followed by the answer's start.

        Args:
            text: The user's text.
            picture: Whether a picture goes before the text.
            system: Text of the system turn; empty for none, or the template's default.
            date: Date for a template that uses one, such as `2026-11-28`; empty for today's.

        Raises:
            LayeralignError: The template fails, or does not support `system`.
        """
        content = [{"type": "image"}] if picture else []
        turn = {"role": "user", "content": [*content, {"type": "text", "text": text}]}
        if not system:
            return self.conversation([turn], date)
        parts = [{"type": "text", "text": system}]
        made = self.conversation([{"role": "system", "content": parts}, turn], date)
        try:
            misread = self.conversation([{"role": "assistant", "content": parts}, turn], date)
        except LayeralignError:  # a template that requires the user's turn first
            misread = ""
        if system.strip() not in made or made == misread:
            raise LayeralignError(
                f"model {self.checkpoint.name}: its chat template does not support a system prompt; remove it"
            )
        return made

    def conversation(self, turns: Sequence[Mapping[str, Any]], date: str = "", *, asks: bool = True) -> str:
        """Format turns in the model's own chat template.

        Args:
            turns: Messages with `role` and `content`, a list of parts.
            date: As in `prompt`.
            asks: Whether the answer's start follows.

        Raises:
            LayeralignError: The template fails.
        """
        what = f"model {self.checkpoint.name}"
        return template.render(self.processor, what, turns, date, add_generation_prompt=asks)

    def behind_an_answer(self) -> str:
        """The text that the chat template writes after an assistant's text, starting with its end of turn."""
        asked, answered = (
            {"role": role, "content": [{"type": "text", "text": text}]}
            for role, text in (("user", "Hello."), ("assistant", template.SENTINEL))
        )
        _, found, behind = self.conversation([asked, answered], asks=False).rpartition(template.SENTINEL)
        return behind if found else ""

    @cached_property
    def marks(self) -> tuple[Marks, ...]:
        """The marks around this model's reasoning, if it writes any; see `reasoning`."""
        names = [token.content for token in self.tokenizer.added_tokens_decoder.values()]
        _, _, behind = self.prompt(template.SENTINEL, picture=False).rpartition(template.SENTINEL)
        return reasoning.known_to(template.source(self.processor), names, behind)

    @cached_property
    def special_marks(self) -> frozenset[str]:
        """The special tokens in `marks`."""
        return reasoning.pieces(self.marks).intersection(self.special_tokens.values())

    @cached_property
    def reads_date(self) -> bool:
        """Whether the template's output can depend on the date or the hour.

        The template names the clock. Whether it asks may depend on the system prompt, or on the day itself.
        """
        return template.reads_clock(template.source(self.processor))

    def tokens(self, prompt: str, feature: Feature | None) -> list[int]:
        """Token ids of a templated prompt, with as many picture tokens as the feature has.

        The ids have exactly one BOS, whether the template or the tokenizer writes it, and no EOS that the
        tokenizer would add, since the answer follows.

        Args:
            prompt: Result of `prompt`, for a plain text or one from `literal`.
            feature: Feature of the picture; None for a prompt without one.
        """
        text = prompt if feature is None else prompt.replace(self.placeholder, feature.text)
        return template.encode(
            self.tokenizer, text, self._written_before, writes_bos=self.template_writes_bos
        )

    def own_inputs(self, prompt: str, picture: Image.Image, ids: Sequence[int]) -> dict[str, Any] | None:
        """The model's inputs from its own processor; None if that gives other tokens than `ids`."""
        settings: dict[str, Any] = {"text": [prompt], "return_tensors": "pt"}
        kinds = "mm_token_type_ids"  # some give them only if asked, and some models take none
        if kinds in self.processor.model_input_names and kinds in signature(self.model.forward).parameters:
            settings["return_mm_token_type_ids"] = True
        for special in (True, False):
            made = self.processed([picture], self.processor, **settings, add_special_tokens=special)
            if made["input_ids"][0].tolist() == list(ids):
                return {name: self._put(given) for name, given in made.items()}
        return None

    def literal(self, text: str) -> str:
        """Mark the control tokens in a text, such as `</s>`, so that `tokens` reads them as text."""
        return template.marked(text, self._control_tokens)

    @cached_property
    def _control_tokens(self) -> re.Pattern[str]:
        return template.control_tokens(self.tokenizer, template.source(self.processor))

    @cached_property
    def _written_before(self) -> list[int]:
        return template.written_before(self.tokenizer)

    @cached_property
    def added_tokens(self) -> frozenset[str]:
        """The texts of the tokens added to the tokenizer's vocabulary, special or not."""
        return frozenset(token.content for token in self.tokenizer.added_tokens_decoder.values())

    @cached_property
    def special_tokens(self) -> dict[int, str]:
        """Id -> text of the tokenizer's special tokens, which are removed from answers."""
        known = self.tokenizer.added_tokens_decoder
        return {id: token.content for id, token in known.items() if token.special}

    @cached_property
    def template_writes_bos(self) -> bool:
        """Whether the chat template itself writes the BOS."""
        bos = self.tokenizer.bos_token
        return bool(bos) and bos in self.prompt(template.SENTINEL, picture=False)

    # --- the language model

    def path_of(self, module: nn.Module) -> str:
        """A module's full name in the model, such as `model.vision_tower`."""
        return next(str(name) for name, found in self.model.named_modules() if found is module)

    @property
    def inner(self) -> Any:
        """The module that makes features and takes them: the model without its head, if there is one."""
        inner, outer = getattr(self.model, "model", None), hasattr(self.model, "get_image_features")
        return self.model if inner is None or (outer and not hasattr(inner, "get_image_features")) else inner

    @property
    def generator(self) -> Any:
        """The model whose `generate` answers."""
        return self.model

    @property
    def head(self) -> Any:
        """The layer that makes logits of the language model's last hidden states."""
        parts = (part for part in self.model.modules() if isinstance(part, PreTrainedModel))
        return next(head for part in parts if (head := part.get_output_embeddings()) is not None)

    @property
    def language_parts(self) -> list[nn.Module]:
        """The language model's modules, without its head."""
        return [self.model.get_decoder()]

    @property
    def device(self) -> torch.device:
        """Device of the language model's inputs."""
        return _device_of(self.model.get_input_embeddings())

    @property
    def embedding_rows(self) -> int:
        """Number of rows of the language model's embedding matrix."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    @property
    def text_width(self) -> int:
        """Width of the language model's embeddings."""
        return int(self.model.get_input_embeddings().weight.shape[1])

    def inputs(self, ids: Tensor, prompt: Tensor, features: Sequence[Feature | None]) -> dict[str, Any]:
        """Further inputs of transformers' forward, besides the ids.

        Args:
            ids: Token ids, int64 [rows, tokens].
            prompt: Mask of the prompts' tokens, bool [rows, tokens].
            features: Per row, the picture's feature or None.
        """
        tokens = [feature.tokens for feature in features if feature is not None]
        if not tokens:
            return {}
        given: Any = torch.cat(tokens)[None] if self.one_tensor else tokens
        return {"mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=given)}}

    def hidden(
        self, ids: Tensor, prompt: Tensor, features: Sequence[Feature | None], cache: Cache | None = None
    ) -> Tensor:
        """The language model's last hidden states, with gradients if the caller enables them.

        Rows are padded on the right, so that causal attention hides the padding.

        Args:
            ids: Token ids, int64 [rows, tokens]; padding may have any id.
            prompt: Mask of the prompts' tokens, bool [rows, tokens]; picture tokens count only there.
            features: Per row, the picture's feature or None.
            cache: Cache that receives the keys and values of every token. It must be empty; if `lead_alone`,
                it may have preceding text of equal length in all rows.

        Returns:
            Hidden states, [rows, tokens, text width], in the model's dtype.
        """
        ids = ids.masked_fill(~prompt & (ids == self.picture_token_id), self.pad_token)
        given = self.inputs(ids, prompt, features)
        given |= {"use_cache": cache is not None, "past_key_values": cache}
        return self.last_hidden(ids, **given)

    def last_hidden(self, ids: Tensor, **given: Any) -> Tensor:
        """The last hidden states of transformers' forward without the head, [rows, tokens, text width]."""
        with self.own_positions():
            if self.inner is not self.model:
                found: Tensor = self.inner(input_ids=ids, **given).last_hidden_state
                return found
            head = nn.ModuleList([self.head])  # stop before it
            return tower.states(lambda: self.model(input_ids=ids, **given), head, [0])[0]

    @contextmanager
    def own_positions(self) -> Iterator[None]:
        """Context that restores the positions that transformers stores on models with 3D positions."""
        own = vars(self.inner).get("rope_deltas", self)
        try:
            yield
        finally:
            if own is not self:
                self.inner.rope_deltas = own

    def decode_step(
        self,
        ids: Tensor,
        positions: Tensor,
        cache: Cache,
        inside: Tensor | None,
        extra_inputs: Mapping[str, Tensor],
    ) -> Tensor:
        """The last hidden states of new tokens; their keys and values are appended to `cache`.

        Args:
            ids: Token ids, int64 [rows, tokens], without picture tokens.
            positions: int64 [rows, tokens], the number of tokens before each in its row, plus the row's
                `position_offset`.
            cache: Keys and values of the earlier tokens, right-aligned.
            inside: Mask of the columns that belong to the row, bool [rows, columns + 1]; None if all do, and
                for several new tokens.
            extra_inputs: Extra inputs of all rows, from `extra_inputs`.

        Returns:
            Hidden states, [rows, tokens, text width], in the model's dtype.
        """
        if inside is not None and self._one_mask:
            # The mask in sdpa's format: transformers' own conversion would make the host wait for the GPU
            inside = inside[:, None, None]
        given = {
            "position_ids": positions,
            "attention_mask": inside,
            "past_key_values": cache,
            **extra_inputs,
        }
        return self.last_hidden(ids, use_cache=True, **given)

    @cached_property
    def _one_mask(self) -> bool:
        """Whether every layer of the language model has full attention, by sdpa."""
        text = self.model.config.get_text_config()
        whole = set(getattr(text, "layer_types", None) or ["full_attention"]) == {"full_attention"}
        window = getattr(text, "sliding_window", None)
        return bool(whole and window is None and text._attn_implementation == "sdpa")

    @cached_property
    def context(self) -> int | None:
        """Largest number of tokens of prompt and answer together; None if the config does not give it.

        `dynamic` embeddings extend the trained length by their factor.
        """
        config = self.model.config.get_text_config()
        length = rope.context(config)
        if length is not None and self._rope is not None and self._rope.type == "dynamic":
            return int(length * float(config.rope_parameters.get("factor", 1.0)))
        return length

    @cached_property
    def _rope(self) -> Rope | None:
        return rope.find(self.model.config.get_text_config())

    def regime(self, prompt: int, longest: int, feature: Feature | None) -> Regime:
        """The regime of a row: some rotary embeddings depend on the longest row of a batch; see `rope`.

        Args:
            prompt: Length of its prompt, in tokens.
            longest: Length limit of its answer, in tokens.
            feature: Feature of its picture, or None.
        """
        if self._rope is None:
            return "short"
        return self._rope.regime(prompt + max(0, self.position_offset(feature)), longest)

    def reset_rope(self) -> None:
        """Reset the scale that a longer row left in the rotary embeddings, if rows depend on it."""
        if self._rope is not None:
            rope.reset(self.model)

    def position_offset(self, feature: Feature | None) -> int:
        """Difference between positions and token counts after a picture."""
        return 0

    @property
    def cross_attention_layers(self) -> frozenset[int]:
        """Layers of the language model with cross-attention, whose keys come from the picture."""
        return frozenset()

    def extra_inputs(self, feature: Feature | None) -> dict[str, Tensor]:
        """Extra inputs of `decode_step` for a row, each [1, 1, ...]."""
        return {}

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits of the next token, [..., vocabulary] for hidden states [..., text width]."""
        found: Tensor = self.head(hidden)
        return found

    @torch.no_grad()
    def generate(
        self, ids: Sequence[Sequence[int]], features: Sequence[Feature | None], **settings: Any
    ) -> Tensor:
        """Answer a batch whose rows may differ in text, picture and exit.

        Args:
            ids: Token ids per row, from `tokens`.
            features: Per row, the picture's feature from `encode`, or None.
            settings: Arguments of transformers' `generate`.

        Returns:
            Token ids, int64 [rows, answer tokens], padded on the right with the padding token.
        """
        if self.answers_alone and len(ids) > 1:
            rows = [
                self.generate([line], [feature], **settings)[0]
                for line, feature in zip(ids, features, strict=True)
            ]
            return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.pad_token)
        width = max(map(len, ids))
        tokens = torch.full((len(ids), width), self.pad_token, device=self.device)
        mask = torch.zeros_like(tokens)
        for row, line in enumerate(ids):
            tokens[row, width - len(line) :] = torch.tensor(line)
            mask[row, width - len(line) :] = 1
        given = self.inputs(tokens, torch.ones_like(tokens, dtype=torch.bool), features)
        settings = {"pad_token_id": self.pad_token, "eos_token_id": sorted(self.eos_tokens)} | settings
        with self.own_positions():
            made: Tensor = self.generator.generate(input_ids=tokens, attention_mask=mask, **given, **settings)
        return made[:, width:]


def _device_of(module: nn.Module) -> torch.device:
    """Device on which a module computes, which can differ from its weights' device (offloading)."""
    for part in module.modules():
        runs_on = getattr(getattr(part, "_hf_hook", None), "execution_device", None)
        if runs_on is not None:
            return torch.device(runs_on)
    return next(module.parameters()).device
