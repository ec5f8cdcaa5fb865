"""Regions of words in photographs: outlines become masks, words become categories."""

import json
import logging

import numpy as np
import pytest
from PIL import Image

from visattn.data import Instances, Photographs
from visattn.data.coco_words import NAMES, WORDS, categories, objects
from visattn.data.instances import decode_runs
from visattn.errors import InputError
from visattn.images import fit_geometry

CATEGORIES = [{"id": 3, "name": "dog"}, {"id": 7, "name": "person"}, {"id": 19, "name": "hot dog"}]


def box(top, left, bottom, right):
    """A rectangle as a polygon."""
    return [left, top, right, top, right, bottom, left, bottom]


def thing(image, category, *polygons, **more):
    return {"image_id": image, "category_id": category, "segmentation": list(polygons), "iscrowd": 0} | more


def write(path, annotations, sizes, categories=CATEGORIES):
    """An instances file; `sizes` are (H, W) by id."""
    images = [{"id": i, "file_name": f"{i}.png", "height": h, "width": w} for i, (h, w) in sizes.items()]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


@pytest.fixture
def instances(tmp_path):
    def make(*annotations, size=(7, 11)):
        return Instances(write(tmp_path / "instances.json", annotations, {5: size}))

    return make


# Outlines ----------------------------------------------------------------------------------------------------------


def test_a_polygon_is_its_pixels(instances):
    mask = instances(thing(5, 3, box(1, 2, 4, 5))).mask("5", "dog")
    want = np.zeros((7, 11), dtype=bool)
    want[1:4, 2:5] = True
    np.testing.assert_array_equal(mask, want)


def test_a_pixel_is_in_where_half_of_it_is_covered(instances):
    things = instances(thing(5, 3, box(1, 2.25, 3.75, 5.75)), thing(5, 7, box(1.75, 2.75, 3.25, 5.25)))
    want = np.zeros((7, 11), dtype=bool)
    want[1:4, 2:6] = True
    np.testing.assert_array_equal(things.mask("5", "dog"), want)
    want[:] = False
    want[2:3, 3:5] = True
    np.testing.assert_array_equal(things.mask("5", "person"), want)


def test_a_slanted_edge(instances):
    mask = instances(thing(5, 3, [0, 0, 7.5, 0, 0, 7.5]), size=(11, 13)).mask("5", "dog")
    y, x = np.ogrid[:11, :13]
    np.testing.assert_array_equal(mask, y + x <= 6)  # of the pixels with y + x = 7 it covers an eighth


def test_polygons_and_instances_are_united_and_what_is_outside_is_cut(instances):
    parts = [box(-3, -2, 2, 1), box(5, 9, 70, 90)]
    want = np.zeros((7, 11), dtype=bool)
    want[:2, :1] = want[5:, 9:] = True
    np.testing.assert_array_equal(instances(thing(5, 3, *parts)).mask("5", "dog"), want)
    masks = instances(*(thing(5, 3, part) for part in parts), thing(5, 7, box(3, 3, 4, 4))).masks("5")
    assert set(masks) == {"dog", "person"}
    np.testing.assert_array_equal(masks["dog"], want)
    assert masks["person"].sum() == 1
    assert instances(thing(5, 3, box(20, 20, 30, 30))).mask("5", "dog") is None
    assert instances(thing(5, 3, box(1, 1, 1.25, 9))).mask("5", "dog") is None  # too thin for half a pixel


def test_run_lengths_by_hand():
    want = [[False, False], [True, False], [True, True]]  # down the columns: 1 out, 2 in, 2 out, 1 in
    np.testing.assert_array_equal(decode_runs([1, 2, 2, 1], (3, 2)), want)
    # 1, 2, 2, and then 1 - 2 = -1, which is 11111 in five bits: 31 + 48 is "O"
    np.testing.assert_array_equal(decode_runs("122O", (3, 2)), want)
    assert decode_runs([0, 6], (3, 2)).all()


def test_long_run_lengths_take_several_characters():
    # 16 is 10000, which alone were negative: (16 + 32, 0); likewise 27. 100 = 3 · 32 + 4: (4 + 32, 3).
    np.testing.assert_array_equal(decode_runs("`0T3k0", (13, 11)), decode_runs([16, 100, 27], (13, 11)))
    mask = decode_runs("`0T3k0", (13, 11))
    assert mask.shape == (13, 11)
    assert mask.T.ravel()[[15, 16, 115, 116]].tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    ("counts", "what"),
    [
        ([1, 2], "add up to 3 pixels, not 6"),
        ([7, -1], "must be integers"),
        ([1.0, 5.0], "must be integers"),
        ("T", "end in the middle of a number"),
        ("1 5", "a character ' '"),
    ],
)
def test_run_lengths_that_fit_nothing(counts, what):
    with pytest.raises(ValueError, match=what):
        decode_runs(counts, (3, 2))


def test_a_crowd_counts_with_its_run_lengths(instances):
    counts = [7 * 4, 7 * 2, 7 * 5]  # columns 4 and 5
    crowd = {"segmentation": {"counts": counts, "size": [7, 11]}, "iscrowd": 1}
    mask = instances(thing(5, 7, box(0, 9, 2, 11)), thing(5, 7, **crowd)).mask("5", "person")
    want = np.zeros((7, 11), dtype=bool)
    want[:, 4:6] = want[:2, 9:] = True
    np.testing.assert_array_equal(mask, want)


@pytest.mark.parametrize("missing", [None, [], [[1, 2, 3, 4]]], ids=["box alone", "no polygon", "two points"])
def test_a_category_with_an_instance_without_outline_is_unknown(instances, missing, caplog):
    with caplog.at_level(logging.WARNING):
        things = instances(
            thing(5, 3, box(1, 2, 4, 5)),
            thing(5, 3, segmentation=missing, bbox=[6, 1, 3, 3]),
            thing(5, 7, box(1, 2, 4, 5)),
        )
    assert things.mask("5", "dog") is None
    assert set(things.masks("5")) == {"person"}
    assert (
        "1 instances have no outline; where their category is in their image is unknown (1 such pairs)" in caplog.text
    )
    del caplog.records[:]
    without = thing(5, 3, bbox=[6, 1, 3, 3])
    del without["segmentation"]
    assert instances(without).mask("5", "dog") is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c.pop("categories"), "not in COCO's instances format: the key 'categories' is missing"),
        (lambda c: c["images"][0].pop("width"), "the key 'width' is missing"),
        (lambda c: c["images"][0].update(height=0), "image 5 is 11 wide and 0 high"),
        (lambda c: c["images"].append(c["images"][0]), "has the image id 5 more than once"),
        (lambda c: c["annotations"][0].update(category_id=17), "annotations of category 17, which its 'categories'"),
        (lambda c: c["annotations"][0].update(segmentation="text"), "neither polygons nor run lengths"),
        (
            lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3, 4, 5, 6, 7]]),
            r"is not a list \[x, y, x, y, …\]",
        ),
        (
            lambda c: c["annotations"][0].update(segmentation={"counts": [77], "size": [11, 7]}),
            r"run lengths of image 5 are of \[11, 7\] pixels, not \[7, 11\]",
        ),
        (lambda c: c["annotations"].append(3), "not in COCO's instances format"),
    ],
)
def test_a_bad_file(tmp_path, change, sentence):
    path = write(tmp_path / "instances.json", [thing(5, 3, box(1, 2, 4, 5))], {5: (7, 11)})
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=sentence) as error:
        Instances(path)
    assert "instances.json" in str(error.value)


def test_a_file_in_another_format(tmp_path):
    with pytest.raises(InputError, match=r"gone\.json: no such instances file"):
        Instances(tmp_path / "gone.json")
    (tmp_path / "text.json").write_text("text")
    with pytest.raises(InputError, match=r"text\.json cannot be read as JSON"):
        Instances(tmp_path / "text.json")
    (tmp_path / "text.json").write_text("[]")
    with pytest.raises(InputError, match="it is not an object with images"):
        Instances(tmp_path / "text.json")


@pytest.mark.parametrize(
    ("outline", "what"),
    [
        ([[1, 2, 3, 4, 5, None]], "a corner"),
        ([[1, 2, 3, 4, 5, "x"]], "x"),
        ([[1, 2, 3, 4, 5, 1e9]], "1,000,000 pixels away"),
        ({"counts": "122O", "size": [7, 11]}, "add up to 6 pixels, not 77"),
    ],
)
def test_an_outline_that_cannot_be_drawn(instances, outline, what):
    things = instances(thing(5, 3, segmentation=outline))
    with pytest.raises(InputError, match=f"'dog' in image 5 .*{what}"):
        things.mask("5", "dog")


def test_annotations_of_other_images_are_passed_over(instances):
    assert instances(thing(5, 3, box(1, 2, 4, 5)), thing(23, 3, box(0, 0, 7, 11))).mask("5", "dog").sum() == 9


# Words -------------------------------------------------------------------------------------------------------------


def named(caption):
    """The words of a caption that name a category, each as word:category."""
    words = caption.split()
    return [f"{w}:{c}" for w, c in zip(words, categories(words), strict=True) if c]


def test_the_table_is_of_cocos_categories():
    assert len(WORDS) == 80
    assert NAMES.keys() <= WORDS.keys()
    every = [word for text in WORDS.values() for word in text.split()]
    assert len(set(every)) == len(every)  # a word names one category
    for category in WORDS.keys() - {"orange", "sports ball"}:
        assert set(categories(category.split())) == {category}


@pytest.mark.parametrize(
    ("caption", "want"),
    [
        ("a Man and two women with their puppies", ["Man:person", "women:person", "puppies:dog"]),
        ("a dog eats a hot dog", ["dog:dog", "hot:hot dog", "dog:hot dog"]),
        ("two teddy bears and a bear", ["teddy:teddy bear", "bears:teddy bear", "bear:bear"]),
        ("bikes at a traffic light", ["bikes:bicycle", "traffic:traffic light", "light:traffic light"]),
        ("a light by a stop sign", ["stop:stop sign", "sign:stop sign"]),
        ("a baby elephant and a baby", ["baby:elephant", "elephant:elephant", "baby:person"]),
        ("a couple zebras and a couple of cows", ["couple:zebra", "zebras:zebra", "cows:cow"]),
        ("two glasses of wine", ["glasses:wine glass", "wine:wine glass"]),
        ("a glass and glasses", []),
        ("an orange cat eats oranges", ["cat:cat", "oranges:orange"]),
        ("a boy swings a bat at a ball", ["boy:person", "bat:baseball bat", "ball:sports ball"]),
        ("he gets ready to bat", []),
        ("a baseball bat in a baseball game", ["baseball:baseball bat", "bat:baseball bat"]),
        ("train tracks at the train station", []),
        ("a train on the tracks", ["train:train"]),
        ("the bus stops at the bus stop", ["bus:bus"]),
        ("a man skis on new skis", ["man:person", "skis:skis"]),
        ("the man 's dog", ["dog:dog"]),
        ("the man's dog", ["dog:dog"]),
        ("a hot-dog and a T-shirt", ["hot-dog:hot dog"]),
        ("a coffee table and a table", ["table:dining table"]),
        ("a skate board", ["skate:skateboard", "board:skateboard"]),
        ("a board on a wave", []),
        ("a dirt bike", ["dirt:motorcycle", "bike:motorcycle"]),
        ("a computer mouse and a remote control", ["computer:mouse", "mouse:mouse", "remote:remote", "control:remote"]),
        ("a street sign on the street", []),
        ("a pair of scissors and three knives", ["scissors:scissors", "knives:knife"]),
        ("", []),
    ],
)
def test_what_words_name(caption, want):
    assert named(caption) == want


# Regions -----------------------------------------------------------------------------------------------------------

SIZE = (31, 43)  # of the input
PLACES = {5: (0.2, 0.4, 0.9, 0.7), 11: (0.1, 0.3, 0.5, 0.6)}  # (top, left, bottom, right) of the dog, as shares


def paint(path, size, place, orientation=1):
    """Save a black image, upright (H, W), with a white dog; optionally rotated, with EXIF orientation."""
    pixels = np.zeros((*size, 3), dtype=np.uint8)
    top, left, bottom, right = (round(share * side) for share, side in zip(place, size * 2, strict=True))
    pixels[top:bottom, left:right] = 255
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    if orientation == 6:
        image = image.transpose(Image.Transpose.ROTATE_90)
        exif[0x0112] = 6
    image.save(path, exif=exif)
    return size, (top, left, bottom, right)


@pytest.fixture
def root(tmp_path):
    """Two photographs, one with EXIF orientation; outlines are for images three times as large."""
    (tmp_path / "images").mkdir()
    sizes, things = {}, []
    for (i, place), size, orientation in zip(PLACES.items(), ((53, 97), (89, 61)), (1, 6), strict=True):
        (h, w), dog = paint(tmp_path / "images" / f"{i}.png", size, place, orientation)
        sizes[i] = (3 * h, 3 * w)
        things.append(thing(i, 3, box(*(3 * edge for edge in dog))))
    things.append(thing(5, 7, box(0, 0, 30, 12)))  # a person at the very left, which a crop to the middle cuts off
    write(tmp_path / "instances.json", things, sizes)
    captions = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in PLACES],
        "annotations": [{"image_id": i, "caption": "A dog sees a person."} for i in PLACES],
    }
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    return tmp_path


def photographs(root, annotations="captions.json", **options):
    options = {"instances": "instances.json", "image_size": SIZE, "min_count": 1, "val_fraction": 0.5} | options
    return Photographs(root, annotations, **options)


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_a_region_is_where_the_thing_is_in_the_models_input(root, fit):
    data = photographs(root, fit=fit)
    for example in (*data.examples("train"), *data.examples("val")):
        image, geometry = data.load(example)
        turned = example.id == "11"
        assert geometry.original == ((89, 61) if turned else (53, 97))
        region = data.regions(example.id, ["a", "dog", "runs"])
        assert [r is None for r in region] == [True, False, True]
        light = image[0].numpy() > 130  # lighter than the padding
        assert region[1].shape == SIZE
        assert light.sum() > 29
        assert (region[1] & light).sum() / (region[1] | light).sum() > 0.9
        for axis in (0, 1):
            a, b = (np.flatnonzero(mask.any(axis)) for mask in (region[1], light))
            assert abs(a[0] - b[0]) <= 1
            assert abs(a[-1] - b[-1]) <= 1


def test_what_the_crop_cuts_off_or_the_image_lacks_has_no_region(root):
    words = ["person", "dog"]
    assert [r is None for r in photographs(root, fit="squash").regions("5", words)] == [False, False]
    assert [r is None for r in photographs(root, fit="crop").regions("5", words)] == [True, False]
    assert [r is None for r in photographs(root, fit="squash").regions("11", words)] == [True, False]
    assert photographs(root).regions("5", ["hot", "dog"]) == [None, None]  # the dog is no hot dog
    assert photographs(root, instances=None).regions("5", words) == [None, None]


def test_objects_named_and_objects_there(root):
    """What is annotated, outlined or not, or named in any caption of the image, is in it."""
    path = root / "instances.json"
    content = json.loads(path.read_text())
    content["annotations"].append({"image_id": 11, "category_id": 19, "bbox": [1, 2, 3, 4]})
    path.write_text(json.dumps(content))
    assert Instances(path).present("11") == {"dog", "hot dog"}
    assert objects("A man eats a hot dog, next to a dog and a Dog") == ["person", "hot dog", "dog", "dog"]
    assert objects("Men, women, children and a baby elephant, two dogs, puppies") == [
        *["person"] * 3,
        "elephant",
        *["dog"] * 2,
    ]
    assert objects("a hot-dog near a fire hydrant, a dog bowl and a coffee table") == [
        "hot dog",
        "fire hydrant",
        "bowl",
    ]
    found = photographs(root).mentions("11", "A man on a horse")
    assert (found.named, found.absent) == (("person", "horse"), ("horse",))
    assert found.present == {"dog", "hot dog", "person"}  # the person is in its caption alone
    assert photographs(root, instances=None).mentions("11", "a dog") is None
    content["images"] = [image for image in content["images"] if image["id"] != 11]
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] != 11]
    path.write_text(json.dumps(content))
    assert photographs(root).mentions("11", "a dog") is None  # nobody has said what is in it


def test_geometry_from_the_size_alone():
    geometry = fit_geometry((53, 97), SIZE, "squash")
    assert geometry.scale == (31 / 53, 43 / 97)
    assert geometry.offset == (0.0, 0.0)
    assert fit_geometry((53, 97), SIZE, "crop").offset == (0.0, 7.0)  # 31 × 57 of which 43 are kept


def test_images_are_found_by_id_or_by_file_name(root, caplog):
    def karpathy(**more):
        sentences = [{"tokens": ["a", "dog"]}]
        images = [{"filename": f"{name}.png", "split": "val", "sentences": sentences} | more for name in ("5", "11")]
        images[0]["split"] = "train"
        (root / "karpathy.json").write_text(json.dumps({"images": images}))
        return photographs(root, "karpathy.json")

    path = root / "instances.json"
    content = path.read_text()
    assert karpathy().regions("11", ["dog"])[0] is not None
    path.write_text(content.replace('"id": 11', '"id": 391895').replace('"image_id": 11', '"image_id": 391895'))
    assert karpathy().regions("11", ["dog"])[0] is not None  # by the name of the file
    path.write_text(path.read_text().replace('"11.png"', '"COCO_val2014_000000391895.jpg"'))
    assert karpathy().regions("11", ["dog"])[0] is None
    with caplog.at_level("WARNING", logger="visattn"):
        karpathy().setup("fit")  # the outlines of training images may be there to supervise attention
    assert "instances.json lacks 1 of 1 validation and test images" in caplog.text
    known = path.read_text()
    path.write_text(
        known.replace('"id": 5', '"id": 55').replace('"image_id": 5', '"image_id": 55').replace('"5.png"', '"55.png"')
    )
    with pytest.raises(InputError, match=r"instances\.json has none .*1 validation .*11"):
        karpathy().setup("fit")
    path.write_text(known)
    (root / "karpathy.json").write_text(
        json.dumps(
            {
                "images": [
                    {"filename": "5.png", "split": "train", "sentences": [{"tokens": ["dog"]}]},
                    {"filename": "11.png", "cocoid": 391895, "split": "val", "sentences": [{"tokens": ["dog"]}]},
                ]
            }
        )
    )
    data = photographs(root, "karpathy.json")
    data.setup("fit")
    assert data.regions("391895", ["dog"])[0] is not None


def test_images_without_instances_are_counted(root, caplog):
    content = json.loads((root / "captions.json").read_text())
    paint(root / "images" / "17.png", (53, 97), PLACES[5])
    content["images"].append({"id": 17, "file_name": "17.png"})
    content["annotations"].append({"image_id": 17, "caption": "A dog."})
    (root / "all.json").write_text(json.dumps(content))
    (root / "one.json").write_text(
        json.dumps({"images": content["images"][:1], "annotations": content["annotations"][:1]})
    )
    gone = content["images"].pop(0)["id"]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != gone]
    (root / "two.json").write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING):
        photographs(root, "one.json", val_annotations="two.json").setup("fit")
    assert "instances.json lacks 1 of 2 validation and test images" in caplog.text


def test_a_picture_of_other_proportions_is_refused(root):
    paint(root / "images" / "5.png", (53, 97 + 2), PLACES[5])
    with pytest.raises(InputError, match=r"5\.png .*99×53 .*instances\.json .*291×159"):
        photographs(root).regions("5", ["dog"])
    paint(root / "images" / "5.png", (53 // 2, 97 // 2), PLACES[5])  # rounded: 26 × 48
    assert photographs(root).regions("5", ["dog"])[0] is not None
    paint(root / "images" / "11.png", (61, 89), PLACES[11])  # as if EXIF had not been undone
    with pytest.raises(InputError, match="must agree after EXIF rotation"):
        photographs(root).regions("11", ["dog"])


def test_a_broken_picture_is_named(root):
    (root / "images" / "5.png").write_bytes(b"none")
    with pytest.raises(InputError, match=r"5\.png cannot be read as an image"):
        photographs(root).regions("5", ["dog"])


def test_categories_of_another_data_set(root, caplog):
    things = [thing(5, 3, box(0, 0, 60, 60)), thing(11, 3, box(0, 0, 60, 60))]
    sizes = {5: (159, 291), 11: (267, 183)}
    write(root / "other.json", things, sizes, [{"id": 3, "name": "wombat"}])
    with pytest.raises(InputError, match=r"other\.json has none of COCO's 80"):
        photographs(root, instances="other.json").setup()
    write(root / "other.json", things, sizes, [{"id": 3, "name": "dog"}, {"id": 5, "name": "wombat"}])
    with caplog.at_level(logging.WARNING):
        photographs(root, instances="other.json").setup()
    assert "1 categories are not COCO's and are ignored, such as wombat" in caplog.text
    with pytest.raises(InputError, match=r"gone\.json: no such instances file"):
        photographs(root, instances="gone.json").setup("validate")
    photographs(root, instances="gone.json").setup("predict")  # who only captions needs none
