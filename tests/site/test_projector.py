"""What `write_projector` writes is what TensorBoard shows, in a browser."""

import re
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("tensorboard", reason="TensorBoard shows what is written: pip install tensorboard")


@pytest.fixture
def tensorboard(tmp_path):
    """The address of a TensorBoard that shows the test's folder."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", tmp_path, "--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        yield next(match[0] for line in process.stderr if (match := re.search(r"http://127\.0\.0\.1:\d+/", line)))
        process.terminate()


@pytest.mark.every
def test_tensorboard_shows_the_embeddings_their_names_and_their_images(browser, tensorboard, tmp_path):
    from tripletloss.plots import write_projector

    generator = np.random.default_rng(0)
    write_projector(tmp_path, generator.normal(size=(7, 5)), [0, 0, 1, 1, 2, 2, 0], generator.random((7, 8, 8, 3)), class_names=["ant", "b\tee", ""])
    page = browser.new_page()
    answers = []
    page.on("response", lambda answer: answers.append(answer))  # playwright takes no method of a list
    page.goto(f"{tensorboard}#projector")
    shown = page.frame_locator("iframe").frame_locator("iframe")
    for text in ("Points: 7", "Dimension: 5"):
        shown.get_by_text(text).first.wait_for(timeout=60_000)
    (sprite,) = (answer for answer in answers if "/sprite_image" in answer.url)
    assert sprite.ok and sprite.body().startswith(b"\x89PNG")
    (names,) = (answer for answer in answers if "/metadata" in answer.url)
    assert names.text().splitlines() == ["ant", "ant", "b ee", "b ee", "2", "2", "ant"]
    page.close()
