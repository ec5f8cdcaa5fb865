"""Networks of the glimpse model: of what is seen, of where it is seen, and of the whole picture at low resolution."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from visattn.errors import InputError, require_number
from visattn.models.glimpses.retina import Sensor


class ConvolutionalTrunk(nn.Module):
    """3×3 convolutions of stride 2 with group norm, then one linear layer over all places.

    Args:
        channels: of the input.
        size: (h, w) of the input.
        features: of the output.
        widths: channels after each convolution; each halves the sides, rounded up.

    Raises:
        InputError: if there is no convolution, or nothing is left to halve.
    """

    def __init__(self, channels: int, size: tuple[int, int], features: int, widths: Sequence[int]) -> None:
        super().__init__()
        if not widths or min(widths) < 1:
            raise InputError(f"widths is {list(widths)}; the trunk needs at least one convolution, with channels")
        if 2 ** (len(widths) - 1) >= min(size):
            raise InputError(f"widths has {len(widths)} convolutions, too many for {size[0]}×{size[1]} values")
        layers: list[nn.Module] = []
        height, width = size
        for before, after in zip((channels, *widths), widths, strict=False):
            layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.GroupNorm(1, after), nn.ReLU()]
            height, width = -(-height // 2), -(-width // 2)
        self.layers = nn.Sequential(*layers)
        self.project = nn.Linear(widths[-1] * height * width, features)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, h, w) to (B, features)."""
        return self.project(self.layers(images).flatten(1))


class GlimpseNetwork(nn.Module):
    """g = ReLU(what(glimpse) + where(location)) (Mnih 2014, section 3.1, with a convolutional "what" as in Ba 2015).

    Args:
        sensor: whose glimpses are read.
        features: of the output.
        widths: channels of the convolutions; each halves the glimpse.
        where: size of the hidden layer of the location.

    Raises:
        InputError: if the glimpse is too small for so many halvings, or `where` is no size.
    """

    def __init__(self, sensor: Sensor, features: int, widths: Sequence[int] = (32, 64), where: int = 64) -> None:
        super().__init__()
        require_number("where", where, least=1, of="the hidden layer of a location")
        self.what = ConvolutionalTrunk(sensor.channels, (sensor.size, sensor.size), features, widths)
        self.where = nn.Sequential(nn.Linear(2, where), nn.ReLU(), nn.Linear(where, features))

    def forward(self, glimpse: Tensor, location: Tensor) -> Tensor:
        """Glimpses (B, C, size, size) and locations (B, 2) to (B, features)."""
        return (self.what(glimpse) + self.where(location)).relu()


class ContextNetwork(nn.Module):
    """The whole picture at low resolution (Ba 2015, section 3, "context network").

    Args:
        image_size: (h, w) of the pictures.
        features: of the output.
        side: the picture is reduced to side × side values by means.
        widths: channels of the convolutions; each halves the reduced picture.

    Raises:
        InputError: if the reduced picture is larger than the picture, or too small for so many halvings.
    """

    def __init__(
        self, image_size: tuple[int, int], features: int, side: int = 16, widths: Sequence[int] = (32, 64)
    ) -> None:
        super().__init__()
        require_number("side of the context network", side, least=1, most=min(image_size))
        self.side = side
        self.trunk = ConvolutionalTrunk(3, (side, side), features, widths)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, h, w) to (B, features)."""
        return self.trunk(F.adaptive_avg_pool2d(images, self.side)).tanh()
