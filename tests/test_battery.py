"""The shipped images are what their names say, and nobody changed them."""

import hashlib
import io
import json
import shutil

import pytest

from pytest_qwen import battery as module
from pytest_qwen.battery import battery
from pytest_qwen.data import fixtures_dir
from pytest_qwen.errors import ModelUnusable

FORMATS = {
    "jpeg": ("JPEG", "RGB"),
    "webp": ("WEBP", "RGB"),
    "grey": ("PNG", "L"),
    "palette": ("PNG", "P"),
    "rgba": ("PNG", "RGBA"),
    "1x1": ("PNG", "RGB"),
    "exif": ("JPEG", "RGB"),
}


def opened(data: bytes):
    return pytest.importorskip("PIL.Image").open(io.BytesIO(data))


def test_every_kind_is_there():
    assert set(battery().kinds) == set(FORMATS)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_kind_is_a_valid_image_of_its_kind(kind):
    image = opened(battery().kinds[kind])
    image.load()
    assert (image.format, image.mode) == FORMATS[kind]


def test_the_smallest_has_one_pixel_and_the_turned_one_says_so():
    assert opened(battery().kinds["1x1"]).size == (1, 1)
    assert opened(battery().kinds["exif"]).getexif()[0x0112] == 6


def test_the_truncated_image_opens_and_does_not_load():
    image = opened(battery().truncated)
    with pytest.raises(OSError, match="truncated"):
        image.load()


def test_the_bomb_is_small_and_pillow_refuses_it():
    image = pytest.importorskip("PIL.Image")
    assert len(battery().bomb) < 30_000
    with pytest.raises(image.DecompressionBombError):
        opened(battery().bomb)


def test_the_list_has_every_image_of_the_folder():
    folder = fixtures_dir() / "images"
    listed = json.loads((folder / "battery.json").read_text(encoding="utf-8"))
    images = {path.name for path in folder.iterdir() if path.suffix in {".png", ".jpg", ".webp"}}
    assert set(listed) == images


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the images that the module reads instead of the shipped ones."""
    shutil.copytree(fixtures_dir() / "images", tmp_path / "images")
    monkeypatch.setattr(module, "fixtures_dir", lambda: tmp_path)
    return tmp_path / "images"


def test_a_changed_image_is_refused(copied):
    (copied / "truncated.png").write_bytes(b"another")
    with pytest.raises(ModelUnusable, match=r"truncated\.png"):
        battery.__wrapped__()


def test_the_digest_stands_for_every_byte(copied):
    before = battery.__wrapped__().digest
    (copied / "truncated.png").write_bytes(b"another")
    listed = json.loads((copied / "battery.json").read_text(encoding="utf-8"))
    listed["truncated.png"] = hashlib.sha256(b"another").hexdigest()
    (copied / "battery.json").write_text(json.dumps(listed), encoding="utf-8")
    assert battery.__wrapped__().digest != before
    assert before == battery().digest
