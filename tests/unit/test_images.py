"""Image files: what is listed, how a file becomes an array, and the sentence that a mistake gets."""

import hashlib
import io
import os
import shutil
import struct
import zlib

import h5py
import numpy as np
import pytest
from PIL import Image

from pqag import image_files, images, storage
from pqag.datasets import Raw, content_sha256
from pqag.errors import UserError
from pqag.names import KINDS
from pqag.study.model import DATASET_SECTIONS, Images

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image, form="PNG", **options):
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def plain(colour=RED, size=(40, 40)):
    return Image.new("RGB", size, colour)


def put(path, content=None):
    """Write a file, a small red image by default, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(plain()) if content is None else content)
    return path


def refused(fragments, call, *arguments, **options):
    """``call`` raises a UserError whose sentence holds the fragments."""
    with pytest.raises(UserError) as error:
        call(*arguments, **options)
    words = str(error.value)
    assert all(fragment in words for fragment in fragments) and "\n" not in words and "Traceback" not in words, words


def stored(listing, path, size=32, **options):
    """What ``store`` gives, and the arrays in the file."""
    with storage.writing_hdf5(path) as file:
        result = images.store(listing, file, size, **options)
    return result, *storage.read_hdf5(path, "images", "labels", "names")


# --------------------------------------------------------------------------------------------------------------------- one image


def corners(array):
    """Top left, top right, bottom left and bottom right of an image (3, H, W), as colours."""
    return [tuple(array[:, y, x].tolist()) for y in (0, -1) for x in (0, -1)]


def quarters(size=(64, 64)):
    """Red and green above, blue and white below."""
    image = Image.new("RGB", (2, 2))
    image.putdata([RED, GREEN, BLUE, WHITE])
    return image.resize(size, Image.Resampling.NEAREST)


def test_formats_without_loss_are_read_and_resized_whatever_their_size():
    for form in ("PNG", "BMP", "TIFF", "PPM", "GIF", "WEBP"):
        got = images.decode(encoded(quarters(), form, **({"lossless": True} if form == "WEBP" else {})), 32)
        assert got.shape == (3, 32, 32) and got.dtype == np.uint8
        assert corners(got) == [RED, GREEN, BLUE, WHITE], form
    for shape, size in (((500, 333), 32), ((20, 300), 64), ((64, 64), 224)):
        got = images.decode(encoded(quarters(shape)), size)
        assert got.shape == (3, size, size) and corners(got) == [RED, GREEN, BLUE, WHITE]
    assert images.decode(encoded(plain(size=(1, 1))), 32).shape == (3, 32, 32)


@pytest.mark.parametrize("size", [32, 112])
def test_a_reduced_jpeg_is_close_to_one_that_is_decoded_whole(size):
    """A smooth picture of 800 x 600 pixels, against Pillow without reduction; grey levels of 0 ... 255."""
    x = np.linspace(0, 3, 800)[None] + np.linspace(0, 2, 600)[:, None]
    picture = np.stack([128 + 100 * np.sin(x), 128 + 100 * np.cos(x), 60 * x / 5], axis=2).astype(np.uint8)
    content = encoded(Image.fromarray(picture), "JPEG", quality=95)
    whole = Image.open(io.BytesIO(content)).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    difference = images.decode(content, size).astype(int) - np.asarray(whole).transpose(2, 0, 1)
    assert np.abs(difference).max() <= 3


def palette_with_transparency():
    image = Image.new("P", (40, 40), 1)
    image.putpalette([0, 0, 0, *RED])
    return encoded(image, transparency=1)


def pgm(value, most, kind=b"P5"):
    """A grey map of one value, binary (P5, two bytes a pixel) or as text (P2)."""
    pixels = np.full(1600, value, ">u2").tobytes() if kind == b"P5" else b"%d\n" % value * 1600
    return b"%s\n40 40\n%d\n" % (kind, most) + pixels


def png(header, *chunks):
    parts = [(b"IHDR", header), *chunks, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)


def grey_png(bits, byte, clear):
    """A grey PNG of 1, 2, 4 or 8 bits in which each byte of pixels is ``byte``, with a transparent grey."""
    rows = bytes([0, *[byte] * (5 * bits)]) * 40
    header = struct.pack(">IIBBBBB", 40, 40, bits, 0, 0, 0, 0)
    return png(header, (b"tRNS", struct.pack(">H", clear)), (b"IDAT", zlib.compress(rows)))


def png16(colour_type, pixel, clear):
    """A PNG of 16 bits (0: grey, 2: RGB) of one pixel value with a transparent colour, both as numbers."""
    row = b"\0" + np.array(pixel * 40, ">u2").tobytes()
    header = struct.pack(">IIBBBBB", 40, 40, 16, colour_type, 0, 0, 0)
    return png(header, (b"tRNS", np.array(clear, ">u2").tobytes()), (b"IDAT", zlib.compress(row * 40)))


def tiff(value, bits, white_is_zero):
    """A grey TIFF of one value, 16 bits or 12 bits packed."""
    packed = np.full(1600, value, "<u2").tobytes() if bits == 16 else bytes([value >> 4, (value & 15) << 4 | value >> 8, value & 255]) * 800
    tags = {256: 40, 257: 40, 258: bits, 259: 1, 262: 0 if white_is_zero else 1, 273: 122, 277: 1, 278: 40, 279: len(packed)}
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, number) for tag, number in tags.items())
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + fields + bytes(4) + packed


CMYK = Image.new("CMYK", (40, 40), (0, 255, 255, 0))  # full magenta and yellow without cyan and black are red
MODES = {
    # mode: (file, colour that comes out)
    "grey": (encoded(Image.new("L", (40, 40), 90)), (90, 90, 90)),
    "grey with alpha": (encoded(Image.new("LA", (40, 40), (90, 255))), (90, 90, 90)),
    "black and white": (encoded(Image.new("1", (40, 40), 1)), WHITE),
    "palette": (encoded(plain().convert("P")), RED),
    "palette with a transparent colour": (palette_with_transparency(), WHITE),
    "RGBA, transparent": (encoded(Image.new("RGBA", (40, 40), (*RED, 0))), WHITE),
    "RGBA, half transparent": (encoded(Image.new("RGBA", (40, 40), (*RED, 128))), (255, 127, 127)),
    "16 bits": (encoded(Image.fromarray(np.full((40, 40), 257 * 90 + 100, np.uint16))), (90, 90, 90)),
    "PGM up to 65535": (pgm(257 * 90 + 100, 65535), (90, 90, 90)),
    "PGM up to 4095": (pgm(4095 * 90 // 255, 4095), (90, 90, 90)),
    "PGM up to 4095 as text": (pgm(4095 * 90 // 255, 4095, b"P2"), (90, 90, 90)),
    "16 bits with another transparent grey": (png16(0, [257 * 90], [5]), (90, 90, 90)),
    "16 bits, the grey transparent": (png16(0, [257 * 90], [257 * 90]), WHITE),
    "16 bits in RGB, the colour transparent": (png16(2, [25700, 0, 51400], [25700, 0, 51400]), WHITE),
    "16 bits in RGB with another transparent colour": (png16(2, [25700, 0, 51400], [0, 0, 51400]), (100, 0, 200)),
    "1 bit, the black transparent": (grey_png(1, 0x00, 0), WHITE),
    "1 bit, the white transparent": (grey_png(1, 0x00, 1), (0, 0, 0)),
    "2 bits, the grey transparent": (grey_png(2, 0x55, 1), WHITE),
    "2 bits with another transparent grey": (grey_png(2, 0x55, 2), (85, 85, 85)),
    "4 bits, the grey transparent": (grey_png(4, 0x55, 5), WHITE),
    "8 bits, the grey transparent": (grey_png(8, 0x55, 0x55), WHITE),
    "16 bits, TIFF": (tiff(257 * 90, 16, False), (90, 90, 90)),
    "16 bits, min is white": (tiff(65535 - 257 * 90, 16, True), (90, 90, 90)),
    "12 bits, packed": (tiff(4095 * 90 // 255, 12, False), (90, 90, 90)),
    "CMYK": (encoded(CMYK, "TIFF"), RED),
    "CMYK, JPEG": (encoded(CMYK, "JPEG", quality=95), RED),
    "the first picture of an animation": (encoded(plain(RED), "GIF", save_all=True, append_images=[plain(GREEN), plain(BLUE)]), RED),
}


@pytest.mark.parametrize("name", MODES)
def test_every_kind_of_pixel_becomes_rgb(name):
    content, colour = MODES[name]
    got = images.decode(content, 32)
    assert got.shape == (3, 32, 32)
    np.testing.assert_allclose(got[:, 10, 10], colour, atol=12 if "JPEG" in name else 1)


def test_a_picture_is_turned_upright_by_its_exif_orientation():
    turned = {1: [RED, GREEN, BLUE, WHITE], 3: [WHITE, BLUE, GREEN, RED]}  # as it is, upside down
    turned |= {6: [BLUE, RED, WHITE, GREEN], 8: [GREEN, WHITE, RED, BLUE]}  # to be turned clockwise, and the other way round
    for orientation, colours in turned.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        assert corners(images.decode(encoded(quarters(), "PNG", exif=exif), 32)) == colours


def bomb(width, height):
    """A PNG of a few bytes that says it has so many pixels."""
    return png(struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0), (b"IDAT", zlib.compress(bytes(1000))))


UNREADABLE = {
    # what: (bytes, fragment of the reason)
    "empty": (b"", "not a readable image (JPEG, PNG"),
    "cut JPEG": (encoded(quarters((300, 300)), "JPEG")[:1500], "truncated"),
    "cut PNG": (encoded(Image.effect_noise((90, 90), 50))[:1500], "truncated"),
    "damaged PNG": (encoded(plain()).replace(b"IDAT", b"IDAX"), ""),
    "too many pixels": (bomb(20_000, 5_001), "it has 20000 x 5001 pixels, more than 100,000,000"),
    "far too many pixels": (bomb(60_000, 60_000), "exceeds limit"),
    "32 bits": (encoded(Image.new("F", (40, 40), 0.5), "TIFF"), "32 bits or a sign, but only 8 or 16 bits"),
    "HEIC": (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "it is HEIC, which is not read; convert it to JPEG or PNG"),
    "PostScript, which a program would have to draw": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a readable image"),
    "too large": (encoded(plain()) + bytes(20_000), "a.jpg is larger than 10,000 bytes"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("what", UNREADABLE)
def test_what_cannot_be_read_has_a_reason_of_one_line(tmp_path, monkeypatch, what):
    content, fragment = UNREADABLE[what]
    monkeypatch.setattr(image_files, "LARGEST", 10_000)
    put(tmp_path / "a.jpg", content)
    reason = images._read(tmp_path.resolve(), 32, "a.jpg")
    assert isinstance(reason, str) and reason and fragment in reason and "\n" not in reason and "0x" not in reason, reason


def test_links_are_followed_within_the_folder_and_not_out_of_it(tmp_path):
    outside, folder = put(tmp_path / "outside.png"), (tmp_path / "folder").resolve()
    put(folder / "inside.png")
    (folder / "link.png").symlink_to("inside.png")
    (folder / "out.png").symlink_to(outside)
    (folder / "above").symlink_to(tmp_path)
    (folder / "nowhere.png").symlink_to("missing.png")
    (folder / "circle.png").symlink_to("circle.png")
    os.mkfifo(folder / "pipe.png")
    assert images._read(folder, 32, "link.png")[0] == hashlib.sha256(encoded(plain())).hexdigest()
    assert images._read(folder, 32, "out.png") == images._read(folder, 32, "above/outside.png") == "it is outside the folder"
    assert images._read(folder, 32, "../outside.png") == images._read(folder, 32, str(outside)) == "it is outside the folder"
    for name in ("nowhere.png", "pipe.png", "missing.png"):
        assert images._read(folder, 32, name) == "there is no such file"
    assert isinstance(images._read(folder, 32, "circle.png"), str)


# ------------------------------------------------------------------------------------------------------------------ class folders


BIRDS = ["train/jay/1.png", "train/jay/2.jpg", "train/owl/1.png", "train/owl/sub/2.PNG", "test/jay/1.png", "test/owl/9.png"]


@pytest.fixture
def birds(tmp_path):
    """Two classes; two training images and one test image each."""
    for name in BIRDS:
        put(tmp_path / "birds" / name)
    return tmp_path / "birds"


def test_class_folders_are_listed(birds):
    listing = images.imagefolder(birds)
    assert listing.names == BIRDS
    assert (listing.train, listing.classes, listing.title, listing.notes) == (4, ("jay", "owl"), None, ())
    assert listing.labels.dtype == np.uint8 and listing.labels.tolist() == [[1, 0], [1, 0], [0, 1], [0, 1], [1, 0], [0, 1]]
    put(birds / "train/wren/1.png")
    listing = images.imagefolder(birds)
    assert listing.classes == ("jay", "owl", "wren") and listing.notes == ("1 of 3 classes have no test images",)
    put(birds / "test/crow/1.png")
    listing = images.imagefolder(birds)
    assert listing.classes == ("crow", "jay", "owl", "wren") and listing.unseen == ["crow"]
    assert listing.notes == ("1 of 4 classes have no training images", "1 of 4 classes have no test images")


OTHERS = {
    "AVIF": encoded(plain(), "AVIF"),
    "JPEG 2000": encoded(plain(), "JPEG2000"),
    "ICO": encoded(plain(), "ICO"),
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "JPEG XL": b"\xff\x0a\0\0",
    "PSD": b"8BPS\0\x01",
    "SVG": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg">',
    "camera raw": b"II*\0\x10\0\0\0CR\x02\0",
    "TIFF": encoded(plain(), "TIFF"),
    "BMP": encoded(plain(), "BMP"),
    None: b"BMW, PNG and Pf 1 are no images",
}


@pytest.mark.parametrize("form", OTHERS)
def test_a_format_is_known_by_content_and_only_an_image_is_listed(birds, form):
    """The name says nothing, unless the content does not: a damaged .jpe is an image, and a raw photograph is no TIFF file."""
    put(birds / "train/jay/3", OTHERS[form])
    assert image_files.format_of(OTHERS[form], "3") == form and len(images.imagefolder(birds).names) == 6 + (form is not None)
    put(birds / "train/jay/damaged.JPE", b"")
    assert "train/jay/damaged.JPE" in images.imagefolder(birds).names
    assert image_files.format_of(OTHERS["TIFF"], "a.NEF") == "camera raw"


def test_folders_of_other_programs_are_skipped_at_every_depth_and_other_files_counted(birds):
    put(birds / "train/jay/.a.png")
    for name in ("README", "train/notes.txt", "train/jay/Thumbs.db"):
        put(birds / name, b"no image")
    for name in (
        "train/jay/@eaDir/1.png",
        "train/__MACOSX/1.png",
        "train/owl/sub/.thumbs/1.png",
        "test/lost+found/1",
        "test/jay/#snapshot/1.png",
    ):
        put(birds / name)
    listing = images.imagefolder(birds)
    assert len(listing.names) == 6 and listing.classes == ("jay", "owl")
    assert listing.warnings == (
        "2 files that are no images are ignored",
        "5 hidden folders and folders of other programs are skipped: train/__MACOSX, train/jay/@eaDir, train/owl/sub/.thumbs, …",
    )


def test_linked_folders_are_read_once_inside_the_source_and_count_as_missing_outside(birds, tmp_path):
    put(birds / "pool/deep/3.png")
    put(tmp_path / "away/4")
    for name, target in {
        "train/jay/in": "../../pool", "train/jay/again": "../../pool/deep", "train/jay/up": "..", "train/jay/itself": ".",
        "train/owl/in": "../../pool", "train/owl/out": "../../../away", "train/owl/lost": "nowhere",
    }.items():  # fmt: skip
        (birds / name).symlink_to(target)
    listing = images.imagefolder(birds)
    linked = ["train/jay/again/3.png", "train/owl/in/deep/3.png", "train/owl/lost", "train/owl/out/4"]
    assert [name for name in listing.names if name in linked] == linked and len(listing.names) == 10
    assert listing.warnings == (
        "1 linked folder leads out of the source; its images count as missing: train/owl/out",
        "3 linked folders are not read, because they contain themselves or were read already: "
        "train/jay/in/deep, train/jay/itself, train/jay/up",
    )
    refused(["2 of 10 images are missing or unreadable"], stored, listing, tmp_path / "a.h5", missing=0.15)


def without(birds, name):
    (birds / name).unlink()


FOLDERS = [
    # (what is done to the folder, fragments of the sentence)
    (lambda b: b.rename(b.with_name("other")), ["birds is not a folder", "train/ and test/"]),
    (lambda b: (b / "test").rename(b / "val"), ["birds contains no folder test", "train/<class>/ and test/<class>/"]),
    (lambda b: put(b / "train/1.png"), ["train/1.png is in no class folder", "train/<class>/"]),
    (lambda b: put(b / "train/wren/a.txt", b"a"), ["the class folder", "train/wren contains no image"]),
    (lambda b: shutil.rmtree(b / "test") or (b / "test").mkdir(), ["there are no test images"]),
    (lambda b: shutil.rmtree(b / "train") or (b / "train").mkdir(), ["there are no training images"]),
    (lambda b: [shutil.rmtree(b / split / "owl") for split in ("train", "test")], ["same class, 'jay'; at least two classes are needed"]),
]


@pytest.mark.parametrize(("change", "fragments"), FOLDERS)
def test_a_folder_with_another_layout_gets_one_sentence(birds, change, fragments):
    change(birds)
    refused(fragments, images.imagefolder, birds)


# ----------------------------------------------------------------------------------------------------------------------- manifest

MANIFEST = "path,split,labels\na.png,train,cat|dog\nsub/b.png,test,dog\nc.png,train, cat \n"


@pytest.fixture
def table(tmp_path):
    """Writes a manifest with its images; gives its path."""
    for name in ("a.png", "sub/b.png", "c.png"):
        put(tmp_path / "set" / name)

    def write(text):
        path = tmp_path / "set" / "list.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.mark.parametrize(
    "text",
    [
        MANIFEST,
        "\ufeff" + MANIFEST.replace("\n", "\r\n"),
        "note,labels,split,path\n1,dog|cat,train,a.png\n2,dog|dog,test,sub/b.png\n,cat|,train,./c.png\n",
        MANIFEST.replace("a.png", '"a.png"'),
        MANIFEST.replace("sub/b", "sub\\b").replace("a.png", ".\\a.png"),
        MANIFEST.replace("path,split,labels", "path , split,\tlabels "),
        MANIFEST.replace("\n", "\n\n"),
    ],
    ids=["plain", "of Windows", "other columns", "quoted", "backslashes", "blanks in the header", "empty lines"],
)
def test_a_manifest_is_listed(table, text):
    path = table(text)
    listing = images.manifest(path)
    assert listing.names == ["a.png", "c.png", "sub/b.png"] and listing.train == 2
    assert listing.classes == ("cat", "dog") and listing.labels.tolist() == [[1, 1], [1, 0], [0, 1]]
    assert listing.folder == path.parent.resolve()
    assert listing.files == {"list.csv": hashlib.sha256(path.read_bytes()).hexdigest()}


HINTS = [
    # (labels, fragment of the hint)
    (["sea;sky", "sea", "sky", "sky;sun"], "some contain a semicolon, such as 'sea;sky'"),
    (['"sea,sky"', "sea", "sky"], "some contain a comma, such as 'sea,sky'"),
    (["sea sky", "sea", "sky"], "some contain a blank, such as 'sea sky'"),
    (["great tit", "house sparrow", "barn owl"], None),
    (["tit", "owl"], None),
    (["sea|sky; sun", "sea", "sky"], None),
]


@pytest.mark.parametrize(("labels", "hint"), HINTS)
def test_labels_that_look_like_several_get_a_hint(table, labels, hint):
    rows = [f"{part}{i}.png,{part},{label}\n" for part in ("train", "test") for i, label in enumerate(labels)]
    warnings = images.manifest(table("path,split,labels\n" + "".join(rows))).warnings
    assert len(warnings) == (hint is not None) and all(hint in words and "separate several labels by |" in words for words in warnings)


def test_a_name_that_no_file_system_takes_is_missing(table, tmp_path):
    listing = images.manifest(table(f"{MANIFEST}{'x' * 300}.png,train,cat\n{'y/' * 3000}z.png,test,cat\n"))
    result, *_ = stored(listing, tmp_path / "a.h5", missing=0.5)
    assert list(result.skipped.values()) == ["there is no such file"] * 2


LONG = "x" * 9000
ROWS = [
    # (the manifest, fragments of the sentence)
    ("", ["the first line must name the columns path, split, labels", "path and split and labels are not in ''"]),
    ("a.png,train,cat\nb.png,test,cat\n", ["the first line must name the columns", "'a.png,train,cat'"]),
    ("path;split;labels\na.png;train;cat\n", ["separated by commas", "'path;split;labels'"]),
    ("path,split,labels\n", ["there are no training images"]),
    (MANIFEST + "d.png,train\n", ["list.csv, line 5: it has fewer values than the first line has columns"]),
    (MANIFEST + "d.png,train,cat,dog\n", ["list.csv, line 5: it has more values"]),
    (MANIFEST + ",train,cat\n", ["line 5: the path is empty"]),
    (MANIFEST + "d.png,val,cat\n", ["line 5: the split is 'val', but must be train or test"]),
    (MANIFEST + "d.png,train,\n", ["line 5: d.png has no label; remove images without labels"]),
    (MANIFEST + "sub/../../d.png,train,cat\n", ["line 5: sub/../../d.png is outside the folder of the manifest"]),
    (MANIFEST + "/etc/passwd,train,cat\n", ["line 5: /etc/passwd is outside the folder"]),
    (MANIFEST + "./a.png,test,cat\n", ["line 5: a.png is already in line 2"]),
    ("path,split, path,labels\n", ["the first line names the column path twice"]),
    ("path,split,labels,note,labels \n", ["names the column labels twice"]),
    (MANIFEST + "..\\d.png,test,cat\n", ["line 5: ../d.png is outside the folder"]),
    (MANIFEST + "sub\\b.png,test,cat\n", ["line 5: sub/b.png is already in line 3"]),
    (MANIFEST.replace("train", "test"), ["there are no training images"]),
    (MANIFEST.replace("test", "train"), ["there are no test images"]),
    ("path,split,labels\na.png,train,cat\nb.png,test,cat\n", ["all images have the same class, 'cat'"]),
    (MANIFEST.encode() + b"d.png,train,caf\xe9\n", ["line 5: byte 0xe9 is not valid UTF-8"]),
    (MANIFEST + 'd.png,train,"cat\n', ["it is not a CSV file"]),
]


ROWS += [
    (f"path,split,labels\n../{LONG},train,a\n", [f"../{LONG[:297]}… is outside"]),
    (f"path,split,labels\na,{LONG},a\n", [f"the split is '{LONG[:300]}…'"]),
    (f"path,split,labels\n{LONG},train,\n", [f"{LONG[:300]}… has no label"]),
    (f"path,split,labels\n{LONG},train,a\n{LONG},test,a\n", [f"{LONG[:300]}… is already in line 2"]),
    (f"path,split,labels\na,train,{LONG}\nb,test,{LONG}\n", [f"the same class, '{LONG[:300]}…'"]),
]


@pytest.mark.parametrize(("text", "fragments"), ROWS)
def test_a_wrong_manifest_gets_one_sentence(table, text, fragments):
    path = table(text)
    refused(fragments, images.manifest, path)
    refused([f"{path.parent} is not a file; use a CSV file with the columns path, split, labels"], images.manifest, path.parent)


# ----------------------------------------------------------------------------------------------------------------------- NUS-WIDE

#: Images, their split, and what they show. 0003 has an id that stood before, 0005 has no label of a frequent concept, 0006 none at all.
NUS = [
    ("actor/0001_111.jpg", "Train", ["sky", "clouds"]),
    ("actor/0002_222.jpg", "Train", ["person"]),
    ("zebra/0003_111.jpg", "Test", ["sky"]),
    ("beach/0004_444.jpg", "Test", ["sky", "person"]),
    ("beach/0005_555.jpg", "Test", ["whales"]),
    ("beach/0006_666.jpg", "Train", []),
    ("beach/0007_777.jpg", "Test", ["person"]),
]
CONCEPTS = ["clouds", "person", "sky", "whales"]


@pytest.fixture
def nus(tmp_path):
    """The official layout. Frequencies: sky 3, person 3, clouds 1, whales 1."""
    for name, _, _ in NUS:
        put(tmp_path / "NUS-WIDE" / "Flickr" / name, encoded(plain(), "JPEG"))
    source = tmp_path / "NUS-WIDE"

    def write(path, lines):
        put(source / path, "".join(f"{line}\r\n" for line in lines).encode())

    write("ConceptsList/Concepts81.txt", CONCEPTS)
    for split in ("Train", "Test", ""):
        rows = [row for row in NUS if split in ("", row[1])]
        write(f"ImageList/{split}Imagelist.txt", [name.replace("/", "\\") for name, _, _ in rows])
        for concept in CONCEPTS:
            place = f"TrainTestLabels/Labels_{concept}_{split}.txt" if split else f"AllLabels/Labels_{concept}.txt"
            write(f"Groundtruth/{place}", [int(concept in shown) for _, _, shown in rows])
    return source


@pytest.mark.parametrize("layout", ["Flickr", "Images", "images", ".", "AllLabels"])
def test_nuswide_as_released(nus, layout):
    """Images may lie in other folders, and AllLabels do as well: the lists of training and test images say which row is whose."""
    used = {"ConceptsList/Concepts81.txt", "ImageList/TrainImagelist.txt", "ImageList/TestImagelist.txt"}
    if layout == "AllLabels":
        shutil.rmtree(nus / "Groundtruth/TrainTestLabels")
        used |= {"ImageList/Imagelist.txt", *(f"Groundtruth/AllLabels/Labels_{concept}.txt" for concept in CONCEPTS)}
        layout = "Flickr"
    else:
        used |= {f"Groundtruth/TrainTestLabels/Labels_{concept}_{split}.txt" for concept in CONCEPTS for split in ("Train", "Test")}
    if layout == ".":
        for path in (nus / "Flickr").iterdir():
            path.rename(nus / path.name)
    else:
        (nus / "Flickr").rename(nus / layout)
    listing = images.nuswide(nus, 3)
    assert listing.classes == ("clouds", "person", "sky"), "of the two with one image clouds comes first"
    assert listing.names == ["actor/0001_111.jpg", "actor/0002_222.jpg", "beach/0004_444.jpg", "beach/0007_777.jpg"]
    assert listing.labels.tolist() == [[1, 0, 1], [0, 1, 0], [0, 1, 1], [0, 1, 0]]
    assert (listing.train, listing.title, listing.complete) == (2, "NUS-WIDE-3", False)
    assert listing.folder == (nus / layout).resolve()
    assert listing.notes == (
        "3 train images were released here, officially 161,789",
        "4 test images were released here, officially 107,859",
        "5 have one of the 3 most frequent concepts, officially unknown: clouds 1, person 3, sky 3",
        "left out, because actor/0001_111.jpg has the same id: zebra/0003_111.jpg",
    )
    assert set(listing.files) == used
    assert listing.files["ConceptsList/Concepts81.txt"] == hashlib.sha256(b"clouds\r\nperson\r\nsky\r\nwhales\r\n").hexdigest()
    fewer = images.nuswide(nus, 2)
    assert fewer.classes == ("person", "sky") and sorted(fewer.labels.sum(1).tolist()) == [1, 1, 1, 2]
    assert len(images.nuswide(nus, 4).names) == 5, "the whales too"


def rewrite(place, change):
    def edit(nus):
        (nus / place).write_text(change((nus / place).read_text()))

    return edit


SKY = "Groundtruth/TrainTestLabels/Labels_sky_Test.txt"
RELEASES = [
    # (what is done to the release, concepts, fragments of the sentence)
    (lambda nus: nus.rename(nus.with_name("elsewhere")), 3, ["NUS-WIDE is not a folder", "ImageList/ and Groundtruth/"]),
    (lambda nus: without(nus, SKY), 3, [f"does not contain {SKY}"]),
    (rewrite("ConceptsList/Concepts81.txt", lambda text: text.replace("sky", LONG)), 3, [f"TrainTestLabels/Labels_{'x' * 265}…, which"]),
    (rewrite(SKY, lambda text: text + "1\n"), 3, ["Labels_sky_Test.txt has 5 lines, but the list of its images has 4"]),
    (lambda nus: [rewrite(path.relative_to(nus), lambda text: text.replace("1", "0"))(nus) for path in nus.glob("*/TrainTestLabels/*")],
     3, ["no image has one of the 3 most frequent concepts"]),
    (rewrite(SKY, lambda text: text.replace("1", "2")), 3, ["Labels_sky_Test.txt contains '2', but only 0 and 1 are allowed"]),
    (lambda nus: None, 5, ["concepts is 5, but Concepts81.txt names 4"]),
    (lambda nus: (nus / "Flickr").rename(nus / "pictures"), 3, ["contains none of the images", "Flickr/<folder>/"]),
    (lambda nus: [(nus / "Groundtruth/TrainTestLabels").rename(nus / "away"),
                  rewrite("ImageList/Imagelist.txt", lambda text: text.replace("0004", "0040"))(nus)],
     3, ["beach/0004_444.jpg is in the lists of training and test images, but not in Imagelist.txt"]),
]  # fmt: skip


@pytest.mark.parametrize(("change", "concepts", "fragments"), RELEASES)
def test_a_wrong_release_gets_one_sentence(nus, change, concepts, fragments):
    change(nus)
    refused(fragments, images.nuswide, nus, concepts)


# ------------------------------------------------------------------------------------------------------------------------ storing


def test_images_are_stored_in_the_order_of_the_listing(birds, tmp_path, monkeypatch):
    """In blocks of any size and by any number of threads, the same bytes; each image by the grey it has."""
    listing = images.imagefolder(birds)
    for grey, name in enumerate(listing.names):
        put(birds / name, encoded(plain((40 * grey,) * 3)))
    files = []
    for block, workers in ((256, 1), (1, 2), (4, 3)):
        monkeypatch.setattr(images, "BLOCK", block * 3072)
        counts = []
        result, pictures, labels, names = stored(listing, tmp_path / f"{block}.h5", workers=workers, on_images=counts.append)
        assert pictures.shape == (6, 3, 32, 32) and pictures[:, 1, 5, 5].tolist() == [0, 40, 80, 120, 160, 200]
        assert labels.tolist() == listing.labels.tolist() and sum(counts) == 6
        assert [name.decode() for name in names] == listing.names
        assert result.rows.tolist() == list(range(6)) and result.skipped == {}
        files.append((tmp_path / f"{block}.h5").read_bytes())
    assert files[0] == files[1] == files[2]
    with h5py.File(tmp_path / "1.h5") as file:
        assert content_sha256(Raw(file["images"], file["labels"], 4)) == content_sha256(Raw(pictures, labels, 4))


@pytest.fixture
def listed(nus):
    """Five images of four concepts, of which the first shows all, so that every class keeps a training image."""
    listing = images.nuswide(nus, 4)
    listing.labels[0] = 1
    return listing


def test_a_missing_and_a_damaged_image_are_left_out(nus, listed, tmp_path):
    (nus / "Flickr/actor/0002_222.jpg").unlink()
    put(nus / "Flickr/beach/0007_777.jpg", encoded(quarters((300, 300)), "JPEG")[:1500])
    result, pictures, labels, names = stored(listed, tmp_path / "a.h5", missing=0.4)
    assert list(result.skipped) == ["actor/0002_222.jpg", "beach/0007_777.jpg"]
    assert result.skipped["actor/0002_222.jpg"] == "there is no such file" and "truncated" in result.skipped["beach/0007_777.jpg"]
    assert result.rows.tolist() == [0, 2, 3] and len(pictures) == len(labels) == 3
    assert names.tolist() == [b"actor/0001_111.jpg", b"beach/0004_444.jpg", b"beach/0005_555.jpg"]


def test_more_missing_images_than_allowed_are_refused_before_any_is_decoded(nus, listed, tmp_path, monkeypatch):
    (nus / "Flickr/beach/0007_777.jpg").unlink()
    assert len(stored(listed, tmp_path / "b.h5", missing=0.2)[0].rows) == 4, "as many as allowed"
    monkeypatch.setattr(images, "decode", lambda *_: pytest.fail("an image was decoded"))
    fragments = ["1 of 5 images are missing or unreadable", "`missing` = 0.19", "the first is beach/0007_777.jpg: there is no such file"]
    refused(fragments, stored, listed, tmp_path / "a.h5", missing=0.19)
    assert not (tmp_path / "a.h5").exists()


@pytest.mark.parametrize(
    ("broken", "missing", "fragment"),
    [
        (["train/jay/1.png"], 0, "the first is train/jay/1.png: it is not a readable image"),
        (["train/jay/1.png", "train/jay/2.jpg"], 0.9, "no training image of the class 'jay' can be read; every class needs some"),
        (["test/jay/1.png", "test/owl/9.png"], 0.9, "no test image can be read"),
        (["train/jay/1.png", "train/jay/2.jpg", "train/owl/1.png", "train/owl/sub/2.PNG"], 0.9, "no training image can be read"),
    ],
)
def test_what_is_left_must_make_a_study(birds, tmp_path, broken, missing, fragment):
    for name in broken:
        put(birds / name, b"broken")
    refused([fragment], stored, images.imagefolder(birds), tmp_path / "a.h5", missing=missing)


def test_the_digest_of_all_images_is_that_of_sha256sum(birds, tmp_path):
    listing = images.imagefolder(birds)
    result, *_ = stored(listing, tmp_path / "a.h5")
    hashes = [hashlib.sha256((birds / name).read_bytes()).hexdigest() for name in listing.names]
    lines = sorted((name, f"{digest}  {name}\n") for name, digest in zip(listing.names, hashes))
    assert images.digest_of_all(listing, result) == hashlib.sha256("".join(line for _, line in lines).encode()).hexdigest()
    assert storage.read_hdf5(tmp_path / "a.h5", "hashes")[0].tolist() == [digest.encode() for digest in hashes]


DARK = [(pgm(4000, 65535), True), (pgm(4200, 65535), False), (tiff(4000, 16, False), True), (tiff(4000, 16, True), False),
        (png16(2, [4000] * 3, [1] * 3), True)]  # fmt: skip


@pytest.mark.parametrize(("content", "dark"), DARK)
def test_an_image_of_twelve_bits_in_sixteen_is_named(birds, tmp_path, content, dark):
    put(birds / "train/jay/1.png", content)
    assert stored(images.imagefolder(birds), tmp_path / "a.h5")[0].dark == ["train/jay/1.png"] * dark


def test_names_that_are_no_text_are_stored_as_they_are(tmp_path):
    for split in ("train", "test"):
        for name in (b"a", b"caf\xe9"):
            put(tmp_path / split / os.fsdecode(name) / "1.png")
    listing = images.imagefolder(tmp_path)
    *_, names = stored(listing, tmp_path / "a.h5")
    assert names[1] == b"train/caf\xe9/1.png"


STREAMED = """
import resource, sys
from pathlib import Path
import numpy as np
from pqag import image_files, images, storage

folder, repeated = Path(sys.argv[1]), int(sys.argv[2])
names = ["train/jay/1.png", "test/jay/1.png"] * repeated
listing = images.Listing(folder.resolve(), names, np.ones((len(names), 1), np.uint8), repeated, ("jay",))
with storage.writing_hdf5(folder / "out.h5") as file:
    images.store(listing, file, 512)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_does_not_grow_with_the_number_of_images(birds, python):
    """400 images of 512 x 512 pixels are 300 MiB."""
    few, many = (int(python(STREAMED, birds, number, capture_output=True, text=True, check=True).stdout) for number in (60, 200))
    assert many - few < 60, (few, many)


def test_every_kind_is_known_to_the_config():
    assert set(images.LISTINGS) == {kind for kind in KINDS if issubclass(DATASET_SECTIONS[kind], Images)}
