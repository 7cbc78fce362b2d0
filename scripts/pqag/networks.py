"""The backbones of the study, for small images: AlexNet, VGG and ResNet with batch normalisation.

Every network is built from torchvision's own blocks (``torchvision.models``), with a stem for 32 x 32 pixels, because the originals reduce
a 224-pixel image 32-fold and would leave nothing of a small image. For larger images the first convolution has stride 2, 4 or 8, so the
following layers see 32 to 63 pixels on a side. Two things differ from torchvision on purpose:

* normalisation by the mean and standard deviation of the training images is the first layer of the network, so the input is pixels in
  [0, 1] and the radius of an attack is in pixels (docs/protocol.md);
* ``features`` returns the penultimate layer, which retrieval quantizes (PQ-AG, Implementations: "features from the top layer").
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pqag import light  # noqa: F401 (before torchvision)

# isort: split
from torchvision import models
from torchvision.models import resnet, vgg
from torchvision.ops import Conv2dNormActivation

from pqag.errors import UserError
from pqag.names import BATCH_SIZES, NETWORKS, is_torchvision, scaled

#: Blocks per stage of the ResNets (He et al. 2016, Table 1).
_RESNETS = {
    "resnet18": (resnet.BasicBlock, (2, 2, 2, 2)),
    "resnet34": (resnet.BasicBlock, (3, 4, 6, 3)),
    "resnet50": (resnet.Bottleneck, (3, 4, 6, 3)),
}
#: torchvision's names of the VGG configurations (Simonyan & Zisserman 2015, Table 1).
_VGGS = {"vgg11": "A", "vgg13": "B", "vgg16": "D"}


#: Mean and standard deviation of the channels of ImageNet, in pixels of [0, 1].
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """A classifier with its penultimate layer as the feature for retrieval.

    Parameters
    ----------
    body: module that maps normalised images (N, 3, H, W) to features (N, ``feature_size``).
    feature_size: D, the length of a feature.
    classes: number of logits.
    mean, std: per channel, in pixels of [0, 1], length 3. Stored with the weights.
    image_size: size of its images, in pixels on a side.

    ``feature_groups``, 1 unless set, is the number of equal parts of a feature that are normalised separately, see ``normalise``.
    ``enlarged``, None unless set, is what ``of_torchvision`` resizes images to.
    """

    feature_groups = 1
    enlarged = None

    def __init__(self, body: nn.Module, feature_size: int, classes: int, mean=(0.5,) * 3, std=(0.25,) * 3, image_size: int = 32):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).reshape(1, 3, 1, 1))
        self.body = body
        self.head = nn.Linear(feature_size, classes)
        self.feature_size = feature_size
        self.image_size = image_size

    def features(self, images: Tensor) -> Tensor:
        """Penultimate activations, float (N, D), not normalised; ``images`` float (N, 3, H, W) in [0, 1]."""
        return self.body((images - self.mean) / self.std)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, float (N, classes); ``images`` float (N, 3, H, W) in [0, 1]."""
        return self.head(self.features(images))


class Bottleneck(nn.Module):
    """A trained network with a shorter feature: a linear layer from its own features, ``inputs`` numbers, to ``size``; and a new head."""

    def __init__(self, trunk: nn.Module, inputs: int, size: int, classes: int):
        super().__init__()
        self.trunk, self.layer, self.head = trunk, nn.Linear(inputs, size), nn.Linear(size, classes)

    def features(self, images: Tensor) -> Tensor:
        """Outputs of the linear layer, float (N, size), not normalised; ``images`` float (N, 3, H, W) in [0, 1]."""
        return self.layer(self.trunk.features(images))

    def forward(self, images: Tensor) -> Tensor:
        """Logits, float (N, classes); ``images`` float (N, 3, H, W) in [0, 1]."""
        return self.head(self.features(images))


def pixels(images: Tensor, size: int | None = None) -> Tensor:
    """uint8 (N, 3, H, W) to float32 in [0, 1], channels last in memory (a fifth faster than channels first on CPU).

    Images of another ``size``, in pixels on a side, are resized to it bilinearly.
    """
    scaled_images = (images.float() / 255).contiguous(memory_format=torch.channels_last)
    if size in (None, images.shape[-1]):
        return scaled_images
    return F.interpolate(scaled_images, (size, size), mode="bilinear")


def normalise(z: Tensor, groups: int = 1) -> Tensor:
    """Scale each of the ``groups`` parts of features (N, D) to l2-norm 1: with one part the whole vector, with M parts every sub-vector
    (intra-normalisation, an option for networks trained with their codebook, see ``pqag.pqn``)."""
    return F.normalize(z.reshape(len(z), groups, -1), dim=2).flatten(1) if groups > 1 else F.normalize(z, dim=1)


def features(network: Backbone, images: Tensor, normalised: bool = True) -> Tensor:
    """Features float64 (N, D) of images float32 (N, 3, H, W) in [0, 1]: backbone in float32, then l2-normalisation in float64."""
    z = network.features(images).double()
    return normalise(z, groups_of(network)) if normalised else z


def groups_of(network: nn.Module) -> int:
    """Return the number of parts in which the features of ``network`` are normalised: 1 for a network of the user."""
    return getattr(network, "feature_groups", 1)


def extract(
    network: Backbone,
    images: np.ndarray,
    device: torch.device,
    batch_size: int = BATCH_SIZES["extract"],
    share: slice = slice(None),
    image_size: int | None = None,
) -> np.ndarray:
    """l2-normalised features, float32 (N, D), of ``images``, uint8 (N, 3, H, W), by ``network``, which moves to ``device``.

    ``images`` may be an HDF5 dataset: it is read one batch at a time. ``share`` selects some of the images, at least one. Images of another
    ``image_size``, in pixels on a side, are resized to it.
    """
    network = network.to(device, memory_format=torch.channels_last)
    batches = []
    with torch.inference_mode():
        begin, end, _ = share.indices(len(images))
        for start in range(begin, end, batch_size):
            batch = torch.from_numpy(images[start : min(start + batch_size, end)])
            batches.append(features(network, pixels(batch.to(device), image_size)).float().cpu())
    return torch.cat(batches).numpy()


def check_finite(features: np.ndarray, ids: np.ndarray, what: str) -> None:
    """Raise UserError if some of ``features``, float (N, D), are NaN or infinite, naming the first such image of ``what``.

    ``ids`` (N,) are the numbers of the images in the data set.
    """
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise UserError(
            f"the network returns NaN or infinite features for {len(bad)} of the {len(features)} {what}, the first of which is image"
            f" {ids[bad[0]]} of the data set (counted from 0, training images first): use weights that return finite ones"
        )


def reduction(image_size: int) -> int:
    """The stride of the first convolution for images of ``image_size`` pixels on a side: 1 below 64, 2 below 128, and so on."""
    return 2 ** max(0, (image_size // 32).bit_length() - 1)


#: To which size a network of torchvision enlarges images, in pixels on a side, and by which interpolation, unless its weights say else.
ENLARGED = (224, "bilinear")


def build(
    name: str,
    classes: int,
    width: float = 1.0,
    mean=(0.5,) * 3,
    std=(0.25,) * 3,
    image_size: int = 32,
    enlarged: tuple[int, str] = ENLARGED,
) -> Backbone:
    """The network ``name`` (one of ``pqag.names.NETWORKS``) with freshly drawn weights from torch's global generator.

    ``width`` multiplies the channels of every layer; D is then 4096 x width for AlexNet, 2048 x width for ResNet-50 and 512 x width for the
    others. ``image_size`` (at least 32) determines the stride of the first convolution. ``enlarged``: see ``of_torchvision``. Raises
    ValueError for an unknown name.
    """
    stem = {"kernel_size": max(3, 2 * reduction(image_size) - 1), "stride": reduction(image_size)}
    if name == "alexnet":
        body, size = _alexnet(width, stem)
    elif name in _VGGS:
        body, size = _vgg(_VGGS[name], width, stem)
    elif name in _RESNETS:
        body, size = _resnet(*_RESNETS[name], width, stem)
    elif is_torchvision(name):
        return of_torchvision(torchvision_classifier(name, classes, enlarged), enlarged)
    else:
        raise ValueError(f"unknown network {name!r}: known are {', '.join(NETWORKS)}")
    return Backbone(body, size, classes, mean, std, image_size)


def last_linear(network: nn.Module) -> tuple[str, nn.Linear]:
    """Return the name of the last linear layer of a classifier, and the layer; raises ValueError if there is none."""
    found = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not found:
        raise ValueError("has no linear layer, but the feature is the input of the last linear layer")
    return found[-1]


def torchvision_classifier(name: str, classes: int, enlarged: tuple[int, str] = ENLARGED) -> nn.Module:
    """Return a network of torchvision (``torchvision:resnet18``) for ``classes`` classes and the size ``enlarged``.

    Auxiliary classifiers, which serve training alone, are left out.
    """
    short, options = name.removeprefix("torchvision:"), {}
    if short in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": False}  # its initialisation takes half a minute
    if short.startswith("vit_"):  # its position embeddings are for one size
        options = {"image_size": enlarged[0]}
    return models.get_model(short, weights=None, num_classes=classes, **options)


class Enlarged(nn.Module):
    """Resizes images (N, 3, H, W) to ``size`` pixels on a side by ``interpolation``, bilinear or bicubic."""

    def __init__(self, size: int, interpolation: str):
        super().__init__()
        self.size, self.interpolation = size, interpolation

    def forward(self, images: Tensor) -> Tensor:
        # With antialias torch takes the bicubic coefficients of Pillow and torchvision; bilinear enlargement is the same with and without.
        return F.interpolate(images, (self.size,) * 2, mode=self.interpolation, antialias=self.interpolation == "bicubic")


def of_torchvision(network: nn.Module, enlarged: tuple[int, str] = ENLARGED, mean=IMAGENET[0], std=IMAGENET[1]) -> Backbone:
    """Return a classifier of torchvision as a backbone: its feature is the input of its last linear layer, which ``network`` loses.

    Images are normalised by ``mean`` and ``std`` and resized as a whole to ``enlarged``: pixels on a side, and "bilinear" or "bicubic".
    """
    name, head = last_linear(network)
    network.set_submodule(name, nn.Identity())
    backbone = Backbone(nn.Sequential(Enlarged(*enlarged), network), head.in_features, head.out_features, mean, std)
    backbone.head, backbone.enlarged = head, tuple(enlarged)
    return backbone


def _alexnet(width: float, stem: dict[str, int]) -> tuple[nn.Module, int]:
    """AlexNet (Krizhevsky 2014, as in torchvision) with strides and poolings for 32 pixels; fc7 is the feature."""
    c = [scaled(n, width) for n in (64, 192, 384, 256, 256)]
    size = scaled(4096, width)
    body = nn.Sequential(
        Conv2dNormActivation(3, c[0], **stem),
        nn.MaxPool2d(2),
        Conv2dNormActivation(c[0], c[1], 5),
        nn.MaxPool2d(2),
        Conv2dNormActivation(c[1], c[2], 3),
        Conv2dNormActivation(c[2], c[3], 3),
        Conv2dNormActivation(c[3], c[4], 3),
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(c[4] * 16, size),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(size, size),
        nn.ReLU(inplace=True),
    )
    return body, size


def _vgg(configuration: str, width: float, stem: dict[str, int]) -> tuple[nn.Module, int]:
    """VGG with batch normalisation; five poolings reduce 32 pixels to one, and the two large linear layers are left out."""
    plan = [c if c == "M" else scaled(c, width) for c in vgg.cfgs[configuration]]
    layers = vgg.make_layers(plan, batch_norm=True)
    if stem["stride"] > 1:
        layers[0] = nn.Conv2d(3, plan[0], **stem, padding=stem["kernel_size"] // 2)
    return nn.Sequential(layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), plan[-2]


def _resnet(block: type[nn.Module], blocks: tuple[int, ...], width: float, stem: dict[str, int]) -> tuple[nn.Module, int]:
    """ResNet with a stem of one 3 x 3 convolution without pooling (He et al. 2016, section 4.2)."""
    channels = scaled(64, width)
    layers: list[nn.Module] = [Conv2dNormActivation(3, channels, **stem)]
    for stage, count in enumerate(blocks):
        planes = scaled(64 * 2**stage, width)
        for i in range(count):
            stride = 2 if stage > 0 and i == 0 else 1
            shortcut = None
            if stride != 1 or channels != planes * block.expansion:
                shortcut = nn.Sequential(
                    resnet.conv1x1(channels, planes * block.expansion, stride), nn.BatchNorm2d(planes * block.expansion)
                )
            layers.append(block(channels, planes, stride, shortcut))
            channels = planes * block.expansion
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), channels
