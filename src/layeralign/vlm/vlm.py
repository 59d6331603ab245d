"""A vision-language model as layeralign sees it: encode → exit at l → project → language model.

`Vlm` serves every family whose transformers class can give picture features by themselves
(`get_image_features`) and take them back (`mm_encoder_outputs`); a family's own file says what is special.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, ClassVar

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
from layeralign.vlm.rope import Regime, Rope
from layeralign.vlm.text import reasoning, template
from layeralign.vlm.text.ends import Ends, ends
from layeralign.vlm.text.reasoning import Marks

_TOKENS = {"picture_token_id": "picture", "eos_tokens": "end", "pad_token": "padding"}


@dataclass(frozen=True)
class Feature:
    """A picture at an exit, as the language model takes it.

    Attributes:
        tokens: [picture tokens, text width], in the model's dtype.
        text: what the picture's placeholder becomes in a prompt.
        extras: what else this family's language model is given with the picture.
    """

    tokens: Tensor
    text: str
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        return self.tokens.nbytes + sum(extra.nbytes for extra in self.extras.values())

    def clone(self) -> Feature:
        """A copy that keeps no other picture's memory alive."""
        extras = {name: extra.clone() for name, extra in self.extras.items()}
        return Feature(self.tokens.clone(), self.text, extras)


class Vlm:
    """One loaded model of one family. A new family subclasses this; see CONTRIBUTING.

    Nothing here changes the wrapped model.
    """

    family: ClassVar[str]
    """The `model_type` of the checkpoints that this class serves."""
    variants: ClassVar[Mapping[str, str]]
    """Name -> how the family reads "exit at l", in one sentence; the first is the default."""
    blocks_at: ClassVar[str] = "encoder.layers"
    """Where the tower keeps its blocks, an `nn.ModuleList`."""
    one_tensor: bool = False
    """Whether transformers' forward takes a batch's features as one tensor, not as a list of them."""
    reads_plainly: ClassVar[bool] = False
    """Whether the config's `vision_feature_layer` at l gives what an exit at l does, whichever l it is."""
    replaces_picture_token: ClassVar[bool] = False
    """Whether the forward embeds another id in place of the picture token, which then needs no embedding."""
    tuples: bool = False
    """Whether the tower's blocks return tuples that begin with the state."""
    exits_together: bool = False
    """Whether what follows the blocks takes many exits of a picture as it takes many pictures."""
    streams: bool = True
    """Whether `hidden` and `decode_step` go on from a cache; where not, transformers' `generate` answers."""
    lead_alone: bool = False
    """Whether `hidden` can go on from the text before a picture, which is then read once for all pictures."""
    reads_ahead: bool = False
    """Whether a prompt's beginning is read in the light of its end, so that prompts cannot share it."""

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin | None,
        checkpoint: Checkpoint,
        variant: str | None = None,
    ) -> None:
        # Any: what a family's model and processor have is more than their base classes declare
        self.model: Any = model
        self.processor: Any = processor
        self.checkpoint = checkpoint
        self.adapter: Adapter | None = None
        self.other_base = ""  # the different model that the adapter was trained on, if that was allowed
        self.quantize: str | None = None
        self.check(variant)
        self.reading = next(iter(self.variants)) if variant is None else variant

    @classmethod
    def check(cls, variant: str | None) -> None:
        """Refuse a variant that the family does not have."""
        if variant is not None and variant not in cls.variants:
            raise LayeralignError(
                f"variant {variant!r}: family {cls.family} has no such variant; expected "
                f"{', '.join(cls.variants)}"
            )

    @property
    def reads_cut(self) -> bool:
        """Whether a config of fewer blocks computes what this reading's exits do."""
        return True

    @property
    def variant(self) -> str:
        """How this model reads "exit at l", in one sentence; part of a run's identity."""
        sentence = self.variants[self.reading]
        return f"{self.reading}: {sentence}" if len(self.variants) > 1 else sentence

    @property
    def name(self) -> str:
        """The model as it was given, and its adapter."""
        return f"{self.checkpoint.name} + {self.adapter.name}" if self.adapter else self.checkpoint.name

    # --- the encoder and its exits

    @property
    def tower(self) -> Any:
        """The image encoder, an `nn.Module`."""
        return self.model.get_encoder(modality="image")

    @property
    def blocks(self) -> nn.ModuleList:
        """The encoder's blocks, of the main track."""
        try:
            found = self.tower.get_submodule(self.blocks_at)
        except AttributeError:
            found = None
        if not isinstance(found, nn.ModuleList):
            raise LayeralignError(
                f"model {self.checkpoint.name}: its vision tower ({type(self.tower).__name__}) has no blocks "
                f"at {self.blocks_at}"
            )
        return found

    @property
    def all_blocks(self) -> list[nn.Module]:
        """Every block of every stage, in the order in which they run."""
        return list(self.blocks)

    def unused_blocks(self, exit: int) -> list[nn.Module]:
        """The blocks that do not run where the encoder exits at `exit`."""
        return list(self.blocks)[exit:]

    def unused_parts(self, exit: int) -> list[nn.Module]:
        """What of the encoder has no use where it exits at `exit`, its blocks among it."""
        return self.unused_blocks(exit)

    unit: ClassVar[str] = "picture"
    """What `sample` is."""

    def sample(self) -> dict[str, Tensor]:
        """A black picture (or tile), as the tower's forward takes it: to count and to time what it costs."""
        config = self.tower.config
        size = config.image_size
        height, width = (size, size) if isinstance(size, int) else size
        return {"pixel_values": torch.zeros(1, getattr(config, "num_channels", 3), height, width)}

    @property
    def states(self) -> int | None:
        """States that a block computes of `sample`: patches, and a class token where the tower has one.

        None where they cannot be counted.
        """
        config = self.tower.config
        sides = (config.image_size, config.patch_size)
        (height, width), (down, right) = ((s, s) if isinstance(s, int) else s for s in sides)
        named = {name.split(".")[-1] for name, _ in self.tower.named_parameters()}
        return (height // down) * (width // right) + bool(named & {"class_embedding", "cls_token"})

    def span(self, block: int, states: int) -> int:
        """States, of so many, that each one attends to in a block (from 0)."""
        return states

    @property
    def exits(self) -> Exits:
        """The exits of this model's encoder and its default one.

        That is the config's `vision_feature_layer`, in families that have it, else the last.
        """
        layers = len(self.blocks)
        if layers == 0:
            raise LayeralignError(f"model {self.checkpoint.name}: its encoder has no blocks, so no exits")
        layer = self.model.config.vision_feature_layer if self._reads_a_layer else layers
        if not isinstance(layer, int) or isinstance(layer, bool):
            raise LayeralignError(
                f"model {self.checkpoint.name}: vision_feature_layer is {layer!r}; expected one whole "
                "number, since models that join several layers are not supported"
            )
        return Exits(layers, Exits(layers, layers).resolve(layer))

    @cached_property
    def _takes(self) -> tuple[str, ...]:
        """What `get_image_features` takes; nothing where there is none."""
        own = getattr(self.model.model, "get_image_features", None)
        return () if own is None else tuple(inspect.signature(own).parameters)

    @property
    def _reads_a_layer(self) -> bool:
        """Whether the family reads the config's `vision_feature_layer`; others have it for nothing."""
        return "vision_feature_layer" in self._takes

    @torch.no_grad()
    def encode(self, pictures: Sequence[Image.Image], exits: Sequence[int]) -> dict[int, list[Feature]]:
        """Picture features at each exit, projected into the language model's width.

        Args:
            pictures: n RGB pictures.
            exits: numbers as in `Exits`; blocks past the deepest are not run.

        Returns:
            exit -> n features.
        """
        inputs, texts = self.prepare(pictures)
        run = partial(self.model.model.get_image_features, **inputs, return_dict=True)
        deepest = max(exits)
        states = tower.states(
            run, self.blocks, {*exits, *(tap for tap in self.captured_layers if tap < deepest)}
        )
        if self.exits_together:
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
        """Exits whose states are read besides the last one, as by deepstack."""
        return ()

    def prepare(self, pictures: Sequence[Image.Image]) -> tuple[dict[str, Any], list[str]]:
        """Pictures as `get_image_features` takes them, and what each one's placeholder becomes."""
        marks = [self.placeholder] * len(pictures)
        made = self.processed(pictures, self.processor, text=marks, return_text_replacement_offsets=True)
        texts = [found[0]["replacement"] for found in made.pop("text_replacement_offsets")]
        strange = [name for name in made if name not in self._takes]
        made = made.convert_to_tensors("pt", skip_tensor_conversion=strange)
        inputs = {name: self._put(made[name]) for name in self._takes if name in made}
        if self._reads_a_layer and self.exits.default == 0:
            inputs["vision_feature_layer"] = 1  # of a held tower the same, and transformers cannot read 0
        return inputs, texts

    def picture_text(self, picture: Image.Image) -> str:
        """What the placeholder of a picture becomes; nothing is encoded for it."""
        return self.prepare([picture])[1][0]

    def processed(self, pictures: Sequence[Image.Image], by: Callable[..., Any], **settings: Any) -> Any:
        """What the processor, or its part for pictures, makes of pictures.

        Raises:
            LayeralignError: it refuses one, as Qwen's does very long ones.
        """
        try:
            return by(images=[[picture] for picture in pictures], **settings)
        except Exception as error:  # a processor that refuses, or that is another family's
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
        """What `get_image_features` returned, cut into pictures.

        Args:
            output: of `get_image_features`, n pictures together.
            inputs: what it was given.
            texts: per picture, what its placeholder becomes.
            exit: where the encoder was cut.
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
        """What else the language model is given with each of n pictures."""
        return [{} for _ in range(n)]

    # --- prompts

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer."""
        return self.processor.tokenizer

    @property
    def pad_token(self) -> int:
        """Id that fills batches; the mask comes from lengths, so any id would do."""
        names = self.tokenizer
        return int(names.eos_token_id if names.pad_token_id is None else names.pad_token_id)

    @cached_property
    def ends(self) -> Ends:
        """The tokens that end an answer, with who says so; see `layeralign.vlm.text.ends`."""
        return ends(self)

    @property
    def eos_tokens(self) -> frozenset[int]:
        """Ids that end an answer."""
        return frozenset(self.ends)

    @property
    def unsayable(self) -> list[int]:
        """Ids that an answer must not hold: special tokens, the picture's place among them, but no end."""
        special = {*self.tokenizer.all_special_ids, self.picture_token_id} - self.eos_tokens
        vocabulary = self.model.get_output_embeddings().weight.shape[0]  # mllama has no logit for a picture
        return sorted(token for token in special if token < vocabulary)

    def check_names(self) -> None:
        """Refuse a model whose picture, end or padding token is not known."""
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
        """The text that stands for a picture in a templated prompt, as `<image>`."""
        return str(self.processor.image_token)

    @property
    def picture_token(self) -> str:
        """The text of the token in whose places picture features go; mostly the placeholder itself."""
        return str(self.tokenizer.convert_ids_to_tokens(self.picture_token_id))

    @property
    def picture_token_id(self) -> int:
        """The id of `picture_token`."""
        return int(self.model.config.image_token_id)

    def prompt(self, text: str, *, picture: bool, system: str = "", date: str = "") -> str:
        """`text` as the user's turn in the model's own chat template, ready to be answered.

        Args:
            text: of the user.
            picture: whether one goes before it.
            system: what the template's system turn says; without it there is none, or the template's own.
            date: what the template is told if it asks for the day, as `2026-11-28`; empty for today's.

        Raises:
            LayeralignError: the template fails, or has no place for `system`.
        """
        content = [{"type": "image"}] if picture else []
        turn = {"role": "user", "content": [*content, {"type": "text", "text": text}]}
        if not system:
            return self._templated([turn], date)
        said = [{"type": "text", "text": system}]
        made = self._templated([{"role": "system", "content": said}, turn], date)
        try:
            misread = self._templated([{"role": "assistant", "content": said}, turn], date)
        except LayeralignError:  # a template that wants the user's turn first
            misread = ""
        if system.strip() not in made or made == misread:
            raise LayeralignError(
                f"model {self.checkpoint.name}: its chat template does not support a system prompt; remove it"
            )
        return made

    def _templated(self, turns: Sequence[Mapping[str, Any]], date: str = "", *, asks: bool = True) -> str:
        what = f"model {self.checkpoint.name}"
        return template.render(self.processor, what, turns, date, add_generation_prompt=asks)

    def behind_an_answer(self) -> str:
        """What the chat template writes behind an assistant's text, its own end of a turn first."""
        asked, said = (
            {"role": role, "content": [{"type": "text", "text": text}]}
            for role, text in (("user", "Hello."), ("assistant", template.SENTINEL))
        )
        _, found, behind = self._templated([asked, said], asks=False).rpartition(template.SENTINEL)
        return behind if found else ""

    @cached_property
    def marks(self) -> tuple[Marks, ...]:
        """The marks around this model's reasoning, if it writes any; see `reasoning`."""
        names = [token.content for token in self.tokenizer.added_tokens_decoder.values()]
        _, _, behind = self.prompt(template.SENTINEL, picture=False).rpartition(template.SENTINEL)
        return reasoning.known_to(template.source(self.processor), names, behind)

    @cached_property
    def special_marks(self) -> frozenset[str]:
        """The special tokens of which `marks` are made."""
        return reasoning.pieces(self.marks).intersection(self.special_tokens.values())

    @cached_property
    def reads_date(self) -> bool:
        """Whether what the template makes of a request can depend on the day, or the hour.

        It names the clock; whether it asks can depend on the system prompt, or on the day itself.
        """
        return template.reads_clock(template.source(self.processor))

    def tokens(self, prompt: str, feature: Feature | None) -> list[int]:
        """Token ids of a templated prompt, its picture's place as wide as its features.

        One BOS, whether the template or the tokenizer writes it, and no EOS that the tokenizer would add: the
        answer goes on from here.

        Args:
            prompt: what `prompt` returned, of a text as it is or as `literal` gives it.
            feature: of the picture, None for a prompt without one.
        """
        text = prompt if feature is None else prompt.replace(self.placeholder, feature.text)
        return template.encode(
            self.tokenizer, text, self._written_before, writes_bos=self._template_writes_bos
        )

    def own_inputs(self, prompt: str, picture: Image.Image, ids: Sequence[int]) -> dict[str, Any] | None:
        """What the model's own processor makes of a prompt; None where it makes other tokens than `ids`."""
        for special in (True, False):
            made = self.processor(
                images=[[picture]], text=[prompt], return_tensors="pt", add_special_tokens=special
            )
            if made["input_ids"][0].tolist() == list(ids):
                return {
                    name: given.to(self.device) if isinstance(given, Tensor) else given
                    for name, given in made.items()
                }
        return None

    def literal(self, text: str) -> str:
        """A text for `prompt` whose control tokens, as `</s>`, are read as text."""
        return template.marked(text, self._control_tokens)

    @cached_property
    def _control_tokens(self) -> re.Pattern[str]:
        return template.control_tokens(self.tokenizer, template.source(self.processor))

    @cached_property
    def _written_before(self) -> list[int]:
        return template.written_before(self.tokenizer)

    @cached_property
    def added_tokens(self) -> frozenset[str]:
        """The texts of the tokens that the tokenizer has beside its vocabulary, special or not."""
        return frozenset(token.content for token in self.tokenizer.added_tokens_decoder.values())

    @cached_property
    def special_tokens(self) -> dict[int, str]:
        """Id -> text of the tokenizer's special tokens, which an answer's text leaves out."""
        known = self.tokenizer.added_tokens_decoder
        return {id: token.content for id, token in known.items() if token.special}

    @cached_property
    def _template_writes_bos(self) -> bool:
        bos = self.tokenizer.bos_token
        return bool(bos) and bos in self.prompt(template.SENTINEL, picture=False)

    # --- the language model

    def path_of(self, module: nn.Module) -> str:
        """A module's name in the model, as `model.vision_tower`."""
        return next(str(name) for name, found in self.model.named_modules() if found is module)

    @property
    def device(self) -> torch.device:
        """Where the language model's inputs go."""
        return _device_of(self.model.get_input_embeddings())

    @property
    def embedding_rows(self) -> int:
        """Rows of the language model's embedding matrix."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    @property
    def text_width(self) -> int:
        """Width of the language model's embeddings."""
        return int(self.model.get_input_embeddings().weight.shape[1])

    @cached_property
    def language_modules(self) -> str:
        """A regular expression of the linear layers of the language model's blocks, by full name.

        Towers have a `q_proj`, too, so the language model is named.
        """
        inner = self.model.get_decoder()
        linear = {
            name.split(".")[-1] for name, module in inner.named_modules() if isinstance(module, nn.Linear)
        }
        return rf"{re.escape(self.path_of(inner))}\..*\.({'|'.join(sorted(linear))})"

    def inputs(self, ids: Tensor, prompt: Tensor, features: Sequence[Feature | None]) -> dict[str, Any]:
        """What transformers' forward takes besides the ids.

        Args:
            ids: int64 [rows, tokens].
            prompt: bool [rows, tokens], the prompts' tokens.
            features: per row, None without picture.
        """
        tokens = [feature.tokens for feature in features if feature is not None]
        if not tokens:
            return {}
        given: Any = torch.cat(tokens)[None] if self.one_tensor else tokens
        return {"mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=given)}}

    def hidden(
        self, ids: Tensor, prompt: Tensor, features: Sequence[Feature | None], cache: Cache | None = None
    ) -> Tensor:
        """The language model's last hidden states, with gradients where the caller allows them.

        Rows are padded on the right, so that causal attention alone keeps padding out.

        Args:
            ids: int64 [rows, tokens]; what stands in the padding does not matter.
            prompt: bool [rows, tokens], the prompts' tokens; a picture's places are looked for only there.
            features: per row, None without picture.
            cache: keys and values of every token are left in it. It is empty; where `lead_alone`, it can hold
                text that comes before, as long in all rows.

        Returns:
            [rows, tokens, text width] in the model's dtype.
        """
        ids = ids.masked_fill(~prompt & (ids == self.picture_token_id), self.pad_token)
        given = self.inputs(ids, prompt, features)
        given |= {"use_cache": cache is not None, "past_key_values": cache}
        found: Tensor = self.model.model(input_ids=ids, **given).last_hidden_state
        return found

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
            ids: int64 [rows, tokens]; none of them stands for a picture.
            positions: int64 [rows, tokens], the number of tokens before each in its row, plus the row's
                `position_offset`.
            cache: keys and values of the earlier tokens, right-aligned.
            inside: bool [rows, columns + 1], the columns that belong to the row; None where all of them do,
                and for several new tokens.
            extra_inputs: what `extra_inputs` gives for each row's picture.

        Returns:
            [rows, tokens, text width] in the model's dtype.
        """
        if (
            inside is not None and self._one_mask
        ):  # as sdpa takes it; made by transformers, the host would wait
            inside = inside[:, None, None]
        given = {
            "position_ids": positions,
            "attention_mask": inside,
            "past_key_values": cache,
            **extra_inputs,
        }
        found: Tensor = self.model.model(input_ids=ids, use_cache=True, **given).last_hidden_state
        return found

    @cached_property
    def _one_mask(self) -> bool:
        """Whether every layer of the language model sees all that came before, through sdpa."""
        text = self.model.config.get_text_config()
        whole = set(getattr(text, "layer_types", None) or ["full_attention"]) == {"full_attention"}
        window = getattr(text, "sliding_window", None)
        return bool(whole and window is None and text._attn_implementation == "sdpa")

    @cached_property
    def context(self) -> int | None:
        """Tokens that prompt and answer may have together; None where the config does not say.

        `dynamic` embeddings were made to go past the trained length, by their factor.
        """
        config = self.model.config.get_text_config()
        length = getattr(config, "max_position_embeddings", None)
        if not isinstance(length, int) or length < 1:
            return None
        if self._rope is not None and self._rope.type == "dynamic":
            return int(length * float(config.rope_parameters.get("factor", 1.0)))
        return length

    @cached_property
    def _rope(self) -> Rope | None:
        return rope.find(self.model.config.get_text_config())

    def regime(self, prompt: int, longest: int, feature: Feature | None) -> Regime:
        """Which rows a row can be beside, since some rotary embeddings look at the longest row of a batch.

        Args:
            prompt: tokens of its prompt.
            longest: tokens that its answer can have.
            feature: of its picture.
        """
        if self._rope is None:
            return "short"
        return self._rope.regime(prompt + max(0, self.position_offset(feature)), longest)

    def reset_rope(self) -> None:
        """Forget what a longer row left in the rotary embeddings; where rows do not depend on it, nothing."""
        if self._rope is not None:
            rope.reset(self.model)

    def position_offset(self, feature: Feature | None) -> int:
        """How far the positions behind a picture are ahead of the count of tokens."""
        return 0

    @property
    def cross_attention_layers(self) -> frozenset[int]:
        """Layers of the language model whose keys are a picture's, beside the text, not the tokens'."""
        return frozenset()

    def extra_inputs(self, feature: Feature | None) -> dict[str, Tensor]:
        """What `decode_step` is given with each token of a row besides the cache, [1, 1, ...] each."""
        return {}

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits of the next token, [..., vocabulary] for hidden states [..., text width]."""
        found: Tensor = self.model.lm_head(hidden)
        return found

    @torch.no_grad()
    def generate(
        self, ids: Sequence[Sequence[int]], features: Sequence[Feature | None], **settings: Any
    ) -> Tensor:
        """Answer a batch whose rows may differ in text, picture and exit.

        Args:
            ids: token ids per row, from `tokens`.
            features: per row from `encode`, None without picture.
            settings: what transformers' `generate` takes.

        Returns:
            int64 [rows, answer tokens], padded on the right with the pad token.
        """
        width = max(map(len, ids))
        tokens = torch.full((len(ids), width), self.pad_token, device=self.device)
        mask = torch.zeros_like(tokens)
        for row, line in enumerate(ids):
            tokens[row, width - len(line) :] = torch.tensor(line)
            mask[row, width - len(line) :] = 1
        given = self.inputs(tokens, torch.ones_like(tokens, dtype=torch.bool), features)
        settings = {"pad_token_id": self.pad_token, "eos_token_id": sorted(self.eos_tokens)} | settings
        made: Tensor = self.model.generate(input_ids=tokens, attention_mask=mask, **given, **settings)
        return made[:, width:]


def _device_of(module: nn.Module) -> torch.device:
    """Where a module computes, which need not be where its weights wait (accelerate's offloading)."""
    for part in module.modules():
        runs_on = getattr(getattr(part, "_hf_hook", None), "execution_device", None)
        if runs_on is not None:
            return torch.device(runs_on)
    return next(module.parameters()).device
