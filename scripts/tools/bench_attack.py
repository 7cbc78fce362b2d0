"""The attack and its peers, for `make bench`: five steps of PGD with the loss AOD on two victims of the default study, on one thread."""

import copy
import time
from collections.abc import Callable, Iterator
from functools import partial

import eagerpy
import foolbox
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pqag import attacks, datasets, losses, methods, networks, quantizer, retrieval, training, training_run
from pqag.codebooks import Codebook
from pqag.names import BATCH_SIZES

#: Networks with their widths in config.yaml.
VICTIMS = {"vgg16": 0.25, "resnet18": 0.125}
ATTACK = attacks.Attack(loss="aod", epsilon=8, step=2.55, iterations=5)
EPSILON, STEP, STEPS = ATTACK.epsilon / 255, ATTACK.step / 255, ATTACK.iterations
QUERIES, SUBSPACES, WORDS, SEED = 500, 4, 16, 0

#: Makes adversarial images, float (N, 3, H, W), of images and where to start from, None for a start of its own.
Contender = Callable[[Tensor, Tensor | None], Tensor]


class Victim:
    """A network, trained on generated images, with its codebook, and the queries to attack."""

    def __init__(self, name: str):
        raw = datasets.fetch("synthetic").raw
        images, queries, gallery = np.split(raw.images, [raw.train, raw.train + QUERIES])
        labels, self.labels, self.gallery_labels = np.split(raw.labels, [raw.train, raw.train + QUERIES])
        recipe = training.Recipe(4, 128, 0.1, 0.9, 5e-4, 0.2, crop=2, flip=True, precision="float32")
        few = [(torch.from_numpy(images[:1]), torch.from_numpy(labels[:1]))]  # for the accuracy, which nobody looks at
        data = training.Data(images, torch.from_numpy(labels), lambda: few, False, "", images.shape[-1])
        self.network = training_run.new_network({"network": name, "width": VICTIMS[name]}, data, SEED)
        for _ in training.train(self.network, training.classification(self.network, recipe, False), data, recipe, SEED):
            pass
        self.network.to(memory_format=torch.contiguous_format).eval()
        self.images, self.ids = queries, np.arange(QUERIES)
        fit = quantizer.fit(self.extracted(gallery), SUBSPACES, WORDS, SEED)
        self.codebook = Codebook(fit.codewords, fit.codes, np.arange(len(gallery)))
        self.head = losses.Head(torch.as_tensor(fit.codewords, dtype=torch.float64))

    def extracted(self, images: np.ndarray) -> np.ndarray:
        return networks.extract(copy.deepcopy(self.network), images, torch.device("cpu"))

    def score(self, features: np.ndarray) -> float:
        """mAP of queries by ADC, in percent."""
        found = retrieval.evaluate(features, self.labels, self.codebook.codewords, self.codebook.codes, self.gallery_labels)
        return 100 * found["ADC"]["map"]

    def plain(self) -> Callable[[Tensor], Tensor]:
        """Features of images as anybody would write it: the parameters want gradients, and the channels come first."""
        network = copy.deepcopy(self.network)
        return lambda x: F.normalize(network.features(x).double(), dim=1)

    def loss(self, z: Tensor, clean: Tensor) -> Tensor:
        return losses.aod(z, clean, self.head).sum()


def by_advertorch(victim: Victim) -> Contender:
    methods.advertorch()  # makes it loadable
    from advertorch.attacks import LinfPGDAttack, iterative_projected_gradient

    features, own_start = victim.plain(), iterative_projected_gradient.rand_init_delta
    attack = LinfPGDAttack(features, victim.loss, EPSILON, STEPS, STEP)

    def run(x: Tensor, start: Tensor | None) -> Tensor:
        if start is not None:
            iterative_projected_gradient.rand_init_delta = lambda delta, *_: delta.data.copy_(start)
        try:
            return attack.perturb(x, features(x).detach())
        finally:
            iterative_projected_gradient.rand_init_delta = own_start

    return run


def by_foolbox(victim: Victim) -> Contender:
    features = victim.plain()

    class Features(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return features(x)

    class Attack(foolbox.attacks.LinfProjectedGradientDescentAttack):
        start = None

        def get_loss_fn(self, model, clean):
            return lambda x: eagerpy.astensor(victim.loss(model(x).raw, clean.raw))

        def get_random_start(self, x, epsilon):
            return super().get_random_start(x, epsilon) if self.start is None else x + eagerpy.astensor(self.start)

    model, attack = foolbox.PyTorchModel(Features().eval(), bounds=(0, 1)), Attack(abs_stepsize=STEP, steps=STEPS)

    def run(x: Tensor, start: Tensor | None) -> Tensor:
        attack.start = start
        return attack.run(model, x, foolbox.Misclassification(features(x).detach()), epsilon=EPSILON)

    return run


def like_torchattacks(victim: Victim) -> Contender:
    """The loop of torchattacks' PGD, whose losses cannot be exchanged."""
    features = victim.plain()

    def run(x: Tensor, start: Tensor | None) -> Tensor:
        clean = features(x).detach()
        adversarial = (x + (torch.empty_like(x).uniform_(-EPSILON, EPSILON) if start is None else start)).clamp(0, 1)
        for _ in range(STEPS):
            adversarial.requires_grad_()
            [gradient] = torch.autograd.grad(victim.loss(features(adversarial), clean), adversarial)
            adversarial = adversarial.detach() + STEP * gradient.sign()
            adversarial = (x + (adversarial - x).clamp(-EPSILON, EPSILON)).clamp(0, 1).detach()
        return adversarial

    return run


PEERS = {"AdverTorch": by_advertorch, "foolbox": by_foolbox, "torchattacks' loop": like_torchattacks}


def at_the_limit(victim: Victim, features: bool = False) -> Contender:
    """Nothing but five times forward and backward by the images alone, with frozen parameters and channels last: no attack. With
    ``features`` also forward twice, for those of the clean and of the stored images."""
    network = copy.deepcopy(victim.network).to(memory_format=torch.channels_last).requires_grad_(False)

    def run(x: Tensor, start: Tensor | None) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            for _ in range(2 * features):
                network.features(x)
        for _ in range(STEPS):
            torch.autograd.grad(network.features(x.requires_grad_()).sum(), x)
        return x

    return run


LIMITS = {"limit": at_the_limit, "limit with features": partial(at_the_limit, features=True)}


def ours(victim: Victim, count: int = QUERIES) -> tuple[np.ndarray, np.ndarray]:
    """The adversarial images of the first queries, and their features."""
    images, ids = victim.images[:count], victim.ids[:count]
    return attacks.attack(copy.deepcopy(victim.network), victim.codebook, images, ids, ATTACK, SEED)[:2]


def assert_equal(victim: Victim, x: Tensor) -> None:
    """Fail unless all peers make our images, up to the rounding of float32: 99.9 % of the pixels, and mAP to 0.1."""
    made, features = ours(victim)
    start = attacks.random_starts(victim.ids, x.shape[1:], EPSILON, SEED)
    for peer, contender in PEERS.items():
        theirs = attacks.rounded(contender(victim)(x, start).detach(), torch.from_numpy(victim.images), ATTACK.epsilon).numpy()
        same, scores = (theirs == made).mean(), [victim.score(one) for one in (features, victim.extracted(theirs))]
        assert same >= 0.999 and abs(scores[0] - scores[1]) <= 0.1, (peer, same, scores)


def measure(seconds: float) -> Iterator[tuple[str, str, list[float], list[float]]]:
    """Yield victim, peer, and the times for an image of ours and of the peer: of a batch of the workflow's size, in turn.

    Ours are the adversarial images with their features and the health of the attack. The peers give the images alone.
    """
    torch.set_num_threads(1)
    size = BATCH_SIZES["attack"]
    for name in VICTIMS:
        victim = Victim(name)
        x = torch.from_numpy(victim.images).float() / 255
        assert_equal(victim, x)
        runs = {"pqag": partial(ours, victim, size)}
        for peer, contender in (PEERS | LIMITS).items():
            runs[peer] = partial(contender(victim), x[:size].clone(), None)
        times: dict[str, list[float]] = {peer: [] for peer in runs}
        while len(times["pqag"]) < 5 or sum(times["pqag"]) * size < seconds:
            for peer, run in runs.items():
                begin = time.process_time()
                run()
                times[peer].append((time.process_time() - begin) / size)
        own = times.pop("pqag")
        for peer, found in times.items():
            yield name, peer, own, found
