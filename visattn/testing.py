"""Checks that your own attention, decoder or encoder satisfies its interface: `check_attention` and others.

Each raises an `AssertionError` that names the violated property. visattn's own classes pass the same checks.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from visattn.attention import Glimpse, SpatialAttention
from visattn.models import Decoder, GridEncoder, LuongDecoder

_IMAGES, _CAPTIONS, _GRID, _QUERY, _VALUE, _STEPS = 2, 3, (3, 5), 28, 44, 3
_PLACES = _GRID[0] * _GRID[1]
_VOCABULARY = 23


def check_attention(
    make: Callable[[int, int], SpatialAttention],
    *,
    permutes: bool = True,
    query_size: int = _QUERY,
    value_size: int = _VALUE,
    seed: int = 0,
) -> None:
    """Check that a mechanism satisfies the interface of `SpatialAttention`.

    A glimpse has the documented shapes; weights are float32, not negative, and sum to 1 or less; masked places get
    none, and a grid with masked margins gives the glimpses of the grid without them; captions that share an image's
    memory are independent, and so are images; the order of places does not matter; every parameter gets a gradient; in
    bfloat16 weights stay within 0.05; a decoder with it has equal `forward` and `step`.

    Args:
        make: the class, or another function of the sizes of query and values.
        permutes: whether the order of places does not matter. It does for attention to a window or by location; masked
            columns are not checked for these either.
        query_size: Q, for mechanisms that do not take every size.
        value_size: D.
        seed: of weights and inputs.

    Raises:
        AssertionError: if a property is violated.
    """
    torch.manual_seed(seed)
    attention = make(query_size, value_size).eval()
    query, values = torch.randn(_IMAGES * _CAPTIONS, query_size), torch.randn(_IMAGES, _PLACES, value_size)

    def look(
        query: Tensor, values: Tensor, grid: tuple[int, int] = _GRID, mask: Tensor | None = None, t: int = 1
    ) -> Glimpse:
        torch.manual_seed(seed)
        return attention(query, attention.prepare(values, grid, mask), t)

    seen = look(query, values)
    rows = len(query)
    for name, shape in {
        "context": (rows, value_size),
        "weights": (rows, _PLACES),
        "focus": (rows, _PLACES),
        "log_prob": (rows,),
        "gate": (rows,),
    }.items():
        found = tuple(getattr(seen, name).shape)
        assert found == shape, f"shapes: the glimpse's {name} has the shape {found}, not {shape}"
    assert seen.weights.dtype == torch.float32, f"weights are {seen.weights.dtype}; they must be float32"
    assert (seen.weights >= 0).all(), "weights: some are negative"
    assert (seen.weights.sum(-1) <= 1 + 1e-5).all(), "weights: some sum to more than 1"

    if permutes and not _draws(attention):
        order = torch.randperm(_PLACES)
        moved = look(query, values[:, order])
        with _law("order: weights do not move with the places (permutes=False, if they should not)"):
            torch.testing.assert_close(moved.weights, seen.weights[:, order], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(moved.context, seen.context, rtol=1e-4, atol=1e-5)

    height, width = _GRID
    inside = torch.ones(height + 1, width + 2 * permutes, dtype=torch.bool)
    inside[height:], inside[:, width:] = False, False
    padded = torch.full((_IMAGES, *inside.shape, value_size), 7.0)
    padded[:, :height, :width] = values.unflatten(1, _GRID)
    mask = inside.flatten().expand(_IMAGES, -1)
    masked = look(query, padded.flatten(1, 2), tuple(inside.shape), mask)
    assert (masked.weights[:, ~inside.flatten()] == 0).all(), "masks: a masked place has weight"
    with _law("masks: a grid with masked margins does not give the glimpses of the grid without them"):
        torch.testing.assert_close(masked.weights[:, inside.flatten()], seen.weights, rtol=1e-4, atol=1e-5)
        if not _draws(attention):
            torch.testing.assert_close(masked.context, seen.context, rtol=1e-4, atol=1e-5)

    with _law("captions: results depend on other captions that share an image's memory"):
        torch.manual_seed(seed)
        memory = attention.prepare(values, _GRID)
        rows_of = memory.rows(torch.arange(_IMAGES).repeat_interleave(_CAPTIONS))
        if not _draws(attention):
            torch.testing.assert_close(attention(query, rows_of, 1).context, seen.context, rtol=1e-4, atol=1e-5)
    with _law("images: the results of one depend on another"):
        if not _draws(attention):
            other = look(query, torch.cat([values[:1], torch.randn_like(values[1:])]))
            torch.testing.assert_close(other.context[:_CAPTIONS], seen.context[:_CAPTIONS], rtol=1e-4, atol=1e-5)

    attention.train()
    torch.manual_seed(seed)
    taught = attention(query.requires_grad_(), attention.prepare(values.requires_grad_(), _GRID), 1)
    loss = (taught.context * torch.randn_like(taught.context)).sum() + taught.log_prob.sum()
    (loss + (taught.weights * torch.randn_like(taught.weights)).sum()).backward()
    for name, parameter in attention.named_parameters():
        assert parameter.grad is not None, f"gradients: the parameter {name} has none"
        assert parameter.grad.isfinite().all(), f"gradients: that of the parameter {name} is not finite"
    attention.eval()
    if not _draws(attention):
        with torch.autocast("cpu", torch.bfloat16):
            rough = look(query, values)
        assert rough.weights.dtype == torch.float32, f"bfloat16: weights are {rough.weights.dtype}, not float32"
        with _law("bfloat16: weights differ by more than 0.05"):
            torch.testing.assert_close(rough.weights, seen.weights, rtol=0, atol=0.05)
    decoder = LuongDecoder(_VOCABULARY, value_size, make, hidden=query_size, embedding=11, dropout=0.0)
    check_decoder(decoder, value_size=value_size, seed=seed)


def check_decoder(decoder: Decoder | Callable[[int, int], Decoder], *, value_size: int = _VALUE, seed: int = 0) -> None:
    """Check that a decoder satisfies the interface of `Decoder`: `forward` equals repeated `step`s.

    Args:
        decoder: a decoder of 23 words, or a function of the sizes of vocabulary and values.
        value_size: D.
        seed: of weights and inputs.

    Raises:
        AssertionError: if a property is violated.
    """
    torch.manual_seed(seed)
    decoder = (decoder if isinstance(decoder, Decoder) else decoder(_VOCABULARY, value_size)).eval()
    values = torch.randn(_IMAGES, _PLACES, value_size)
    tokens = torch.randint(4, _VOCABULARY, (_IMAGES * _CAPTIONS, _STEPS))
    draws = _draws(decoder)
    with torch.no_grad():
        torch.manual_seed(seed)
        memory = decoder.prepare(values, _GRID)
        logits, seen = decoder(memory, tokens)
        shape = (_IMAGES * _CAPTIONS, _STEPS, _VOCABULARY)
        assert tuple(logits.shape) == shape, f"shapes: logits have the shape {tuple(logits.shape)}, not {shape}"
        places = tuple(seen.weights.shape)
        assert places == (*shape[:2], _PLACES), f"shapes: weights have the shape {places}, not {(*shape[:2], _PLACES)}"
        torch.manual_seed(seed)
        memory = decoder.prepare(values, _GRID)
        state = decoder.init(memory, _CAPTIONS)
        for t in range(_STEPS if not draws else 1):
            step, glimpse, state = decoder.step(state, tokens[:, t])
            with _law(f"steps: at step {t} `step` gives other logits or weights than `forward`"):
                torch.testing.assert_close(step, logits[:, t], rtol=1e-3, atol=1e-4)
                torch.testing.assert_close(glimpse.weights, seen.weights[:, t], rtol=1e-3, atol=1e-4)
        if draws:
            return
        order = torch.arange(_IMAGES * _CAPTIONS).flip(0).unflatten(0, (_IMAGES, -1)).flip(0).flatten()
        with _law("states: `rows` does not reorder captions"):
            again = state.rows(order)
            following = torch.full((_IMAGES * _CAPTIONS,), 5)
            torch.testing.assert_close(
                decoder.step(again, following)[0], decoder.step(state, following)[0][order], rtol=1e-3, atol=1e-4
            )


def check_encoder(encoder: GridEncoder, image_size: tuple[int, int] = (64, 96)) -> None:
    """Check that an encoder satisfies the interface of `GridEncoder`: size, grid, and receptive field centres.

    A cell's centre is compared with the middle of the pixels with a gradient, for cells whose receptive field is only
    a part of the image.

    Args:
        encoder: the encoder.
        image_size: (h, w) of a supported image.

    Raises:
        AssertionError: if a property is violated.
    """
    encoder = encoder.eval()
    images = torch.randint(0, 256, (2, 3, *image_size), dtype=torch.uint8)
    with torch.no_grad():
        values, grid = encoder(images)
    assert grid == encoder.grid(image_size), f"grid: `grid` returns {encoder.grid(image_size)}, but maps have {grid}"
    shape = (2, grid[0] * grid[1], encoder.size)
    assert tuple(values.shape) == shape, f"shapes: values have the shape {tuple(values.shape)}, not {shape}"
    with torch.no_grad():
        alone = encoder(images[:1]).values
    with _law("images: the vectors of one depend on another"):
        torch.testing.assert_close(alone, values[:1], rtol=1e-3, atol=1e-4)
    cells = encoder.cell_shift(image_size)
    pixels = encoder.normalise(images[:1]).requires_grad_()
    features = encoder.body(pixels)
    features = features if isinstance(features, Tensor) else features[0]
    features = features.permute(0, 3, 1, 2) if encoder.channels_last else features
    for cell in ((0, 0), (grid[0] // 2, grid[1] // 2), (grid[0] - 1, grid[1] - 1)):
        (gradient,) = torch.autograd.grad(features[0, :, *cell].square().sum(), pixels, retain_graph=True)
        for axis, other in ((0, 1), (1, 0)):
            seen = gradient[0].abs().sum(dim=(0, 1 + other)).nonzero()
            low, high = (int(seen.min()), int(seen.max()) + 1) if len(seen) else (0, image_size[axis])
            place = cells[axis] + cells.stride[axis] * (cell[axis] + 0.5)
            if low > 0 and high < image_size[axis]:
                middle = (low + high) / 2
                assert abs(place - middle) <= 1, f"places: cell {cell} is stated at {place}, but centred at {middle}"


def _draws(module: torch.nn.Module) -> bool:
    """Whether places are sampled outside training, so that two runs differ."""
    return any(getattr(part, "evaluation", None) == "sample" for part in module.modules())


@contextmanager
def _law(sentence: str) -> Iterator[None]:
    """Prepend the checked property to error messages."""
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{sentence}: {error}") from error
