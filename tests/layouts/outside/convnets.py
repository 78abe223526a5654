"""The named axes of timm's ResNet and ConvNeXt, whose stages are streams of their own."""

import torch

import compt

FIRST, ANY, BLOCK = "layer{stage}.{first}", "layer{stage}.{block}", "stages.{stage}.blocks.{block}"
IN, OUT, MID = "from_{stage}", "embed_{stage}", "(groups_{stage} mid_{stage})"
RESNET = {
    "conv1.weight": "stem <- 3 7 7",
    "bn1.*": "stem",
    f"{FIRST}.conv1.weight": f"{MID} <- {IN} kernel kernel",
    f"{FIRST}.downsample.0.weight": f"{OUT} <- {IN} 1 1",
    f"{FIRST}.downsample.1.*": OUT,
    f"{ANY}.conv1.weight": f"{MID} <- {OUT} kernel kernel",
    f"{ANY}.bn1.*": MID,
    "fc.*": "classes <- embed",
}
BASIC = {f"{ANY}.conv2.weight": f"{OUT} <- {MID} 3 3 * {ANY}.bn2.weight", f"{ANY}.bn2.*": OUT}
WIDE = {f"{ANY}.conv2.weight": f"{MID} <- mid_{{stage}} 3 3", f"{ANY}.bn2.*": MID}
WIDE |= {f"{ANY}.conv3.weight": f"{OUT} <- {MID} 1 1 * {ANY}.bn3.weight", f"{ANY}.bn3.*": OUT}


class ConvNet(compt.Layout):
    """What the two have in common."""

    api_version = "1.2"
    roles = {"stem": "stream", "kernel": "fixed", "mid": "hidden"}

    def probe(self, module, generator):
        images = torch.randn(2, 3, 64, 64, generator=generator)
        return {"logits": module(images.to(next(module.parameters())))}


class ResNetLayout(ConvNet):
    """Exact at any width and depth."""

    roles = {**ConvNet.roles, "groups": "hidden"}

    def patterns_of(self, module):
        return RESNET | (WIDE if hasattr(module.layer1[0], "conv3") else BASIC)

    def sizes(self, module):
        return {f"groups_{i}": getattr(module, f"layer{i}")[0].conv2.groups for i in range(1, 5)}

    def axis_aliases(self, module):
        stem = "embed_1" if module.layer1[0].downsample is None else "stem"
        into = {f"from_{i}": f"embed_{i - 1}" for i in range(2, 5)}
        return into | {"stem": stem, "from_1": stem, "embed_4": "embed"}


class ConvNeXtLayout(ConvNet):
    """Exact at whole multiples, as a LayerNorm spans what the first convolution makes."""

    patterns = {
        "stem.0.*": "stem <- 3 patch patch",
        "stem.1.*": "stem -> embed_0",
        "stages.{stage}.downsample.0.*": IN,
        "stages.{stage}.downsample.1.*": f"{OUT} <- {IN} 2 2",
        f"{BLOCK}.conv_dw.*": "scale: mid_{stage} 1 kernel kernel",
        f"{BLOCK}.norm.*": "mid_{stage}",
        f"{BLOCK}.mlp.fc1.*": "mlp_{stage} <- mid_{stage}",
        f"{BLOCK}.mlp.grn.weight": "rms_norm_gain: mlp_{stage}",
        f"{BLOCK}.mlp.grn.bias": "rms_norm_bias: mlp_{stage}",
        f"{BLOCK}.mlp.fc2.*": f"{OUT} <- mlp_{{stage}} * {BLOCK}.gamma",
        f"{BLOCK}.gamma": f"scale: {OUT}",
        "head.norm.*": "embed",
        "head.fc.*": "classes <- embed",
    }

    def axis_aliases(self, module):
        return {f"from_{i}": f"embed_{i - 1}" for i in range(1, 4)} | {"embed_3": "embed"}
