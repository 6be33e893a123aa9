"""ACNet's networks; the modules bear the names of the published checkpoints."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def _conv(before: int, after: int, kernel: int, *, stride: int = 1, up: bool = False,
          reflect: bool = False) -> list[nn.Module]:
    """Convolution, instance norm and ReLU."""
    conv = nn.ConvTranspose2d(before, after, kernel, stride, 1, output_padding=1) if up else \
        nn.Conv2d(before, after, kernel, stride, kernel // 2,
                  padding_mode="reflect" if reflect else "zeros")
    return [conv, nn.InstanceNorm2d(after), nn.ReLU(inplace=True)]


class ResidualBlock(nn.Module):
    """Two reflect-padded 3 x 3 convolutions with a bypass; no ReLU after the sum."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Sequential(*_conv(channels, channels, 3, reflect=True),
                                  *_conv(channels, channels, 3, reflect=True)[:-1])

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The features, with what the block adds."""
        return x + self.conv(x)


class Generator(nn.Module):
    """Sketch to photo-like image of the same size, in -1..1. Sides are multiples of 4 pixels."""

    def __init__(self, channels: int = 8, blocks: int = 8):
        super().__init__()
        c = channels
        self.in_conv = nn.Sequential(*_conv(3, c, 7, reflect=True))
        self.down_sample = nn.Sequential(*_conv(c, 2 * c, 3, stride=2),
                                         *_conv(2 * c, 4 * c, 3, stride=2))
        self.convs = nn.Sequential(*(ResidualBlock(4 * c) for _ in range(blocks)))
        self.up_sample = nn.Sequential(*_conv(4 * c, 2 * c, 3, stride=2, up=True),
                                       *_conv(2 * c, c, 3, stride=2, up=True))
        self.out_conv = nn.Sequential(nn.Conv2d(c, 3, 7, padding=3, padding_mode="reflect"),
                                      nn.Tanh())

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Photo-like images of the sketches' size, in -1..1."""
        return self.out_conv(self.up_sample(self.convs(self.down_sample(self.in_conv(images)))))


class Discriminator(nn.Module):
    """PatchGAN: one score for each patch of 70 pixels; 1 is a photo, 0 a generated image."""

    def __init__(self, channels: int = 8):
        super().__init__()
        c = channels
        self.conv1 = nn.Sequential(nn.Conv2d(3, c, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True))
        self.conv2 = self._normed(c, 2 * c, 2)
        self.conv3 = self._normed(2 * c, 4 * c, 2)
        self.conv4 = self._normed(4 * c, 8 * c, 1)
        self.conv5 = nn.Conv2d(8 * c, 1, 4, 1, 1)

    @staticmethod
    def _normed(before: int, after: int, stride: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(before, after, 4, stride, 1), nn.InstanceNorm2d(after),
                             nn.LeakyReLU(0.2, inplace=True))

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 i j"]:
        """How real each patch looks; high: a photo."""
        return self.conv5(self.conv4(self.conv3(self.conv2(self.conv1(images)))))


class Extractor(nn.Module):
    """A timm network with global max pooling and a new last layer of `emb_dim`; unit length.

    Its batch norms keep the pretrained running statistics: they stay in evaluation mode.
    """

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.train()

    def train(self, mode: bool = True) -> "Extractor":
        """Training mode for all but batch normalisation, whose statistics stay those of ImageNet.
        """
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def body(self) -> list[nn.Parameter]:
        """All that the warm-up leaves alone: every parameter but the last layer's."""
        last = set(self.backbone.get_classifier().parameters())
        return [p for p in self.parameters() if p not in last]

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Embeddings of unit length, float32."""
        return F.normalize(self.backbone(images).float(), dim=-1)


class ACNet(nn.Module):
    """Generator, discriminator, extractor and the proxies of the training classes.

    Without synthesis (`generates` False) a sketch is embedded as it is.
    """

    def __init__(self, backbone: nn.Module, emb_dim: int, n_classes: int, channels: int = 8,
                 blocks: int = 8, *, generates: bool = True):
        super().__init__()
        self.generator, self.discriminator = Generator(channels, blocks), Discriminator(channels)
        self.extractor, self.generates = Extractor(backbone), generates
        self.proxies = nn.Parameter(torch.randn(emb_dim, n_classes))

    def encode_sketch(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Embeddings of sketches, by way of the generated image."""
        return self.extractor(self.generator(images) if self.generates else images)

    def encode_photo(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Embeddings of photos."""
        return self.extractor(images)
