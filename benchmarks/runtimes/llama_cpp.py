"""From which exit does a real llama.cpp server answer, and does `check` name that exit from the vision file?

    sh benchmarks/runtimes/llama_cpp_setup.sh out/llama_cpp    # once: builds the server
    python benchmarks/runtimes/llama_cpp.py --server out/llama_cpp/build/bin/llama-server > benchmarks/results/llama_cpp.md

The bundled model is written as two GGUF files, in float32. Its tower has 8 blocks and the default exit 7. Converters for
LLaVA leave the blocks past the layer out, so their file has 7. llama.cpp counts the layer off once more.

Where a tower has a class token, llama.cpp puts it behind the patches and reads rows 1 to n: the first patch is lost, the class
token takes the last place, and each patch has its predecessor's position (issue 25814). The last two columns count the answers that equal, word by
word, those of the same computation in torch: at the exit that `check` names, and after another block.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gguf
import torch
from serving import HEADS, PORT, cells, head, line, served

import layeralign
from layeralign.analysis.results import Results
from layeralign.cases.case import Case
from layeralign.gating import endpoint
from layeralign.gating.endpoint import Located
from layeralign.judges.models.remote import Endpoint
from layeralign.testbed import architecture
from layeralign.testbed.drawn import drawn
from layeralign.vlm.vlm import Vlm

SETTINGS: tuple[tuple[int, int | None], ...] = ((7, None), (8, None), (7, 7), (7, 5), (7, 3), (7, 0))
"""Blocks that the vision file keeps, and its feature layer."""
LONGEST = 24


def vision_file(vlm: Vlm, file: Path, blocks: int, layer: int | None) -> Path:
    """The encoder and the projector, named as llama.cpp reads them."""
    config = vlm.model.config.vision_config
    pictures = vlm.processor.image_processor
    writer = gguf.GGUFWriter(file, "clip")
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type("mlp")
    writer.add_vision_embedding_length(config.hidden_size)
    writer.add_vision_feed_forward_length(config.intermediate_size)
    writer.add_vision_head_count(config.num_attention_heads)
    writer.add_vision_block_count(blocks)
    writer.add_vision_projection_dim(vlm.model.config.text_config.hidden_size)
    writer.add_vision_attention_layernorm_eps(config.layer_norm_eps)
    writer.add_vision_image_size(config.image_size)
    writer.add_vision_patch_size(config.patch_size)
    writer.add_vision_image_mean(list(pictures.image_mean))
    writer.add_vision_image_std(list(pictures.image_std))
    if layer is not None:
        writer.add_array("clip.vision.feature_layer", [layer])
    renamed = {
        "embeddings.class_embedding": "v.class_embd",
        "embeddings.patch_embedding": "v.patch_embd",
        "embeddings.position_embedding": "v.position_embd",
        "pre_layrnorm": "v.pre_ln",
        "encoder.layers": "v.blk",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.out_proj": "attn_out",
        "layer_norm1": "ln1",
        "layer_norm2": "ln2",
        "mlp.fc1": "ffn_up",
        "mlp.fc2": "ffn_down",
    }
    dropped = ("post_layernorm", *(f"encoder.layers.{at}." for at in range(blocks, config.num_hidden_layers)))
    for name, weight in vlm.model.model.vision_tower.state_dict().items():
        if not any(part in name for part in dropped) and "position_ids" not in name:
            add(writer, name.removeprefix("vision_model."), weight, renamed)
    for name, weight in vlm.model.model.multi_modal_projector.state_dict().items():
        add(writer, name, weight, {"linear_1": "mm.0", "linear_2": "mm.2"})
    return close(writer, file)


def language_file(vlm: Vlm, file: Path) -> Path:
    """The language model and its tokenizer: WordPiece, llama.cpp's `bert`."""
    config = vlm.model.config.text_config
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    words = vlm.processor.tokenizer.convert_ids_to_tokens(range(config.vocab_size))
    special = set(vlm.processor.tokenizer.all_special_tokens) | {"<image>"}
    writer.add_tokenizer_model("bert")
    writer.add_token_list(
        [word if word in special else word[2:] if word.startswith("##") else f"▁{word}" for word in words]
    )
    kinds = gguf.TokenType
    writer.add_token_types([kinds.CONTROL if word in special else kinds.NORMAL for word in words])
    for name, id in (("bos", 2), ("eos", 3), ("unk", 1), ("sep", 3), ("pad", 0)):
        getattr(writer, f"add_{name}_token_id")(id)
    writer.add_add_bos_token(True)
    writer.add_add_sep_token(False)
    writer.add_chat_template(architecture.CHAT_TEMPLATE)
    renamed = {
        "embed_tokens": "token_embd",
        "layers": "blk",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    for name, weight in vlm.model.model.language_model.state_dict().items():
        turned = weight
        if "q_proj" in name or "k_proj" in name:  # llama.cpp rotates neighbours, transformers halves
            heads = weight.reshape(config.num_attention_heads, 2, -1, weight.shape[1])
            turned = heads.swapaxes(1, 2).reshape(weight.shape)
        add(writer, "output_norm.weight" if name == "norm.weight" else name, turned, renamed)
    return close(writer, file)


def add(writer: gguf.GGUFWriter, name: str, weight: torch.Tensor, renamed: dict[str, str]) -> None:
    """Add a weight under llama.cpp's name."""
    for long, short in renamed.items():
        name = name.replace(long, short)
    writer.add_tensor(name, weight.float().contiguous().numpy())


def close(writer: gguf.GGUFWriter, file: Path) -> Path:
    """Write the file."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@torch.inference_mode()
def as_llama_cpp(vlm: Vlm, case: Case, blocks: int) -> str:
    """The greedy answer from llama.cpp's features after so many blocks: class token last, rows 1 to n."""
    tower = vlm.model.model.vision_tower
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": case.prompt}]}]
    text = vlm.processor.apply_chat_template(asked, add_generation_prompt=True)
    inputs = vlm.processor(images=drawn([case.id])[case.id].open(), text=text, return_tensors="pt")
    patches = tower.embeddings.patch_embedding(inputs.pixel_values).flatten(2).transpose(1, 2)
    rows = torch.cat([patches, tower.embeddings.class_embedding.expand(1, 1, -1)], 1)
    state = tower.pre_layrnorm(rows + tower.embeddings.position_embedding.weight)
    for block in tower.encoder.layers[:blocks]:
        out = block(state, attention_mask=None)
        state = out[0] if isinstance(out, tuple) else out
    features = vlm.model.model.multi_modal_projector(state[:, 1:])
    embedded = vlm.model.get_input_embeddings()(inputs.input_ids)
    embedded[inputs.input_ids == vlm.model.config.image_token_id] = features[0]
    told = vlm.model.generate(inputs_embeds=embedded, max_new_tokens=LONGEST, do_sample=False)
    return str(vlm.processor.tokenizer.decode(told[0], skip_special_tokens=True))


def clean(text: str) -> list[str]:
    """The words of a reply: llama.cpp writes a space before a full stop and a comma, the tokenizer none."""
    for mark in ".,?:":
        text = text.replace(f" {mark}", mark)
    return text.split()


def ask(url: str, run: Results, vlm: Vlm, blocks: int) -> tuple[Located, list[str]]:
    """What the endpoint test says of a server, and how many of its answers torch gives, too."""
    exits, asked, replies = endpoint.ask(Endpoint.of(url, "m"), run)
    said = [clean(reply.text) for reply in replies]
    each = [(words, reply.told) for words, reply in zip(said, replies, strict=True)]
    found = Located(endpoint.fits(run, exits, each), asked, len(replies))
    same = [
        sum(
            words == as_llama_cpp(vlm, reply.case, run_blocks).split()
            for words, reply in zip(said, replies, strict=True)
        )
        for run_blocks in (blocks, blocks + 1)
    ]
    return found, [f"{n} of {len(replies)}" for n in same]


def main() -> None:
    """Serve each vision file; print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--server", type=Path, required=True, help="llama.cpp's llama-server")
    parser.add_argument("--build", default="b11434", help="its build, for the table of versions")
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("out/llama_cpp_server"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    vlm = layeralign.load("testbed")
    asked = {"cases": "testbed:test", "limit": given.cases, "max_new_tokens": LONGEST}
    run = layeralign.scan(vlm, out=given.out / "run", **asked).results
    language = language_file(vlm, given.out / "language.gguf")
    heads = ("blocks in the file", "`feature_layer`", *HEADS, "equal to torch", "after another block")
    head(
        "llama.cpp, served and asked", given.build, f"llama_cpp.py --server FILE --cases {given.cases}", heads
    )
    for blocks, layer in SETTINGS:
        file = vision_file(vlm, given.out / "mmproj.gguf", blocks, layer)
        exit = layeralign.check(file, given.out / "run", runtime=f"llama.cpp@{given.build}").exit
        assert exit is not None
        command = [
            *(str(given.server), "--model", str(language), "--mmproj", str(file), "--port", str(PORT)),
            *("--jinja", "--ctx-size", "2048", "--flash-attn", "off", "--cache-ram", "0"),
        ]
        with served(command, given.out / "server.log") as url:
            found, same = ask(url, run, vlm, exit)
        print(
            line((str(blocks), "–" if layer is None else str(layer), *cells(found, exit), *same)), flush=True
        )


if __name__ == "__main__":
    main()
