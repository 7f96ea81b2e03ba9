"""
Title: Metric learning for image similarity search with tripletloss
Author: [The tripletloss authors](https://github.com/tripletloss/tripletloss)
Date created: 2026/11/28
Last modified: 2026/11/28
Description: Train, evaluate and serve image embeddings on any Keras 3 backend.
Accelerator: GPU
"""

"""
## Introduction

An image similarity search answers "which images are like this one?". A network maps
each image to a row of numbers, its *embedding*. It is trained so that images of one
class lie close together and images of different classes far apart. The search then
looks for the nearest embeddings. It also works for classes that were not there in
training, which a classifier cannot name.

This guide trains such a network on CIFAR-10 with
[tripletloss](https://tripletloss.github.io/tripletloss), which runs on TensorFlow, JAX
and PyTorch. It brings what the examples
[Metric learning for image similarity search](https://keras.io/examples/vision/metric_learning/)
and [the same using TensorFlow Similarity](https://keras.io/examples/vision/metric_learning_tf_similarity/)
write by hand, or take from a library for TensorFlow alone:

- batches that hold several images of each class: `PKBatches`
- the loss, with its triplets chosen in the batch: `TripletLoss`
- retrieval metrics, during `fit` and afterwards: `RetrievalCallback`,
  `retrieval_metrics`, `verification_metrics`
- an index that finds neighbours, and says when there is none near enough:
  `EmbeddingIndex`
"""

"""
## Setup

Keras reads the backend from the environment variable `KERAS_BACKEND`, which must be
set before Keras is imported. Nothing below depends on which one it is.
"""

"""shell
pip install -q "tripletloss[plots]"
"""

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import layers

import tripletloss as tl

keras.utils.set_random_seed(0)
print("Backend:", keras.backend.backend())

"""
## Data: three classes are held out

A search is to find what it was not trained on. If the same classes serve for training
and for evaluation, a network that merely classifies looks as good as one that has
learned what makes images alike. So the network learns the first seven classes of
CIFAR-10 and never sees a horse, a ship or a truck.
"""

class_names = np.array(
    [
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ]
)
horse = 7  # the first of the classes held out


def load_data():
    """Images (n, 32, 32, 3) from 0 to 255 and integer labels (n,), twice."""
    train, test = keras.datasets.cifar10.load_data()
    return [(x, y.astype("int32").squeeze(axis=1)) for x, y in (train, test)]


(x_train, y_train), (x_test, y_test) = load_data()
x_seen, y_seen = x_train[y_train < horse], y_train[y_train < horse]
x_unseen, y_unseen = x_test[y_test >= horse], y_test[y_test >= horse]
print(f"{len(x_seen)} images to train on, of the classes {np.unique(y_seen)}")
print(f"{len(x_unseen)} images to evaluate with, of the classes {np.unique(y_unseen)}")

"""
## Batches

A triplet is an anchor, a positive (another image of its class) and a negative (an image
of another class). A batch of random images may hold few of one class, or one alone.
`PKBatches` is a `keras.utils.PyDataset` whose batches have the same number of images of
each of so many classes: here 8 of all 7.
"""

batches = tl.samplers.PKBatches(
    x_seen, y_seen, classes_per_batch=7, examples_per_class=8, seed=0
)
images, labels = batches[0]
print("Images of a batch:", images.shape)
print("How many of each class:", np.bincount(labels))

"""
## Embedding network

A small convolutional network. Its last layer, `L2Embedding`, is a dense layer that
scales each row to length 1, so that only the direction of an embedding counts.
"""


def make_network():
    """A network that maps images (n, 32, 32, 3) to embeddings (n, 64)."""
    inputs = keras.Input((32, 32, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.RandomFlip("horizontal")(x)
    for filters in (32, 64, 128):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.Activation("relu")(x)
        x = layers.MaxPooling2D()(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, tl.layers.L2Embedding(64)(x))


model = make_network()

"""
## Training

`TripletLoss` takes the integer labels as `y_true` and the embeddings as `y_pred`. Each
image of the batch is an anchor, and with `"all"` each other image of its class is its
positive in turn. The negative is semi-hard by default: the nearest image of another
class that is farther away than the positive. The loss of a triplet is above 0 as long as
the negative is not farther away than the positive by the margin.

`RetrievalCallback` looks after each epoch whether the embeddings are of use. Each of the
images that it is given searches among the others. Recall@1 is the share of them whose
nearest neighbour is of their own class. These are images of the classes held out, from
the training part of CIFAR-10: the test images wait until the end.
"""

watched = y_train >= horse
callback = tl.metrics.RetrievalCallback(
    x_train[watched][:3000], y_train[watched][:3000]
)
model.compile(
    optimizer=keras.optimizers.Adam(1e-3),
    loss=tl.TripletLoss("cosine", "all", margin=0.5),
)
history = model.fit(batches, epochs=15, callbacks=[callback], verbose=2)
tl.plots.plot_history(history)
plt.show()

"""
## Evaluation

First, retrieval: each test image of a class held out searches among the others.

- Recall@k: the share of images that find their class among the k nearest.
- MAP@R: 1 if all images of the class come before all others. Unlike recall@1 it looks
  at the whole class ([Musgrave et al.](https://arxiv.org/abs/2003.08505)).

There are three classes of the same size, so that a random neighbour is right in a third
of the cases. The pixels themselves are another row to compare with.
"""

embeddings = model.predict(x_unseen, verbose=0)
pixels = x_unseen.reshape(len(x_unseen), -1) / 255
retrieval = {
    name: tl.metrics.retrieval_metrics(rows, y_unseen, k=(1, 5))
    for name, rows in {"pixels": pixels, "embeddings": embeddings}.items()
}
for name, found in retrieval.items():
    print(
        f"{name:12} recall@1 {found['recall_at_1']:.3f}  "
        f"recall@5 {found['recall_at_5']:.3f}  MAP@R {found['map_at_r']:.3f}"
    )

"""
Second, verification: are two images of one class? They are said to be if their distance
is not above a threshold. The area under the ROC curve is the probability that a pair of
one class is closer than a pair of two; 0.5 is chance. At the equal error rate as large
a share of the pairs of one class is refused as of the pairs of two is accepted. The
last number is the share of pairs of one class that is accepted where a tenth of the
pairs of two is.
"""

verification = tl.metrics.verification_metrics(embeddings, y_unseen)
for name in ("roc_auc", "equal_error_rate", "true_accept_rate_at_0.1"):
    print(f"{name:24} {verification[name]:.3f}")

"""
## Nearest neighbours

Each column is a query with its five nearest neighbours, among the images of the classes
held out. At the left are some queries that find another class first.
"""

tl.plots.plot_neighbours(x_unseen, y_unseen, embeddings, class_names=class_names)
plt.show()

"""
## An index

`EmbeddingIndex.from_model` takes images and keeps their embeddings, with labels of your
own, here the names of the classes. It holds the images of the classes seen in training.
"""

index = tl.search.EmbeddingIndex.from_model(model)
index.add(x_seen, labels=class_names[y_seen])
result = index.search(x_test[:1], k=3)
print("Query:", class_names[y_test[0]])
print("Found:", result.labels[0], "at distances", result.distances[0].round(3))

"""
Every query has a nearest key, a horse too. `match` gives the label of the nearest key
only if it is not farther away than a threshold. `calibrate` finds the largest one that
lets at most 10% of the strangers pass, from queries whose labels are known. Here that is
half of the test images, with the horses as strangers.
"""

half = np.arange(len(y_test)) % 2 == 0
known = y_test < horse
queries = half & (known | (y_test == horse))
calibration = index.calibrate(
    x_test[queries],
    class_names[y_test[queries]],
    target=0.1,
    rate="false_accept_rate",
)
for name, value in calibration._asdict().items():
    print(f"{name:18} {value:.3f}")

"""
The other half of the test images has not been used yet, and its strangers are ships and
trucks. The horses of the calibration tell how many of them pass only as far as these
are as unlike the known classes as horses are, so count again.
"""


def share(which):
    """The share of True, as text."""
    return f"{np.mean(which):.0%}"


known_matches = index.match(x_test[~half & known])
right = known_matches.labels == class_names[y_test[~half & known]]
print("Known classes:", share(known_matches.known), "answered, of which", end=" ")
print(share(right[known_matches.known]), "rightly")
strangers = index.match(x_test[~half & (y_test > horse)])
print("Ships and trucks:", share(strangers.known), "taken for a known class")

"""
### A new class without training

From now on ships are to be known: it is enough to add some of them to the index. Two
shares tell how well that works: of the ships whose nearest key is a ship, and of those
for which it also is near enough. The embeddings of a class that was not trained on are
often farther apart, so that the threshold turns more of them away.
"""

ship = horse + 1
x_ships = x_train[y_train == ship]
index.add(x_ships, labels=[class_names[ship]] * len(x_ships))
queries = x_test[~half & (y_test == ship)]
print("Nearest to a ship:", share(index.search(queries, k=1).labels == "ship"))
print("And near enough:", share(index.match(queries).labels == "ship"))

"""
### Save and load

Keras saves the network, the index saves keys, labels and threshold. Together they answer
in another process, on any backend.
"""

model.save("embedder.keras")
index.save("index")

network = keras.saving.load_model("embedder.keras")
loaded = tl.search.EmbeddingIndex.load("index", model=network)
print(len(loaded), "keys,", loaded.match(x_test[:5]).labels)

"""
## Next steps

- [Which triplets?](https://tripletloss.github.io/tripletloss/tutorials/which_triplets.html)
  compares the strategies that choose them.
- If the loss stays at the margin, all embeddings have become one point: see
  [My loss is stuck at the margin](https://tripletloss.github.io/tripletloss/tutorials/stuck_at_the_margin.html).
- For millions of keys, `EmbeddingIndex(backend="usearch")` searches approximately.
- For your own images, replace `load_data`; `PKBatches` also takes a function of row
  numbers, for images that do not fit in memory.
"""
