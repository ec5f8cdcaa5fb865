"""Captioners of transformers: a map for each generated token, against what generation itself says of its attention."""

import pytest
import torch

from visattn.errors import InputError
from visattn.explain import generated_words

transformers = pytest.importorskip("transformers")

VISION = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 31}
VISION |= {"image_size": 40, "patch_size": 8}
TOKENS = {"vocab_size": 53, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}


def vit_and_gpt2():
    encoder = transformers.ViTConfig(**VISION)
    decoder = transformers.GPT2Config(
        n_embd=20, n_layer=2, n_head=2, n_positions=31, add_cross_attention=True, **TOKENS
    )
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 0, 2, 1
    return transformers.VisionEncoderDecoderModel(config=config)


def dinov2_and_bert():
    encoder = transformers.Dinov2WithRegistersConfig(**VISION)
    decoder = transformers.BertConfig(
        **VISION | {"hidden_size": 18, "num_hidden_layers": 2}, is_decoder=True, add_cross_attention=True, **TOKENS
    )
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 0, 2, 1
    return transformers.VisionEncoderDecoderModel(config=config)


def blip():
    text = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 31}
    text |= {"encoder_hidden_size": 24, "sep_token_id": 1, "max_position_embeddings": 31, **TOKENS}
    config = transformers.BlipConfig(vision_config=VISION, text_config=text)
    return transformers.BlipForConditionalGeneration(config)


MODELS = {"vit and gpt2": (vit_and_gpt2, 1), "dinov2 and bert": (dinov2_and_bert, 5), "blip": (blip, 1)}


def built(make):
    torch.manual_seed(3)
    model = make().eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data.normal_(std=1.5 * parameter.shape[1] ** -0.5, generator=generator)
    model.generation_config = transformers.GenerationConfig(decoder_start_token_id=0, **{**TOKENS, "vocab_size": None})
    return model


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("beams", [1, 3])
def test_maps_are_those_of_generation_along_the_winning_beam(name, beams):
    make, prefix = MODELS[name]
    images = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(2))
    options = {"num_beams": beams, "max_new_tokens": 7, "do_sample": False}
    captions = generated_words(built(make), images, **options)
    model, steps = built(make), []
    decoder = model.text_decoder if name == "blip" else model.decoder
    if name != "blip":  # whose attention is never fused
        model.set_attn_implementation("eager")
    decoder.register_forward_hook(lambda module, args, out: steps.append(out.cross_attentions))
    with torch.no_grad():
        own = model.generate(pixel_values=images, output_attentions=True, return_dict_in_generate=True, **options)
    assert len({len(caption.tokens) for caption in captions} | {0}) > 1
    for image, caption in enumerate(captions):
        generated = own.sequences[image, 1:].tolist()
        assert generated[: len(caption.tokens)] == caption.tokens
        assert generated[len(caption.tokens) :][:1] in ([], [1])
        assert caption.maps.shape[1:2] == (2,)
        for step in range(len(caption.tokens)):
            row = image if beams == 1 else int(own.beam_indices[image, step])
            for layer, weights in enumerate(steps[step]):
                expected = weights[row, :, -1, prefix:].unflatten(-1, (5, 5))
                torch.testing.assert_close(caption.maps[step, layer], expected, rtol=0, atol=1e-5)


LLAVAS = [("clip", "default", 0), ("clip", "full", 1), ("siglip", "full", 0)]


def llava(vision="clip", strategy="default"):
    kind = transformers.CLIPVisionConfig if vision == "clip" else transformers.SiglipVisionConfig
    text = transformers.LlamaConfig(
        **{**VISION, "num_hidden_layers": 2, "num_attention_heads": 4}, num_key_value_heads=2, **TOKENS
    )
    config = transformers.LlavaConfig(
        vision_config=kind(**{**VISION, "num_hidden_layers": 2}),
        text_config=text,
        image_token_index=52,
        vision_feature_select_strategy=strategy,
        vision_feature_layer=-2 if strategy == "default" else -1,
    )
    return transformers.LlavaForConditionalGeneration(config)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize(
    ("vision", "strategy", "before"), [("clip", "default", 0), ("clip", "full", 1), ("siglip", "full", 0)]
)
def test_of_a_llava_they_are_its_attention_to_the_image_s_tokens(vision, strategy, before, beams):
    images = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(2))
    long = [0, 11, *[52] * (25 + before), 13, 17]
    prompt = torch.tensor([long, [2, 2, *long[:1], *long[2:-1]]])  # the second is shorter, padded on the left
    options = {"input_ids": prompt, "attention_mask": (prompt != 2).long()}
    options |= {"num_beams": beams, "max_new_tokens": 7, "do_sample": False, "suppress_tokens": [52]}
    captions = generated_words(built(lambda: llava(vision, strategy)), images, **options)
    model = built(lambda: llava(vision, strategy))
    model.set_attn_implementation("eager")
    with torch.no_grad():
        own = model.generate(pixel_values=images, output_attentions=True, return_dict_in_generate=True, **options)
    assert len({len(caption.tokens) for caption in captions} | {0}) > 1
    for image, caption in enumerate(captions):
        generated = own.sequences[image, prompt.shape[1] :].tolist()
        assert generated[: len(caption.tokens)] == caption.tokens
        assert generated[len(caption.tokens) :][:1] in ([], [1])
        assert caption.maps.shape == (len(caption.tokens), 2, 4, 5, 5)
        places = (prompt[image] == 52).nonzero().flatten()[before:]
        for step in range(len(caption.tokens)):
            row = image if beams == 1 else int(own.beam_indices[image, step])
            for layer, weights in enumerate(own.attentions[step]):
                expected = weights[row, :, -1, places].unflatten(-1, (5, 5))
                torch.testing.assert_close(caption.maps[step, layer], expected, rtol=0, atol=1e-5)


def test_a_llava_s_prompt_needs_the_tokens_of_one_image():
    images = torch.randn(1, 3, 40, 40)
    for prompt in ({}, {"input_ids": torch.tensor([[0, *[52] * 24]])}, {"input_ids": torch.tensor([[0, *[52] * 50]])}):
        with pytest.raises(InputError, match="25 image tokens"):
            generated_words(built(llava), images, **prompt)
    prompt = torch.tensor([[0, *[52] * 26, 13]])
    with pytest.raises(InputError, match="suppress_tokens"):
        generated_words(
            built(lambda: llava("clip", "full")),
            images,
            input_ids=prompt,
            suppress_tokens=list(range(52)),
            max_new_tokens=2,
            do_sample=False,
        )
    with pytest.raises(InputError, match="image tokens"):  # the first of SigLIP's patches would be cut off
        generated_words(built(lambda: llava("siglip")), images, input_ids=torch.tensor([[0, *[52] * 24]]))


@pytest.mark.parametrize("prompt", [[0, 11, 13], [11, 13]])
def test_a_prompt_of_a_decoder_is_not_generated_with_or_without_its_start(prompt):
    images = torch.randn(1, 3, 40, 40, generator=torch.Generator().manual_seed(2))
    given = {"decoder_input_ids": torch.tensor([prompt]), "max_new_tokens": 4, "do_sample": False}
    model = built(dinov2_and_bert)
    (caption,) = generated_words(model, images, **given)
    (sequence,) = model.generate(pixel_values=images, **given).tolist()
    assert sequence[:3] == [0, 11, 13]
    assert caption.tokens == [token for token in sequence[3:] if token not in (0, 1)][: len(caption.tokens)]
    assert len(caption.tokens) == len(caption.maps)


def test_a_prompt_has_no_maps():
    images = torch.randn(1, 3, 40, 40, generator=torch.Generator().manual_seed(2))
    prompt = torch.tensor([[0, 11, 13, 1]])
    (caption,) = generated_words(built(blip), images, input_ids=prompt, max_new_tokens=5, do_sample=False)
    assert 1 <= len(caption.tokens) == len(caption.maps) <= 5
    (free,) = generated_words(built(blip), images, max_new_tokens=5, do_sample=False)
    assert caption.tokens != free.tokens


def test_pieces_are_joined_to_words():
    images = torch.randn(1, 3, 40, 40, generator=torch.Generator().manual_seed(2))
    (caption,) = generated_words(built(vit_and_gpt2), images, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert len(caption.tokens) == 4
    for pieces in (["a", "snow", "##board", "##er"], ["Ġa", "Ġsnow", "board", "er"], ["▁a", "▁snow", "board", "er"]):
        (first, a), (second, b) = caption.words(pieces)
        assert (first, second) == ("a", "snowboarder")
        torch.testing.assert_close(a, caption.maps[0])
        torch.testing.assert_close(b, caption.maps[1:].mean(0))


def test_what_cannot_be_followed_is_refused():
    images = torch.randn(1, 3, 40, 40)
    with pytest.raises(InputError, match="ViTModel is not a known captioner"):
        generated_words(transformers.ViTModel(transformers.ViTConfig(**VISION)), images)
    with pytest.raises(InputError, match="num_return_sequences"):
        generated_words(built(blip), images, num_beams=2, num_return_sequences=2)
