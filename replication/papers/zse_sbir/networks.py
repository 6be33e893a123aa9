"""ZSE-SBIR's networks: the tower on timm's vision transformer, cross-attention, relation network.

Cross-attention and relation network bear the names of the published checkpoint, the tower timm's.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

SELECTING_LAYERS = (4, 7, 10)  # of twelve, counted from 1, where the paper selects tokens


class TwoWayPatches(nn.Module):
    """Patch embedding: the mean of one wide convolution and of a stack of small ones, each of
    which halves the picture: four for patches of 16 pixels."""

    def __init__(self, proj: nn.Conv2d, stack: int = 64):
        super().__init__()
        doubled = [stack * 2**i for i in range(proj.kernel_size[0].bit_length() - 2)]
        self.proj, widths = proj, (3, *doubled, proj.out_channels)
        convs = []
        for before, after in zip(widths, widths[1:], strict=False):
            kernel = 7 if before == 3 else 3
            convs += [nn.Conv2d(before, after, kernel, 2, kernel // 2, bias=False), nn.ReLU()]
        self.stack = nn.Sequential(*convs[:-1])

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n d"]:
        """Tokens: the mean of both ways."""
        return ((self.proj(images) + self.stack(images)) / 2).flatten(2).transpose(1, 2)


class Tower(nn.Module):
    """A vision transformer of timm whose class token is the retrieval token.

    keep_rate: the share of patch tokens that stay at each of SELECTING_LAYERS, chosen by the class
    token's attention (paper, section 3.2; the released code keeps all). A token that leaves keeps
    its place with zeros, so that what follows can lay the patches out as a grid.
    """

    def __init__(self, vit: nn.Module, keep_rate: float = 1.0, stack: int = 64):
        super().__init__()
        vit.patch_embed = TwoWayPatches(vit.patch_embed.proj, stack)
        self.vit, self.keep_rate = vit, keep_rate
        depth = len(vit.blocks)
        self.selecting = {round(n * depth / 12) for n in SELECTING_LAYERS} - {0}

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1+n d"]:
        """The class token and the patch tokens, normed."""
        if self.keep_rate >= 1:
            return self.vit.forward_features(images)
        x = self.vit._pos_embed(self.vit.patch_embed(images))
        batch, count, width = x.shape
        place = torch.arange(count, device=x.device).expand(batch, -1)
        for number, block in enumerate(self.vit.blocks, 1):
            kept = self._attentive(block, x) if number in self.selecting else None
            x = x + block.attn(block.norm1(x))
            if kept is not None:
                x = x.gather(1, kept[..., None].expand(-1, -1, width))
                place = place.gather(1, kept)
            x = x + block.mlp(block.norm2(x))
        whole = x.new_zeros(batch, count, width)
        return whole.scatter(1, place[..., None].expand(-1, -1, width), self.vit.norm(x))

    def _attentive(self, block: nn.Module, x: Tensor) -> Tensor:
        """Places of the class token and of the patch tokens it attends to most, in order."""
        attention, normed = block.attn, block.norm1(x)
        batch, count, _ = x.shape
        q, k, _ = attention.qkv(normed).view(batch, count, 3, attention.num_heads, -1).unbind(2)
        weight = torch.einsum("bhd,bnhd->bhn", q[:, 0], k) * attention.scale
        weight = weight.softmax(-1).mean(1)[:, 1:]  # (b, n)
        n = max(1, round(self.keep_rate * (count - 1)))
        best = weight.topk(n, dim=1).indices.sort(dim=1).values + 1
        return torch.cat([best.new_zeros(batch, 1), best], dim=1)


class Norm(nn.Module):
    """a (x - mean) / deviation + b with the UNBIASED deviation: nn.LayerNorm divides by n.

    The released code adds 1e-6 to the deviation; of tokens, whose deviation is near 1, that is
    below float32's resolution and left out, so that the fused layer norm can be used.
    """

    def __init__(self, width: int):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.unbiased = ((width - 1) / width) ** 0.5

    def forward(self, x: Tensor) -> Tensor:
        """Normalised over the last axis."""
        return F.layer_norm(x, self.a.shape, self.a * self.unbiased, self.b, 1e-12)


class _Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm = Norm(width)


class CrossLayer(nn.Module):
    """Attention of one picture's tokens over another's, then a feed-forward; norms come after.

    `project` is the part that needs one picture alone, `forward` the part that needs a pair.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        self.heads, self.drop = heads, nn.Dropout(dropout)
        self.self_attn = nn.Module()
        self.self_attn.linears = nn.ModuleList(nn.Linear(width, width) for _ in range(4))
        self.feed_forward = nn.Module()
        self.feed_forward.w_1 = nn.Linear(width, hidden)
        self.feed_forward.w_2 = nn.Linear(hidden, width)
        self.sublayer = nn.ModuleList(_Residual(width) for _ in range(2))

    def project(self, which: int, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b h t e"]:
        """Queries (0), keys (1) or values (2) of each head."""
        split = self.self_attn.linears[which](tokens).unflatten(-1, (self.heads, -1))
        return split.transpose(1, 2)

    def forward(self, query: Float[Tensor, "b h t e"], key: Float[Tensor, "b h t e"],
                value: Float[Tensor, "b h t e"], bypass: Float[Tensor, "b t d"]
                ) -> Float[Tensor, "b t d"]:
        """Cross-attention and feed-forward of one side; query, key and value as `project` gives
        them."""
        found = F.scaled_dot_product_attention(query, key, value,
                                               dropout_p=self.drop.p if self.training else 0.0)
        found = self.self_attn.linears[3](found.transpose(1, 2).flatten(2))
        x = self.sublayer[0].norm(self.drop(found).add_(bypass))  # in place: a pass is dear here
        hidden = self.drop(F.relu(self.feed_forward.w_1(x), inplace=True))
        return self.sublayer[1].norm(self.drop(self.feed_forward.w_2(hidden)).add_(x))


class CrossAttention(nn.Module):
    """`number` layers a modality: a sketch's queries meet the photo's keys and read the SKETCH's
    values, and the other way round, as in the released code."""

    def __init__(self, width: int, heads: int, hidden: int, number: int, dropout: float):
        super().__init__()
        self.encoder = nn.Module()
        for name in ("layer1", "layer2"):  # of sketches, of photos
            layers = (CrossLayer(width, heads, hidden, dropout) for _ in range(number))
            setattr(self.encoder, name, nn.ModuleList(layers))

    def forward(self, sketch: Float[Tensor, "b t d"], photo: Float[Tensor, "b t d"]
                ) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b t d"]]:
        """Tokens of sketch and photo, each after looking at the other's."""
        layers = zip(self.encoder.layer1, self.encoder.layer2, strict=True)
        for of_sketch, of_photo in layers:
            sketch, photo = (
                of_sketch(of_sketch.project(0, sketch), of_sketch.project(1, photo),
                          of_sketch.project(2, sketch), sketch),
                of_photo(of_photo.project(0, photo), of_photo.project(1, sketch),
                         of_photo.project(2, photo), photo))
        return sketch, photo


class Relation(nn.Module):
    """All cosines between the tokens of a pair, to one score in 0..1, always in float32: under
    half precision many photos would tie."""

    def __init__(self, anchors: int, dropout: float):
        super().__init__()
        sizes = (anchors**2, 7 * anchors, anchors, 1)
        layers = []
        for before, after in zip(sizes, sizes[1:], strict=False):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
        self.rn = nn.Sequential(*layers[:-2], nn.Sigmoid())

    def forward(self, sketch: Float[Tensor, "b k e"], photo: Float[Tensor, "b k e"]
                ) -> Float[Tensor, "b 1"]:
        """Score of each pair in 0..1, float32, from the cosines of all pairs of tokens."""
        with torch.autocast(sketch.device.type, enabled=False):
            a, b = (F.normalize(x.float(), dim=-1) for x in (sketch, photo))
            return self.rn((a @ b.transpose(1, 2)).flatten(1))


class ZSE(nn.Module):
    """Tower, cross-attention and relation network.

    Defaults are the published sizes; `anchors` is the number of tokens a picture that are compared
    (49 at 224 pixels: the patch grid, halved), `stack` the channels after the first small
    convolution of the patch embedding. layout: how patch tokens become the grid that anchors are
    made of, see `anchors`.
    """

    def __init__(self, vit: nn.Module, *, hidden: int = 1024, heads: int = 8, number: int = 1,
                 anchors: int = 49, anchor_width: int = 512, dropout: float = 0.1,
                 keep_rate: float = 1.0, stack: int = 64, layout: str = "as-released"):
        super().__init__()
        width, self.layout = vit.embed_dim, layout
        self.sa = Tower(vit, keep_rate, stack)
        self.ca = CrossAttention(width, heads, hidden, number, dropout)
        self.rn = Relation(anchors, dropout)
        self.conv2d = nn.Conv2d(width, anchor_width, 2, 2)

    def anchors(self, patches: Float[Tensor, "b n d"]) -> Float[Tensor, "b k e"]:
        """The tokens that are compared.

        layout `as-released`: the patch tokens (b, n, d) are READ as (b, d, side, side), so that
        every anchor holds a little of every patch and none has a place in the picture; `grid`:
        they are transposed first, and an anchor is two by two patches.
        """
        batch, count, width = patches.shape
        side = round(count**0.5)
        if self.layout == "grid":
            patches = patches.transpose(1, 2)
        return self.conv2d(patches.reshape(batch, width, side, side)).flatten(2).transpose(1, 2)

    def encode_sketch(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """The class token of the tower: what retrieval `sa` compares."""
        return self.sa(images)[:, 0]

    encode_photo = encode_sketch

    def forward(self, sketch: Float[Tensor, "b 3 h w"], photo: Float[Tensor, "b 3 h w"]
                ) -> tuple[Float[Tensor, "2*b d"], Float[Tensor, "b 1"]]:
        """(class tokens of sketches, then photos, after cross-attention; relation scores)."""
        tokens = self.sa(torch.cat([sketch, photo])).chunk(2)
        sketch, photo = self.ca(*tokens)
        return (torch.cat([sketch[:, 0], photo[:, 0]]),
                self.rn(self.anchors(sketch[:, 1:]), self.anchors(photo[:, 1:])))
