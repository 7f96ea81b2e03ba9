"""An embedder written for other programs and loaded by them gives the embeddings that Keras gives."""

import keras
import numpy as np
import pytest

import tripletloss as tl

IMAGES = np.random.default_rng(0).normal(size=(5, 8, 8, 1)).astype("float32")
IMAGES[4] = 0  # a row without a direction


@pytest.fixture(scope="module")
def embedder():
    keras.utils.set_random_seed(0)
    layers = keras.layers.Conv2D(8, 3, strides=2, activation="relu"), keras.layers.Flatten(), tl.layers.L2Embedding(16)
    return keras.Sequential([keras.Input((8, 8, 1)), *layers])


def by_tensorflow(path):
    import tensorflow as tf

    served = tf.saved_model.load(path)
    return served.serve(IMAGES).numpy()


def by_onnxruntime(path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime reads what was exported")
    session = onnxruntime.InferenceSession(path)
    return session.run(None, {session.get_inputs()[0].name: IMAGES})[0]


def by_litert(path):
    interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert reads what was exported").Interpreter(path)
    given, returned = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    interpreter.resize_tensor_input(given, IMAGES.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given, IMAGES)
    interpreter.invoke()
    return interpreter.get_tensor(returned)


# What Keras 3.15 writes on each backend, the package that it takes, and who reads it.
WRITES = {
    "tensorflow": {"tf_saved_model": "tensorflow", "onnx": "tf2onnx", "litert": "tensorflow"},
    "jax": {"tf_saved_model": "tensorflow", "onnx": "jax2onnx"},
    "torch": {"onnx": "onnx", "litert": "litert_torch"},
}[keras.backend.backend()]
READS = {"tf_saved_model": by_tensorflow, "onnx": by_onnxruntime, "litert": by_litert}
QUICK = {"tensorflow": "tf_saved_model", "torch": "onnx"}.get(keras.backend.backend())  # JAX takes a quarter of a minute


@pytest.mark.parametrize("form", [form if form == QUICK else pytest.param(form, marks=pytest.mark.every) for form in WRITES])
def test_an_exported_embedder_gives_the_same_embeddings(form, embedder, tmp_path):
    pytest.importorskip(WRITES[form], reason=f"{WRITES[form]} writes what is exported")
    path = str(tmp_path / f"embedder{'.tflite' if form == 'litert' else ''}")
    expected = embedder.predict(IMAGES, verbose=0)
    embedder.export(path, format=form, verbose=False)
    np.testing.assert_allclose(np.linalg.norm(expected[:4], axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(READS[form](path), expected, atol=1e-5)
