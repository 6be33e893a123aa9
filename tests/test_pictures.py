"""What a picture file is: decoding, oddities, and near-same pictures that are found again."""

import itertools

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from replication import pictures, transforms
from replication.pictures import Look, look, looks, near_pairs, sameness


def drawn(seed: int, size: int = 96) -> Image.Image:
    """A smooth picture with some structure, another one for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


def stored(tmp_path, picture: Image.Image, name: str, **options):
    picture.save(tmp_path / name, **options)
    return tmp_path / name


def test_a_plain_picture_has_no_oddity(tmp_path):
    found = look(stored(tmp_path, drawn(0), "a.jpg"))
    assert (found.format, found.mode, found.size, found.problem) == ("JPEG", "RGB", (96, 96), "")
    assert found.n_bytes == (tmp_path / "a.jpg").stat().st_size and len(found.grey) == 256
    assert found.oddities(".JPG") == []
    quick = look(tmp_path / "a.jpg", alike=False)
    assert quick == found._replace(phash=0, grey=b"") and found.phash


def rotated(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    return stored(tmp_path, drawn(0), "a.jpg", exif=exif)


@pytest.mark.parametrize(("make", "told"), [
    (lambda t: stored(t, drawn(0), "a.jpg", format="PNG"), "PNG named .jpg"),
    (lambda t: stored(t, drawn(0).convert("CMYK"), "a.jpg"), "mode CMYK"),
    (lambda t: stored(t, drawn(0).convert("P"), "a.png"), "mode P"),
    (lambda t: stored(t, Image.fromarray(np.zeros((9, 9), np.uint16)), "a.png"), "mode I;16"),
    (lambda t: stored(t, drawn(0).convert("RGBA"), "a.png"), "mode RGBA"),
    (rotated, "EXIF orientation 6, read as stored"),
])
def test_what_a_reader_may_treat_otherwise_is_told(tmp_path, make, told):
    file = make(tmp_path)
    found = look(file)
    assert not found.problem and found.oddities(file.suffix) == [told]


def test_sixteen_bits_keep_their_greys(tmp_path):
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)[None].repeat(8, 0)
    file = stored(tmp_path, Image.fromarray(ramp), "a.png")
    read = np.asarray(transforms.read_image(file))
    assert (read[..., 0] == ramp >> 8).all() and read.shape == (8, 64, 3)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", None])
def test_what_is_no_whole_picture_has_a_problem(tmp_path, content):
    file = stored(tmp_path, drawn(0, 256), "a.jpg")
    whole = file.read_bytes()
    file.write_bytes(whole[:len(whole) // 2] if content is None else content)
    found = look(file)
    assert found.problem and "\n" not in found.problem and found.grey == b""
    assert look(tmp_path / "absent.jpg").problem


def test_the_order_is_that_of_the_files_on_any_number_of_processes(tmp_path):
    files = [stored(tmp_path, drawn(seed, 32), f"{seed}.png") for seed in range(9)]
    alone = list(looks(files, 1))
    assert alone == list(looks(files, 2)) == [look(file) for file in files]


def test_a_picture_stored_again_is_near_and_another_is_not(tmp_path):
    one = drawn(1)
    files = [stored(tmp_path, one, "a.png"), stored(tmp_path, one, "b.jpg", quality=60),
             stored(tmp_path, one.resize((50, 50)), "c.png"),
             stored(tmp_path, ImageEnhance.Brightness(one).enhance(1.1), "d.png"),
             *(stored(tmp_path, drawn(seed), f"other{seed}.png") for seed in range(2, 40))]
    pairs = near_pairs(list(looks(files)))
    assert {(p.one, p.other) for p in pairs} == set(itertools.combinations(range(4), 2))
    assert all(p.correlation > 0.98 and p.bits <= 4 for p in pairs)


def test_no_candidate_is_lost_against_all_pairs():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2**63, 40, dtype=np.uint64)
    flips = [sum(1 << int(b) for b in rng.choice(64, rng.integers(0, 10), replace=False))
             for _ in range(400)]
    grey = bytes(range(256))
    found = [Look(str(i), grey=grey, phash=int(base[i % 40]) ^ flip)
             for i, flip in enumerate(flips)]
    for bits in (0, 4, 7):
        slow = {(a, b) for a, b in itertools.combinations(range(400), 2)
                if (found[a].phash ^ found[b].phash).bit_count() <= bits}
        assert {(p.one, p.other) for p in near_pairs(found, bits)} == slow and slow


def test_the_small_copy_confirms():
    other = bytes(reversed(range(256)))
    found = [Look("a", grey=bytes(range(256))), Look("b", grey=other)]
    assert near_pairs(found) == [] and len(near_pairs(found, correlation=-1)) == 1


def test_flat_pictures_are_alike_and_too_many_are_refused(monkeypatch):
    flat = [Look(str(i), grey=bytes([i]) * 256) for i in range(30)]
    assert len(near_pairs(flat)) == 30 * 29 // 2
    with pytest.raises(ValueError, match="more than 100 near pairs"):
        near_pairs(flat, most=100)
    with pytest.raises(ValueError, match="choose 0 to 7"):
        near_pairs(flat, bits=8)


def test_same_bytes_are_grouped_and_broken_files_are_not(tmp_path):
    files = [stored(tmp_path, drawn(0), name) for name in ("a.png", "b.png")]
    (tmp_path / "c.png").touch()
    (tmp_path / "d.png").touch()
    found = list(looks([*files, tmp_path / "c.png", tmp_path / "d.png"]))
    assert sameness(found) == [[0, 1]] and near_pairs(found, correlation=-1) == []


def test_a_set_is_described_by_what_is_common(tmp_path):
    files = [stored(tmp_path, drawn(i), f"{i}.png") for i in range(3)]
    files.append(stored(tmp_path, drawn(3, 50), "e.jpg"))
    told = pictures.described(list(looks(files)))
    assert told["format"] == {"PNG": 3, "JPEG": 1} and told["size"]["96 x 96"] == 3
    assert told["bytes"] == sum(file.stat().st_size for file in files)
