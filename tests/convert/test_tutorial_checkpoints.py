"""Checkpoints that the source tutorials' own code saves load by name and compute the same.

The classes below are the tutorials', their line breaks put back, with what they leave open or leave undefined filled in
where a comment says so.
"""

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from flax import nnx
from torch import nn

import flax_attn
from flax_attn.convert import TUTORIAL_NAMES
from flax_attn.networks import patch, sensor
from flax_attn.testing import assert_parity

MAP = "b c h w -> b h w c"
SEQUENCE = "b c n -> b n c"


class ScaledDotProductAttention(nn.Module):
    def __init__(self, temperature, attn_dropout=0.0):
        super().__init__()
        self.temperature = temperature
        self.dropout = nn.Dropout(attn_dropout)

    def forward(self, q, k, v, mask=None):
        attn = torch.matmul(q / self.temperature, k.transpose(2, 3))
        if mask is not None:
            attn = attn.masked_fill(mask == 0, -1e9)
        attn = self.dropout(F.softmax(attn, dim=-1))
        output = torch.matmul(attn, v)
        return output, attn


class MultiHeadAttention(nn.Module):
    def __init__(self, n_head, d_model, d_k, d_v, dropout=0.1):
        super().__init__()
        self.n_head = n_head
        self.d_k = d_k
        self.d_v = d_v
        self.w_qs = nn.Linear(d_model, n_head * d_k, bias=False)
        self.w_ks = nn.Linear(d_model, n_head * d_k, bias=False)
        self.w_vs = nn.Linear(d_model, n_head * d_v, bias=False)
        self.fc = nn.Linear(n_head * d_v, d_model, bias=False)
        self.attention = ScaledDotProductAttention(temperature=d_k**0.5)
        self.dropout = nn.Dropout(dropout)
        self.layer_norm = nn.LayerNorm(d_model, eps=1e-6)

    def forward(self, q, k, v, mask=None):
        d_k, d_v, n_head = self.d_k, self.d_v, self.n_head
        sz_b, len_q, len_k, len_v = q.size(0), q.size(1), k.size(1), v.size(1)
        residual = q
        q = self.w_qs(q).view(sz_b, len_q, n_head, d_k)
        k = self.w_ks(k).view(sz_b, len_k, n_head, d_k)
        v = self.w_vs(v).view(sz_b, len_v, n_head, d_v)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if mask is not None:
            mask = mask.unsqueeze(1)
        q, attn = self.attention(q, k, v, mask=mask)
        q = q.transpose(1, 2).contiguous().view(sz_b, len_q, -1)
        q = self.dropout(self.fc(q))
        q = q + residual  # in place there
        q = self.layer_norm(q)
        return q, attn


class Attention(nn.Module):
    def __init__(self, mem_in=32, query_in=32, key_size=32, output_size=32):
        super().__init__()
        self.key = nn.Conv1d(mem_in, key_size, 1, padding=0)
        self.value = nn.Conv1d(mem_in, output_size, 1, padding=0)
        self.query = nn.Conv1d(query_in, key_size, 1, padding=0)
        self.key_size = key_size

    def forward(self, x1, x2):
        queries = self.query(x1)
        keys = self.key(x2)
        values = self.value(x2)
        u = torch.sum(queries.unsqueeze(2) * keys.unsqueeze(3), 1) / np.sqrt(self.key_size)
        w = F.softmax(u, dim=1)
        out = torch.sum(w.unsqueeze(1) * values.unsqueeze(3), 2)
        return out, w


class MultiheadAttention(nn.Module):
    def __init__(self, mem_in=32, query_in=32, key_size=32, output_size=32, num_heads=4):
        super().__init__()  # an undefined name stands in the call there
        self.layers = nn.ModuleList([Attention(mem_in, query_in, key_size, output_size) for i in range(num_heads)])
        self.proj_down = nn.Conv1d(num_heads * output_size, query_in, 1, padding=0)
        self.mixing_layer1 = nn.Conv1d(query_in, query_in, 1, padding=0)
        self.mixing_layer2 = nn.Conv1d(query_in, query_in, 1, padding=0)
        self.norm1 = nn.LayerNorm(query_in)
        self.norm2 = nn.LayerNorm(query_in)

    def forward(self, query, context):
        x1 = query.reshape(query.size(0), query.size(1), -1)
        x2 = context.reshape(context.size(0), context.size(1), -1)
        z1, ws = [], []
        for i in range(len(self.layers)):
            z, w = self.layers[i](x1, x2)
            z1.append(z)
            ws.append(w)
        z1 = torch.cat(z1, 1)
        z2 = self.norm1((self.proj_down(z1) + x2).transpose(1, 2).contiguous()).transpose(1, 2).contiguous()
        z3 = (
            self.norm2((self.mixing_layer2(F.relu(self.mixing_layer1(z2))) + z2).transpose(1, 2).contiguous())
            .transpose(1, 2)
            .contiguous()
        )
        if len(query.size()) == 4:
            z3 = z3.reshape(query.size(0), query.size(1), query.size(3), query.size(3))
        return z3, z1


class BasicConv(nn.Module):
    def __init__(
        self,
        in_planes,
        out_planes,
        kernel_size,
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
        relu=True,
        bn=True,
        bias=False,
    ):
        super().__init__()
        self.out_channels = out_planes
        self.conv = nn.Conv2d(
            in_planes,
            out_planes,
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=bias,
        )
        self.bn = nn.BatchNorm2d(out_planes, eps=1e-5, momentum=0.01, affine=True) if bn else None
        self.relu = nn.ReLU() if relu else None

    def forward(self, x):
        x = self.conv(x)
        if self.bn is not None:
            x = self.bn(x)
        if self.relu is not None:
            x = self.relu(x)
        return x


class Flatten(nn.Module):
    def forward(self, x):
        return x.view(x.size(0), -1)


def logsumexp_2d(tensor):
    tensor_flatten = tensor.view(tensor.size(0), tensor.size(1), -1)
    s, _ = torch.max(tensor_flatten, dim=2, keepdim=True)
    outputs = s + (tensor_flatten - s).exp().sum(dim=2, keepdim=True).log()
    return outputs


class ChannelGate(nn.Module):
    def __init__(self, gate_channels, reduction_ratio=16, pool_types=("avg", "max")):
        super().__init__()
        self.gate_channels = gate_channels
        self.mlp = nn.Sequential(
            Flatten(),
            nn.Linear(gate_channels, gate_channels // reduction_ratio),
            nn.ReLU(),
            nn.Linear(gate_channels // reduction_ratio, gate_channels),
        )
        self.pool_types = pool_types

    def forward(self, x):
        channel_att_sum = None
        size = (x.size(2), x.size(3))
        for pool_type in self.pool_types:
            if pool_type == "avg":
                channel_att_raw = self.mlp(F.avg_pool2d(x, size, stride=size))
            elif pool_type == "max":
                channel_att_raw = self.mlp(F.max_pool2d(x, size, stride=size))
            elif pool_type == "lp":
                channel_att_raw = self.mlp(F.lp_pool2d(x, 2, size, stride=size))
            elif pool_type == "lse":
                channel_att_raw = self.mlp(logsumexp_2d(x))
            channel_att_sum = channel_att_raw if channel_att_sum is None else channel_att_sum + channel_att_raw
        scale = torch.sigmoid(channel_att_sum).unsqueeze(2).unsqueeze(3).expand_as(x)
        return x * scale


class ChannelPool(nn.Module):
    def forward(self, x):
        return torch.cat((torch.max(x, 1)[0].unsqueeze(1), torch.mean(x, 1).unsqueeze(1)), dim=1)


class SpatialGate(nn.Module):
    def __init__(self):
        super().__init__()
        kernel_size = 7
        self.compress = ChannelPool()
        self.spatial = BasicConv(2, 1, kernel_size, stride=1, padding=(kernel_size - 1) // 2, relu=False)

    def forward(self, x):
        x_out = self.spatial(self.compress(x))
        return x * torch.sigmoid(x_out)


class CBAM(nn.Module):
    def __init__(self, gate_channels, reduction_ratio=16, pool_types=("avg", "max"), no_spatial=True):
        super().__init__()
        self.ChannelGate = ChannelGate(gate_channels, reduction_ratio, pool_types)
        self.no_spatial = no_spatial
        if not no_spatial:
            self.SpatialGate = SpatialGate()

    def forward(self, x):
        x_out = self.ChannelGate(x)
        if not self.no_spatial:
            x_out = self.SpatialGate(x_out)
        return x_out


class ConvPart(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1a = nn.Conv2d(3, 32, 5, padding=2)
        self.p1 = nn.MaxPool2d(2)
        self.c2a = nn.Conv2d(32, 32, 5, padding=2)
        self.p2 = nn.MaxPool2d(2)
        self.c3 = nn.Conv2d(32, 32, 5, padding=2)
        self.bn1a = nn.BatchNorm2d(32)
        self.bn2a = nn.BatchNorm2d(32)

    def forward(self, x):
        z = self.bn1a(F.leaky_relu(self.c1a(x)))
        z = self.p1(z)
        z = self.bn2a(F.leaky_relu(self.c2a(z)))
        z = self.p2(z)
        return self.c3(z)


class Network(nn.Module):
    """What the tutorial writes out four times."""

    def __init__(self, attn1=None):
        super().__init__()
        self.conv = ConvPart()
        if attn1 is not None:
            self.attn1 = attn1
        self.final = nn.Linear(32, 1)
        self.optim = torch.optim.Adam(self.parameters(), lr=1e-4)

    def forward(self, x):
        z = self.conv(x)
        q = self.attend(z)
        p = torch.sigmoid(self.final(q.mean(3).mean(2)))[:, 0]
        return p, q


class Net(Network):
    def attend(self, z):
        return z  # an undefined name is returned there


class NetMultiheadAttention(Network):
    def __init__(self):
        super().__init__(MultiHeadAttention(n_head=4, d_model=32, d_k=8, d_v=8))

    def attend(self, z):
        q = torch.reshape(z, (z.size(0), -1, z.size(1)))
        q, _ = self.attn1(q, q, q)
        return torch.reshape(q, (z.size(0), z.size(1), z.size(2), z.size(3)))


class NetConvMultiheadAttention(Network):
    def __init__(self):
        super().__init__(MultiheadAttention(mem_in=32, query_in=32))

    def attend(self, z):
        q = torch.reshape(z, (z.size(0), z.size(1), -1))
        q, _ = self.attn1(q, q)
        return torch.reshape(q, (z.size(0), z.size(1), z.size(2), z.size(3)))


class NetCBAM(Network):
    def __init__(self, no_spatial=True):
        super().__init__(CBAM(gate_channels=32, no_spatial=no_spatial))

    def attend(self, z):
        return self.attn1(z)


class ChannelAttention(nn.Module):
    def __init__(self, in_planes, ratio=16):
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.max_pool = nn.AdaptiveMaxPool2d(1)
        self.fc1 = nn.Conv2d(in_planes, in_planes // ratio, 1, bias=False)
        self.relu1 = nn.ReLU()
        self.fc2 = nn.Conv2d(in_planes // ratio, in_planes, 1, bias=False)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x):
        avg_out = self.fc2(self.relu1(self.fc1(self.avg_pool(x))))
        max_out = self.fc2(self.relu1(self.fc1(self.max_pool(x))))
        return self.sigmoid(avg_out + max_out)


class UseAttentionModel(nn.Module):
    def __init__(self, H):
        super().__init__()
        self.channel_attention = ChannelAttention(H)

    def forward(self, x):
        return x.mul(self.channel_attention(x))


class SpatialAttentionModule(nn.Module):
    def __init__(self):
        super().__init__()
        self.att_fc = nn.Sequential(nn.Conv2d(1, 1, (3, 1), (1, 1), (1, 0)), nn.Sigmoid())

    def forward(self, x):
        return x * self.att_fc(torch.mean(x, dim=1, keepdim=True))


class SpatialAttentionNeuralNetwork(nn.Module):
    def __init__(self, train_shape, category):
        super().__init__()
        widths = (1, 64, 128, 256, 512)  # left open there
        layers = []
        for in_channels, out_channels in pairwise(widths):
            layers += [
                nn.Conv2d(in_channels, out_channels, (3, 1), (2, 1), (1, 0)),
                SpatialAttentionModule(),
                nn.BatchNorm2d(out_channels),
                nn.ReLU(),
            ]
        self.layer = nn.Sequential(*layers)
        self.ada_pool = nn.AdaptiveAvgPool2d((1, train_shape[-1]))
        self.fc = nn.Linear(512 * train_shape[-1], category)

    def forward(self, x):
        x = self.ada_pool(self.layer(x))
        return self.fc(x.view(x.size(0), -1))


class First:
    """The tutorial's attention always returns a second result; ours does on request."""

    def forward(self, *inputs):
        return super().forward(*inputs)[0]


class AttentionAlone(First, Attention):
    pass


class MultiheadAttentionAlone(First, MultiheadAttention):
    pass


class MultiHeadAttentionAlone(First, MultiHeadAttention):
    pass


RNGS = {"rngs": nnx.Rngs(0)}
IMAGE = ((2, 3, 16, 16), MAP)
NETWORK = ([IMAGE], (None, MAP))
PAIRS = {
    "Net": (Net, lambda: patch.Net(**RNGS), *NETWORK),
    "NetMultiheadAttention": (
        NetMultiheadAttention,
        lambda: patch.NetMultiHeadAttention(token_order="article", **RNGS),
        *NETWORK,
    ),
    "NetMultiheadAttention of convolutions": (
        NetConvMultiheadAttention,
        lambda: patch.NetConvMultiHeadAttention(**RNGS),
        *NETWORK,
    ),
    "NetCBAM": (NetCBAM, lambda: patch.NetCBAM(**RNGS), *NETWORK),
    "NetCBAM with spatial gate": (
        lambda: NetCBAM(no_spatial=False),
        lambda: patch.NetCBAM(no_spatial=False, **RNGS),
        *NETWORK,
    ),
    "CBAM": (
        lambda: CBAM(24, 4, no_spatial=False),
        lambda: flax_attn.CBAM(24, 4, no_spatial=False, **RNGS),
        [((2, 24, 5, 7), MAP)],
        (MAP,),
    ),
    "Attention": (
        lambda: AttentionAlone(5, 3, 7, 11),
        lambda: flax_attn.ConvAttention(5, 3, 7, 11, **RNGS),
        [((2, 3, 13), SEQUENCE), ((2, 5, 17), SEQUENCE)],
        (SEQUENCE,),
    ),
    "MultiheadAttention": (
        lambda: MultiheadAttentionAlone(5, 5, 7, 11, 3),
        lambda: flax_attn.ConvMultiHeadAttention(5, 5, 7, 11, 3, **RNGS),
        [((2, 5, 13), SEQUENCE), ((2, 5, 13), SEQUENCE)],
        (SEQUENCE,),
    ),
    "MultiHeadAttention": (
        lambda: MultiHeadAttentionAlone(3, 12, 5, 7),
        lambda: flax_attn.MultiHeadAttention(3, 12, 5, 7, **RNGS),
        [((2, 11, 12), None), ((2, 13, 12), None), ((2, 13, 12), None)],
        (None,),
    ),
    "BasicConv": (
        lambda: BasicConv(4, 6, 3, 2, 1, 1, 2),
        lambda: flax_attn.BasicConv(4, 6, 3, 2, 1, 1, 2, **RNGS),
        [((2, 4, 5, 7), MAP)],
        (MAP,),
    ),
    "SpatialGate": (SpatialGate, lambda: flax_attn.SpatialGate(**RNGS), [((2, 3, 5, 7), MAP)], (MAP,)),
    "ChannelGate": (
        lambda: ChannelGate(24, 4, ["avg", "max", "lp", "lse"]),
        lambda: flax_attn.ChannelGate(24, 4, ["avg", "max", "lp", "lse"], **RNGS),
        [((2, 24, 5, 7), MAP)],
        (MAP,),
    ),
    "ChannelAttention": (
        lambda: ChannelAttention(40),
        lambda: flax_attn.ChannelAttention(40, **RNGS),
        [((3, 40, 5, 7), MAP)],
        (MAP,),
    ),
    "UseAttentionModel": (
        lambda: UseAttentionModel(40),
        lambda: flax_attn.UseAttentionModel(40, **RNGS),
        [((3, 40, 5, 7), MAP)],
        (MAP,),
    ),
    "SpatialAttentionModule": (
        SpatialAttentionModule,
        lambda: flax_attn.SpatialAttentionModule(**RNGS),
        [((3, 5, 11, 7), MAP)],
        (MAP,),
    ),
    "SpatialAttentionNeuralNetwork": (
        lambda: SpatialAttentionNeuralNetwork((9, 17, 3), 5),
        lambda: sensor.SpatialAttentionNeuralNetwork((9, 17, 3), 5, **RNGS),
        [((2, 1, 17, 3), MAP)],
        (None,),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_checkpoint_of_the_tutorials_code_computes_the_same(name, tmp_path):
    make_theirs, make_ours, inputs, outputs = PAIRS[name]
    theirs = make_theirs()
    path = tmp_path / "checkpoint.pt"
    torch.save(theirs.state_dict(), path)
    ours = flax_attn.from_torch(make_ours(), path, rename=TUTORIAL_NAMES)
    rng = np.random.default_rng(0)
    assert_parity(
        ours,
        theirs,
        *[rng.standard_normal(shape).astype(np.float32) for shape, _ in inputs],
        layouts={"inputs": [layout for _, layout in inputs], "outputs": outputs},
        modes=["eval"],
        dtypes=["float64"],
        load=False,
        rename=TUTORIAL_NAMES,
        zero_gradients=[entry for entry in theirs.state_dict() if entry.endswith("key.bias")],
    )


@pytest.mark.parametrize("name", PAIRS)
def test_names_go_back_to_the_tutorials(name):
    make_theirs, make_ours, *_ = PAIRS[name]
    state_dict = make_theirs().state_dict()
    back = flax_attn.to_torch(
        flax_attn.from_torch(make_ours(), state_dict, rename=TUTORIAL_NAMES), rename=TUTORIAL_NAMES
    )
    assert back.keys() == state_dict.keys()
    for entry, tensor in state_dict.items():
        np.testing.assert_array_equal(back[entry], tensor.numpy())


@pytest.mark.parametrize("table", [TUTORIAL_NAMES, {**TUTORIAL_NAMES, "module": ""}])
def test_tutorial_weights_in_pixel_order_are_announced(table):
    with pytest.warns(UserWarning, match="token_order='article'"):
        flax_attn.from_torch(patch.NetMultiHeadAttention(**RNGS), NetMultiheadAttention().state_dict(), rename=table)


class OfficialBlock(nn.Module):
    """As a residual block of the official repository holds its CBAM."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.cbam = CBAM(8, 4, no_spatial=False)

    def forward(self, x):
        return self.cbam(self.bn1(self.conv1(x)))


class Block(nnx.Module):
    """A user's port of it."""

    def __init__(self, *, rngs):
        self.conv1 = nnx.Conv(8, 8, (3, 3), padding=1, use_bias=False, rngs=rngs)
        self.bn1 = flax_attn.layers.BatchNorm(8, rngs=rngs)
        self.cbam = flax_attn.CBAM(8, 4, no_spatial=False, rngs=rngs)

    def __call__(self, x):
        return self.cbam(self.bn1(self.conv1(x)))


class Stage(nnx.Module):
    def __init__(self, *, rngs):
        self.layer1 = nnx.List([Block(rngs=rngs), Block(rngs=rngs)])

    def __call__(self, x):
        for block in self.layer1:
            x = block(x)
        return x


class OfficialStage(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer1 = nn.Sequential(OfficialBlock(), OfficialBlock())

    def forward(self, x):
        return self.layer1(x)


def test_checkpoint_of_the_official_repository(tmp_path):
    theirs = nn.DataParallel(OfficialStage())
    path = tmp_path / "RESNET50_IMAGENET_CBAM_best.pth"
    torch.save({"epoch": 90, "arch": "resnet", "state_dict": theirs.state_dict(), "best_prec1": 77.6}, path)
    names = flax_attn.convert.OFFICIAL_CBAM_NAMES
    ours = flax_attn.from_torch(Stage(**RNGS), path, rename=names)
    x = np.random.default_rng(0).standard_normal((2, 8, 5, 7)).astype(np.float32)
    assert_parity(
        ours,
        theirs.module,
        x,
        layouts={"inputs": [MAP], "outputs": [MAP]},
        dtypes=["float64"],
        load=False,
        rename=names,
        modes=["eval"],
    )
    assert flax_attn.to_torch(ours, rename=names).keys() == theirs.state_dict().keys()
