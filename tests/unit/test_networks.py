"""Backbones against torchvision's own networks, counted parameters, and the size of every layer."""

import contextlib

import numpy as np
import pytest
import torch
from torchvision import models

from pqag import names, networks
from pqag.errors import UserError


@pytest.mark.parametrize(
    ("name", "size"),
    [("alexnet", 4096), ("vgg11", 512), ("vgg13", 512), ("vgg16", 512), ("resnet18", 512), ("resnet34", 512), ("resnet50", 2048)],
)
def test_shapes_of_features_and_logits(name, size):
    with torch.device("meta"):
        network = networks.build(name, classes=7).eval()
        images = torch.empty(2, 3, 32, 32)
    assert network.features(images).shape == (2, size)
    assert network(images).shape == (2, 7)
    assert network.feature_size == size


@pytest.mark.parametrize("name", names.NETWORKS)
def test_width_scales_every_layer_and_64_pixels_work_too(name):
    with torch.device("meta"):
        narrow, full = (networks.build(name, classes=10, width=width).eval() for width in (0.125, 1))
        assert narrow.features(torch.empty(2, 3, 64, 64)).shape == (2, narrow.feature_size)
    for thin, wide in zip(narrow.body.parameters(), full.body.parameters()):
        assert thin.shape[0] == max(8, wide.shape[0] // 8)


@pytest.mark.parametrize(("size", "stride"), [(32, 1), (63, 1), (64, 2), (100, 2), (128, 4), (224, 4), (256, 8), (511, 8), (512, 16)])
def test_the_first_convolution_leaves_32_to_63_pixels(size, stride):
    assert networks.reduction(size) == stride and 32 <= size // stride < 64


@pytest.mark.parametrize(("name", "size", "kernel", "left"), [("alexnet", 224, 7, 56), ("vgg11", 64, 3, 32), ("resnet18", 224, 7, 56)])
def test_only_the_first_convolution_reduces_larger_images(name, size, kernel, left):
    """Everything after it has the shapes of the network for 32 pixels, and the feature its size."""
    small, large = (networks.build(name, 10, 0.125, image_size=image_size).eval() for image_size in (32, size))
    convolutions = [module for module in large.modules() if isinstance(module, torch.nn.Conv2d)]
    assert convolutions[0].kernel_size == (kernel, kernel) and convolutions[0].weight.shape[1] == 3
    with torch.no_grad():
        assert convolutions[0](torch.zeros(1, 3, size, size)).shape[2:] == (left, left)
        assert large.features(torch.rand(1, 3, size, size)).shape == (1, small.feature_size)
    shapes = [{key: value.shape for key, value in network.state_dict().items()} for network in (small, large)]
    assert shapes[0].keys() == shapes[1].keys()
    assert sum(shapes[0][key] != shapes[1][key] for key in shapes[0]) == (kernel != 3), "only the first kernel differs"


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "vgg11", "vgg13", "vgg16"])
def test_body_holds_the_weights_of_torchvisions_network(name):
    with torch.device("meta"):
        ours = [p.shape for p in networks.build(name, classes=10).body.parameters()]
        reference = getattr(models, f"{name}_bn" if name.startswith("vgg") else name)()
    theirs = [p.shape for key, p in reference.named_parameters() if not key.startswith(("classifier", "fc"))]
    # The stem's 7 x 7 kernel is a 3 x 3 one.
    theirs = [torch.Size([64, 3, 3, 3]) if shape == (64, 3, 7, 7) else shape for shape in theirs]
    assert sorted(ours) == sorted(theirs)


def channels(network):
    return [module.out_channels for module in network.modules() if isinstance(module, torch.nn.Conv2d)]


def test_alexnets_channels_are_torchvisions():
    with torch.device("meta"):
        assert channels(networks.build("alexnet", classes=10)) == channels(models.AlexNet()) == [64, 192, 384, 256, 256]


@pytest.mark.parametrize("name", names.NETWORKS)
def test_every_network_normalises_batches(name):
    with torch.device("meta"):
        network = networks.build(name, classes=10)
    assert sum(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules()) == len(channels(network))


def test_input_is_normalised_inside_and_logits_are_the_head_of_the_features():
    """Shifting and scaling the pixels together with mean and std changes nothing."""
    torch.manual_seed(0)
    network = networks.build("vgg11", 10, 0.125, mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.3)).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = network.features(images)
        assert torch.allclose(network(images), expected @ network.head.weight.T + network.head.bias, atol=1e-6)
        network.mean, network.std = network.mean * 255, network.std * 255
        assert torch.allclose(network.features(images * 255), expected, atol=1e-5)


def test_pixels_are_divided_by_255_and_an_unknown_network_lists_the_known():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 3, 1, 1)
    assert networks.pixels(images).flatten().tolist() == pytest.approx([0, 0.2, 1])
    with pytest.raises(ValueError, match="vgg19.*known are alexnet, vgg11"):
        networks.build("vgg19", 10)


def test_extracted_features_are_those_of_single_images_in_any_batch():
    """Of length 1, and the same as an image gets alone; float32 sums may differ with the batch in their last bits."""
    network = networks.build("vgg11", 10, 0.125).eval()
    images = torch.randint(0, 256, (3, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    got = networks.extract(network, images.numpy(), torch.device("cpu"), batch_size=2)
    with torch.no_grad():
        alone = torch.cat([network.features(image[None].float() / 255) for image in images]).double()
    wanted = alone / alone.pow(2).sum(1, keepdim=True).sqrt()
    assert got.dtype == "float32" and got.shape == (3, network.feature_size)
    torch.testing.assert_close(torch.from_numpy(got).double(), wanted, rtol=1e-4, atol=1e-6)
    small = images[..., 8:24, 8:24]
    larger = torch.nn.functional.interpolate(small.float() / 255, (32, 32), mode="bilinear")
    with torch.no_grad():
        alone = torch.nn.functional.normalize(network.features(larger))
    got = networks.extract(network, small.numpy(), torch.device("cpu"), image_size=32)
    torch.testing.assert_close(torch.from_numpy(got), alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("value", "bad"), [(np.nan, True), (np.inf, True), (-np.inf, True), (3e38, False), (0, False)])
def test_the_first_image_without_finite_features_is_named_by_its_number_in_the_data_set(value, bad):
    features, ids = np.ones((4, 2), np.float32), np.array([7, 5, 9, 3])
    features[2, 1] = features[3, 0] = value
    words = "NaN or infinite features for 2 of the 4 query images, the first of which is image 9 of the data set"
    with pytest.raises(UserError, match=words) if bad else contextlib.nullcontext():
        networks.check_finite(features, ids, "query images")
