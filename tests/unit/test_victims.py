"""Networks that the user brings: weights that fit and that do not, torchvision's, functions, and what is checked before use."""

import re
import urllib.error

import pytest
import torch
from torch import nn
from torchvision import models

from pqag import checkpoints, networks, user_code, victims
from pqag.errors import UserError
from pqag.study import resources

from .conftest import Evil

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return networks.build("vgg11", 5, 0.05, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)).eval()


def save_tensors(tensors, path):
    """As .pt or as .safetensors, by the name."""
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    else:
        torch.save(tensors, path)
    return str(path)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "ours.pt"])
def test_a_network_of_ours_with_weights_from_a_file(network, tmp_path, name):
    path = tmp_path / name
    if name == "ours.pt":
        checkpoints.save_network(path, network, "vgg11", 0.05, 5)
    else:
        save_tensors(network.state_dict(), path)
    got = victims.ours("vgg11", 0.05, str(path)).eval()
    with torch.no_grad():
        assert torch.equal(got(IMAGES), network(IMAGES))
    assert victims.check(got, IMAGES, "vgg11") == network.feature_size and victims.classes_of(got, IMAGES) == 5


def state_with(network, **changes):
    """Its state dict with tensors changed, or left out (None); double underscores in names are dots."""
    changed = network.state_dict() | {name.replace("__", "."): value for name, value in changes.items()}
    return {name: value for name, value in changed.items() if value is not None}


#: How a file of weights may be wrong, and the message; each function gets a network (vgg11 of width 0.05) and a path.
WRONG_FILES = {
    "another width": (
        lambda n, p: torch.save(networks.build("vgg11", 5, 0.125).state_dict(), p),
        r"does not fit vgg11 of width 0.05: [\w.]+ has the shape \(.*\) in the file and \(.*\) in the network",
    ),
    "of ours, another width": (
        lambda n, p: checkpoints.save_network(p, networks.build("vgg11", 5, 0.125), "vgg11", 0.125, 5),
        r"contains the weights of vgg11 of width 0.125, but the study says vgg11 of width 0.05$",
    ),
    "of ours, another network": (
        lambda n, p: checkpoints.save_network(p, networks.build("vgg13", 5, 0.05), "vgg13", 0.05, 5),
        r"contains the weights of vgg13 of width 0.05, but the study says vgg11 of width 0.05$",
    ),
    "a tensor missing": (
        lambda n, p: torch.save(state_with(n, body__0__0__weight=None), p),
        r"compared with the network's \d+ tensors it lacks body.0.0.weight$",
    ),
    "a tensor too many": (
        lambda n, p: torch.save(state_with(n, extra=torch.ones(1)), p),
        r"compared with the network's \d+ tensors it has in addition extra$",
    ),
    "int8": (
        lambda n, p: torch.save(state_with(n, head__weight=n.head.weight.detach().to(torch.int8)), p),
        r"head.weight has the type int8 in the file, but must be floats of at least 16 bits$",
    ),
    "float8": (
        lambda n, p: torch.save(state_with(n, head__weight=n.head.weight.detach().to(torch.float8_e4m3fn)), p),
        r"head.weight has the type float8_e4m3fn in the file",
    ),
    "complex": (
        lambda n, p: torch.save(state_with(n, head__weight=n.head.weight.detach().to(torch.complex64)), p),
        r"head.weight has the type complex64 in the file",
    ),
    "without values": (
        lambda n, p: torch.save(state_with(n, head__weight=n.head.weight.detach().to("meta")), p),
        r"head.weight has no values in the file",
    ),
    "sparse": (
        lambda n, p: torch.save(state_with(n, head__weight=n.head.weight.detach().to_sparse()), p),
        r"head.weight is a sparse tensor in the file",
    ),
    "half a last layer": (
        lambda n, p: torch.save(state_with(n, head__bias=None), p),
        r"compared with the network's \d+ tensors it lacks head.bias$",
    ),
    "a prefix at some names": (
        lambda n, p: torch.save({key if "head" in key else f"module.{key}": value for key, value in n.state_dict().items()}, p),
        r"it lacks .* and \d+ more; \d+ of its \d+ names begin with module\.$",
    ),
    "legacy, with code": (
        lambda n, p: torch.save({"w": Evil(p.with_name("ran"))}, p, _use_new_zipfile_serialization=False),
        r"it contains more than tensors and plain values",
    ),
    "legacy, cut": (
        lambda n, p: (
            torch.save(n.state_dict(), p, _use_new_zipfile_serialization=False),
            p.write_bytes(p.read_bytes()[:-1000]),
        ),
        r"cannot be read safely as a checkpoint",
    ),
    "a whole training": (
        lambda n, p: torch.save({"epoch": 3, "state_dict": n.state_dict()}, p),
        r"contains the keys epoch, state_dict instead of the tensors of a network: save only network.state_dict\(\)",
    ),
    "a whole network": (lambda n, p: torch.save(n, p), r"cannot be read safely as a checkpoint: it contains more than tensors"),
    "pickle with code": (lambda n, p: torch.save({"w": Evil(p.with_name("ran"))}, p), r"it contains more than tensors and plain values"),
    "a list": (lambda n, p: torch.save([1, 2], p), r"contains a list instead of the tensors of a network"),
    "nothing": (lambda n, p: torch.save({}, p), r"contains the keys  instead of the tensors of a network"),
    "missing": (lambda n, p: None, r"cannot be read safely as a checkpoint: .*No such file"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG_FILES)
def test_wrong_weights_are_refused_in_a_sentence(network, tmp_path, kind):
    write, words = WRONG_FILES[kind]
    path = tmp_path / "w.pt"
    write(network, path)
    with pytest.raises(UserError, match=words) as error:
        victims.ours("vgg11", 0.05, str(path))
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists(), "nothing in the file runs"


#: How published files differ from ``network.state_dict()``, and are read all the same: what each does to the tensors of vgg11.
READ = {
    "module.": lambda tensors: {f"module.{key}": value for key, value in tensors.items()},
    "_orig_mod. in module.": lambda tensors: {f"module._orig_mod.{key}": value for key, value in tensors.items()},
    "model.": lambda tensors: {f"model.{key}": value for key, value in tensors.items()},
    "backbone.": lambda tensors: {f"backbone.{key}": value for key, value in tensors.items()},
    "no count of batches": lambda tensors: {key: value for key, value in tensors.items() if "num_batches" not in key},
    "half precision": lambda tensors: {key: value.half() if value.is_floating_point() else value for key, value in tensors.items()},
    "double precision": lambda tensors: {key: value.double() if value.is_floating_point() else value for key, value in tensors.items()},
}


@pytest.mark.parametrize("change", READ)
@pytest.mark.parametrize("form", ["zip", "legacy", "w.SAFETENSORS"])
def test_a_published_file_of_weights_is_read(network, tmp_path, change, form):
    tensors = READ[change](dict(network.state_dict()))
    path = tmp_path / (form if "." in form else "w.pth")
    if form == "w.SAFETENSORS":
        save_tensors(tensors, tmp_path / "w.safetensors")
        (tmp_path / "w.safetensors").rename(path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=form == "zip")
    got = victims.ours("vgg11", 0.05, str(path)).state_dict()
    for key, value in network.state_dict().items():
        torch.testing.assert_close(got[key], value, rtol=2e-3, atol=1e-3 if change == "half precision" else 0)


def test_a_backbone_without_its_last_layer_has_the_same_features_and_no_accuracy(network, tmp_path, caplog):
    path = save_tensors(state_with(network, head__weight=None, head__bias=None), tmp_path / "w.pt")
    got = victims.ours("vgg11", 0.05, path).eval()
    with torch.no_grad():
        assert torch.equal(got.features(IMAGES), network.features(IMAGES))
        assert not got(IMAGES).any() and victims.classes_of(got, IMAGES) == 1
    assert "w.pt lacks the last layer, head: the features do not need it, and no accuracy is reported" in caplog.text


def test_old_names_and_lost_versions_of_torchvisions_networks(tmp_path):
    """DenseNet as published (norm.1), MNASNet in a plain dict, GoogLeNet with and without the classifiers of its training."""
    for name, change in (
        ("densenet121", lambda state: {re.sub(r"(layer\d+\.(norm|conv))(\d)", r"\1.\3", key): value for key, value in state.items()}),
        ("mnasnet0_5", dict),
        ("googlenet", dict),
        ("googlenet", lambda state: {key: value for key, value in state.items() if not key.startswith("aux")}),
        ("resnet18", lambda state: {key: value for key, value in state.items() if not key.startswith("fc.")}),
    ):
        plain = models.get_model(name, weights=None, num_classes=7, **({"init_weights": False} if name == "googlenet" else {}))
        written = change(plain.state_dict())
        assert name in ("mnasnet0_5", "googlenet") or written.keys() != plain.state_dict().keys()
        network, _ = victims.of_torchvision(f"torchvision:{name}", save_tensors(written, tmp_path / "w.pt"))
        checkpoints.save_network(tmp_path / "again.pt", network, f"torchvision:{name}", 1.0, network.head.out_features)
        again = checkpoints.load_network(tmp_path / "again.pt").state_dict()
        body = {key.removeprefix("body.1."): value for key, value in again.items() if key.startswith("body.")}
        assert len(body) > 50 and all(torch.equal(value, plain.state_dict()[key]) for key, value in body.items())
        assert network.head.out_features == (1 if name == "resnet18" else 7)


def test_a_file_that_may_belong_to_weights_with_other_images_is_refused(tmp_path, monkeypatch):
    """Unless it is torchvision's own, whose name has the sha256; weights that lack categories are no candidates (vgg16)."""
    path = save_tensors({"features.0.weight": torch.ones(1)}, tmp_path / "w.pt")
    words = "w.pt may belong to IMAGENET1K_V1 or IMAGENET1K_V2 of torchvision's efficientnet_b1, which prepare images differently"
    with pytest.raises(UserError, match=words):
        victims.of_torchvision("torchvision:efficientnet_b1", path)
    monkeypatch.setattr(victims.files, "sha256", lambda path: "c27df63c" + "0" * 56)
    for name in ("efficientnet_b1", "vgg16"):
        with pytest.raises(UserError, match=f"w.pt does not fit torchvision:{name}"):
            victims.of_torchvision(f"torchvision:{name}", path)


@pytest.mark.parametrize("content", [b"", b"hello"])
def test_an_unreadable_safetensors_file_is_refused(tmp_path, content):
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="w.safetensors is not a readable safetensors file: "):
        victims.ours("vgg11", 0.05, str(tmp_path / "w.safetensors"))
    with pytest.raises(UserError, match="nowhere.safetensors is not a readable safetensors file: "):
        victims.ours("vgg11", 0.05, str(tmp_path / "nowhere.safetensors"))


def test_a_network_of_torchvision_without_a_linear_layer_is_refused(tmp_path):
    path = save_tensors(models.squeezenet1_0(num_classes=7).state_dict(), tmp_path / "w.pt")
    with pytest.raises(UserError, match="torchvision:squeezenet1_0 has no linear layer, but the feature is the input"):
        victims.of_torchvision("torchvision:squeezenet1_0", path)


def test_the_feature_of_a_network_of_torchvision_is_the_input_of_its_last_layer(tmp_path):
    name, images = "torchvision:mobilenet_v3_small", IMAGES[:2]
    torch.manual_seed(0)
    plain = models.mobilenet_v3_small(num_classes=10).eval()
    got, downloaded = victims.of_torchvision(name, save_tensors(plain.state_dict(), tmp_path / "w.pt"))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    large = torch.nn.functional.interpolate((images - mean[:, None, None]) / std[:, None, None], size=224, mode="bilinear")
    checkpoints.save_network(tmp_path / "weights.pt", got, name, 1.0, 10)
    again = checkpoints.load_network(tmp_path / "weights.pt")
    with torch.no_grad():
        wanted = plain(large)
        assert torch.allclose(got.eval()(images), wanted, atol=1e-5) and torch.allclose(again(images), wanted, atol=1e-5)
        assert torch.allclose(got.features(images) @ got.head.weight.T + got.head.bias, wanted, atol=1e-5)
    assert downloaded is None
    assert victims.check(got, images, name) == 1024 and victims.classes_of(got, images) == 10


def by_torchvision(name, member):
    """Its own network for ``member`` of its weights, with the settings of its builder, but drawn weights."""
    torch.manual_seed(0)
    transformed = {"transform_input": True, "aux_logits": True, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    sized = {"image_size": member.meta["min_size"][0]} if name.startswith("vit_") else {}
    network = models.get_model(name, weights=None, **transformed, **sized).eval()
    nn.init.normal_(networks.last_linear(network)[1].weight)  # a vision transformer's is 0
    return network


@pytest.mark.parametrize(
    ("name", "member"),
    [
        pytest.param("inception_v3", "IMAGENET1K_V1", marks=pytest.mark.slow),
        pytest.param("googlenet", "IMAGENET1K_V1", marks=pytest.mark.slow),
        ("efficientnet_b0", "IMAGENET1K_V1"),
        ("shufflenet_v2_x0_5", "IMAGENET1K_V1"),
        pytest.param("vit_b_16", "IMAGENET1K_SWAG_E2E_V1", marks=pytest.mark.slow),
    ],
)
def test_logits_are_those_of_torchvisions_own_preprocessing(name, member, monkeypatch, tmp_path):
    """Its resizing of the whole image, its normalisation and its builder; also after the network is saved and loaded."""
    member = models.get_model_weights(name)[member]
    plain, transforms = by_torchvision(name, member), member.transforms()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(type(member), "get_state_dict", lambda *_, **__: plain.state_dict())
    transforms.resize_size = transforms.crop_size * 2  # the whole image instead of the centre
    network, _ = victims.of_torchvision(f"torchvision:{name}", member.name)
    checkpoints.save_network(tmp_path / "w.pt", network, f"torchvision:{name}", 1.0, 1000)
    again, _ = victims.of_torchvision(f"torchvision:{name}", str(tmp_path / "w.pt"))
    with torch.no_grad():
        wanted = plain(transforms(IMAGES[:2]))
        for got in (network.eval(), again):
            assert (got(IMAGES[:2]) - wanted).abs().max() < 1e-4 * wanted.abs().max()


@pytest.mark.parametrize("name", models.list_models(module=models))
def test_every_classifier_of_torchvision_sees_images_as_its_weights_want_them(name, monkeypatch):
    """On the meta device, against the values in torchvision's transforms; and resources know how large it then is."""
    from torchvision.models.regnet import BlockParams

    def on_cpu(*arguments, own=BlockParams.from_init_params, **options):  # it computes with tensors
        with torch.device("cpu"):
            return own(*arguments, **options)

    monkeypatch.setattr(BlockParams, "from_init_params", on_cpu)
    for member in models.get_model_weights(name):
        transforms = member.transforms()
        enlarged, mean, std = victims.preprocessing(name, member)
        assert enlarged == (transforms.crop_size[0], transforms.interpolation.value)
        transformed = ((0.5,) * 3,) * 2 if name in ("googlenet", "inception_v3") else (tuple(transforms.mean), tuple(transforms.std))
        assert (mean, std) == transformed
        pixels = enlarged[0]
        with torch.device("meta"):
            classifier = networks.torchvision_classifier(f"torchvision:{name}", 1000, enlarged)
            if name.startswith("squeezenet"):
                continue  # refused: it has no linear layer
            backbone = networks.of_torchvision(classifier, enlarged, mean, std).eval()
            calls = []

            def look(module, inputs, output, calls=calls):
                calls.append([one.numel() for one in (*inputs, output) if isinstance(one, torch.Tensor)])

            for module in [backbone.head, *backbone.body[1].modules()]:
                if not list(module.children()):
                    module.register_forward_hook(look)
            seen = []
            backbone.body[0].register_forward_hook(lambda *call, seen=seen: seen.append(call[2].shape))
            assert backbone(torch.empty(1, 3, 32, 32)).shape == (1, 1000)
        assert seen == [(1, 3, pixels, pixels)]
        numbers = {"outputs": sum(call[-1] for call in calls), "widest": max(map(sum, calls))}
        numbers |= {"multiplications": 1000e6 * member.meta["_ops"], "parameters": sum(one.numel() for one in backbone.parameters())}
        [row] = [row for row in resources.of_torchvision()[name] if row["pixels"] == pixels]
        assert row == pytest.approx(
            {key: value / 1e6 for key, value in numbers.items()} | {"pixels": pixels, "features": backbone.feature_size}, rel=0.05
        )


#: (network, weights, the sentence)
WRONG_NAMES = [
    ("torchvision:resnet19", "w.pt", r"torchvision has no network resnet19: did you mean resnet1"),
    ("torchvision:xyz", "w.pt", r"torchvision has no network xyz: it has \d+"),
    ("torchvision:resnet18", "IMAGENET22K", r"has no weights IMAGENET22K for resnet18: allowed are IMAGENET1K_V1, DEFAULT, or the path"),
    ("torchvision:resnet18", "nowhere.pt", r"nowhere.pt cannot be read safely as a checkpoint: .*No such file"),
]  # fmt: skip


@pytest.mark.parametrize(("network", "weights", "words"), WRONG_NAMES)
def test_names_unknown_to_torchvision_are_refused(network, weights, words):
    with pytest.raises(UserError, match=words):
        victims.of_torchvision(network, weights)


def test_without_internet_access_the_message_says_what_to_do(monkeypatch, tmp_path):
    def refused(*_, **__):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refused)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    reason = r"resnet18-f37072fd.pth could not be downloaded \(<urlopen error Name or service not known>\): get the file elsewhere, and set"
    with pytest.raises(UserError, match=reason):
        victims.of_torchvision("torchvision:resnet18", "IMAGENET1K_V1")


def test_downloaded_weights_are_used_and_their_file_is_named(monkeypatch, tmp_path):
    plain = models.resnet18()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(models.ResNet18_Weights.IMAGENET1K_V1.__class__, "get_state_dict", lambda *_, **__: plain.state_dict())
    network, downloaded = victims.of_torchvision("torchvision:resnet18", "IMAGENET1K_V1")
    assert downloaded == str(tmp_path / "checkpoints/resnet18-f37072fd.pth")
    assert torch.equal(network.head.weight, plain.fc.weight)


class Net(nn.Module):
    """A network whose features are ``made`` from the images and a layer."""

    def __init__(self, made=None):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3 * 32 * 32, 8)
        self.made = made or (lambda net, x: net.layer(x.flatten(1)))

    def features(self, images):
        return self.made(self, images)


def test_a_function_of_the_user_that_returns_a_network_or_none():
    net = victims.by_user(Net, "mine:Net")
    assert victims.check(net, IMAGES, "mine:Net") == 8 and victims.classes_of(net, IMAGES) is None
    assert not net.training and not any(p.requires_grad for p in net.parameters())
    for returned, words in (
        (None, "mine:make returned nothing instead of a torch.nn.Module with a method features"),
        (5, "mine:make returned a int instead of a torch.nn.Module"),
        (nn.Linear(2, 2), "mine:make returned a Linear without a method features"),
    ):
        with pytest.raises(UserError, match=words):
            victims.by_user(lambda returned=returned: returned, "mine:make")


def test_a_network_of_the_user_that_is_trained_here_is_a_classifier_with_gradients():
    class Classifier(Net):
        def forward(self, images):
            return self.features(images)

    net = victims.to_train(Classifier, "mine:make", IMAGES, 8)
    assert all(p.requires_grad for p in net.parameters())
    for made, words in ((Classifier, "with 8 logits, but .* one for each of the 10 classes"), (Net, "with no logits")):
        with pytest.raises(UserError, match=f"mine:make returns a network {words}"):
            victims.to_train(made, "mine:make", IMAGES, 10)


def fails(net, x):
    raise RuntimeError("size mismatch,\nm1: [a x b]")


#: How features may be wrong, and the message.
WRONG_FEATURES = {
    "four dimensions": (lambda net, x: x, r"features of mine returned a tensor \(4, 3, 32, 32\) of float32 for images \(4, 3, 32, 32\)"),
    "one vector": (lambda net, x: net.layer(x.flatten(1))[0], r"returned a tensor \(8,\) of float32 .*, but must return floats \(4, D\)"),
    "whole numbers": (lambda net, x: net.layer(x.flatten(1)).long(), r"returned a tensor \(4, 8\) of int64"),
    "no tensor": (lambda net, x: net.layer(x.flatten(1)).detach().numpy(), r"returned a ndarray"),
    "NaN": (lambda net, x: net.layer(x.flatten(1)) * torch.nan, r"features of mine returned NaN or infinite numbers, but must"),
    "detached": (lambda net, x: net.layer(x.flatten(1)).detach(), r"features of mine has no gradient by the images: it must not detach"),
    "a constant": (lambda net, x: x.flatten(1)[:, :8] * 0, r"features of mine has a gradient by the images that is zero everywhere"),
    "random": (lambda net, x: nn.functional.dropout(net.layer(x.flatten(1))), r"differ between two calls: something in it is random"),
    "an error": (fails, r"features of mine fails for images \(4, 3, 32, 32\): RuntimeError: size mismatch, m1: \[a x b\]$"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG_FEATURES)
def test_features_that_no_attack_could_use_are_refused_in_a_sentence(kind):
    made, words = WRONG_FEATURES[kind]
    with pytest.raises(UserError, match=words) as error:
        victims.check(Net(made), IMAGES, "mine")
    assert "\n" not in str(error.value)


SOURCE = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3 * 32 * 32, 8)
    def features(self, images):
        return self.layer(images.flatten(1))
"""


def test_a_network_of_the_users_comes_back_by_their_function_and_only_if_the_study_names_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(f"open('ran', 'a').write('x')\n{SOURCE}")
    [digest] = user_code.digests([("models.a.network", "mine:Net")]).values()
    network = user_code.function("mine:Net", digest)()
    checkpoints.save_network("weights.pt", network, "mine:Net", 1.0, None)
    again = checkpoints.load_network("weights.pt", {"mine:Net": digest})
    assert torch.equal(again.features(IMAGES), network.features(IMAGES)) and not again.training
    assert (tmp_path / "ran").read_text() == "xx"
    for digests in (None, {}, {"other:Net": digest}):
        with pytest.raises(UserError, match="weights.pt is for a network built by mine:Net, which the study does not name"):
            checkpoints.load_network("weights.pt", digests)
    with pytest.raises(UserError, match="mine.py is missing or was changed"):
        checkpoints.load_network("weights.pt", {"mine:Net": "0" * 64})
    assert (tmp_path / "ran").read_text() == "xx", "it did not run again"


def test_weights_for_images_of_another_size_are_refused(tmp_path):
    """Their tensors have the same shapes: only the stride of the first convolution is another."""
    network = networks.build("vgg11", 5, 0.05, image_size=64)
    checkpoints.save_network(tmp_path / "weights.pt", network, "vgg11", 0.05, 5)
    with pytest.raises(UserError, match="is for images of 64 pixels, but those of the study have 32"):
        victims.ours("vgg11", 0.05, str(tmp_path / "weights.pt"))
    assert victims.ours("vgg11", 0.05, str(tmp_path / "weights.pt"), 64).image_size == 64
