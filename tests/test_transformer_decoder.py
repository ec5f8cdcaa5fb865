"""The transformer decoder: parallel equals cached, its maps explain its words, and it knows where a place is."""

import pytest
import torch
from torch import nn

from visattn.decoding import decode
from visattn.errors import InputError
from visattn.models import TransformerDecoder
from visattn.models.positions import grid_sinusoid, sinusoid
from visattn.models.transformer_decoder import DecoderBlock
from visattn.training.objectives import CaptionLoss
from visattn.vocabulary import END, PAD, START, UNKNOWN

B, GRID, D, V, T, S, LAYERS, HEADS = 3, (2, 5), 11, 17, 7, 20, 3, 5
L = GRID[0] * GRID[1]


def decoder(seed=0, **options):
    torch.manual_seed(seed)
    return TransformerDecoder(V, D, **{"size": S, "layers": LAYERS, "heads": HEADS} | options).eval()


def values(n=B, places=L, seed=5):
    return torch.randn(n, places, D, generator=torch.Generator().manual_seed(seed))


def words(n=B, seed=2):
    return torch.randint(4, V, (n, T), generator=torch.Generator().manual_seed(seed))


def some(n=B, places=L):
    return torch.rand(n, places, generator=torch.Generator().manual_seed(3)) < 0.7


def steps(model, state, tokens):
    for token in tokens.T:
        logits, glimpse, state = model.step(state, token)
        yield logits, glimpse, state


@pytest.mark.parametrize(("mask", "map_layer"), [(None, -1), (some(), 1)], ids=["all", "masked"])
def test_forward_equals_repeated_step(mask, map_layer):
    model, tokens = decoder(map_layer=map_layer), words()
    memory = model.prepare(values(), GRID, mask)
    logits, glimpses = model(memory, tokens)
    assert logits.shape == (B, T, V)
    assert [part.shape for part in glimpses] == [(B, T, S), (B, T, L), (B, T, L), (B, T), (B, T)]
    for t, (step_logits, glimpse, state) in enumerate(steps(model, model.init(memory), tokens)):
        torch.testing.assert_close(step_logits, logits[:, t])
        for whole, one in zip(glimpses, glimpse, strict=True):
            torch.testing.assert_close(one, whole[:, t])
        assert state.t == t + 1


def test_a_memory_holds_the_annotation_vectors_and_every_layers_keys():
    memory = decoder().prepare(values(), GRID, some())
    assert torch.equal(memory.values, values())
    assert memory.keys.shape == memory.projected.shape == (B, LAYERS, HEADS, L, S // HEADS)


def test_a_step_projects_neither_places_nor_past_words_again():
    model, tokens = decoder(), words()
    *_, (_, _, state) = steps(model, model.init(model.prepare(values(), GRID)), tokens)
    seen = []
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[:-1].numel()))
    model.step(state, tokens[:, 0])
    assert set(seen) == {B}


def test_state_rows_continue_the_same_captions():
    model, tokens = decoder(), words()
    *_, (_, _, state) = steps(model, model.init(model.prepare(values(), GRID, some())), tokens[:, :3])
    index = torch.tensor([2, 0, 2, 1])
    whole, picked = steps(model, state, tokens[:, 3:]), steps(model, state.rows(index, index), tokens[index, 3:])
    for (logits, glimpse, _), (logits_of_rows, glimpse_of_rows, _) in zip(whole, picked, strict=True):
        torch.testing.assert_close(logits_of_rows, logits[index])
        torch.testing.assert_close(glimpse_of_rows.weights, glimpse.weights[index])


def test_a_later_word_changes_nothing_before_it():
    model, tokens = decoder(), words()
    memory, other = model.prepare(values(), GRID), tokens.clone()
    other[:, 4] = 3
    (logits, glimpses), (changed, seen) = model(memory, tokens), model(memory, other)
    torch.testing.assert_close(changed[:, :4], logits[:, :4], rtol=0, atol=1e-6)
    torch.testing.assert_close(seen.weights[:, :4], glimpses.weights[:, :4], rtol=0, atol=1e-6)
    assert not torch.isclose(changed[:, 4:], logits[:, 4:]).all(dim=-1).any()


def test_masked_places_do_not_matter():
    model, mask, other = decoder(), some(), values()
    other[~mask] = 99.0
    one, another = (model(model.prepare(v, GRID, mask), words()) for v in (values(), other))
    torch.testing.assert_close(one, another)
    assert torch.all(one[1].weights.masked_select(~mask.unsqueeze(1)) == 0)


def test_masked_margins_give_what_the_grid_without_them_gives():
    model, (height, width) = decoder(), (3, 7)
    inside = torch.zeros(B, height, width, dtype=torch.bool)
    inside[:, : GRID[0], : GRID[1]] = True
    padded = values(places=height * width, seed=7)
    padded[inside.flatten(1)] = values().flatten(0, 1)
    logits, glimpses = model(model.prepare(values(), GRID), words())
    wide_logits, wide = model(model.prepare(padded, (height, width), inside.flatten(1)), words())
    torch.testing.assert_close(wide_logits, logits)
    torch.testing.assert_close(
        wide.weights.unflatten(-1, (height, width))[..., : GRID[0], : GRID[1]].flatten(2), glimpses.weights
    )


def test_the_order_of_places_matters_only_through_the_grid():
    model = decoder()
    logits, turned = (model(model.prepare(values(), grid), words())[0] for grid in (GRID, GRID[::-1]))
    assert not torch.isclose(logits, turned).all(dim=-1).any()
    with pytest.raises(ValueError, match="3×5 places cannot hold 10"):
        model.prepare(values(), (3, 5))


def test_sinusoids_have_the_papers_values():
    vectors = sinusoid(torch.tensor([0, 3]), 4)
    expected = torch.tensor(
        [[0.0, 1, 0, 1], [*torch.tensor(3.0).sin()[None], torch.tensor(3.0).cos(), 0.029995, 0.99955]]
    )
    torch.testing.assert_close(vectors, expected, rtol=0, atol=1e-5)
    places = grid_sinusoid((2, 5), 8)
    assert places.shape == (2, 5, 8)
    torch.testing.assert_close(places[1, 3], torch.cat([sinusoid(torch.tensor([p]), 4)[0] for p in (1, 3)]))


def test_a_block_equals_pytorchs_with_the_same_weights():
    torch.manual_seed(1)
    ours = DecoderBlock(S, HEADS, 2.0, dropout=0.0)
    theirs = nn.TransformerDecoderLayer(
        S, HEADS, 2 * S, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    own = dict(ours.named_parameters())
    own["places.key.bias"] = torch.zeros(S)
    for kind in ("weight", "bias"):
        own[f"places.in_proj_{kind}"] = torch.cat([own.pop(f"places.{x}.{kind}") for x in ("query", "key", "value")])
    names = {
        "norm1": "norm1", "norm2": "norm2", "norm3": "norm3", "mlp.fc1": "linear1", "mlp.fc2": "linear2",
        "words.qkv.": "self_attn.in_proj_", "words.proj": "self_attn.out_proj",
        "places.in_proj": "multihead_attn.in_proj", "places.proj": "multihead_attn.out_proj",
    }  # fmt: skip
    renamed = {}
    for name, parameter in own.items():
        (old,) = (old for old in names if name.startswith(old))
        renamed[names[old] + name.removeprefix(old)] = parameter
    theirs.load_state_dict(renamed)
    x, places = torch.randn(B, T, S), torch.randn(B, L, S)
    causal = nn.Transformer.generate_square_subsequent_mask(T)
    expected = theirs(x, places, tgt_mask=causal, tgt_is_causal=True)
    torch.testing.assert_close(ours(x, ours.places.prepare(places, GRID)), expected)


@pytest.mark.parametrize("map_layer", range(LAYERS))
def test_maps_of_all_heads_explain_the_output(map_layer):
    """A forward pass whose cross-attention is nothing but the maps times the projected values gives the same logits."""
    model, tokens = decoder(map_layer=map_layer), words()
    memory = model.prepare(values(), GRID, some())
    logits, glimpses = model(memory, tokens)
    maps = model.head_maps(memory, tokens)
    assert maps.shape == (B, LAYERS, HEADS, T, L)
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps.sum(-1), torch.ones(B, LAYERS, HEADS, T))
    torch.testing.assert_close(glimpses.weights, maps[:, map_layer].mean(1))
    x = model.embedding(tokens) * S**0.5 + sinusoid(torch.arange(T), S)
    for layer, block in enumerate(model.blocks):
        x = x + block.words(block.norm1(x))
        context = block.places.proj((maps[:, layer] @ memory.projected[:, layer]).transpose(1, 2).flatten(2))
        x = x + context
        x = x + block.mlp(block.norm3(x))
        if layer == map_layer:
            torch.testing.assert_close(context, glimpses.context, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.out(model.norm(x)), logits, rtol=0, atol=1e-5)


def test_greedy_decoding_equals_running_the_whole_prefix_again():
    model = decoder(seed=4)
    memory = model.prepare(values(), GRID)
    decoded = decode(model, memory, max_length=T)
    tokens = torch.full((B, 1), START)
    for t in range(decoded.tokens.shape[1]):
        with torch.no_grad():
            logits, glimpses = model(memory, tokens)
        banned = torch.tensor([PAD, START, UNKNOWN, *([END] if t == 0 else [])])
        log_probs = logits[:, -1].index_fill(1, banned, float("-inf")).log_softmax(-1)
        best = log_probs.argmax(-1)
        going = decoded.tokens[:, t] != PAD
        assert torch.all((decoded.tokens[:, t] == best)[going])
        torch.testing.assert_close(decoded.log_probs[going, t], log_probs.gather(1, best[:, None])[going, 0])
        torch.testing.assert_close(decoded.weights[going, t], glimpses.weights[going, -1])
        tokens = torch.cat([tokens, decoded.tokens[:, t : t + 1]], dim=1)


def test_batched_equals_one_by_one():
    model, tokens = decoder(), words()
    logits, glimpses = model(model.prepare(values(), GRID), tokens)
    for i in range(B):
        alone, seen = model(model.prepare(values()[i : i + 1], GRID), tokens[i : i + 1])
        torch.testing.assert_close(alone[0], logits[i])
        torch.testing.assert_close(seen.weights[0], glimpses.weights[i])


def test_gradients_reach_every_parameter():
    model, tokens = decoder().train(), words()
    logits, glimpses = model(model.prepare(values(), GRID), tokens)
    CaptionLoss()(logits, glimpses, tokens.roll(-1, 1)).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_dropout_is_off_in_evaluation_and_leaves_the_maps_whole_in_training():
    model, tokens = decoder(dropout=0.5), words()
    memory = model.prepare(values(), GRID)
    torch.testing.assert_close(model(memory, tokens)[0], model(memory, tokens)[0], rtol=0, atol=0)
    one, other = (model.train()(memory, tokens) for _ in range(2))
    assert not torch.isclose(one[0], other[0]).all(dim=-1).any()
    torch.testing.assert_close(one[1].weights.sum(-1), torch.ones(B, T))


@pytest.mark.parametrize("autocast", [True, False])
def test_bfloat16_agrees_within_five_percent(autocast):
    model, tokens = decoder(), words()
    exact, glimpses = model(model.prepare(values(), GRID), tokens)
    dtype = torch.float32 if autocast else torch.bfloat16
    model = model.to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        memory = model.prepare(values().to(dtype), GRID)
        rough, seen = model(memory, tokens)
        one_by_one = torch.stack([logits for logits, _, _ in steps(model, model.init(memory), tokens)], dim=1)
    assert rough.dtype == one_by_one.dtype == torch.bfloat16
    assert seen.weights.dtype == torch.float32
    for logits in (rough, one_by_one):
        torch.testing.assert_close(logits.float(), exact, rtol=0, atol=0.05)
    torch.testing.assert_close(seen.weights, glimpses.weights, rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 30}, r"size is 30; .* multiple of 4"),
        ({"heads": 7}, "divisible by 7 heads"),
        ({"map_layer": LAYERS}, "no map_layer 3 among 3 layers"),
        ({"layers": 0}, "no map_layer -1 among 0 layers"),
    ],
)
def test_sizes_that_cannot_be(options, message):
    with pytest.raises(InputError, match=message):
        decoder(**options)
