"""The methods of attacks: each searches the ball around the images for a maximum of a loss.

A method is a function ``method(loss, images, start, epsilon, step, iterations)``, see ``pgd`` for its arguments, and has the name that a
study calls it by: the digest of an attack covers its own method and what that uses, not the others (``CHOSEN`` in job/provenance.py). Keys
of a study that only this method uses are its keyword-only parameters.
"""

import functools
import importlib
import logging
from collections.abc import Callable

import torch
from torch import Tensor

log = logging.getLogger("pqag")

#: What took the steps of ``pgd`` in this process, for the record: AdverTorch, or pqag where that cannot be imported; None before any step.
ENGINE: str | None = None

Loss = Callable[[Tensor], Tensor]


@functools.cache
def advertorch() -> Callable | None:
    """AdverTorch's ``perturb_iterative``; None, with a warning, where it cannot be imported.

    AdverTorch 0.2.3 (2020) imports ``zero_gradients`` from a module of torch that lost it in 1.9; only its FAB attack would call it. The
    module must be asked for by name, since ``torch.autograd.gradcheck`` as an attribute is the function of the same name.
    """
    global ENGINE
    try:
        gradcheck = importlib.import_module("torch.autograd.gradcheck")
        if not hasattr(gradcheck, "zero_gradients"):
            gradcheck.zero_gradients = _zero_gradients
        from advertorch.attacks.iterative_projected_gradient import perturb_iterative
    except (ImportError, AttributeError) as error:
        log.warning("warning: AdverTorch cannot be imported (%s), so pqag itself takes the steps of PGD", " ".join(str(error).split()))
        ENGINE = "pqag"
        return None
    ENGINE = "AdverTorch"
    return perturb_iterative


def _zero_gradients(tensors):
    for tensor in [tensors] if isinstance(tensors, Tensor) else tensors:
        tensor.grad = None


def pgd(loss: Loss, images: Tensor, start: Tensor, epsilon: float, step: float, iterations: int) -> Tensor:
    """Projected gradient ascent on the sign of the gradient (Madry et al. 2018), by AdverTorch where it can be imported.

    As for every method: ``loss`` maps images to one number per query, float64 (N,), differentiable; ``images`` float32 (N, 3, H, W) in
    [0, 1]; ``start`` the change to begin at, of the same shape, within the ball and leading to no pixel outside [0, 1]; ``epsilon`` and
    ``step`` in the same units. Returns adversarial images of the same shape in the ball and in [0, 1]. This is what AdverTorch's
    ``LinfPGDAttack`` does, but from given starting points instead of ones that it draws.
    """
    perturb_iterative = advertorch()
    if perturb_iterative is None:
        return _ascent(loss, images, start, epsilon, step, iterations, torch.sign)
    return perturb_iterative(
        images,
        images,
        loss,
        nb_iter=iterations,
        eps=epsilon,
        eps_iter=step,
        loss_fn=lambda values, _: values.sum(),
        delta_init=torch.nn.Parameter(start),
        clip_min=0.0,
        clip_max=1.0,
    ).detach()


def _ascent(
    loss: Loss, images: Tensor, start: Tensor, epsilon: float, step: float, iterations: int, direction: Callable[[Tensor], Tensor]
) -> Tensor:
    """Projected ascent by steps along ``direction`` of the gradient."""
    change = start
    for _ in range(iterations):
        x = (images + change).requires_grad_()
        [gradient] = torch.autograd.grad(loss(x).sum(), x)
        change = (change + step * direction(gradient)).clamp(-epsilon, epsilon)
        change = (images + change).clamp(0, 1) - images
    return images + change


def fgsm(loss: Loss, images: Tensor, start: Tensor, epsilon: float, step: float, iterations: int) -> Tensor:
    """The fast gradient sign method (Goodfellow et al. 2015): one step as long as the radius, whatever ``step`` and ``iterations`` are."""
    return pgd(loss, images, start, epsilon, epsilon, 1)


def universal(loss: Loss, images: Tensor, start: Tensor, epsilon: float, step: float, iterations: int) -> Tensor:
    """The change that was trained, which ``start`` is, added to every image, see ``pqag.universal``.

    Looks once at the loss, of the clean images, so that the health of the attack says what the change gains.
    """
    with torch.no_grad():
        loss(images)
    return images + start


def uaa_gan(
    loss: Loss, images: Tensor, start: Tensor, epsilon: float, step: float, iterations: int, *, discriminator: bool = False
) -> Tensor:
    """The change that a trained generator makes to each image, which ``start`` is, added to it, see ``pqag.uaa_gan``.

    Looks at the loss as ``universal`` does. Whether a discriminator took part only matters while the generator is trained.
    """
    return universal(loss, images, start, epsilon, step, iterations)


def momentum_pgd(loss: Loss, images: Tensor, start: Tensor, epsilon: float, step: float, iterations: int, *, decay: float = 1.0) -> Tensor:
    """MI-FGSM (Dong et al. 2018, Algorithm 1): steps along the sign of a sum of gradients of l1-norm 1, the older ones times ``decay``.

    AdverTorch's ``MomentumIterativeAttack`` is the same (tested), but takes no starting points.
    """
    momentum = torch.zeros_like(images)

    def direction(gradient: Tensor) -> Tensor:
        nonlocal momentum
        norm = gradient.abs().sum((1, 2, 3), keepdim=True).clamp(min=torch.finfo(gradient.dtype).tiny)
        momentum = decay * momentum + gradient / norm
        return momentum.sign()

    return _ascent(loss, images, start, epsilon, step, iterations, direction)


def apgd(loss: Loss, images: Tensor, start: Tensor, epsilon: float, step: float, iterations: int) -> Tensor:
    """APGD (Croce and Hein 2020, Algorithm 1): steps that are halved where they no longer help, whatever ``step`` is.

    Steps begin with twice the radius and have a momentum of 0.75. At a checkpoint a query halves its step, and goes on from its best point
    so far, if fewer than 75 % of the steps since the last one raised its loss, or if since then neither its step nor its best loss changed.
    Returns the best point of each query. ``loss`` is called ``iterations`` + 1 times; the last time without gradient.
    """
    x = previous = best = images + start
    values, gradient = _with_gradient(loss, x)
    best_values, best_gradient = values, gradient
    size = torch.full_like(images[:, :1, :1, :1], 2 * epsilon)
    rises, halved, best_before, last = torch.zeros_like(values), torch.zeros_like(values, dtype=torch.bool), values, 0
    checkpoints = apgd_checkpoints(iterations)
    for i in range(1, iterations + 1):
        ahead = _projected(x + size * gradient.sign(), images, epsilon)
        if i > 1:
            ahead = _projected(x + 0.75 * (ahead - x) + 0.25 * (x - previous), images, epsilon)
        previous, x, before = x, ahead, values
        if i < iterations:
            values, gradient = _with_gradient(loss, x)
        else:
            with torch.no_grad():
                values = loss(x)
        better = values > best_values
        best_values = torch.where(better, values, best_values)
        best, best_gradient = _where(better, x, best), _where(better, gradient, best_gradient)
        rises = rises + (values > before)
        if i in checkpoints:
            halved = (rises < 0.75 * (i - last)) | (~halved & (best_values == best_before))
            size = _where(halved, size / 2, size)
            x, gradient = _where(halved, best, x), _where(halved, best_gradient, gradient)
            values = torch.where(halved, best_values, values)
            rises, best_before, last = torch.zeros_like(rises), best_values, i
    return best


def apgd_checkpoints(iterations: int) -> list[int]:
    """The steps after which APGD looks back: after 22 % of all, then after shares that are 3 % shorter each time, but at least 6 %."""
    shares, last = [22], 0
    while shares[-1] < 100:
        last, length = shares[-1], shares[-1] - last
        shares.append(last + max(length - 3, 6))
    return [-(-share * iterations // 100) for share in shares if share <= 100]


#: Where tanh of black and white pixels begins in ``cw_l2``: short of 1, so that they have a gradient.
ENDS = 0.99


def cw_l2(loss: Loss, images: Tensor, start: Tensor, epsilon: float, step: float, iterations: int, *, searches: int = 6) -> Tensor:
    """The smallest change by its l2 norm for which ``loss`` is at least 0, in no ball (Carlini and Wagner 2017, their L2 attack).

    Adam minimises ||change||^2 - c ``loss`` for ``iterations`` steps over w, where images are (tanh w + 1) / 2, at a rate that moves a grey
    pixel by about ``step``. Each query tries as many values of c as ``searches`` says: the first is 1, the next ten times as much until the
    loss gets to 0, and from then on the middle of the interval that is left. The loss is that of 8-bit images, as they are stored, and the
    gradient ignores the rounding. Returns the clean image of a query for which it found nothing. ``start`` and ``epsilon`` have no effect.
    """
    found, least = images, torch.full_like(images[:, 0, 0, 0], torch.inf)
    c, low, high = torch.full_like(least, 1.0), torch.zeros_like(least), torch.full_like(least, torch.inf)
    for _ in range(searches):
        w = (ENDS * (2 * images - 1)).atanh().requires_grad_()
        adam, reached = torch.optim.Adam([w], lr=2 * step), torch.zeros_like(least, dtype=torch.bool)
        for _ in range(iterations):
            x = (w.tanh() / ENDS + 1) / 2
            x = (255 * x.detach()).round().clamp(0, 255) / 255 + (x - x.detach())  # clamp has no gradient at its ends
            values, sizes = loss(x), ((x - images) ** 2).sum((1, 2, 3))
            better = (values.detach() >= 0) & (sizes.detach() < least)
            reached |= values.detach() >= 0
            found, least = _where(better, x.detach(), found), torch.where(better, sizes.detach(), least)
            adam.zero_grad()
            (sizes - c * values).sum().backward()
            adam.step()
        low, high = torch.where(reached, low, c), torch.where(reached, c, high)
        c = torch.where(high.isfinite(), (low + high) / 2, 10 * c)
    return found


def _with_gradient(loss: Loss, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    values = loss(x)
    return values.detach(), torch.autograd.grad(values.sum(), x)[0]


def _projected(x: Tensor, images: Tensor, epsilon: float) -> Tensor:
    """The nearest images in the ball and in [0, 1]."""
    return torch.min(torch.max(x, images - epsilon), images + epsilon).clamp(0, 1)


def _where(chosen: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """``one`` for the chosen queries, bool (N,), and ``other`` for the rest."""
    return torch.where(chosen.reshape(-1, 1, 1, 1), one, other)
