"""Where captioners of transformers look for each token that they generate, along the winning beam.

It is the decoder's cross attention to the patches, or, where the language model reads the patches as tokens of its own
text (LLaVA; Liu et al. 2023, "Visual Instruction Tuning"), its attention to those.

The caption is generated as the library does it, by whatever search. Then the decoder reads it once more, all at once:
it is causal, so each position attends as it did when the next token was chosen, whichever beams it came through.

Axis letters: T tokens, H W the grid of patches.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from visattn.errors import InputError
from visattn.explain.layouts import Layout, UnreadableError, image_part, layout_of
from visattn.explain.recorder import record
from visattn.models.mode import evaluating


class Generated(NamedTuple):
    """A generated caption.

    Attributes:
        tokens: the T tokens after the start, or after the prompt, and before the end.
        maps: (T, layers, heads, H, W) float32, what the decoder attended to among the patches when it chose each token;
            heads sum to 1 with what went to class tokens and, of a LLaVA, to the prompt and earlier tokens.
    """

    tokens: list[int]
    maps: Tensor

    def words(self, pieces: Sequence[str]) -> list[tuple[str, Tensor]]:
        """Words with their maps (layers, heads, H, W), the mean over the pieces of each.

        Args:
            pieces: of the tokens, as `tokenizer.convert_ids_to_tokens(tokens)` gives them: with ## before what goes on
                with a word, or Ġ or ▁ before what begins one.
        """
        begins = [not piece.startswith("##") for piece in pieces]
        if any(piece[:1] in ("Ġ", "▁") for piece in pieces):
            begins = [piece[:1] in ("Ġ", "▁") for piece in pieces]
        found: list[tuple[str, list[int]]] = []
        for number, (piece, new) in enumerate(zip(pieces, begins, strict=True)):
            text = piece.removeprefix("##").lstrip("Ġ▁")
            if new or not found:
                found.append((text, [number]))
            else:
                found[-1] = found[-1][0] + text, [*found[-1][1], number]
        return [(word, self.maps[numbers].mean(dim=0)) for word, numbers in found]


@torch.no_grad()
def generated_words(model: Any, images: Tensor, **options: Any) -> list[Generated]:
    """Captions of images by a model of transformers, with a map for each token.

    Args:
        model: a `VisionEncoderDecoderModel`, `BlipForConditionalGeneration` or `LlavaForConditionalGeneration`.
        images: normalised (B, 3, h, w).
        options: of the model's `generate`, such as num_beams=3, max_new_tokens=20. A prompt is `input_ids`, for BLIP if
            one is wanted; LLaVA needs one with the tokens of one image, and takes an `attention_mask` where it is
            padded on the left.

    Raises:
        InputError: if the model is another, its image part has no one grid of patches, several captions of an image
            are asked for, or a prompt has other than the tokens of one image.
    """
    kinds = {kind.__name__ for kind in type(model).__mro__}
    prompts = {"VisionEncoderDecoderModel": "decoder_input_ids"}
    prompts |= dict.fromkeys(("BlipForConditionalGeneration", "LlavaForConditionalGeneration"), "input_ids")
    prompt = next((prompts[kind] for kind in prompts if kind in kinds), None)
    if prompt is None:
        raise InputError(f"{type(model).__name__} is not a known captioner; give one of {' or '.join(prompts)}")
    if options.get("num_return_sequences", 1) != 1:
        raise InputError("one caption for each image is read; leave out num_return_sequences")
    layout = _layout(model)
    if "LlavaForConditionalGeneration" in kinds:
        return _among_texts(model, images, layout, options)
    with evaluating(model):
        sequences = model.generate(pixel_values=images, **{**options, "return_dict_in_generate": False})
        with record(model, where=_crosses) as attention:
            model(pixel_values=images, **{prompt: sequences[:, :-1]})
    grid = layout.grid(*images.shape[-2:])
    cross = [entry for entry in attention if entry.keys == layout.prefix + grid[0] * grid[1]]
    if not cross:
        raise InputError(f"the decoder of {type(model).__name__} does not attend to the patches of its images")
    maps = torch.stack([entry.weights()[..., layout.prefix :] for entry in cross], dim=1)  # (B, layers, heads, T, H W)
    maps = maps.permute(0, 3, 1, 2, 4).unflatten(-1, grid)
    given = options.get(prompt)
    first = 1 if given is None else given.shape[1] - (prompt == "input_ids")  # BLIP leaves out the prompt's last token
    if given is not None and prompt == "decoder_input_ids" and not torch.equal(sequences[:, : given.shape[1]], given):
        first += 1  # the start token was put before a prompt that does not begin with it
    return _captions(sequences, first, maps[:, first - 1 :], _ends(model, options))


def _captions(sequences: Tensor, first: int, maps: Tensor, ends: set[int]) -> list[Generated]:
    """Captions from sequences (B, n) whose tokens from the first on have maps (B, n − first, layers, heads, H, W)."""
    captions = []
    for row, looked in zip(sequences.tolist(), maps, strict=True):
        end = next((n for n in range(first, len(row)) if row[n] in ends), len(row))
        captions.append(Generated(row[first:end], looked[: end - first]))
    return captions


def _among_texts(model: Any, images: Tensor, layout: Layout, options: dict[str, Any]) -> list[Generated]:
    """Captions by a model whose prompt holds a token for each patch."""
    grid, kind = layout.grid(*images.shape[-2:]), type(model).__name__
    prompt = options.get("input_ids")
    places = torch.zeros(0, 0) if prompt is None else prompt == model.config.image_token_id
    before = layout.prefix - (model.config.vision_feature_select_strategy == "default")  # tokens of no patch
    count = before + grid[0] * grid[1]
    if before < 0 or places.shape[:1] != images.shape[:1] or (places.sum(dim=1) != count).any():
        raise InputError(
            f"a prompt of {kind} for an image of {images.shape[-1]}×{images.shape[-2]} pixels needs {count} image "
            "tokens for each image; give input_ids as its processor makes them of one image and a text"
        )
    with evaluating(model):
        sequences = model.generate(pixel_values=images, **{**options, "return_dict_in_generate": False})
        first, read = places.shape[1], sequences[:, :-1]
        if (read[:, first:] == model.config.image_token_id).any():
            raise InputError(f"{kind} wrote a token that stands for images; give suppress_tokens=[its number]")
        mask = torch.ones_like(read)
        mask[:, :first] = options.get("attention_mask", mask[:, :first])
        reading = {"attention_mask": mask, "position_ids": (mask.cumsum(dim=1) - 1).clamp(min=0)}
        with record(model, rows=slice(first - 1, None), where=lambda name: "language_model" in name) as attention:
            model(pixel_values=images, input_ids=read, **reading)
    of_image = places.nonzero()[:, 1].view(len(images), count)[:, before:]
    index = of_image[:, None, None].expand(-1, attention[0].heads, read.shape[1] - first + 1, -1)
    maps = torch.stack([entry.weights().gather(-1, index) for entry in attention], dim=1)  # (B, layers, heads, T, H W)
    return _captions(sequences, first, maps.permute(0, 3, 1, 2, 4).unflatten(-1, grid), _ends(model, options))


def _layout(model: nn.Module) -> Layout:
    part = image_part(model)
    try:
        return layout_of(part)
    except UnreadableError as error:
        raise InputError(
            f"the image part of {type(model).__name__}, {type(part).__name__}, has no maps: {error}"
        ) from error


def _crosses(name: str) -> bool:
    """Whether a module of this name attends to what the encoder gave, as transformers names them."""
    return "crossattention" in name or "encoder_attn" in name


def _ends(model: Any, options: dict[str, Any]) -> set[int]:
    """The tokens that end a caption."""
    texts = getattr(model.config, "text_config", None)
    ends = [options.get("eos_token_id"), getattr(texts, "sep_token_id", None), model.generation_config.eos_token_id]
    return {end for one in ends for end in (one if isinstance(one, list) else [one]) if end is not None}
