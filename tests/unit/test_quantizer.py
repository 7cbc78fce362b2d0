"""Product quantization against hand-worked numbers, scalar loops, faiss and nanopq."""

import math
import types

import faiss
import nanopq
import numpy as np
import pytest

from pqag import codebooks, encoders, joint, quantizer, retrieval
from pqag.errors import UserError

#: Two sub-spaces of one number each, two codewords each: the hand-worked codebook.
LINE = np.array([[[0], [4]], [[0], [3]]], np.float32)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """faiss' threads busy-wait for each other, which takes many times as long on a busy machine."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(before)


def gaussian(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def nearest_by_faiss(features: np.ndarray, codewords: np.ndarray) -> np.ndarray:
    """Codes (N, M) by exact search among the codewords of each sub-space."""
    columns = []
    for words, part in zip(codewords, np.split(features, len(codewords), axis=1)):
        flat = faiss.IndexFlatL2(words.shape[1])
        flat.add(words)
        columns.append(flat.search(np.ascontiguousarray(part), 1)[1][:, 0])
    return np.stack(columns, axis=1)


def test_split_cuts_features_in_order_and_refuses_unequal_parts():
    features = np.arange(12).reshape(2, 6)
    parts = quantizer.split(features, 3)
    assert parts.tolist() == [[[0, 1], [2, 3], [4, 5]], [[6, 7], [8, 9], [10, 11]]]
    assert np.shares_memory(parts, features)
    with pytest.raises(ValueError, match="7 numbers cannot be cut into 2"):
        quantizer.split(np.zeros((3, 7)), 2)


@pytest.mark.parametrize(("count", "name"), [(1, "uint8"), (256, "uint8"), (257, "uint16"), (512, "uint16"), (65537, "uint32")])
def test_code_dtype_is_the_smallest_that_fits(count, name):
    assert quantizer.code_dtype(count) == name


def test_squared_distances_by_hand():
    # (3, 4) to (0, 0): 9 + 16 = 25; to (3, 1): 0 + 9 = 9.   (1, 1) to (1, 1): 0; to (-1, 2): 4 + 1 = 5.
    parts = np.array([[[3, 4], [1, 1]]], np.float32)
    codewords = np.array([[[0, 0], [3, 1]], [[1, 1], [-1, 2]]], np.float32)
    distances = quantizer.squared_distances(parts, codewords)
    assert distances.tolist() == [[[25, 9], [0, 5]]] and distances.dtype == np.float64
    points = gaussian(500, 1, 64)
    assert (quantizer.squared_distances(points, points.transpose(1, 0, 2)) >= 0).all()


def test_encode_and_decode_by_hand():
    # 1.9 is nearer to 0 than to 4, 2.1 nearer to 4; 1.6 is nearer to 3 than to 0, 1.4 nearer to 0.
    features = np.array([[1.9, 1.6], [2.1, 1.4], [-9, 99]], np.float32)
    assert quantizer.encode(features, LINE).tolist() == [[0, 1], [1, 0], [0, 1]]
    decoded = quantizer.decode(np.array([[0, 0], [1, 0], [1, 1]], np.uint8), LINE)
    assert decoded.tolist() == [[0, 0], [4, 0], [4, 3]]
    assert decoded.dtype == np.float32
    assert quantizer.encode(np.array([[2, 1.5]], np.float32), LINE).tolist() == [[0, 0]]
    assert quantizer.encode(np.array([[2, 1.5]], np.float32), LINE[:, ::-1]).tolist() == [[0, 0]]
    twins = np.array([[[9], [5], [5]]], np.float32)
    assert quantizer.encode(np.array([[4], [6]], np.float32), twins).tolist() == [[1], [1]]


@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e25])
def test_encode_decides_near_ties_as_float64_does(scale):
    """Codewords a few roundings of float32 apart, tiny and large ones, among random features."""
    rng = np.random.default_rng(0)
    words = rng.normal(size=(2, 8, 64)).astype(np.float32)
    words = np.concatenate([words, words * (1 + np.float32(2e-7) * rng.integers(-1, 2, words.shape))], axis=1).astype(np.float32)
    features = rng.normal(size=(3000, 128)).astype(np.float32)
    words, features = words * np.float32(scale), features * np.float32(scale)
    wanted = quantizer.squared_distances(features.reshape(3000, 2, 64), words).argmin(2)
    assert len(np.unique(wanted)) == 16
    assert (quantizer.encode(features, words) == wanted).all()


def test_encode_is_exact_nearest_neighbour_search():
    """Of more features than a block too; codes above 255 do not wrap, and no features have no codes."""
    for features, codewords in ((gaussian(300, 32), gaussian(4, 512, 8, seed=1)), (gaussian(8200, 4), gaussian(2, 5, 2, seed=1))):
        assert (quantizer.encode(features, codewords) == nearest_by_faiss(features, codewords)).all()
    line = np.arange(300, dtype=np.float32).reshape(1, 300, 1)
    codes = quantizer.encode(np.array([[255], [256], [299]], np.float32), line)
    assert codes.tolist() == quantizer.decode(codes, line).tolist() == [[255], [256], [299]]
    nothing = quantizer.encode(np.zeros((0, 2), np.float32), LINE)
    assert (nothing.shape, nothing.dtype) == ((0, 2), np.uint8)


def test_fit_by_hand_counts_codewords_without_features():
    # First sub-space: 0, 2 | 100, 102 with means 1 and 101; second: 10, 12 | 30, 32 with means 11 and 31. Lloyd's iterations end there
    # from any start. Every number is 1 away from its mean, so that every feature has a squared error of 1 + 1 = 2.
    features = np.array([[0, 10], [2, 32], [100, 12], [102, 30]], np.float32)
    fit = quantizer.fit(features, subspaces=2, codewords=2, seed=0)
    assert [sorted(words.ravel().tolist()) for words in fit.codewords] == [[1, 101], [11, 31]]
    assert quantizer.decode(fit.codes, fit.codewords).tolist() == [[1, 11], [1, 31], [101, 11], [101, 31]]
    assert fit.objective == 2
    assert fit.empty == [0, 0]
    features = np.array([[0, 5, 1], [1, 5, 2], [0, 5, 3], [1, 5, 4]] * 3, np.float32)
    fit = quantizer.fit(features, subspaces=3, codewords=4, seed=0)
    assert fit.empty == [4 - len(set(column)) for column in fit.codes.T.tolist()]
    assert fit.empty[0] >= 2
    assert fit.empty[1] == 3


def test_fit_uses_every_point_and_reports_its_codes():
    """With one codeword k-means is the mean; faiss' default would take it over 256 points."""
    features = gaussian(2000, 4)
    fit = quantizer.fit(features, subspaces=2, codewords=1, seed=0)
    np.testing.assert_allclose(fit.codewords.reshape(4), features.astype(float).mean(0), atol=1e-5)
    features = gaussian(300, 8)
    fit = quantizer.fit(features, subspaces=4, codewords=16, seed=3)
    assert (fit.codewords.shape, fit.codewords.dtype, fit.codes.dtype) == ((4, 16, 2), np.float32, np.uint8)
    assert (fit.codes == nearest_by_faiss(features, fit.codewords)).all()


def test_fit_depends_on_the_seed_and_more_iterations_fit_no_worse():
    first, again, other = (quantizer.fit(gaussian(200, 4), 2, 8, seed=seed) for seed in (0, 0, 1))
    assert (first.codewords == again.codewords).all()
    assert (first.codewords != other.codewords).any()
    objectives = [quantizer.fit(gaussian(500, 4), 2, 16, seed=0, iterations=i).objective for i in (1, 4, 16)]
    assert objectives == sorted(objectives, reverse=True)
    assert objectives[0] > objectives[-1]


def test_too_few_features_are_refused():
    with pytest.raises(ValueError, match="at least 5 features for 5 codewords, got 4"):
        quantizer.fit(np.zeros((4, 2), np.float32), subspaces=2, codewords=5, seed=0)
    with pytest.raises(UserError, match="opq needs at least as many images as a feature has numbers, 16, but is fitted to 15"):
        quantizer.opq(correlated()[:15], 4, 8, seed=0)


def test_soft_assignment_is_that_of_a_scalar_loop():
    """And by hand: inner products 0 and ln 3 give shares 1/4 and 3/4. Large inner products do not overflow."""
    features, codewords = gaussian(3, 4), gaussian(2, 3, 2, seed=1)
    got = quantizer.soft_assignment(features, codewords)
    for n, m in np.ndindex(3, 2):
        weights = [math.exp(sum(float(a) * float(b) for a, b in zip(features[n, 2 * m : 2 * m + 2], word))) for word in codewords[m]]
        assert got[n, m].tolist() == pytest.approx([weight / sum(weights) for weight in weights])
    one = quantizer.soft_assignment(np.array([[np.log(3.0)], [2000.0]]), np.array([[[0.0], [1.0]]]))
    np.testing.assert_allclose(one, [[[0.25, 0.75]], [[0, 1]]], rtol=1e-12)


def correlated(count=600, size=16):
    """Features that a rotation helps: a few directions carry most of them."""
    rng = np.random.default_rng(0)
    return (rng.standard_normal((count, 3)) @ rng.standard_normal((3, size)) + 0.1 * rng.standard_normal((count, size))).astype(np.float32)


def test_opq_turns_features_by_an_orthogonal_matrix_and_fits_better_than_pq():
    features = correlated()
    fit = quantizer.opq(features, 4, 8, seed=0)
    assert (fit.rotation.shape, fit.rotation.dtype) == ((16, 16), np.float32)
    np.testing.assert_allclose(fit.rotation @ fit.rotation.T, np.eye(16), atol=1e-5)
    back = quantizer.decode(fit.codes, fit.codewords) @ fit.rotation
    assert fit.objective == pytest.approx(((features - back).astype(float) ** 2).sum(1).mean(), rel=1e-4), "in the space of the features"
    assert fit.objective < 0.8 * quantizer.fit(features, 4, 8, seed=0).objective
    other = nanopq.OPQ(4, 8, verbose=False).fit(features, pq_iter=20, rotation_iter=20, seed=0)
    error = ((features - other.decode(other.encode(features))) ** 2).sum(1).mean()
    assert fit.objective <= 1.1 * error
    again = quantizer.opq(features, 4, 8, seed=0)
    assert (fit.rotation == again.rotation).all() and (fit.codewords == again.codewords).all()


def test_distances_in_the_space_of_a_rotated_codebook_are_those_of_the_features(tmp_path):
    """ADC by the codebook as it is stored and read, against the features and the reconstructions turned back, in plain numpy."""
    features, queries = correlated(), correlated()[:7] + 0.25
    fit = quantizer.opq(features, 4, 8, seed=0)
    codebook = codebooks.Codebook(fit.codewords, fit.codes, np.arange(600), fit.rotation)
    codebooks.write(tmp_path / "a.h5", codebook, fit.objective, fit.empty)
    read = codebooks.read(tmp_path / "a.h5")
    assert (read.rotation == fit.rotation).all() and (read.codes == fit.codes).all()
    got = retrieval.distances(read.rotated(queries), read.codes, read.codewords, "ADC")
    items = quantizer.decode(fit.codes, fit.codewords) @ fit.rotation
    np.testing.assert_allclose(got, ((queries[:, None] - items[None]) ** 2).sum(2), rtol=1e-4, atol=1e-4)
    codebooks.write(tmp_path / "a.h5", codebooks.Codebook(LINE, np.zeros((3, 2), np.uint8), np.arange(3)), 0.5, [1, 1])
    read = codebooks.read(tmp_path / "a.h5")
    features = gaussian(3, 2)
    assert read.rotation is None and read.rotated(features) is features


def test_the_head_of_an_attack_looks_at_rotated_features():
    import torch

    from pqag.losses import Head

    features = correlated()
    fit = quantizer.opq(features, 4, 8, seed=0)
    words, turn, z = (torch.from_numpy(one).double() for one in (fit.codewords, fit.rotation, features))
    assert torch.allclose(Head(words, rotation=turn).log_distribution(z), Head(words).log_distribution(z @ turn.T))
    assert (Head(words, "euclidean", rotation=turn).codes(z).numpy() == fit.codes).mean() > 0.999


def brought(codewords, rotation=None):
    """The fit of a user's quantizer that returns these for 20 features of 4 numbers, M = 2 and K = 3."""
    result = types.SimpleNamespace(codewords=codewords, rotation=rotation)
    return encoders.by_user(lambda *_: result, "mine:fit", gaussian(20, 4), 2, 3, 0, 5)


def test_a_quantizer_of_the_user():
    """Ours stands in for it: it gets M, K, seed and iterations, and its codes and error are computed."""
    features = correlated()
    own = encoders.by_user(quantizer.opq, "mine:fit", features, 4, 8, 3, 5)
    fit = quantizer.opq(features, 4, 8, 3, 5)
    assert (own.codes == fit.codes).all() and (own.rotation == fit.rotation).all()
    assert own.objective == pytest.approx(fit.objective) and own.empty == fit.empty
    turned = brought(np.zeros((2, 3, 2)), np.eye(4)[::-1])
    assert turned.codewords.dtype == turned.rotation.dtype == np.float32 and turned.empty == [2, 2]


WORDS = np.zeros((2, 3, 2), np.float32)
#: What a quantizer of the user may return wrongly, and the message.
WRONG = {
    "no codewords": ((None,), r"the quantizer mine:fit must return codewords as a numpy array \(2, 3, 2\) of floats, but returned none"),
    "a list": ((WORDS.tolist(),), r"must return codewords as a numpy array \(2, 3, 2\) of floats, but returned a list"),
    "another shape": ((WORDS[:, :2],), r"codewords as a numpy array \(2, 3, 2\) of floats, but returned an array \(2, 2, 2\) of float32"),
    "whole numbers": ((WORDS.astype(int),), r"of floats, but returned an array \(2, 3, 2\) of int64"),
    "NaN": ((WORDS * np.nan,), r"the quantizer mine:fit returned codewords with numbers that are NaN or infinite as float32"),
    "a rotation of another shape": ((WORDS, np.eye(3)), r"must return rotation as a numpy array \(4, 4\) of floats, but .* \(3, 3\)"),
    "a rotation with NaN": ((WORDS, np.eye(4) * np.nan), r"returned rotation with numbers that are NaN or infinite"),
    "a rotation that stretches": ((WORDS, 2 * np.eye(4)), r"returned a rotation that is not orthogonal: R R\^T differs from 1 by 3"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_result_of_the_users_quantizer_is_refused_in_a_sentence(kind):
    returned, words = WRONG[kind]
    with pytest.raises(UserError, match=words):
        brought(*returned)


def test_mean_by_rank_by_hand():
    # Ranks of the clean distributions: codewords 1, 0, 2 for the first query and 2, 1, 0 for the second.
    clean = np.array([[0.3, 0.5, 0.2], [0.1, 0.3, 0.6]])
    np.testing.assert_allclose(quantizer.mean_by_rank(clean, clean), [0.55, 0.3, 0.15])
    attacked = np.array([[0.7, 0.1, 0.2], [0.5, 0.3, 0.2]])
    np.testing.assert_allclose(quantizer.mean_by_rank(attacked, clean), [(0.1 + 0.2) / 2, (0.7 + 0.3) / 2, (0.2 + 0.5) / 2])


def test_the_farthest_codes_by_hand():
    """Codewords 0, 1, 3 and 10 on a line, and the same without the last: 10 is the farthest from 0, 1 and 3, and 0 from 10."""
    words = np.float32([[[0], [1], [3], [10]], [[0], [1], [3], [3]]])
    codes = np.array([[0, 0], [1, 1], [2, 2], [3, 3]], np.uint8)
    found = quantizer.farthest(codes, words)
    assert found.tolist() == [[3, 2], [3, 2], [3, 0], [0, 0]] and found.dtype == np.uint8
    cube = joint.hypercube(16, 4)
    signs = quantizer.decode(np.array([[5, 0, 15, 9]]), cube)
    np.testing.assert_array_equal(quantizer.decode(quantizer.farthest(np.array([[5, 0, 15, 9]]), cube), cube), -signs)


def test_the_objective_counts_every_feature_once():
    """More features than a block has: one is 3 away from its codeword, at either end and around the ends of blocks."""
    features, codewords = np.zeros((2500, 4), np.float32), np.zeros((2, 2, 2), np.float32)
    codewords[:, 1] = 100
    for far in (0, 1023, 1024, 2047, 2048, 2499):
        features[:] = 0
        features[far, 0] = 3
        assert quantizer.fitted(features, codewords).objective == pytest.approx(9 / 2500)
