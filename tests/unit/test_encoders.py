"""Codes that are not the nearest codewords: the lift of additive quantization, ICM, faiss' beam search, logits, and what retrieves."""

import itertools
import types
from dataclasses import replace

import faiss
import h5py
import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from pqag import additive, api, codebooks, encoders, joint, losses, networks, pqn, quantizer, retrieval, storage
from pqag.errors import UserError

M, K, D = 3, 8, 12


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """faiss' threads busy-wait for each other, which takes many times as long on a busy machine."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(before)


def gaussian(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def unit(count: int, seed: int = 0) -> np.ndarray:
    z = gaussian(count, D, seed=seed)
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def of_kind(encoder: str, items: int = 60) -> codebooks.Codebook:
    """A codebook of random codewords, with the codes of some items."""
    part = D if encoder in ("beam", "icm") else D // M
    logits = gaussian(M, K, part + 1, seed=3) if encoder == "argmax" else None
    words = gaussian(M, K, part, seed=2) / 3
    return codebooks.Codebook(words, encoders.encode(unit(items, 4), words, encoder, logits), np.arange(items), None, encoder, logits)


# ------------------------------------------------------------------------------------------------------------------- additive quantizers


def test_an_additive_quantizer_is_a_product_quantizer_of_repeated_features():
    """sum_m ||y - c_m||^2 + 2 sum_{o < m} <c_o, c_m> = ||y - sum_m c_m||^2 + (M - 1) ||y||^2: distances, scores and what is retrieved."""
    codes = np.stack(np.unravel_index(np.random.default_rng(6).permutation(K**M)[:60], (K,) * M), 1)
    codebook, y = replace(of_kind("icm"), codes=codes.astype(np.uint8)), unit(20)
    words = codebook.codewords.astype(float)
    sums = np.array([sum(words[m][code[m]] for m in range(M)) for code in codes])
    between = [2 * sum(words[o][code[o]] @ words[m][code[m]] for o, m in itertools.combinations(range(M), 2)) for code in codes]
    np.testing.assert_allclose(encoders.offsets(codes, codebook.codewords), between, atol=1e-12)
    lifted = retrieval.distances(codebook.rotated(y).astype(float), codes, words, "ADC", offsets=np.array(between))
    exact = ((y.astype(float)[:, None] - sums[None]) ** 2).sum(2)
    np.testing.assert_allclose(lifted, exact + (M - 1) * (y.astype(float) ** 2).sum(1)[:, None], atol=1e-12)

    labels, of_items = np.eye(3, dtype=np.uint8)[np.arange(20) % 3], np.eye(3, dtype=np.uint8)[np.arange(60) % 3]
    scores = codebooks.evaluate(codebook, y, labels, of_items)
    quantized = sums_of(encoders.encode(y, codebook.codewords, "icm"), words)
    for kind, queries in (("ADC", y.astype(float)), ("SDC", quantized)):
        squared = ((queries[:, None] - sums[None]) ** 2).sum(2)
        relevant = (labels[:, None] & of_items[None]).any(2)
        each = [average_precision_score(*one) for one in zip(relevant, -squared)]
        assert scores[kind]["map"] == pytest.approx(np.mean(each), abs=1e-6)
        order = np.argsort(squared, axis=1)[:, :5]
        np.testing.assert_array_equal(codebooks.nearest(codebook, y, 5, kind), order)


def sums_of(codes, words):
    return sum(words[m][codes[:, m]] for m in range(len(words)))


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_icm_never_raises_its_objective(convert):
    """Sweep by sweep; a further sweep from its end begins where it stopped, and each code is the best while the others stay."""
    z, words = unit(50).astype(float), gaussian(M, K, D, seed=2).astype(float) / 3
    before = np.full(50, np.inf)
    for sweeps in (1, 2, 3, 8):
        codes = np.stack([np.asarray(one) for one in encoders.icm(convert(z), convert(words), sweeps)], 1)
        error = ((z - sums_of(codes, words)) ** 2).sum(1)
        assert (error <= before + 1e-12).all()
        before = error
    for m in range(M):
        others = z - sums_of(codes, words) + words[m][codes[:, m]]
        np.testing.assert_array_equal(((others[:, None] - words[m][None]) ** 2).sum(2).argmin(1), codes[:, m])
    again = encoders.icm(convert(z), convert(words), 1, start=[convert(column.copy()) for column in codes.T])
    np.testing.assert_array_equal(np.stack([np.asarray(one) for one in again], 1), codes)


def test_icm_of_codewords_of_sub_spaces_takes_the_nearest():
    words = gaussian(M, K, D // M, seed=2)
    full = np.zeros((M, K, D), np.float32)
    for m in range(M):
        full[m, :, m * (D // M) : (m + 1) * (D // M)] = words[m]
    z = unit(50)
    np.testing.assert_array_equal(encoders.encode(z, full, "icm"), quantizer.encode(z, words))


@pytest.mark.parametrize("bits", [4, 6, 9])
def test_codes_of_rq_are_those_of_faiss(bits):
    """So are reconstructions, bit for bit, and the quantizer that is made of the tables alone encodes new features as the trained one."""
    z = gaussian(600, 16)
    fit = additive.rq(z, 4, 2**bits, seed=3, iterations=5)
    trained = faiss.ResidualQuantizer(16, 4, bits)
    trained.train_type, trained.cp.seed, trained.cp.niter = faiss.ResidualQuantizer.Train_default, 3, 5
    trained.cp.min_points_per_centroid, trained.cp.max_points_per_centroid = 1, 600
    trained.train(z)
    packed = trained.compute_codes(z)
    np.testing.assert_array_equal(fit.codes, faiss.unpack_bitstrings(packed, 4, bits))
    np.testing.assert_array_equal(encoders.decode(fit.codes, fit.codewords, "beam"), trained.decode(packed))
    new = gaussian(40, 16, seed=1)
    np.testing.assert_array_equal(encoders.encode(new, fit.codewords, "beam"), faiss.unpack_bitstrings(trained.compute_codes(new), 4, bits))
    assert fit.objective == pytest.approx(float(((z - trained.decode(packed)) ** 2).sum(1).mean()), rel=1e-5)
    assert fit.objective < quantizer.fit(z, 4, 2**bits, 3, 5).objective


def test_the_objective_of_cq_is_that_of_a_loop_and_its_gradient_that_of_finite_differences():
    z, tables = unit(30).astype(float), gaussian(M, K, D, seed=2).astype(float) / 3
    codes = np.random.default_rng(1).integers(0, K, (30, M))
    chosen = [[tables[m][code[m]] for m in range(M)] for code in codes]
    products = [sum(a @ b for a, b in itertools.permutations(words, 2)) for words in chosen]
    errors = [((one - sum(words)) ** 2).sum() for one, words in zip(z, chosen)]
    expected = sum(errors) + additive.PENALTY * sum((one - np.mean(products)) ** 2 for one in products)
    value, gradient = additive.Composite(z, codes, K)(tables)
    assert value == pytest.approx(expected, rel=1e-10)
    for place in ((0, codes[0, 0], 5), (2, codes[7, 2], 0)):
        step = np.zeros_like(tables)
        step[place] = 1e-5
        ahead, behind = (additive.Composite(z, codes, K)(tables + sign * step)[0] for sign in (1, -1))
        assert gradient[place] == pytest.approx((ahead - behind) / 2e-5, rel=1e-5)
    moved = additive.adapted(z, codes, tables)
    assert additive.Composite(z, codes, K)(moved)[0] < value


def test_cq_is_nearer_than_pq_and_its_inner_products_nearly_one_number():
    z = unit(400) @ gaussian(D, D, seed=5)
    fit, plain = additive.cq(z, M, K, 0, 10), quantizer.fit(z, M, K, 0, 10)
    assert fit.objective < 0.96 * plain.objective and fit.encoder == "icm" and fit.codewords.shape == (M, K, D)
    spread = encoders.offsets(fit.codes, fit.codewords).std()
    assert spread < 0.2 * (encoders.decode(fit.codes, fit.codewords, "icm") ** 2).sum(1).std()


# -------------------------------------------------------------------------------------------------------------------- codes by logits


def test_logits_made_of_codewords_are_the_soft_layer_of_pqn():
    """Weights 2 alpha c and biases -alpha ||c||^2 give PQN's soft representation of sub-vectors of norm 1, and their nearest codewords."""
    words, alpha = gaussian(M, K, D // M, seed=2), 5.0
    logits = np.concatenate([2 * alpha * words, -alpha * (words**2).sum(2, keepdims=True)], axis=2)
    z = networks.normalise(torch.from_numpy(unit(50)), M)
    expected = pqn.soft_quantize(z.double(), torch.from_numpy(words).double(), alpha)
    np.testing.assert_allclose(encoders.soft(3 * z.numpy(), words, logits), expected, atol=1e-5)
    np.testing.assert_array_equal(encoders.encode(3 * z.numpy(), words, "argmax", logits), quantizer.encode(z.numpy(), words))
    fit = encoders.fitted(z.numpy(), words, "argmax", logits)
    expected = ((expected.numpy() - quantizer.decode(fit.codes, words)) ** 2).sum(1).mean()
    assert fit.objective == pytest.approx(expected, rel=1e-4)


def test_a_victim_with_logits_is_searched_by_soft_queries_and_hard_items():
    codebook, y = of_kind("argmax"), unit(10)
    items = quantizer.decode(codebook.codes, codebook.codewords).astype(float)
    logits = [[[w[:-1] @ (x / np.linalg.norm(x)) + w[-1] for w in one] for one, x in zip(codebook.logits, np.split(z, M))] for z in y]
    weights = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
    soft = np.einsum("nmk,mkd->nmd", weights, codebook.codewords).reshape(10, D)
    hard = np.concatenate([codebook.codewords[m][np.argmax(logits, 2)[:, m]] for m in range(M)], axis=1)
    for kind, queries in (("ADC", soft), ("SDC", hard)):
        found = codebooks.nearest(codebook, y, 60, kind)
        squared = ((queries[:, None] - items[None]) ** 2).sum(2)
        assert (np.diff(np.take_along_axis(squared, found, 1)) > -1e-5).all()


# ------------------------------------------------------------------------------------------------------------------ what all have in common


@pytest.mark.parametrize("encoder", ["nearest", "argmax", "beam", "icm"])
def test_the_head_of_an_attack_has_the_scores_by_which_the_victim_chooses(encoder):
    """And takes the gradient of the features through them. Of a beam, a beam of one."""
    codebook, y = of_kind(encoder), torch.from_numpy(unit(40)).double()
    words, logits = (None if one is None else torch.from_numpy(one).double() for one in (codebook.codewords, codebook.logits))
    head = losses.Head(words, encoder=encoder, logits=logits, distribution="own")
    codes, expected = head.codes(y).numpy(), codebooks.encode(codebook, y.numpy().astype(np.float32))
    if encoder == "beam":
        greedy = encoders.residual_quantizer(codebook.codewords)
        greedy.max_beam_size = 1
        expected = faiss.unpack_bitstrings(greedy.compute_codes(y.numpy().astype(np.float32)), M, 3)
    if encoder == "icm":  # one step further
        expected = np.stack(encoders.icm(y, words), 1)
        left = [y - sum(words[o][expected[:, o]] for o in range(M) if o != m) for m in range(M)]
        expected = np.stack([torch.cdist(one, words[m]).argmin(1) for m, one in enumerate(left)], 1)
    np.testing.assert_array_equal(codes, expected)
    x = y[:5].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: losses.apd(x, y[5:10], head), (x,))
    np.testing.assert_allclose(
        losses.Head(words, encoder=encoder, logits=logits).similarities(y).numpy().astype(np.float32),
        np.einsum("nmd,mkd->nmk", codebook.rotated(y.numpy()).reshape(40, M, -1), codebook.codewords),
        atol=1e-5,
    )


@pytest.mark.parametrize("encoder", ["nearest", "argmax", "beam", "icm"])
def test_a_codebook_is_written_and_read(encoder, tmp_path):
    codebook = of_kind(encoder)
    codebooks.write(tmp_path / "codebook.h5", codebook, 0.5, [0] * M)
    read = codebooks.read(tmp_path / "codebook.h5")
    assert read.encoder == encoder and (read.logits is None) == (codebook.logits is None)
    np.testing.assert_array_equal(codebooks.encode(read, unit(20)), codebooks.encode(codebook, unit(20)))
    names = ["codes", "codewords", "ids"] + ["logits"] * (encoder == "argmax")
    assert storage.dataset_names(tmp_path / "codebook.h5") == sorted(names)
    assert ("encoder" in storage.read_attributes(tmp_path / "codebook.h5")) == (encoder != "nearest")
    with h5py.File(tmp_path / "codebook.h5", "a") as file:
        file.attrs["encoder"] = "viterbi"
    with pytest.raises(UserError, match="codebook.h5 finds codes by 'viterbi', which is none of nearest, argmax, beam, icm"):
        codebooks.read(tmp_path / "codebook.h5")
    victim = api.Victim(torch.nn.Flatten(), codebook, np.arange(60) % 3, normalised=False)
    images = np.random.default_rng(0).random((4, 3, 2, 2), np.float32)
    np.testing.assert_array_equal(api.search(victim, images, 3), codebooks.nearest(codebook, api.features(victim, images), 3, "ADC"))


@pytest.mark.parametrize("encoder", ["nearest", "argmax", "beam", "icm"])
def test_farthest_codes_are_far(encoder):
    """Of sums of full-length codewords farther than 99 of 100 random codes."""
    codebook = of_kind(encoder)
    far = encoders.farthest(codebook.codes, codebook.codewords, encoder)
    own, found = (encoders.decode(one, codebook.codewords, encoder) for one in (codebook.codes, far))
    random = encoders.decode(np.random.default_rng(0).integers(0, K, (500, M)), codebook.codewords, encoder)
    assert far.dtype == codebook.codes.dtype
    ahead = ((own[:, None] - random[None]) ** 2).sum(2) <= ((own - found) ** 2).sum(1)[:, None] + 1e-5
    assert ahead.mean() == 1 if encoder in ("nearest", "argmax") else ahead.mean() > 0.99
    labels = np.eye(3, dtype=np.uint8)[np.arange(60) % 3]
    scores = codebooks.evaluate_farthest(codebook, unit(60, 4), labels, labels)
    assert scores["ADC"]["average_precision"] == pytest.approx(scores["SDC"]["average_precision"])


#: What a quantizer of the user may return, and the message.
WRONG = {
    "an unknown encoder": ({"encoder": "viterbi"}, "the encoder 'viterbi', but must return one of nearest, argmax, beam, icm"),
    "an array as encoder": ({"encoder": np.ones(2)}, "returned the encoder of type ndarray, but must return one of nearest"),
    "short codewords": ({"encoder": "icm"}, r"codewords as a numpy array \(3, 8, 12\)"),
    "no logits": ({"encoder": "argmax"}, r"logits as a numpy array \(3, 8, 5\) of floats, but returned none"),
    "logits of others": ({"logits": np.ones(3)}, "logits, which only the encoder argmax uses, with the encoder nearest"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_encoder_of_the_users_is_refused_in_a_sentence(kind):
    returned, words = WRONG[kind]
    result = types.SimpleNamespace(**{"codewords": np.zeros((M, K, D // M), np.float32)} | returned)
    with pytest.raises(UserError, match=words):
        encoders.by_user(lambda *_: result, "mine:fit", unit(20), M, K, 0, 5)


def test_an_additive_quantizer_of_the_users_is_rotated_and_summed():
    turn = np.linalg.qr(gaussian(D, D, seed=9))[0]
    result = types.SimpleNamespace(codewords=of_kind("icm").codewords, encoder="icm", rotation=turn)
    fit = encoders.by_user(lambda *_: result, "mine:fit", unit(20), M, K, 0, 5)
    codebook = codebooks.Codebook(fit.codewords, fit.codes, None, fit.rotation, fit.encoder)
    np.testing.assert_array_equal(codebooks.encode(codebook, unit(20)), fit.codes)
    np.testing.assert_allclose(codebook.rotated(unit(20)), np.tile(unit(20) @ turn.T, (1, M)), atol=1e-6)


def test_a_hypercube_keeps_its_farthest_codes():
    words = joint.hypercube(8, 4)
    codes = np.arange(16, dtype=np.uint8).reshape(4, 4) % 4
    np.testing.assert_array_equal(encoders.farthest(codes, words, "nearest"), 3 - codes)
