"""The demo with folders of images: what it finds, holds out, keeps and refuses."""

import functools
import json
import re
import weakref

import keras
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("matplotlib", reason="the demo needs matplotlib: pip install 'tripletloss[demo]'").use("agg")
pytest.importorskip("sklearn", reason="the demo needs scikit-learn: pip install 'tripletloss[demo]'")

from tripletloss import demo  # noqa: E402


@pytest.fixture(autouse=True)
def uncompiled():
    """Two steps an epoch, and nothing compiled, which would take longer than they do."""
    tensorflow = pytest.importorskip("tensorflow", reason="the project is tested on TensorFlow, which is not installed")
    keras.config.set_max_steps_per_epoch(2)
    tensorflow.config.run_functions_eagerly(True)
    yield
    tensorflow.config.run_functions_eagerly(False)
    keras.config.set_max_steps_per_epoch(None)


@pytest.fixture
def folder(tmp_path):
    """A function: folders of so many images, 8 x 8 pixels of one grey, another for each image."""

    def make(*counts):
        numbers = iter(range(0, 250))
        for label, count in enumerate(counts):
            (tmp_path / f"class {label:02}").mkdir()
            for _ in range(count):
                number = next(numbers)
                Image.fromarray(np.full((8, 8, 3), number, "uint8")).save(tmp_path / f"class {label:02}" / f"{number:03}.png")
        return tmp_path

    return make


def greys(images):
    """Which images these are, by their grey."""
    assert (images == images[:, :1, :1, :1]).all()
    return images[:, 0, 0, 0].tolist()


def split(directory, **arguments):
    """The greys and labels to train on, and those held out."""
    data, names = demo.image_folders(directory, size=8, **arguments)
    trained = data.train_images(np.arange(len(data.train_labels)))
    return dict(zip(greys(trained), data.train_labels, strict=True)), dict(zip(greys(data.test_images), data.test_labels, strict=True)), names


# What is held out.


def test_of_many_classes_a_fifth_is_never_seen(folder):
    train, test, names = split(folder(*[3] * 20))
    assert names == [f"class {label:02}" for label in range(20)]
    assert train.keys() | test.keys() == set(range(60)) and not train.keys() & test.keys()
    assert all(label == grey // 3 for grey, label in (train | test).items())
    assert len(set(test.values())) == 4 and not set(test.values()) & set(train.values())


@pytest.mark.parametrize(("counts", "arguments"), [([4] * 20, {"unseen_classes": 0.0}), ([8] * 19, {})])
def test_otherwise_a_quarter_of_each_class(folder, counts, arguments):
    train, test, _ = split(folder(*counts), **arguments)
    assert train.keys() | test.keys() == set(range(sum(counts))) and not train.keys() & test.keys()
    assert np.bincount(list(test.values())).tolist() == [2] * len(counts)
    assert set(train.values()) == set(range(len(counts)))


def test_another_seed_another_split(folder):
    directory = folder(*[3] * 20)
    assert split(directory)[1] == split(directory)[1] != split(directory, seed=1)[1]


def test_what_is_measured_has_a_limit(folder, monkeypatch):
    """Of 4 classes of 6 that are held out, 2 images each, if 8 may be measured; the others are not trained on either."""
    monkeypatch.setattr(demo, "HELD_OUT_PIXELS", 8 * 8 * 8)
    train, test, _ = split(folder(*[6] * 20))
    assert np.bincount(list(test.values()))[sorted(set(test.values()))].tolist() == [2] * 4
    assert len(train) == 16 * 6 and not set(train.values()) & set(test.values())


def test_classes_of_one_image_are_not_held_out(folder):
    _, test, _ = split(folder(*[1] * 10, *[2] * 10), unseen_classes=0.5)
    assert sorted(set(test.values())) == list(range(10, 20))


def test_a_class_may_be_a_link_to_a_folder(folder, tmp_path):
    directory = folder(4, 4)
    (tmp_path / "links").mkdir()
    for path in (directory / "class 00", directory / "class 01"):
        (tmp_path / "links" / path.name).symlink_to(path)
    train, test, names = split(tmp_path / "links")
    assert (names, len(train), len(test)) == (["class 00", "class 01"], 4, 4)


# What stays in memory.


def test_more_images_than_memory_holds(folder, monkeypatch):
    """An epoch of batches goes through 60 files, and no more than 7 images are ever kept, besides those of the batch."""
    read, alive = demo.read_image, []

    def watched(path, size):
        image = read(path, size)
        alive.append(weakref.ref(image))
        return image

    monkeypatch.setattr(demo, "read_image", watched)
    monkeypatch.setattr(demo, "ImageFiles", functools.partial(demo.ImageFiles, cache=7 * 8 * 8 * 3))
    data, _ = demo.image_folders(folder(*[3] * 20), size=8)
    batches = demo.PKBatches(data.train_images, data.train_labels, 4, 2, augment=data.augment, batches_per_epoch=20, seed=0)
    for images, _ in (batches[index] for index in range(len(batches))):
        assert images.shape == (8, 8, 8, 3)
        assert sum(image() is not None for image in alive) <= 7
    assert len(alive) > 60 + 12  # each once before the training, and again


# A training that is kept.


class Spoil(keras.callbacks.Callback):
    """All weights 0 from the second epoch on."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            for weight in self.model.weights:
                weight.assign(0 * weight)


def start(images=60):
    keras.utils.set_random_seed(0)
    data = demo.digits()
    data = data._replace(test_images=data.test_images[:images], test_labels=data.test_labels[:images])
    return keras.Sequential([keras.Input((16, 16, 1)), keras.layers.Flatten(), demo.L2Embedding(8)]), data


def kept(state, epochs, callbacks=(), **arguments):
    model, data = start()
    options = {"verbose": 0, "steps": 2, "callbacks": callbacks, "state": state, **arguments}
    state.mkdir(exist_ok=True)
    return model, data, demo.train(model, data, epochs, **options).history


def test_goes_on_as_if_it_had_not_stopped(tmp_path):
    model, _, whole = kept(tmp_path / "whole", 3)
    kept(tmp_path / "parts", 1)
    resumed, _, parts = kept(tmp_path / "parts", 3)
    assert len(whole["loss"]) == 3 and whole.keys() == parts.keys()
    for name in whole:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-4, atol=1e-6, err_msg=name)
    for one, other in zip(model.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_ends_with_the_best_weights(tmp_path):
    model, data, history = kept(tmp_path, 3, [Spoil()])
    first, *others = history["val_recall_at_1"]
    assert first > max(others) + 0.02
    assert demo.evaluate(model.predict(data.test_images, verbose=0), data.test_labels)["recall_at_1"] == pytest.approx(first)


def test_ends_when_nothing_gets_better(tmp_path):
    """With steps of length 0 the first epoch stays the best, and two more are waited for; also in a later run."""
    assert len(kept(tmp_path, 50, patience=2, learning_rate=0.0)[2]["loss"]) == 3
    assert len(kept(tmp_path, 50, patience=2, learning_rate=0.0)[2]["loss"]) == 5


class Rates(keras.callbacks.Callback):
    """The learning rate of each epoch."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_begin(self, epoch, logs=None):
        self.seen.append(float(self.model.optimizer.learning_rate))


def test_slows_down_when_nothing_gets_better(tmp_path):
    """The first epoch stays the best: the fifth has half the learning rate, in a later run too."""
    rates = Rates()
    kept(tmp_path, 4, [Spoil(), rates])
    kept(tmp_path, 5, [rates])
    assert rates.seen == pytest.approx([2e-3] * 4 + [1e-3])


# The command line.


@pytest.mark.parametrize("content", ["nothing", "files only", "no such folder"])
def test_names_a_folder_without_classes(tmp_path, capsys, content):
    folder = tmp_path / "pictures"
    if content != "no such folder":
        folder.mkdir()
    if content == "files only":
        (folder / "note.txt").write_text("no class")
    with pytest.raises(SystemExit, match="2"):  # with a message and without a traceback
        demo.main(["--images", str(folder)])
    assert str(folder) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--epochs", "0"], "--epochs: must be a whole number of at least 1; received 0"),
        (["--epochs", "2.5"], "--epochs: must be a whole number of at least 1; received 2.5"),
        (["--minutes", "soon"], "--minutes: must be a number of at least 0.1; received soon"),
        (["--unseen-classes", "1.5"], "must be from 0 to less than 1; received 1.5"),
        (["--output", "result.txt"], "must end in .png or .jpg or .pdf or .svg; received result.txt"),
        (["--images", "."], "at least 4 images in 2 of its classes; received 2 classes with at most 1 images"),
        (["--images", ".", "--unseen-classes", "0.5"], "2 classes to train on"),
        (["--backbone", "MobileNetV2"], "--backbone needs --images"),
    ],
)
def test_says_what_is_wrong(folder, monkeypatch, capsys, options, words):
    monkeypatch.chdir(folder(1, 1))
    with pytest.raises(SystemExit, match="2"):
        demo.main(options)
    assert words in capsys.readouterr().err


def test_learns_what_is_in_the_folders(tmp_path, monkeypatch, capsys):
    """Two classes, dark and light, and files that are no images; then another epoch of the same training, but not of another."""
    generator = np.random.default_rng(0)
    for name, brightness in (("dark", 60), ("light", 190)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(8):
            image = generator.normal(brightness, 20, (12, 12, 3))
            keras.utils.save_img(tmp_path / "images" / name / f"{number}.png", image, scale=False)
    (tmp_path / "images" / "dark" / "broken.png").write_text("no image")
    (tmp_path / "images" / "dark" / ".hidden.png").write_text("no image")
    (tmp_path / "images" / "note.txt").write_text("no class")
    new = tmp_path / "new"
    given = ["--images", str(tmp_path / "images"), "--image-size", "12", "--examples", "2", "--resume", str(new / "training"), "--output", str(new / "result.png")]
    demo.main([*given, "--epochs", "1", "--mixed-precision", "--save", str(new / "network.keras")])
    said = capsys.readouterr().out
    assert "16 images of 2 classes; smallest class 8 (dark), median 8, largest 8 (dark)" in said
    assert "skipped:  1 file, cannot identify image file" in said and "broken.png" in said and ".hidden" not in said
    assert "skipped:  1 file, in no folder of a class" in said
    assert "held out: 4 images of 2 classes, which are trained on with other images" in said
    assert re.search(r"trained network +1\.000", said)
    assert (new / "result.png").stat().st_size > 10_000
    assert "takes images as tripletloss.demo.read_image(path, 12) reads them" in said
    image = demo.read_image(tmp_path / "images" / "dark" / "0.png", 12)
    embeddings = keras.saving.load_model(new / "network.keras").predict(image[None], verbose=0)
    assert embeddings.shape == (1, 128) and embeddings.dtype == "float32"
    monkeypatch.setattr(demo, "plot_summary", lambda *_: demo.plt.figure())  # as above
    demo.main([*given, "--minutes", "1.5", "--epochs", "2", "--mixed-precision"])
    assert "2 epochs;" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        demo.main([*given, "--epochs", "3"])
    assert "began with mixed_precision True; received False" in capsys.readouterr().err


@pytest.mark.filterwarnings("error:.*repeat some")
def test_small_classes_are_counted_and_not_listed(folder, monkeypatch, capsys):
    """Two images of each are held out: of 4, 4 and 9 are left 2, 2 and 7, and a batch takes 3 of each."""
    monkeypatch.setattr(demo, "plot_summary", lambda *_: demo.plt.figure())
    directory = folder(4, 4, 9)
    demo.main(["--images", str(directory), "--image-size", "8", "--examples", "3", "--epochs", "1", "--output", str(directory / "result.png")])
    assert "3 classes with 3 images each, 40 batches an epoch; 2 smaller classes repeat some\n" in capsys.readouterr().out


def tiny(include_top, weights, input_shape, pooling):
    """In place of a network of `keras.applications`: as small as can be, and without a network to download from."""
    if weights:
        raise Exception("URL fetch failure on tiny.h5")
    assert (include_top, pooling) == (False, "avg")
    return keras.Sequential([keras.Input(input_shape), keras.layers.GlobalAveragePooling2D()])


def test_backbone(folder, monkeypatch, capsys):
    monkeypatch.setattr(demo, "backbones", lambda: {"Tiny": (tiny, lambda images: 0.5 * images)})
    monkeypatch.setattr(demo, "plot_summary", lambda *_: demo.plt.figure())
    directory = folder(*[4] * 2)
    given = ["--images", str(directory), "--image-size", "8", "--epochs", "1", "--output", str(directory / "result.png"), "--backbone"]
    demo.main([*given, "tiny", "--weights", "none"])
    assert "trained network" in capsys.readouterr().out
    for option, words in (("tiny", "URL fetch failure on tiny.h5 Without access to the network, --weights none"), ("tinny", "Did you mean 'tiny'?")):
        with pytest.raises(SystemExit, match="2"):
            demo.main([*given, option])
        assert words in capsys.readouterr().err


def test_each_backbone_has_its_own_preparation():
    assert all(callable(part) for made_of in demo.backbones().values() for part in made_of)
    for name, module in (("MobileNetV3Small", "mobilenet_v3"), ("MobileNetV2", "mobilenet_v2"), ("ResNet50V2", "resnet_v2"), ("VGG16", "vgg16")):
        assert demo.backbones()[name][1] is getattr(keras.applications, module).preprocess_input


@pytest.mark.every
@pytest.mark.parametrize("name", ["MobileNetV2", "MobileNetV3Small", "ResNet50", "EfficientNetB0", "DenseNet121"])
def test_a_backbone_gets_what_it_was_trained_on(name):
    """Its features are those of the network by itself, of images prepared as its own page says."""
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("uint8")
    keras.utils.set_random_seed(0)
    model = demo.backbone_network(name, (32, 32, 3), weights=None)
    make, preprocess = demo.backbones()[name]
    keras.utils.set_random_seed(0)
    alone = make(include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg")
    features = keras.Model(model.inputs, model.layers[-1].input).predict(images, verbose=0)
    np.testing.assert_allclose(features, alone.predict(preprocess(images.astype("float32")), verbose=0), rtol=1e-3, atol=1e-4)


def test_digits_unless_there_are_images(tmp_path, monkeypatch, capsys):
    """The time is over after the first batch."""
    monkeypatch.setattr(demo.TimeLimit, "on_train_begin", lambda self, logs=None: setattr(self, "end", 0))
    demo.main(["--epochs", "3", "--minutes", "1", "--output", str(tmp_path / "digits.png")])
    said = capsys.readouterr().out
    assert "1 epochs" in said and "raw pixels" in said and "trained network" in said and (tmp_path / "digits.png").stat().st_size > 10_000


def test_settings_are_readable(tmp_path):
    demo.check_same_training(tmp_path, {"seed": 1})
    assert json.loads((tmp_path / "settings.json").read_text()) == {"seed": 1}
